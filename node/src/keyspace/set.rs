//! A set. A small one is one block: sorted numbers while all members are integers,
//! as Redis's intset is, else texts in insertion order; a larger one a hash table.

use std::{
    borrow::Cow,
    hash::{Hash, Hasher},
    ops::Deref,
};

use super::{
    Blob,
    integer::parse_integer,
    integers::{self, Integers},
    linear,
    packed::{Items, Packed},
    small,
    table::{Table, shuffle_first},
    weight::sampled,
};

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
    Integers(Integers),
    /// Few and short.
    Small(Packed),
    /// Many or long. Never turns back into another form, as in Redis.
    Large(Box<Table<Blob>>),
}

impl Default for Set {
    fn default() -> Self {
        Self { form: Form::Integers(Integers::default()) }
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|member| other.contains(&member))
    }
}

/// Bytes of the longest text of an integer: `-9223372036854775808`.
const TEXT_MAX: usize = 20;

/// A member as it is read: bytes of the set, or the text of an integer.
#[derive(Clone, Copy, Debug)]
pub enum Member<'a> {
    /// Bytes of the set.
    Bytes(&'a [u8]),
    /// The first `length` bytes of `text`.
    Integer {
        /// Decimal digits, perhaps after a sign.
        text: [u8; TEXT_MAX],
        /// How many.
        length: u8,
    },
}

impl Member<'_> {
    fn integer(number: i64) -> Self {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(number).as_bytes();
        let mut text = [0; TEXT_MAX];
        text[..digits.len()].copy_from_slice(digits);
        Member::Integer { text, length: digits.len() as u8 }
    }
}

impl Deref for Member<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Member::Bytes(bytes) => bytes,
            Member::Integer { text, length } => &text[..usize::from(*length)],
        }
    }
}

impl<'a> From<Member<'a>> for Cow<'a, [u8]> {
    fn from(member: Member<'a>) -> Self {
        match member {
            Member::Bytes(bytes) => Cow::Borrowed(bytes),
            Member::Integer { .. } => Cow::Owned(member.to_vec()),
        }
    }
}

impl PartialEq for Member<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Member<'_> {}

impl Hash for Member<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

/// The members of a set.
#[derive(Clone, Debug)]
pub struct Iter<'a>(Members<'a>);

#[derive(Clone, Debug)]
enum Members<'a> {
    Integers(integers::Iter<'a>),
    Small(Items<'a>),
    Large(linear::Iter<'a, Blob>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Member<'a>;

    fn next(&mut self) -> Option<Member<'a>> {
        match &mut self.0 {
            Members::Integers(numbers) => numbers.next().map(Member::integer),
            Members::Small(members) => members.next().map(Member::Bytes),
            Members::Large(members) => members.next().map(|member| Member::Bytes(member)),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Members::Integers(numbers) => numbers.size_hint(),
            Members::Small(members) => members.size_hint(),
            Members::Large(members) => members.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

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

    /// The integers, ascending, if that is how it is kept.
    pub const fn integers(&self) -> Option<&Integers> {
        match &self.form {
            Form::Integers(numbers) => Some(numbers),
            Form::Small(_) | Form::Large(_) => None,
        }
    }

    /// Bytes outside of this value; of a large one, the members are as long as the first `samples` of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.form {
            Form::Integers(numbers) => numbers.heap_bytes(),
            Form::Small(members) => members.heap_bytes(),
            Form::Large(members) => {
                let sizes = members.iter().map(Blob::heap_bytes);
                size_of_val(&**members) + members.heap_bytes() + sampled(sizes, members.len(), samples)
            }
        }
    }

    /// Whether it has this member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.form {
            Form::Integers(numbers) => {
                parse_integer(member).is_some_and(|number| numbers.find(number).is_ok())
            }
            Form::Small(members) => members.iter().any(|other| other == member),
            Form::Large(members) => members.get(member).is_some(),
        }
    }

    /// Adds a member. Returns whether it is new.
    pub fn add(&mut self, member: &[u8]) -> bool {
        self.make_room(member);
        match &mut self.form {
            Form::Integers(numbers) => {
                let number = parse_integer(member).expect("room was made for a member that is no integer");
                numbers.add(number)
            }
            Form::Small(members) => {
                let new = !members.iter().any(|other| other == member);
                if new {
                    members.push(member);
                }
                new
            }
            Form::Large(members) => members.add(member, || Blob::new(member)),
        }
    }

    /// Takes a member away. Returns whether it was there.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.form {
            Form::Integers(numbers) => parse_integer(member).is_some_and(|number| numbers.remove(number)),
            Form::Small(members) => {
                let found = members.iter().position(|other| other == member);
                found.map(|at| members.remove(at, 1)).is_some()
            }
            Form::Large(members) => members.remove(member).is_some(),
        }
    }

    /// All members: ascending if integers, as inserted if small, else in no order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.form {
            Form::Integers(numbers) => Members::Integers(numbers.iter()),
            Form::Small(members) => Members::Small(members.iter()),
            Form::Large(members) => Members::Large(members.iter()),
        })
    }

    /// The members in the places from `place` on, each with the place after it. Places are good until the
    /// set changes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, Member<'_>)> {
        let (few, table) = match &self.form {
            Form::Large(table) => (None, Some(table)),
            Form::Integers(_) | Form::Small(_) => (Some(self.iter()), None),
        };
        let few = few.into_iter().flat_map(move |members| (1..).zip(members).skip(place));
        let many = table.into_iter().flat_map(move |table| table.iter_from(place));
        few.chain(many.map(|(next, member)| (next, Member::Bytes(member))))
    }

    /// A member drawn at random, each as likely, in constant time if large; `below`
    /// draws a number below its argument. `None` if there is no member.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> Option<Member<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.form {
            Form::Integers(numbers) => numbers.get(below(numbers.len())).map(Member::integer),
            Form::Small(members) => members.get(below(members.len())).map(Member::Bytes),
            Form::Large(members) => members.draw(below).map(|member| Member::Bytes(member)),
        }
    }

    /// As many members drawn at random, some perhaps more than once. None if there is none.
    pub fn draw_repeated(&self, count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<Member<'_>> {
        match &self.form {
            _ if self.is_empty() => Vec::new(),
            Form::Integers(_) | Form::Small(_) => {
                let members: Vec<_> = self.iter().collect();
                (0..count).map(|_| members[below(members.len())]).collect()
            }
            Form::Large(members) => {
                let drawn = (0..count).filter_map(|_| members.draw(&mut below));
                drawn.map(|member| Member::Bytes(member)).collect()
            }
        }
    }

    /// As many different members drawn at random, or all if there are fewer, in no
    /// order; takes time for as many.
    pub fn draw_distinct(&self, count: usize, below: impl FnMut(usize) -> usize) -> Vec<Member<'_>> {
        if let Form::Large(members) = &self.form {
            let drawn = members.draw_distinct(count, below);
            return drawn.into_iter().map(|member| Member::Bytes(member)).collect();
        }
        let mut members: Vec<Member<'_>> = self.iter().collect();
        if count < members.len() {
            shuffle_first(&mut members, count, below);
        }
        members
    }

    /// About `count` members from `cursor` on, and the cursor to go on with; 0
    /// begins and ends. A set that is no hash table is returned whole.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<Member<'_>>, u64) {
        let Form::Large(members) = &self.form else { return (self.iter().collect(), 0) };
        let (piece, next) = members.scan(cursor, count);
        (piece.into_iter().map(|member| Member::Bytes(member)).collect(), next)
    }

    /// Changes the form if `member` is new and does not fit the present one.
    fn make_room(&mut self, member: &[u8]) {
        let fits = |count: usize| count < small::COUNT_MAX && member.len() <= small::BYTES_MAX;
        match &mut self.form {
            Form::Integers(numbers) if parse_integer(member).is_some() => {
                if numbers.len() >= INTEGERS_MAX && !self.contains(member) {
                    self.grow();
                }
            }
            Form::Integers(numbers) if fits(numbers.len()) => {
                let mut members = Packed::default();
                numbers.iter().for_each(|number| members.push(itoa::Buffer::new().format(number).as_bytes()));
                self.form = Form::Small(members);
            }
            Form::Integers(_) => self.grow(),
            Form::Small(members) if !fits(members.len()) => {
                if !self.contains(member) {
                    self.grow();
                }
            }
            Form::Small(_) | Form::Large(_) => {}
        }
    }

    /// Takes the form of a hash table.
    fn grow(&mut self) {
        self.form = Form::Large(match std::mem::take(self).form {
            Form::Integers(numbers) => Box::new(numbers.iter().map(text).collect()),
            Form::Small(members) => Box::new(members.iter().map(Blob::new).collect()),
            Form::Large(members) => members,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn any_member() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            (0_i64..700).prop_map(|number| number.to_string().into_bytes()),
            prop::collection::vec(b'a'..b'd', 0..4),
            prop::collection::vec(any::<u8>(), 60..70),
        ]
    }

    #[test]
    fn the_forms_change_where_those_of_redis_do() {
        let mut set = Set::default();
        assert!((0..512).all(|number: i64| set.add(number.to_string().as_bytes())));
        set.add(b"511");
        assert_eq!(set.encoding(), "intset");
        set.add(b"512");
        assert_eq!(set.encoding(), "hashtable");
        let mut set = Set::default();
        assert!((0..127).all(|number: i64| set.add(number.to_string().as_bytes())));
        set.add(b"a");
        assert_eq!((set.encoding(), set.len()), ("listpack", 128));
        set.add(b"a");
        assert_eq!(set.encoding(), "listpack");
        set.add(b"b");
        assert_eq!(set.encoding(), "hashtable");
        let mut set = Set::default();
        set.add(&[b'x'; 65]);
        assert_eq!(set.encoding(), "hashtable");
    }

    proptest! {
        #[test]
        fn it_holds_what_a_model_holds(
            changes in prop::collection::vec((prop::bool::weighted(0.7), any_member()), 0..400),
            cursor_count in 1_usize..20,
        ) {
            let (mut set, mut model) = (Set::default(), BTreeSet::new());
            for (add, member) in changes {
                if add {
                    prop_assert_eq!(set.add(&member), model.insert(member));
                } else {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                }
            }
            let listed: BTreeSet<Vec<u8>> = set.iter().map(|member| member.to_vec()).collect();
            prop_assert_eq!(&listed, &model);
            prop_assert_eq!(set.len(), model.len());
            prop_assert!(model.iter().all(|member| set.contains(member)));
            let mut scanned = BTreeSet::new();
            let mut cursor = 0;
            loop {
                let (members, next) = set.scan(cursor, cursor_count);
                scanned.extend(members.iter().map(|member| member.to_vec()));
                cursor = next;
                if cursor == 0 {
                    break;
                }
            }
            prop_assert_eq!(scanned, model);
        }
    }
}
