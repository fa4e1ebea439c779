mod smoke {
    use super::super::*;
    struct H;
    impl Host for H {
        fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
            Reply::bulks(words.iter().map(|w| w.to_vec()))
        }
        fn random_seed(&self) -> u64 {
            1
        }
        fn poll(&mut self) -> Verdict {
            Verdict::Continue
        }
        fn log(&mut self, _: LogLevel, _: &[u8]) {}
        fn set_protocol(&mut self, _: Protocol) {}
        fn acl_check(&mut self, _: &[&[u8]]) -> Option<bool> {
            Some(true)
        }
    }
    #[test]
    fn smoke() {
        let mut engine = Engine::new(Limits::default()).unwrap();
        for text in [
            "return 1",
            "return redis.call('a', 1, 2.5, 'x')",
            "return x",
            "x = 1",
            "error('boom')",
            "return {pcall(error, 'x')}",
            "return string.gsub('hello world', 'o', function(c) return c..c end)",
            "return pairs(nil)",
            "return cjson.encode({1,2,{a=1}})",
            "return redis.call()",
            "return ('x'):rep({})",
            "return string.rep()",
            "local t={3,1,2} table.sort(t) return t",
            "return cjson.decode('[1,2,{\"a\":[true,null]}]')",
            "return (",
        ] {
            let sha = sha1_hex(text.as_bytes());
            println!(
                "{text}\n    {:?}",
                engine.run(&Script { sha: &sha, text: text.as_bytes() }, &[], &[], H).1
            );
        }
    }
}
