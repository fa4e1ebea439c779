//! What the documentation tells of settings is what the tables say. `UPDATE_GOLDENFILES=1` writes it.

use std::{collections::BTreeMap, fs};

use super::{
    kept, refused,
    rows::{Kind, Row},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/operations.md");

fn names(rows: &[&Row]) -> String {
    let shown = |row: &&Row| match row.alias {
        Some(alias) => format!("`{}` (`{alias}`)", row.name),
        None => format!("`{}`", row.name),
    };
    rows.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// A table of the rows, those that have the same last column together.
fn table(head: &str, rows: &[Row], column: impl Fn(&Row) -> String) -> String {
    let mut alike: BTreeMap<String, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        alike.entry(column(row)).or_default().push(row);
    }
    let lines = alike.iter().map(|(column, rows)| format!("| {} | {column} |\n", names(rows)));
    format!(
        "| setting | {head} |\n|{}\n{}",
        " --- |".repeat(head.matches('|').count() + 2),
        lines.collect::<String>()
    )
}

fn is_always(row: &Row) -> String {
    match row.kind {
        Kind::Only(_, "") => format!("empty | {}", row.doc),
        Kind::Only(_, value) => format!("`{value}` | {}", row.doc),
        _ => format!("as started | {}", row.doc),
    }
}

#[test]
fn the_page_tells_what_the_tables_say() {
    let page = fs::read_to_string(PAGE).expect("the page is there");
    let mut written = page.clone();
    for (section, table) in [
        ("kept", table("why it changes nothing", kept::ROWS, |row| row.doc.to_owned())),
        ("refused", table("always | why", refused::ROWS, is_always)),
    ] {
        let (begin, end) = (format!("<!-- {section} -->\n"), format!("<!-- end of {section} -->\n"));
        let (before, rest) = written.split_once(&begin).expect("the section begins");
        let (_, after) = rest.split_once(&end).expect("the section ends");
        written = [before, &begin, &table, &end, after].concat();
    }
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        fs::write(PAGE, &written).expect("the page can be written");
    } else {
        assert_eq!(page, written, "the page is behind the tables: run this test with UPDATE_GOLDENFILES=1");
    }
}
