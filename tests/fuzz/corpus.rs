//! Every file of the corpora through the body of its target, as a fuzzer would: in an ordinary `cargo test`.
//!
//! `UPDATE_CORPUS=1` writes the seeds anew ([`seeds`]); what fuzzing found is kept beside them, under a name that
//! says what it was.

mod bodies;
mod seeds;

use std::{collections::BTreeMap, fs, path::PathBuf};

fn folder(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

fn files(target: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let listed = fs::read_dir(folder(target)).expect("each target has a corpus");
    let paths = listed.map(|entry| entry.expect("it was listed").path());
    paths.map(|path| (path.clone(), fs::read(&path).expect("it was listed"))).collect()
}

#[test]
fn every_file_of_every_corpus_passes() {
    for (target, body) in bodies::TARGETS {
        let files = files(target);
        assert!(files.len() >= 10, "{target}: {} files", files.len());
        for (path, bytes) in files {
            // A panic's own message tells what; this, of which file.
            println!("{}", path.display());
            body(&bytes);
        }
    }
}

#[test]
fn seeds_are_those_that_are_written() {
    for (target, seeds) in seeds::all() {
        for (name, bytes) in seeds {
            let path = folder(target).join(format!("seed-{name}"));
            if std::env::var_os("UPDATE_CORPUS").is_some() {
                fs::create_dir_all(folder(target)).expect("the corpus is there to be written");
                fs::write(&path, &bytes).expect("the corpus is there to be written");
            }
            let found = fs::read(&path).unwrap_or_default();
            assert!(found == bytes, "{} is not what UPDATE_CORPUS=1 would write", path.display());
        }
    }
}
