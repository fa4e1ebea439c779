//! What `COMMAND DOCS` tells of a command: its summary, history, arguments.
//!
//! It is data beside the table, by full name, in the form of the reply itself: an
//! object is a map, an array an array. Nothing but `COMMAND DOCS` reads it, so it
//! is parsed when one is first asked for.
//!
//! Source: `COMMAND DOCS` of redis-server 7.0.15, recorded by `record.py`; the
//! texts are under Redis's licence, see NOTICE.

use std::sync::OnceLock;

use moonraft_proto::Reply;
use serde_json::{Map, Value};

use super::{Command, table::children};

/// What a real server says.
const RECORDED: &str = include_str!("redis-7.0.15.json");
/// Commands that it has not, or has in another form.
const OWN: &str = include_str!("own.json");

fn all() -> &'static Map<String, Value> {
    static ALL: OnceLock<Map<String, Value>> = OnceLock::new();
    ALL.get_or_init(|| {
        let read = |text| serde_json::from_str::<Map<_, _>>(text).expect("it is in the tree and tested");
        let mut all = read(RECORDED);
        all.extend(read(OWN));
        all
    })
}

/// What is told of a row, its subcommands included.
pub fn of(row: &'static Command) -> Reply<'static> {
    let facts = all().get(&*row.full_name()).and_then(Value::as_object);
    let mut told: Vec<_> = facts.into_iter().flatten().map(|(name, value)| pair(name, value)).collect();
    if row.parent.is_none() {
        let below: Vec<_> = children(row.name).map(|row| (Reply::text(row.full_name()), of(row))).collect();
        if !below.is_empty() {
            told.push((Reply::text("subcommands"), Reply::Map(below)));
        }
    }
    Reply::Map(told)
}

/// The group of a command, whether it has a row or not.
#[cfg(test)]
pub fn group(full_name: &str) -> Option<&'static str> {
    all().get(full_name)?["group"].as_str()
}

fn pair(name: &'static str, value: &'static Value) -> (Reply<'static>, Reply<'static>) {
    let status = |flag: &'static Value| Reply::status(flag.as_str().unwrap_or_default());
    let value = match (name, value) {
        ("flags" | "doc_flags", Value::Array(flags)) => Reply::Set(flags.iter().map(status).collect()),
        ("history", Value::Array(changes)) => Reply::Set(changes.iter().map(plain).collect()),
        _ => plain(value),
    };
    (Reply::bulk(name.as_bytes()), value)
}

fn plain(value: &'static Value) -> Reply<'static> {
    match value {
        Value::String(text) => Reply::bulk(text.as_bytes()),
        Value::Number(number) => Reply::Int(number.as_i64().unwrap_or_default()),
        Value::Array(items) => Reply::Array(items.iter().map(plain).collect()),
        Value::Object(facts) => Reply::Map(facts.iter().map(|(name, value)| pair(name, value)).collect()),
        Value::Null | Value::Bool(_) => Reply::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::rows, *};

    #[test]
    fn every_row_is_documented() {
        let documented = |row: &&Command| {
            let facts = all().get(&*row.full_name());
            ["summary", "since", "group"].iter().all(|fact| {
                facts.is_some_and(|facts| facts[fact].as_str().is_some_and(|text| !text.is_empty()))
            })
        };
        let missing: Vec<_> = rows().filter(|row| !documented(row)).map(Command::full_name).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}
