//! The first line of a script: `#!lua flags=no-writes,allow-stale`.
//!
//! Source: `evalExtractShebangFlags` of Redis 7.0 (eval.c), whose error texts these are.

use moonraft_proto::Text;

use super::arguments::until_zero;

/// What a script says of itself. Who runs it enforces it; the engine does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The script has no such line: Redis then guesses its rights from what it calls.
    pub undeclared: bool,
    /// `no-writes`
    pub no_writes: bool,
    /// `allow-oom`
    pub allow_oom: bool,
    /// `allow-stale`
    pub allow_stale: bool,
    /// `no-cluster`
    pub no_cluster: bool,
    /// `allow-cross-slot-keys`
    pub allow_cross_slot_keys: bool,
}

/// A script's flags and where its code begins: at the line end of the first
/// line, so that line numbers stay those of the text.
pub(super) fn parse(text: &[u8]) -> Result<(Flags, usize), Text<'static>> {
    if !text.starts_with(b"#!") {
        return Ok((Flags { undeclared: true, ..Flags::default() }, 0));
    }
    let end = memchr::memchr(b'\n', text).ok_or("ERR Invalid script shebang")?;
    let mut words = text[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let refused = |why: &str, word| Text::joined(&[b"ERR ", why.as_bytes(), b": ", until_zero(word)]);
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(refused("Unexpected engine in script shebang", engine));
    }
    let mut flags = Flags::default();
    for word in words {
        let list = word.strip_prefix(b"flags=");
        let list = list.ok_or_else(|| refused("Unknown lua shebang option", word))?;
        for name in list.split(|&byte| byte == b',').filter(|_| !list.is_empty()) {
            let flag = flag(&mut flags, name);
            *flag.ok_or_else(|| refused("Unexpected flag in script shebang", name))? = true;
        }
    }
    Ok((flags, end))
}

fn flag<'a>(flags: &'a mut Flags, name: &[u8]) -> Option<&'a mut bool> {
    match name {
        b"no-writes" => Some(&mut flags.no_writes),
        b"allow-oom" => Some(&mut flags.allow_oom),
        b"allow-stale" => Some(&mut flags.allow_stale),
        b"no-cluster" => Some(&mut flags.no_cluster),
        b"allow-cross-slot-keys" => Some(&mut flags.allow_cross_slot_keys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_the_line_end_stays() {
        let (flags, start) = parse(b"#!lua flags=no-writes,allow-oom\nreturn 1").unwrap();
        assert!(flags.no_writes && flags.allow_oom && !flags.undeclared && !flags.no_cluster);
        assert_eq!(start, 31);
        assert!(parse(b"return 1").unwrap().0.undeclared);
        let refused = parse(b"#!lua flags=\xff\n").unwrap_err();
        assert_eq!(*refused, *b"ERR Unexpected flag in script shebang: \xff");
    }
}
