//! Every script of `golden/scripts.txt` answers as the real server did when
//! `golden/record.py` asked it.

use super::*;

const GOLDEN: &str = include_str!("../golden/scripts.txt");

/// One reply as text, as `record.py` writes it.
fn shown(reply: &Reply<'_>) -> String {
    let mut bytes = Vec::new();
    reply.encode(Protocol::Resp2, &mut bytes);
    let (text, rest) = shown_bytes(&bytes);
    assert!(rest.is_empty(), "one reply is one reply");
    text
}

fn shown_bytes(bytes: &[u8]) -> (String, &[u8]) {
    let end = memchr::memmem::find(bytes, b"\r\n").expect("a reply has a line");
    let (line, rest) = (String::from_utf8_lossy(&bytes[1..end]).into_owned(), &bytes[end + 2..]);
    let length = line.parse::<i64>();
    match bytes[0] {
        kind @ (b'+' | b'-') => (format!("{}{line}", char::from(kind)), rest),
        b':' => (line, rest),
        b'$' if length == Ok(-1) => ("nil".into(), rest),
        b'$' => {
            let length = length.expect("a bulk string has a length") as usize;
            (quoted(&rest[..length]), &rest[length + 2..])
        }
        _ => {
            let (mut items, mut rest) = (Vec::new(), rest);
            for _ in 0..length.expect("an array has a length") {
                let (item, after) = shown_bytes(rest);
                items.push(item);
                rest = after;
            }
            (format!("[{}]", items.join(", ")), rest)
        }
    }
}

fn quoted(bytes: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(*byte)),
        32..127 => char::from(*byte).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("\"{}\"", bytes.iter().map(one).collect::<String>())
}

/// The scripts, what Redis answers, and what we answer instead where we differ on purpose.
fn cases() -> Vec<(String, String)> {
    let mut cases: Vec<(String, String)> = Vec::new();
    let mut script: Vec<&str> = Vec::new();
    for line in GOLDEN.lines() {
        if let Some(code) = line.strip_prefix("> ") {
            script.push(code);
        } else if let Some(answer) = line.strip_prefix("= ") {
            cases.push((script.join("\n"), answer.to_owned()));
            script.clear();
        } else if let Some(answer) = line.strip_prefix("~ ") {
            cases.last_mut().expect("an answer of ours follows one of Redis").1 = answer.to_owned();
        }
        assert!(script.is_empty() || line.starts_with("> "), "a script without an answer: {script:?}");
    }
    cases
}

#[test]
fn scripts_answer_as_the_real_server() {
    let mut engine = engine();
    let cases = cases();
    assert!(cases.len() > 300, "the golden file is whole");
    let mut wrong = Vec::new();
    for (script, expected) in &cases {
        let answer = match run(&mut engine, script) {
            Outcome::Done(reply) => shown(&reply),
            Outcome::Failed(text) | Outcome::Killed(_, text) => shown(&Reply::Error(text)),
        };
        if answer != *expected {
            wrong.push(format!("{script}\n  expected {expected}\n  got      {answer}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n\n{}", wrong.len(), cases.len(), wrong.join("\n\n"));
}

/// Drawn, and answered by Valkey 9.1.2, which writes them as Redis 7.2 does:
/// `golden/record.py numbers`.
#[test]
fn numbers_become_words_as_on_the_real_server() {
    let lines = include_str!("../golden/numbers.txt").lines().filter(|line| !line.starts_with('#'));
    let cases: Vec<_> = lines.map(|line| line.split_once(' ').expect("a number and its text")).collect();
    assert_eq!(cases.len(), 5000);
    let list: String = cases.iter().map(|(bits, _)| format!("'{bits}',")).collect();
    let script = format!(
        "local words = {{}}
         for at, bits in ipairs({{{list}}}) do
           local raw = bits:gsub('..', function(byte) return string.char(tonumber(byte, 16)) end)
           words[at] = redis.call('echo', (struct.unpack('>d', raw)))
         end
         return words"
    );
    let Outcome::Done(Reply::Array(words)) = run(&mut engine(), &script) else { panic!("it runs") };
    assert_eq!(words.len(), cases.len());
    for ((bits, expected), word) in cases.iter().zip(words) {
        assert_eq!(word, Reply::bulk(expected.as_bytes()), "{bits}");
    }
}
