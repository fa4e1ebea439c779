//! What is said of each command beside Redis 7.2, and the page that says it.
//!
//! `verdicts.txt` holds what differs, with the reason. The commands of Redis 7.2 are those that redis-server 7.0.15 was
//! recorded to have (`table/redis-7.0.15-commands.tsv`), and what 7.2 added. The tables in `docs/compatibility.md` are
//! written from these by `UPDATE_COMPATIBILITY=1 cargo test --workspace --lib compatibility`, and compared else.
//!
//! INVARIANT: each command of Redis 7.2 and each row of the table has one verdict, and no verdict is about anything else.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{documentation, rows};

/// Added by Redis 7.2 (its release notes); `FUNCTION` and its like came with 7.0.
const ADDED_BY_7_2: [&str; 4] = ["client|no-touch", "client|setinfo", "cluster|myshardid", "waitaof"];

const BEGIN: &str =
    "<!-- Written from node/src/command/compatibility/verdicts.txt: see compatibility.rs. -->\n";
const END: &str = "<!-- Until here. -->\n";

/// In the page's order; what `COMMAND DOCS` calls a group.
const GROUPS: [(&str, &str); 16] = [
    ("string", "Strings"),
    ("bitmap", "Bitmaps"),
    ("hash", "Hashes"),
    ("list", "Lists"),
    ("set", "Sets"),
    ("sorted-set", "Sorted sets"),
    ("hyperloglog", "HyperLogLog"),
    ("geo", "Geo"),
    ("stream", "Streams"),
    ("generic", "Keys"),
    ("transactions", "Transactions"),
    ("scripting", "Scripts and functions"),
    ("pubsub", "Publish and subscribe"),
    ("connection", "Connections"),
    ("cluster", "Cluster"),
    ("server", "Server"),
];

struct Verdict {
    word: &'static str,
    reason: &'static str,
}

/// Of commands of their own name, and of `container|*`.
fn written() -> BTreeMap<&'static str, Verdict> {
    let lines = include_str!("compatibility/verdicts.txt").lines();
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut written = BTreeMap::new();
    for line in lines {
        let (head, reason) = line.split_once(" | ").unwrap_or_else(|| panic!("no reason: {line}"));
        let (name, word) = head.split_once(' ').unwrap_or_else(|| panic!("no verdict: {line}"));
        assert!(["differs", "refused", "absent", "newer"].contains(&word), "no verdict: {line}");
        assert!(!reason.trim().is_empty(), "no reason: {line}");
        assert!(written.insert(name, Verdict { word, reason }).is_none(), "twice: {line}");
    }
    written
}

/// Commands of Redis 7.2, by full name.
fn of_redis() -> impl Iterator<Item = &'static str> {
    let lines = include_str!("table/redis-7.0.15-commands.tsv").lines();
    let recorded = lines.filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    recorded.chain(ADDED_BY_7_2)
}

/// Each command, whether it is here, and whether it is there.
fn all() -> BTreeMap<String, (bool, bool)> {
    let mut all = BTreeMap::<String, (bool, bool)>::new();
    for row in rows() {
        all.entry(row.full_name().into_owned()).or_default().0 = true;
    }
    for name in of_redis() {
        all.entry(name.to_owned()).or_default().1 = true;
    }
    all
}

/// The name under which something is written about a command.
fn entry<'w>(
    written: &'w BTreeMap<&'static str, Verdict>,
    name: &str,
) -> Option<(&'static str, &'w Verdict)> {
    let any = name.split_once('|').map(|(container, _)| format!("{container}|*"));
    let found = written.get_key_value(name).or_else(|| written.get_key_value(any.as_deref()?));
    found.map(|(&key, verdict)| (key, verdict))
}

#[test]
fn every_command_has_a_verdict_that_fits() {
    let (written, all) = (written(), all());
    let mut unused: Vec<&str> = written.keys().copied().collect();
    let mut wrong = Vec::new();
    for (name, &(here, there)) in &all {
        let found = entry(&written, name);
        unused.retain(|key| found.is_none_or(|(used, _)| used != *key));
        let fits = match (here, there, found.map(|(_, verdict)| verdict.word)) {
            (true, true, word) => word.is_none_or(|word| word == "differs" || word == "refused"),
            (false, true, word) => word == Some("absent"),
            (true, false, word) => word == Some("newer"),
            (false, false, _) => false,
        };
        if !fits {
            let word = found.map_or("none", |(_, verdict)| verdict.word);
            wrong.push(format!("{name}: here {here}, in Redis 7.2 {there}, verdict {word}"));
        }
    }
    wrong.extend(unused.iter().map(|name| format!("{name}: there is no such command")));
    assert!(wrong.is_empty(), "compatibility/verdicts.txt:\n{}", wrong.join("\n"));
}

/// A command as it is typed.
fn typed(name: &str) -> String {
    format!("`{}`", name.to_ascii_uppercase().replace('|', " "))
}

/// The tables: what is the same by group, and a line for each command that is not.
fn page() -> String {
    let written = written();
    let (mut same, mut others) = (BTreeMap::<&str, Vec<String>>::new(), BTreeMap::<&str, Vec<String>>::new());
    for name in all().keys() {
        let group = documentation::group(name).unwrap_or_else(|| panic!("{name} has no group"));
        match entry(&written, name) {
            None => same.entry(group).or_default().push(typed(name)),
            Some((_, Verdict { word, reason })) => {
                let word = if *word == "absent" { "not here" } else { word };
                others.entry(group).or_default().push(format!("| {} | {word} | {reason} |\n", typed(name)));
            }
        }
    }
    let mut page = String::from("| | the same as in Redis 7.2 |\n| --- | --- |\n");
    for (group, title) in GROUPS {
        if let Some(names) = same.remove(group) {
            writeln!(page, "| {title} | {} |", names.join(", ")).expect("a text takes all");
        }
    }
    page.push_str("\n| not the same | | how, and why |\n| --- | --- | --- |\n");
    for (group, _) in GROUPS {
        page.extend(others.remove(group).unwrap_or_default());
    }
    assert!(same.is_empty() && others.is_empty(), "groups that the page has not: {same:?} {others:?}");
    page
}

#[test]
fn the_page_says_what_the_table_does() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/compatibility.md");
    let text = std::fs::read_to_string(path).expect("the page is there");
    let (before, rest) = text.split_once(BEGIN).expect("the page has a place for the tables");
    let (now, after) = rest.split_once(END).expect("the tables end");
    let page = page();
    if std::env::var_os("UPDATE_COMPATIBILITY").is_some() {
        std::fs::write(path, [before, BEGIN, &page, END, after].concat()).expect("the page is written");
    } else {
        assert!(now == page, "docs/compatibility.md is not what UPDATE_COMPATIBILITY=1 writes");
    }
}
