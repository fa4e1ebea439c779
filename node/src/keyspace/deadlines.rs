//! Which keys expire when, so that they go without being asked for, and one of them can be drawn at random.
//!
//! An element is a deadline, a slot and a key's hash in one number: 16 bytes
//! however long the key. Two keys that share all three share an element, so
//! whoever acts on one looks at all entries of that hash.
//!
//! They stand in runs, each in order and after the one before it. A `BTreeSet` would do but for drawing: it finds no
//! element by its ordinal.

/// Elements of a run at most. In a run half of so many are moved to make room for one, and of a splitting, which comes
/// once in as many insertions, all places of later runs: with ten million deadlines either is some tens of nanoseconds.
const RUN_MAX: usize = if cfg!(test) { 8 } else { 512 };

/// A run of fewer is joined with a neighbour, if there is room.
const RUN_MIN: usize = RUN_MAX / 4;

/// The deadlines of a keyspace, soonest first.
#[derive(Clone, Debug, Default)]
pub struct Deadlines {
    /// None is empty.
    runs: Vec<Vec<u128>>,
    len: usize,
}

/// Milliseconds that fit beside slot and hash: year 10889.
pub const DEADLINE_MAX: u64 = (1 << 48) - 1;

fn pack(at: u64, slot: u16, hash: u64) -> u128 {
    u128::from(at.min(DEADLINE_MAX)) << 80 | u128::from(slot) << 64 | u128::from(hash)
}

const fn slot_and_hash(packed: u128) -> (u16, u64) {
    ((packed >> 64) as u16, packed as u64)
}

impl Deadlines {
    /// A key of this slot and hash expires at this time.
    pub fn insert(&mut self, at: u64, slot: u16, hash: u64) {
        let packed = pack(at, slot, hash);
        let number = self.run_of(packed);
        let Some(run) = self.runs.get_mut(number) else {
            self.runs.push(vec![packed]);
            self.len = 1;
            return;
        };
        let Err(place) = run.binary_search(&packed) else { return };
        self.len += 1;
        if run.len() < RUN_MAX {
            return run.insert(place, packed);
        }
        // Deadlines that only grow leave full runs behind them.
        let mut after = if place == RUN_MAX { Vec::new() } else { run.split_off(RUN_MAX / 2) };
        match place.checked_sub(run.len()) {
            Some(place) => after.insert(place, packed),
            None => run.insert(place, packed),
        }
        self.runs.insert(number + 1, after);
    }

    /// No key of this slot and hash expires at this time.
    pub fn remove(&mut self, at: u64, slot: u16, hash: u64) {
        let packed = pack(at, slot, hash);
        let number = self.run_of(packed);
        let Some(run) = self.runs.get_mut(number) else { return };
        let Ok(place) = run.binary_search(&packed) else { return };
        run.remove(place);
        self.len -= 1;
        if run.len() < RUN_MIN {
            self.join(number);
        }
    }

    /// What expires is of this slot and hash as before, but at another time.
    pub fn replace(&mut self, slot: u16, hash: u64, was: Option<u64>, is: Option<u64>) {
        if was == is {
            return;
        }
        if let Some(at) = was {
            self.remove(at, slot, hash);
        }
        if let Some(at) = is {
            self.insert(at, slot, hash);
        }
    }

    /// The run that has this element, if one has it.
    fn run_of(&self, packed: u128) -> usize {
        self.runs.partition_point(|run| run[0] <= packed).saturating_sub(1)
    }

    /// Joins a small run with a neighbour.
    fn join(&mut self, number: usize) {
        if self.runs[number].is_empty() {
            self.runs.remove(number);
            return;
        }
        let len = |number: usize| self.runs.get(number).map_or(RUN_MAX, Vec::len);
        let fits = |first: usize| len(first) + len(first + 1) <= RUN_MAX * 3 / 4;
        let neighbours = [Some(number), number.checked_sub(1)];
        let Some(first) = neighbours.into_iter().flatten().find(|&first| fits(first)) else { return };
        let after = self.runs.remove(first + 1);
        self.runs[first].extend(after);
    }

    fn iter(&self) -> impl Iterator<Item = u128> {
        self.runs.iter().flatten().copied()
    }

    /// Slots and hashes of keys that are gone at `now_ms`, soonest first: their deadlines are over.
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = (u16, u64)> {
        let end = pack(now_ms.saturating_sub(1), u16::MAX, u64::MAX);
        self.iter().take_while(move |&packed| packed <= end).map(slot_and_hash)
    }

    /// Slots and hashes of all keys that expire, soonest first.
    pub fn all(&self) -> impl Iterator<Item = (u16, u64)> {
        self.iter().map(slot_and_hash)
    }

    /// The slot and hash of a key that expires, drawn at random, each as likely; `below` draws a number below its
    /// argument. As most runs are half full at least, few are looked at.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> Option<(u16, u64)> {
        let most = self.runs.iter().take(2).map(Vec::len).max()?;
        let most = if self.runs.len() == 1 { most } else { RUN_MAX };
        loop {
            let (number, place) = (below(self.runs.len()), below(most));
            if let Some(&packed) = self.runs[number].get(place) {
                return Some(slot_and_hash(packed));
            }
        }
    }

    /// The soonest deadline.
    pub fn soonest(&self) -> Option<u64> {
        self.runs.first().map(|run| (run[0] >> 80) as u64)
    }

    /// How many keys expire (keys that share an element counted once).
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether no key expires.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets those of a slot.
    pub fn clear_slots(&mut self, first: u16, last: u16) {
        for run in &mut self.runs {
            run.retain(|&packed| !(first..=last).contains(&slot_and_hash(packed).0));
        }
        // Runs of what is left: all of them may have become small.
        let left: Vec<u128> = self.iter().collect();
        self.len = left.len();
        self.runs = left.chunks(RUN_MAX / 2).map(<[u128]>::to_vec).collect();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    fn check(deadlines: &Deadlines, model: &BTreeSet<(u64, u16, u64)>) {
        let all: Vec<(u16, u64)> = model.iter().map(|&(_, slot, hash)| (slot, hash)).collect();
        assert_eq!(deadlines.all().collect::<Vec<_>>(), all);
        assert_eq!((deadlines.len(), deadlines.is_empty()), (model.len(), model.is_empty()));
        assert_eq!(deadlines.soonest(), model.first().map(|it| it.0));
        assert!(deadlines.runs.iter().all(|run| !run.is_empty() && run.len() <= RUN_MAX));
        let places: usize = deadlines.runs.len() * RUN_MAX;
        assert!(deadlines.runs.len() < 3 || model.len() * 8 >= places, "{:?}", deadlines.runs);
    }

    proptest! {
        #[test]
        fn it_is_a_set_in_order(
            changes in prop::collection::vec((any::<bool>(), 0..40_u64, 0..3_u16, 0..2_u64), 0..300),
            cleared in prop::option::of((0..3_u16, 0..3_u16)),
        ) {
            let (mut deadlines, mut model) = (Deadlines::default(), BTreeSet::new());
            for (comes, at, slot, hash) in changes {
                match comes {
                    true => {
                        deadlines.insert(at, slot, hash);
                        model.insert((at, slot, hash));
                    }
                    false => {
                        deadlines.remove(at, slot, hash);
                        model.remove(&(at, slot, hash));
                    }
                }
                check(&deadlines, &model);
            }
            let due = model.iter().filter(|it| it.0 < 20).map(|&(_, slot, hash)| (slot, hash));
            prop_assert_eq!(deadlines.due(20).collect::<Vec<_>>(), due.collect::<Vec<_>>());
            if let Some((first, last)) = cleared {
                deadlines.clear_slots(first, last);
                model.retain(|it| !(first..=last).contains(&it.1));
                check(&deadlines, &model);
            }
        }
    }

    #[test]
    fn each_is_as_likely_to_be_drawn_and_few_are_looked_at() {
        let (mut random, mut deadlines) = (StdRng::seed_from_u64(1), Deadlines::default());
        assert_eq!(deadlines.draw(|_| unreachable!("there is none")), None);
        // Most have gone, and one is far from the others.
        (0..2000).for_each(|at| deadlines.insert(at, 0, at));
        (0..1900).for_each(|at| deadlines.remove(at, 0, at));
        deadlines.insert(DEADLINE_MAX, 0, 5);
        let (mut counts, mut looks) = ([0; 2000], 0);
        const DRAWS: usize = 101 * 200;
        for _ in 0..DRAWS {
            let below = |end| {
                looks += 1;
                random.random_range(0..end)
            };
            let (_, hash) = deadlines.draw(below).unwrap();
            counts[hash as usize] += 1;
        }
        assert!((150..260).contains(&counts[5]), "{}", counts[5]);
        assert!(counts[1900..].iter().all(|count| (130..280).contains(count)), "{counts:?}");
        assert!(looks < DRAWS * 8, "{looks}");
    }
}
