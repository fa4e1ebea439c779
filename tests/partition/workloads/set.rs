//! Sets that only grow: what was acknowledged is in every later read, what failed is in none.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use rand::RngExt as _;

use super::{Names, TOLD_MAX, Workload, had_none, numbers, settled};
use crate::client::{Client, Ended, words};

/// Additions to one set before the next is begun.
const MEMBERS_MAX: u64 = 200;

#[derive(Default)]
struct Members {
    added: Vec<(i64, Ended)>,
    reads: Vec<(Ended, BTreeSet<i64>)>,
}

pub struct Set {
    names: Names,
    begun: Cell<u64>,
    sets: RefCell<BTreeMap<String, Members>>,
}

impl Set {
    pub fn new(names: &Names) -> Self {
        Self { names: names.clone(), begun: Cell::new(0), sets: RefCell::default() }
    }

    fn note_read(&self, key: String, ended: Ended) {
        if let Some(members) = ended.value().and_then(numbers) {
            let members = members.into_iter().collect();
            self.sets.borrow_mut().entry(key).or_default().reads.push((ended, members));
        }
    }
}

impl Workload for Set {
    fn name(&self) -> &'static str {
        "set"
    }
    fn workers(&self) -> u64 {
        3
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let begun = self.begun.replace(self.begun.get() + 1);
        let key = self.names.tag("set", begun / MEMBERS_MAX);
        if client.rng.random_bool(0.2) {
            let ended = client.one(&key, ["SMEMBERS", &key]).await;
            self.note_read(key, ended);
        } else {
            let member = self.names.unique();
            let ended = client.one(&key, ["SADD", &key, &member.to_string()]).await;
            self.sets.borrow_mut().entry(key).or_default().added.push((member as i64, ended));
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let keys: Vec<String> = self.sets.borrow().keys().cloned().collect();
        for key in keys {
            let ended = settled(client, &key, &[words(["SMEMBERS", &key])]).await?;
            self.note_read(key, ended);
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (key, Members { added, reads }) in self.sets.borrow().iter() {
            for (read, found) in reads {
                let missing: Vec<_> = added
                    .iter()
                    .filter(|(member, add)| {
                        add.value().is_some() && add.returned < read.called && !found.contains(member)
                    })
                    .map(|(member, _)| member)
                    .take(TOLD_MAX)
                    .collect();
                if !missing.is_empty() {
                    wrong.push(format!(
                        "{key}: acknowledged, and not in a read at {}: {missing:?}",
                        read.called
                    ));
                }
                let may: BTreeSet<i64> =
                    added.iter().filter(|(_, add)| !had_none(add)).map(|(member, _)| *member).collect();
                let phantoms: Vec<_> = found.difference(&may).take(TOLD_MAX).collect();
                if !phantoms.is_empty() {
                    wrong
                        .push(format!("{key}: in a read though nobody added it, or it failed: {phantoms:?}"));
                }
            }
        }
        wrong.truncate(TOLD_MAX);
        wrong
    }
}
