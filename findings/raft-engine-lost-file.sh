#!/usr/bin/env bash
# raft-engine 0.4.2 opens a log of which a whole file is gone, without an error or a warning in its result.
#
# Forty synced records are written, over several files, whose names carry consecutive numbers. While the
# engine is closed one file is removed: the newest, one in the middle, or the oldest. Each time the engine
# opens as if nothing were missing; what was in that file is silently not there, or, of the newest, the log
# ends earlier, so that a record once synced, and perhaps acknowledged to others, is forgotten. A damaged
# byte in the same place is an error. Who builds a replicated log on it must keep, somewhere else, what
# ought to be there.
#
# Seen: none gone: 40 records; newest gone: opens with 36, the last is 36; middle gone: opens with 16, only what came after it.
set -euo pipefail
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat > "$place/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
raft-engine = { version = "=0.4.2", default-features = false }
TOML
cat > "$place/src/main.rs" <<'RUST'
use std::{fs, path::{Path, PathBuf}};
use raft_engine::{Config, Engine, LogBatch, ReadableSize};

fn config(directory: &Path) -> Config {
    Config {
        dir: directory.to_str().unwrap().to_owned(),
        target_file_size: ReadableSize::kb(4),
        ..Config::default()
    }
}

/// Forty synced records, each its own batch, over several files; their number is kept under "last".
fn write(directory: &Path) {
    let engine = Engine::open(config(directory)).unwrap();
    for number in 1_u64..=40 {
        let mut batch = LogBatch::default();
        batch.put(1, b"last".to_vec(), number.to_le_bytes().to_vec()).unwrap();
        batch.put(1, format!("record {number}").into_bytes(), vec![number as u8; 1000]).unwrap();
        engine.write(&mut batch, true).unwrap();
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> = all.filter(|path| path.extension().is_some_and(|it| it == "raftlog")).collect();
    logs.sort();
    logs
}

fn reopen(directory: &Path) -> String {
    match Engine::open(config(directory)) {
        Ok(engine) => {
            let last = engine.get(1, b"last").map(|bytes| u64::from_le_bytes(bytes.try_into().unwrap()));
            let there = |number: &u64| engine.get(1, format!("record {number}").as_bytes()).is_some();
            format!("opens, {} records, last {}", (1..=40).filter(there).count(), last.unwrap_or(0))
        }
        Err(error) => format!("refuses: {error}"),
    }
}

fn main() {
    let base = PathBuf::from(std::env::args().nth(1).unwrap());
    for (name, place) in [("none", 3), ("newest", 0), ("middle", 1), ("oldest", 2)] {
        let directory = base.join(name);
        std::fs::create_dir_all(&directory).unwrap();
        write(&directory);
        let files = files(&directory);
        let gone = match place {
            0 => files.last(),
            1 => files.get(files.len() / 2),
            2 => files.first(),
            _ => None,
        };
        if let Some(gone) = gone {
            fs::remove_file(gone).unwrap();
        }
        println!("{name}: {}", reopen(&directory));
    }
}
RUST
seen="$(cd "$place" && cargo run --quiet -- "$place/data")"
echo "$seen"
wanted='none: opens, 40 records, last 40
newest: opens, 36 records, last 36
middle: opens, 16 records, last 40
oldest: opens, 36 records, last 40'
[[ "$seen" == "$wanted" ]] || { echo "this has changed" >&2; exit 1; }
