//! Golden scripts: what exactly a request does, line by line.
//!
//! Each file in `node/src/command/scripts/` is a scenario. A block is a request
//! (words quoted as in `redis-cli`), `---`, and what came of it: the reply, and
//! each effect it emitted, indented. `clock N` sets the time (Unix milliseconds);
//! `#` begins a comment. `UPDATE_GOLDENFILES=1` writes the files anew: the diff
//! is the review.

use std::fmt::Write as _;

use moonraft_proto::{
    Effect, Reply,
    entry::{Batch, NEWEST_FORMAT},
};
use moonraft_router::SLOT_COUNT;

use super::Request;
use crate::keyspace::{Keyspace, Store};

/// One request against a transaction, its reply and effects as text.
fn run(store: &mut Store, now_ms: u64, line: &str) -> String {
    let words = split(line);
    let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
    store.begin_unit(now_ms * 1000, true);
    let mut out = String::new();
    let request = Request::read(&words).and_then(|it| it.command.check_arity(&words).map(|()| it));
    let tx = &mut store.tx();
    match request.and_then(|request| request.execute(tx)) {
        Ok(reply) => show(&reply, &mut out, 0),
        Err(error) => writeln!(out, "-{error}").expect("a string takes all"),
    }
    store.end_unit();
    let (sequence, data, open) = store.seal(0);
    store.committed(sequence, &open.changed);
    for effect in Batch::decode(&data).expect("it was just sealed").effects() {
        writeln!(out, "  effect: {}", describe(&effect.expect("it was just sealed")))
            .expect("a string takes all");
    }
    out
}

fn describe(effect: &Effect<'_>) -> String {
    // Derived `Debug` prints bytes as numbers; texts are easier to review.
    let text = format!("{effect:?}");
    let mut out = String::new();
    let mut rest = text.as_str();
    while let Some(start) = rest.find('[') {
        let end = start + rest[start..].find(']').expect("a list is closed");
        let bytes: Vec<u8> =
            rest[start + 1..end].split(", ").filter_map(|number| number.parse().ok()).collect();
        write!(out, "{}\"{}\"", &rest[..start], bytes.escape_ascii()).expect("a string takes all");
        rest = &rest[end + 1..];
    }
    out + rest
}

fn show(reply: &Reply<'_>, out: &mut String, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut line = |text: String| writeln!(out, "{indent}{text}").expect("a string takes all");
    match reply {
        Reply::Status(text) => line(format!("+{text}")),
        Reply::Error(text) => line(format!("-{text}")),
        Reply::Int(n) => line(format!(":{n}")),
        Reply::Bulk(bytes) => line(format!("\"{}\"", bytes.escape_ascii())),
        Reply::Array(items) | Reply::Set(items) => {
            line(if matches!(reply, Reply::Set(_)) { "set".into() } else { "array".into() });
            items.iter().for_each(|item| show(item, out, depth + 1));
        }
        Reply::Map(items) | Reply::Keyed(items) | Reply::Pairs(items) => {
            line(if matches!(reply, Reply::Pairs(_)) { "pairs".into() } else { "map".into() });
            for (first, second) in items {
                show(first, out, depth + 1);
                show(second, out, depth + 2);
            }
        }
        other => line(format!("{other:?}")),
    }
}

/// Words as `redis-cli` reads them: blanks part them, double quotes hold them
/// together, and a backslash in those escapes.
fn split(line: &str) -> Vec<Vec<u8>> {
    let mut words = Vec::new();
    let mut bytes = line.bytes().peekable();
    while let Some(&byte) = bytes.peek() {
        if byte == b' ' {
            bytes.next();
            continue;
        }
        let quoted = byte == b'"';
        let mut word = Vec::new();
        if quoted {
            bytes.next();
        }
        while let Some(byte) = bytes.next_if(|&byte| byte != if quoted { b'"' } else { b' ' }) {
            word.push(if quoted && byte == b'\\' { escape(&mut bytes) } else { byte });
        }
        if quoted {
            bytes.next();
        }
        words.push(word);
    }
    words
}

fn escape(bytes: &mut impl Iterator<Item = u8>) -> u8 {
    match bytes.next() {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'x') => {
            let mut digit =
                || bytes.next().and_then(|byte| char::from(byte).to_digit(16)).expect("two digits");
            (digit() * 16 + digit()) as u8
        }
        Some(other) => other,
        None => b'\\',
    }
}

/// What a script file should read like.
fn replay(script: &str) -> String {
    let mut keyspace = Keyspace::default();
    keyspace.apply(&Effect::AssignSlots { first: 0, last: SLOT_COUNT - 1 });
    keyspace.apply(&Effect::AgreeFormat { format: NEWEST_FORMAT });
    let mut store = Store::new(keyspace, 0);
    let mut now_ms = 0;
    let mut out = String::new();
    let mut expected = false;
    for line in script.lines() {
        match line {
            "" => {
                expected = false;
                out.push('\n');
            }
            "---" => expected = true,
            _ if expected => {}
            comment if comment.starts_with('#') => writeln!(out, "{comment}").expect("a string takes all"),
            clock if clock.starts_with("clock ") => {
                now_ms = clock["clock ".len()..].parse().expect("a time in milliseconds");
                writeln!(out, "{clock}").expect("a string takes all");
            }
            request => {
                let came = run(&mut store, now_ms, request);
                write!(out, "{request}\n---\n{came}").expect("a string takes all");
            }
        }
    }
    out
}

#[test]
fn golden_scripts_replay() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/command/scripts");
    let update = std::env::var_os("UPDATE_GOLDENFILES").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the scripts are there") {
        let path = file.expect("the folder can be read").path();
        let script = std::fs::read_to_string(&path).expect("a script is text");
        let replayed = replay(&script);
        count += 1;
        if update {
            std::fs::write(&path, &replayed).expect("a script can be written");
        } else if replayed != script {
            wrong.push(format!("{}:\n{replayed}", path.display()));
        }
    }
    assert!(count > 0, "no scripts in {folder}");
    assert!(wrong.is_empty(), "differ from what they say:\n{}", wrong.join("\n"));
}
