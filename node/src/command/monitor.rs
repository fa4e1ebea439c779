//! `MONITOR`: each request that is executed, as one line.
//!
//! The shard tells it (`shard::monitors`); here is who asks, and what a line looks like. A line tells words, never
//! data, so it leaves at once, whatever becomes of the request.
//!
//! Source: `replicationFeedMonitors` (replication.c) and `sdscatrepr` (sds.c) of Redis 7.2.

use std::fmt::Write;

use moonraft_proto::Reply;

use super::{Arity, Client, Command, CommandError, Family, Flag, Outcome, Run};

/// The commands of this file.
pub const COMMANDS: &[Command] = &[Command {
    name: "monitor",
    arity: Arity::Exactly(1),
    family: Family::Server,
    flags: &[Flag::Admin, Flag::NoScript, Flag::Stale],
    run: Run::Session(monitor),
    ..Command::BASE
}];

/// `MONITOR`
fn monitor(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    if !client.may_block() {
        return Err(CommandError::text("ERR MONITOR isn't allowed for DENY BLOCKING client"));
    }
    if client.session().monitors {
        return Ok(Reply::Nothing); // as Redis
    }
    client.monitor(true);
    Ok(Reply::OK)
}

/// The line about a request: when it was executed, Unix microseconds, and `host:port` of its client, or `lua`.
pub fn line(at_us: u64, source: &str, command: &Command, words: &[&[u8]]) -> String {
    let mut line = format!("{}.{:06} [0 {source}]", at_us / 1_000_000, at_us % 1_000_000);
    for word in command.told_words(words) {
        line.push(' ');
        quote(word, &mut line);
    }
    line
}

/// A word in quotes, what is not plain ASCII escaped.
fn quote(word: &[u8], line: &mut String) {
    line.push('"');
    for &byte in word {
        match byte {
            b'\\' | b'"' => line.extend(['\\', byte.into()]),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(byte.into()),
            _ => write!(line, "\\x{byte:02x}").expect("a text takes what is written"),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::find;

    #[test]
    fn a_line_is_ascii_and_tells_no_secret() {
        let told =
            |words: &[&[u8]]| line(1_500_000, "1.2.3.4:5", find(words[0]).expect("it is known"), words);
        assert_eq!(
            told(&[b"get", b"a\"\\\n\x00\xff~"]),
            r#"1.500000 [0 1.2.3.4:5] "get" "a\"\\\n\x00\xff~""#
        );
        assert_eq!(
            told(&[b"AUTH", b"me", b"x"]),
            r#"1.500000 [0 1.2.3.4:5] "AUTH" "(redacted)" "(redacted)""#
        );
        let hello = told(&[b"HELLO", b"3", b"AUTH", b"me", b"x", b"SETNAME", b"n"]);
        let words = r#""HELLO" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "n""#;
        assert_eq!(hello, format!("1.500000 [0 1.2.3.4:5] {words}"));
        assert!(told(&[b"HELLO", b"3", b"auth"]).ends_with(r#""3" "auth""#));
    }
}
