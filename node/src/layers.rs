//! Which part of the program may use which, read from the sources, so that no ring is closed unnoticed.
//!
//! The parts are in an order, and each uses only those before it. Tests may look further.

use std::{fs, path::Path};

/// From the bottom to the top.
const ORDER: &[&str] = &[
    "glob",
    "marks",
    "subscriptions",
    "script",
    "keyspace",
    "command",
    "config",
    "log",
    "consensus",
    "control",
    "shard",
    "replica",
    "server",
];

/// The parts that a source uses: what stands behind `crate::`, also in braces, outside of comments.
fn used(source: &str) -> Vec<String> {
    let code: Vec<&str> = source.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
    let code = code.join("\n");
    code.split("crate::").skip(1).flat_map(first_names).collect()
}

/// The names at the beginning of a path, or of each path in braces.
fn first_names(path: &str) -> Vec<String> {
    let name = |text: &str| text.chars().take_while(|it| it.is_alphanumeric() || *it == '_').collect();
    let Some(list) = path.strip_prefix('{') else { return vec![name(path)] };
    let (mut depth, mut names, mut begins) = (0, Vec::new(), true);
    for (at, letter) in list.char_indices() {
        match letter {
            '}' if depth == 0 => break,
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => begins = true,
            _ if begins && letter.is_alphabetic() => {
                names.push(name(&list[at..]));
                begins = false;
            }
            _ => {}
        }
    }
    names
}

fn check(path: &Path, place: usize, wrong: &mut Vec<String>) {
    let name = path.file_name().expect("it has a name").to_string_lossy();
    if name.contains("test") {
        return;
    }
    if path.is_dir() {
        for file in fs::read_dir(path).expect("the folder can be read") {
            check(&file.expect("the folder can be read").path(), place, wrong);
        }
    } else if name.ends_with(".rs") {
        let source = fs::read_to_string(path).expect("a source is text");
        let above = |part: &String| ORDER.iter().position(|known| known == part).is_some_and(|at| at > place);
        wrong.extend(
            used(&source).into_iter().filter(above).map(|part| format!("{} uses {part}", path.display())),
        );
    }
}

#[test]
fn each_part_uses_only_those_below_it() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for (place, part) in ORDER.iter().enumerate() {
        for path in [sources.join(part), sources.join(format!("{part}.rs"))] {
            if path.exists() {
                check(&path, place, &mut wrong);
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_a_source_uses_is_found() {
    let source = "//! [`crate::comment`]\nuse crate::{\n    a::{b, c::{d}},\n    e, f::g,\n};\nfn x() { crate::h::i(crate::j) }";
    assert_eq!(used(source), ["a", "e", "f", "h", "j"]);
}
