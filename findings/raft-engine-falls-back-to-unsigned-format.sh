#!/usr/bin/env bash
# raft-engine 0.4.2 goes on in its old file format, whatever `format_version` says, after a crash in a file's first moment.
#
# A log of format version 2 combines the checksum of each batch with the number of its file, and its files may be
# used again under new names. A new file is created, then gets its header, then the header is synced: a crash or a full
# disk in between leaves a newest file of no bytes. The engine opens such a log without an error (rightly: nothing is
# lost), but writes version 1 into that file's header: 61 bytes in place of 69, and batches without the file's number.
# All that is configured is version 2, and the other files have it. Who reads the files (a check, a copy, a tool) has to
# expect both versions in one log.
#
# Seen: before the crash: 2; the file that was empty: 1, from byte 61 on; the next file: 2; 41 records.
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
use std::{fs, path::Path};
use raft_engine::{Config, Engine, LogBatch, ReadableSize, Version};

fn config(directory: &Path) -> Config {
    Config {
        dir: directory.to_str().unwrap().to_owned(),
        format_version: Version::V2,
        target_file_size: ReadableSize::kb(4),
        ..Config::default()
    }
}

fn put(engine: &Engine, number: u64, bytes: usize) {
    let mut batch = LogBatch::default();
    batch.put(1, format!("record {number}").into_bytes(), vec![number as u8; bytes]).unwrap();
    engine.write(&mut batch, true).unwrap();
}

/// The version in a file's header: behind the magic, which ends with the last letter or digit.
fn version(directory: &Path, number: u64) -> (u64, u64) {
    let bytes = fs::read(directory.join(format!("{number:016}.raftlog"))).unwrap();
    let magic = bytes.iter().position(|byte| *byte == 0).unwrap();
    let version = u64::from_be_bytes(bytes[magic..magic + 8].try_into().unwrap());
    (version, magic as u64 + 8)
}

fn main() {
    let directory = std::path::PathBuf::from(std::env::args().nth(1).unwrap());
    let engine = Engine::open(config(&directory)).unwrap();
    put(&engine, 1, 1000);
    drop(engine);
    println!("before the crash: {}", version(&directory, 1).0);
    // What a crash leaves between the creation of the second file and the sync of its header.
    fs::File::create(directory.join("0000000000000002.raftlog")).unwrap();
    let engine = Engine::open(config(&directory)).unwrap();
    (2..=41).for_each(|number| put(&engine, number, 150));
    drop(engine);
    let (number, end) = version(&directory, 2);
    println!("the file that was empty: {number}, from byte {end} on");
    println!("the next file: {}", version(&directory, 3).0);
    let engine = Engine::open(config(&directory)).unwrap();
    let there = |number: &u64| engine.get(1, format!("record {number}").as_bytes()).is_some();
    println!("{} records", (1..=41).filter(there).count());
}
RUST
seen="$(cd "$place" && cargo run --quiet -- "$place/data")"
echo "$seen"
wanted='before the crash: 2
the file that was empty: 1, from byte 61 on
the next file: 2
41 records'
[[ "$seen" == "$wanted" ]] || { echo "this has changed" >&2; exit 1; }
