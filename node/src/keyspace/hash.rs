//! A hash: fields with values. A small one is a vector in insertion order, as
//! Redis's listpack is; a larger one a hash table.

use super::{
    Blob, linear, small,
    table::{Table, shuffle_first},
};

/// Fields with values.
#[derive(Clone, Debug)]
pub struct Hash {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Few and short: searched from the start.
    Small(Vec<(Blob, Blob)>),
    /// Many or long. Never turns back into a small one, as in Redis.
    Large(Box<Table<(Blob, Blob)>>),
}

/// The fields of a hash with their values.
#[derive(Clone, Debug)]
pub struct Iter<'a>(Pairs<'a>);

#[derive(Clone, Debug)]
enum Pairs<'a> {
    Small(std::slice::Iter<'a, (Blob, Blob)>),
    Large(linear::Iter<'a, (Blob, Blob)>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a Blob, &'a Blob);

    fn next(&mut self) -> Option<Self::Item> {
        let pair = match &mut self.0 {
            Pairs::Small(pairs) => pairs.next(),
            Pairs::Large(pairs) => pairs.next(),
        };
        pair.map(|(field, value)| (field, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.0 {
            Pairs::Small(pairs) => pairs.size_hint(),
            Pairs::Large(pairs) => pairs.size_hint(),
        }
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl Default for Hash {
    fn default() -> Self {
        Self { form: Form::Small(Vec::new()) }
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(field, value)| other.get(field) == Some(value))
    }
}

impl Hash {
    /// How many fields.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(pairs) => pairs.len(),
            Form::Large(table) => table.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is in the form that Redis calls `listpack`.
    pub const fn is_small(&self) -> bool {
        matches!(self.form, Form::Small(_))
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&Blob> {
        match &self.form {
            Form::Small(pairs) => pairs.iter().find(|(name, _)| **name == *field).map(|(_, value)| value),
            Form::Large(table) => table.get(field).map(|(_, value)| value),
        }
    }

    /// Sets a field. Returns its value before.
    pub fn put(&mut self, field: &[u8], value: &[u8]) -> Option<Blob> {
        match &mut self.form {
            Form::Small(pairs) => {
                if let Some((_, old)) = pairs.iter_mut().find(|(name, _)| **name == *field) {
                    let before = std::mem::replace(old, Blob::new(value));
                    self.grow_if(value.len() > small::BYTES_MAX);
                    return Some(before);
                }
                pairs.push((Blob::new(field), Blob::new(value)));
                let long = field.len().max(value.len()) > small::BYTES_MAX;
                let many = pairs.len() > small::FIELDS_MAX;
                self.grow_if(long || many);
                None
            }
            Form::Large(table) => match table.get_mut(field) {
                Some((_, old)) => Some(std::mem::replace(old, Blob::new(value))),
                None => {
                    table.put((Blob::new(field), Blob::new(value)));
                    None
                }
            },
        }
    }

    /// Takes a field away. Returns its value.
    pub fn remove(&mut self, field: &[u8]) -> Option<Blob> {
        match &mut self.form {
            Form::Small(pairs) => {
                let at = pairs.iter().position(|(name, _)| **name == *field)?;
                Some(pairs.remove(at).1)
            }
            Form::Large(table) => table.remove(field).map(|(_, value)| value),
        }
    }

    /// All fields with their values: as inserted if small, else in no order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.form {
            Form::Small(pairs) => Pairs::Small(pairs.iter()),
            Form::Large(table) => Pairs::Large(table.iter()),
        })
    }

    /// The fields in the places from `place` on, each with the place after it. Places are good until the
    /// hash changes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, (&Blob, &Blob))> {
        let (pairs, table) = match &self.form {
            Form::Small(pairs) => (&pairs[place..], None),
            Form::Large(table) => (&[][..], Some(table)),
        };
        let large = table.into_iter().flat_map(move |table| table.iter_from(place));
        let all = (place + 1..).zip(pairs).chain(large);
        all.map(|(next, (field, value))| (next, (field, value)))
    }

    /// A field drawn at random, with its value; `below` draws a number below its
    /// argument. Constant time.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> Option<(&Blob, &Blob)> {
        let pair = match &self.form {
            Form::Small(pairs) if pairs.is_empty() => None,
            Form::Small(pairs) => pairs.get(below(pairs.len())),
            Form::Large(table) => table.draw(below),
        };
        pair.map(|(field, value)| (field, value))
    }

    /// As many different fields drawn at random, or all if there are fewer.
    pub fn draw_distinct(&self, count: usize, below: impl FnMut(usize) -> usize) -> Vec<(&Blob, &Blob)> {
        let drawn = match &self.form {
            Form::Small(pairs) => {
                let mut drawn: Vec<_> = pairs.iter().collect();
                if count < drawn.len() {
                    shuffle_first(&mut drawn, count, below);
                }
                drawn
            }
            Form::Large(table) => table.draw_distinct(count, below),
        };
        drawn.into_iter().map(|(field, value)| (field, value)).collect()
    }

    /// About `count` fields from `cursor` on, with their values, and the cursor to
    /// go on with; a small hash all at once.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<(&Blob, &Blob)>, u64) {
        let Form::Large(table) = &self.form else { return (self.iter().collect(), 0) };
        let (pairs, next) = table.scan(cursor, count);
        (pairs.into_iter().map(|(field, value)| (field, value)).collect(), next)
    }

    /// Bytes outside of this value, but for those that fields and values hold.
    pub fn heap_bytes(&self) -> usize {
        match &self.form {
            Form::Small(pairs) => pairs.capacity() * size_of::<(Blob, Blob)>(),
            Form::Large(table) => size_of_val(&**table) + table.heap_bytes(),
        }
    }

    fn grow_if(&mut self, grow: bool) {
        if let (true, Form::Small(pairs)) = (grow, &mut self.form) {
            self.form = Form::Large(Box::new(std::mem::take(pairs).into_iter().collect()));
        }
    }
}
