//! A set. A small one is a vector: sorted numbers while all members are integers,
//! as Redis's intset is, else in insertion order; a larger one a hash table.

use hashbrown::HashSet;

use super::{Blob, Seed, small};

/// Integers that Redis keeps in an intset; `set-max-intset-entries`.
const INTEGERS_MAX: usize = 512;

/// Members, each once.
#[derive(Clone, Debug)]
pub struct Set {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Members that are all integers, ascending.
    Integers(Vec<i64>),
    /// Few and short.
    Small(Vec<Blob>),
    /// Many or long. Never turns back into another form, as in Redis.
    Large(HashSet<Blob, Seed>),
}

impl Default for Set {
    fn default() -> Self {
        Self { form: Form::Integers(Vec::new()) }
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|member| other.contains(&member))
    }
}

/// The integer that `member` is the only text of.
fn integer(member: &[u8]) -> Option<i64> {
    let number: i64 = std::str::from_utf8(member).ok()?.parse().ok()?;
    (itoa::Buffer::new().format(number).as_bytes() == member).then_some(number)
}

fn text(number: i64) -> Blob {
    Blob::new(itoa::Buffer::new().format(number).as_bytes())
}

impl Set {
    /// How many members.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Integers(numbers) => numbers.len(),
            Form::Small(members) => members.len(),
            Form::Large(members) => members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What `OBJECT ENCODING` answers.
    pub const fn encoding(&self) -> &'static str {
        match self.form {
            Form::Integers(_) => "intset",
            Form::Small(_) => "listpack",
            Form::Large(_) => "hashtable",
        }
    }

    /// Whether it has this member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.form {
            Form::Integers(numbers) => {
                integer(member).is_some_and(|number| numbers.binary_search(&number).is_ok())
            }
            Form::Small(members) => members.iter().any(|other| **other == *member),
            Form::Large(members) => members.contains(member),
        }
    }

    /// Adds a member. Returns whether it is new.
    pub fn add(&mut self, member: &[u8]) -> bool {
        self.make_room(member);
        match &mut self.form {
            Form::Integers(numbers) => {
                let number = integer(member).expect("room was made for a member that is no integer");
                let Err(at) = numbers.binary_search(&number) else { return false };
                numbers.insert(at, number);
                true
            }
            Form::Small(members) => {
                let new = !members.iter().any(|other| **other == *member);
                if new {
                    members.push(Blob::new(member));
                }
                new
            }
            Form::Large(members) => !members.contains(member) && members.insert(Blob::new(member)),
        }
    }

    /// Takes a member away. Returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Integers(numbers) => {
                let found = integer(member).and_then(|number| numbers.binary_search(&number).ok());
                found.map(|at| numbers.remove(at)).is_some()
            }
            Form::Small(members) => {
                let found = members.iter().position(|other| **other == *member);
                found.map(|at| members.remove(at)).is_some()
            }
            Form::Large(members) => members.remove(member),
        }
    }

    /// The member at a position of the iteration: constant time but for large
    /// sets, where it is linear.
    pub fn nth(&self, index: usize) -> Option<Blob> {
        match &self.form {
            Form::Integers(numbers) => numbers.get(index).copied().map(text),
            Form::Small(members) => members.get(index).cloned(),
            Form::Large(members) => members.iter().nth(index).cloned(),
        }
    }

    /// All members: ascending if integers, as inserted if small, else in no order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Blob> + '_> {
        match &self.form {
            Form::Integers(numbers) => Box::new(numbers.iter().copied().map(text)),
            Form::Small(members) => Box::new(members.iter().cloned()),
            Form::Large(members) => Box::new(members.iter().cloned()),
        }
    }

    /// Changes the form if `member` does not fit the present one.
    fn make_room(&mut self, member: &[u8]) {
        let fits = |count: usize| count < small::COUNT_MAX && member.len() <= small::BYTES_MAX;
        match &mut self.form {
            Form::Integers(numbers) if integer(member).is_some() => {
                if numbers.len() >= INTEGERS_MAX {
                    self.form = Form::Large(numbers.iter().copied().map(text).collect());
                }
            }
            Form::Integers(numbers) if fits(numbers.len()) => {
                self.form = Form::Small(numbers.iter().copied().map(text).collect());
            }
            Form::Integers(numbers) => {
                self.form = Form::Large(numbers.iter().copied().map(text).collect());
            }
            Form::Small(members) if !fits(members.len()) => {
                self.form = Form::Large(std::mem::take(members).into_iter().collect());
            }
            Form::Small(_) | Form::Large(_) => {}
        }
    }
}
