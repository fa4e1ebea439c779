//! The members of a large sorted set, each stored once, with its score: found by
//! name through a hash table of numbers, and by number in constant time.
//!
//! Invariant: numbers are dense. A member that goes leaves its number to the last
//! one, so there is no list of free places, memory shrinks with the set, and any
//! number below the length names a member.

use crate::keyspace::{Blob, Seed, linear::LinearTable, scan::position};

/// Members stand in chunks of this many, 8 KiB each: a set that grows copies no
/// more than that, and has no more than that to spare.
const CHUNK: usize = 256;

#[derive(Clone, Debug)]
struct Member {
    name: Blob,
    score: f64,
}

/// Members by name and by number.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// All but the last are full.
    chunks: Vec<Vec<Member>>,
    /// The number of each, by the hash of its name.
    numbers: LinearTable<u32>,
    seed: Seed,
}

impl Members {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Bytes of its tables, without what long names hold outside of them.
    pub fn heap_bytes(&self) -> usize {
        let places = self.chunks.iter().map(Vec::capacity).sum::<usize>();
        places * size_of::<Member>() + self.numbers.allocation_size()
    }

    fn member(&self, number: u32) -> &Member {
        &self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    fn member_mut(&mut self, number: u32) -> &mut Member {
        &mut self.chunks[number as usize / CHUNK][number as usize % CHUNK]
    }

    /// The name that has this number.
    pub fn name(&self, number: u32) -> &[u8] {
        &self.member(number).name
    }

    /// The score and the name that have this number.
    pub fn get(&self, number: u32) -> (f64, &[u8]) {
        let member = self.member(number);
        (member.score, &member.name)
    }

    /// All names, by number.
    pub fn names(&self) -> impl Iterator<Item = &Blob> {
        self.chunks.iter().flatten().map(|member| &member.name)
    }

    /// Sets the score of a number.
    pub fn set_score(&mut self, number: u32, score: f64) {
        self.member_mut(number).score = score;
    }

    /// The number of a name.
    pub fn find(&self, name: &[u8]) -> Option<u32> {
        let hash = self.seed.hash(name);
        self.numbers.find(hash, |&number| self.name(number) == name).copied()
    }

    /// Adds a member that is not there yet. Returns its number.
    pub fn add(&mut self, name: Blob, score: f64) -> u32 {
        let number = u32::try_from(self.len()).expect("2^32 members are more than memory holds");
        let hash = self.seed.hash(&name);
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => chunk.push(Member { name, score }),
            // The first chunk grows as it fills, the others are sure to.
            Some(_) => {
                let mut chunk = Vec::with_capacity(CHUNK);
                chunk.push(Member { name, score });
                self.chunks.push(chunk);
            }
            None => self.chunks.push(vec![Member { name, score }]),
        }
        let (chunks, seed) = (&self.chunks, &self.seed);
        self.numbers.insert_unique(hash, number, |&other| seed.hash(name_in(chunks, other)));
        number
    }

    /// The number that [`Members::remove`] will give to `number`'s place.
    pub fn last(&self) -> u32 {
        (self.len() - 1) as u32
    }

    /// Takes a member away; the last one gets its number.
    pub fn remove(&mut self, number: u32) {
        let last = self.last();
        let (chunks, seed) = (&self.chunks, &self.seed);
        let hash = |number: u32| seed.hash(name_in(chunks, number));
        let removed = self.numbers.remove(hash(number), |&other| other == number, |&other| hash(other));
        removed.expect("every member is in the table");
        if number != last {
            let moved = self.numbers.find_mut(hash(last), |&other| other == last);
            *moved.expect("every member is in the table") = number;
        }
        let chunk = self.chunks.last_mut().expect("there is a member");
        let moved = chunk.pop().expect("no chunk is empty");
        if chunk.is_empty() {
            self.chunks.pop();
        }
        if number != last {
            *self.member_mut(number) = moved;
        }
    }

    /// About `count` numbers from `cursor` on, and the cursor to go on with; 0 begins and ends.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<u32>, u64) {
        let (numbers, next) = self.numbers.scan(cursor, count, |&number| position(self.name(number)));
        (numbers.into_iter().copied().collect(), next.unwrap_or(0))
    }
}

fn name_in(chunks: &[Vec<Member>], number: u32) -> &[u8] {
    &chunks[number as usize / CHUNK][number as usize % CHUNK].name
}
