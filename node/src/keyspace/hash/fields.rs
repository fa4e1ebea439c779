//! Fields with values, whatever their deadlines. A few are one block in insertion order, as
//! Redis's listpack is; more are a hash table.

use super::super::{
    Blob, linear,
    packed::{Items, Packed},
    small,
    table::{Named, Table, shuffle_first},
    weight::sampled,
};

/// Fields with values.
#[derive(Clone, Debug)]
pub struct Fields {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Few and short, each field before its value: searched from the start.
    Small(Packed),
    /// Many or long. Never turns back into a small one, as in Redis.
    Large(Box<Table<Field>>),
}

/// A field and its value.
pub type Pair<'a> = (&'a [u8], &'a [u8]);

/// A field with its value, in one allocation: the field's length in four bytes, the field, the value.
#[derive(Clone, Debug)]
struct Field(Box<[u8]>);

/// Bytes of a field's length.
const LENGTH_BYTES: usize = size_of::<u32>();

impl Field {
    fn new(field: &[u8], value: &[u8]) -> Self {
        let length = u32::try_from(field.len()).expect("a field is shorter than 4 GiB");
        Self([&length.to_le_bytes()[..], field, value].concat().into())
    }

    fn pair(&self) -> Pair<'_> {
        let (length, texts) = self.0.split_at(LENGTH_BYTES);
        let length = u32::from_le_bytes(length.try_into().expect("as many bytes"));
        texts.split_at(length as usize)
    }
}

impl Named for Field {
    fn name(&self) -> &[u8] {
        self.pair().0
    }
}

/// The fields of a hash with their values.
#[derive(Clone, Debug)]
pub struct Iter<'a>(Pairs<'a>);

#[derive(Clone, Debug)]
enum Pairs<'a> {
    Small(Items<'a>),
    Large(linear::Iter<'a, Field>),
}

impl<'a> Iterator for Iter<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            Pairs::Small(items) => Some((items.next()?, items.next()?)),
            Pairs::Large(fields) => fields.next().map(Field::pair),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let count = match &self.0 {
            Pairs::Small(items) => items.len() / 2,
            Pairs::Large(fields) => fields.len(),
        };
        (count, Some(count))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl Default for Fields {
    fn default() -> Self {
        Self { form: Form::Small(Packed::default()) }
    }
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(field, value)| other.get(field) == Some(value))
    }
}

/// The number of a field's item, and its value.
fn find<'a>(items: &'a Packed, field: &[u8]) -> Option<(usize, &'a [u8])> {
    let mut items = items.iter();
    let mut at = 0;
    while let (Some(name), Some(value)) = (items.next(), items.next()) {
        if name == field {
            return Some((at, value));
        }
        at += 2;
    }
    None
}

impl Fields {
    /// How many fields.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(items) => items.len() / 2,
            Form::Large(table) => table.len(),
        }
    }

    /// Whether it is in the form that Redis calls `listpack`.
    pub const fn is_small(&self) -> bool {
        matches!(self.form, Form::Small(_))
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match &self.form {
            Form::Small(items) => find(items, field).map(|(_, value)| value),
            Form::Large(table) => table.get(field).map(|field| field.pair().1),
        }
    }

    /// Sets a field. Returns its value before.
    pub fn put(&mut self, field: &[u8], value: &[u8]) -> Option<Blob> {
        self.make_room(field, value);
        match &mut self.form {
            Form::Small(items) => match find(items, field) {
                Some((at, old)) => {
                    let before = Blob::new(old);
                    items.set(at + 1, value);
                    Some(before)
                }
                None => {
                    items.push(field);
                    items.push(value);
                    None
                }
            },
            Form::Large(table) => table.put(Field::new(field, value)).map(|old| Blob::new(old.pair().1)),
        }
    }

    /// Takes a field away. Returns its value.
    pub fn remove(&mut self, field: &[u8]) -> Option<Blob> {
        match &mut self.form {
            Form::Small(items) => {
                let (at, value) = find(items, field)?;
                let before = Blob::new(value);
                items.remove(at, 2);
                Some(before)
            }
            Form::Large(table) => table.remove(field).map(|old| Blob::new(old.pair().1)),
        }
    }

    /// All fields with their values: as inserted if small, else in no order.
    pub fn iter(&self) -> Iter<'_> {
        Iter(match &self.form {
            Form::Small(items) => Pairs::Small(items.iter()),
            Form::Large(table) => Pairs::Large(table.iter()),
        })
    }

    /// The fields in the places from `place` on, each with the place after it. Places are good until the
    /// hash changes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, Pair<'_>)> {
        let (few, table) = match &self.form {
            Form::Small(_) => (Some(self.iter()), None),
            Form::Large(table) => (None, Some(table)),
        };
        let few = few.into_iter().flat_map(move |pairs| (1..).zip(pairs).skip(place));
        let many = table.into_iter().flat_map(move |table| table.iter_from(place));
        few.chain(many.map(|(next, field)| (next, field.pair())))
    }

    /// A field drawn at random, with its value; `below` draws a number below its
    /// argument. Constant time if large.
    pub fn draw(&self, mut below: impl FnMut(usize) -> usize) -> Option<Pair<'_>> {
        match &self.form {
            Form::Small(_) if self.len() == 0 => None,
            Form::Small(_) => self.iter().nth(below(self.len())),
            Form::Large(table) => table.draw(below).map(Field::pair),
        }
    }

    /// As many fields drawn at random, some perhaps more than once. None if there is none.
    pub fn draw_repeated(&self, count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<Pair<'_>> {
        match &self.form {
            Form::Small(_) if self.len() == 0 => Vec::new(),
            Form::Small(_) => {
                let pairs: Vec<_> = self.iter().collect();
                (0..count).map(|_| pairs[below(pairs.len())]).collect()
            }
            Form::Large(table) => {
                (0..count).filter_map(|_| table.draw(&mut below)).map(Field::pair).collect()
            }
        }
    }

    /// As many different fields drawn at random, or all if there are fewer.
    pub fn draw_distinct(&self, count: usize, below: impl FnMut(usize) -> usize) -> Vec<Pair<'_>> {
        match &self.form {
            Form::Small(_) => {
                let mut drawn: Vec<_> = self.iter().collect();
                if count < drawn.len() {
                    shuffle_first(&mut drawn, count, below);
                }
                drawn
            }
            Form::Large(table) => table.draw_distinct(count, below).into_iter().map(Field::pair).collect(),
        }
    }

    /// About `count` fields from `cursor` on, with their values, and the cursor to
    /// go on with; a small hash all at once.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<Pair<'_>>, u64) {
        let Form::Large(table) = &self.form else { return (self.iter().collect(), 0) };
        let (fields, next) = table.scan(cursor, count);
        (fields.into_iter().map(Field::pair).collect(), next)
    }

    /// Bytes outside of this value; of a large one, the fields are as long as the first `samples` of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.form {
            Form::Small(items) => items.heap_bytes(),
            Form::Large(table) => {
                let sizes = table.iter().map(|field| field.0.len());
                size_of_val(&**table) + table.heap_bytes() + sampled(sizes, table.len(), samples)
            }
        }
    }

    /// Changes the form if this field or value does not fit the present one.
    fn make_room(&mut self, field: &[u8], value: &[u8]) {
        let Form::Small(items) = &self.form else { return };
        let long = field.len().max(value.len()) > small::BYTES_MAX;
        let full = items.len() / 2 >= small::FIELDS_MAX;
        if long || full && find(items, field).is_none() {
            let fields = self.iter().map(|(field, value)| Field::new(field, value));
            self.form = Form::Large(Box::new(fields.collect()));
        }
    }
}
