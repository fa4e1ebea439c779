//! A hash: fields with values. A small one is a vector in insertion order, as
//! Redis's listpack is; a larger one a hash table.

use hashbrown::HashMap;

use super::{Blob, Seed, small};

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
    Large(HashMap<Blob, Blob, Seed>),
}

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
            Form::Large(map) => map.len(),
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
            Form::Large(map) => map.get(field),
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
                let many = pairs.len() > small::COUNT_MAX;
                self.grow_if(long || many);
                None
            }
            Form::Large(map) => match map.get_mut(field) {
                Some(old) => Some(std::mem::replace(old, Blob::new(value))),
                None => {
                    map.insert(Blob::new(field), Blob::new(value));
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
            Form::Large(map) => map.remove(field),
        }
    }

    /// All fields with their values: as inserted if small, else in no order.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (&Blob, &Blob)> + '_> {
        match &self.form {
            Form::Small(pairs) => Box::new(pairs.iter().map(|(field, value)| (field, value))),
            Form::Large(map) => Box::new(map.iter()),
        }
    }

    fn grow_if(&mut self, grow: bool) {
        if let (true, Form::Small(pairs)) = (grow, &mut self.form) {
            self.form = Form::Large(std::mem::take(pairs).into_iter().collect());
        }
    }
}
