//! A hash: fields with values, some of which may have a deadline.
//!
//! Deadlines stand beside the fields, in a form of their own that a hash has as long as one of its fields has a
//! deadline: a hash without any takes not a byte more.
//!
//! A field whose deadline has passed stays until an effect removes it. Readers look at a hash through [`LiveHash`], which
//! knows the time and hides it.

mod deadlines;
mod fields;
mod live;

use std::num::NonZeroU64;

use self::{deadlines::FieldDeadlines, fields::Fields};
pub use self::{
    fields::{Iter, Pair},
    live::LiveHash,
};
use super::Blob;

/// Fields with values.
#[derive(Clone, Debug)]
pub struct Hash {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// No field has a deadline.
    Plain(Fields),
    /// One has, at least.
    Mortal(Box<Mortal>),
}

#[derive(Clone, Debug, Default)]
struct Mortal {
    fields: Fields,
    deadlines: FieldDeadlines,
}

/// What a field was before a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Former {
    /// Its value.
    pub value: Blob,
    /// Its deadline, Unix milliseconds.
    pub expires_at: Option<NonZeroU64>,
}

impl Default for Hash {
    fn default() -> Self {
        Self { form: Form::Plain(Fields::default()) }
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        let is_same_deadline = |(field, _)| self.deadline(field) == other.deadline(field);
        self.fields() == other.fields() && self.iter().all(is_same_deadline)
    }
}

impl Hash {
    const fn fields(&self) -> &Fields {
        match &self.form {
            Form::Plain(fields) => fields,
            Form::Mortal(mortal) => &mortal.fields,
        }
    }

    const fn deadlines(&self) -> Option<&FieldDeadlines> {
        match &self.form {
            Form::Plain(_) => None,
            Form::Mortal(mortal) => Some(&mortal.deadlines),
        }
    }

    /// How many fields, those whose deadlines have passed included.
    pub fn len(&self) -> usize {
        self.fields().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is in the form that Redis calls `listpack`.
    pub const fn is_small(&self) -> bool {
        self.fields().is_small()
    }

    /// Whether a field has a deadline.
    pub const fn has_deadlines(&self) -> bool {
        matches!(self.form, Form::Mortal(_))
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        self.fields().get(field)
    }

    /// The deadline of a field, Unix milliseconds.
    pub fn deadline(&self, field: &[u8]) -> Option<u64> {
        self.deadlines()?.get(field)
    }

    /// The soonest deadline of all fields.
    pub fn soonest(&self) -> Option<u64> {
        self.deadlines()?.soonest()
    }

    /// The fields that are gone at `now_ms`, soonest first: their deadlines are over, as those of keys are
    /// ([`super::Object::is_expired`]).
    pub fn due(&self, now_ms: u64) -> impl Iterator<Item = &[u8]> {
        self.deadlines().into_iter().flat_map(move |deadlines| deadlines.due(now_ms))
    }

    /// Sets a field, which has no deadline then. Returns what it was before.
    pub fn put(&mut self, field: &[u8], value: &[u8]) -> Option<Former> {
        match &mut self.form {
            Form::Plain(fields) => fields.put(field, value).map(|value| Former { value, expires_at: None }),
            Form::Mortal(mortal) => {
                let expires_at = mortal.deadlines.set(field, None);
                let before = mortal.fields.put(field, value).map(|value| Former { value, expires_at });
                self.forget_no_deadlines();
                before
            }
        }
    }

    /// Takes a field away. Returns what it was.
    pub fn remove(&mut self, field: &[u8]) -> Option<Former> {
        match &mut self.form {
            Form::Plain(fields) => fields.remove(field).map(|value| Former { value, expires_at: None }),
            Form::Mortal(mortal) => {
                let expires_at = mortal.deadlines.set(field, None);
                let before = mortal.fields.remove(field).map(|value| Former { value, expires_at });
                self.forget_no_deadlines();
                before
            }
        }
    }

    /// Makes a field what it was, or was not.
    pub fn restore(&mut self, field: &[u8], before: Option<Former>) {
        let Some(Former { value, expires_at }) = before else { return drop(self.remove(field)) };
        self.put(field, &value);
        self.set_deadline(field, expires_at);
    }

    /// Sets the deadline of a field that is there. Returns the one before.
    pub fn set_deadline(&mut self, field: &[u8], at: Option<NonZeroU64>) -> Option<NonZeroU64> {
        match &mut self.form {
            Form::Plain(_) if at.is_none() => None,
            Form::Plain(fields) => {
                let mut mortal = Mortal { fields: std::mem::take(fields), ..Mortal::default() };
                mortal.deadlines.set(field, at);
                self.form = Form::Mortal(Box::new(mortal));
                None
            }
            Form::Mortal(mortal) => {
                let before = mortal.deadlines.set(field, at);
                self.forget_no_deadlines();
                before
            }
        }
    }

    /// A hash whose last deadline has gone is as one that never had any.
    fn forget_no_deadlines(&mut self) {
        if let Form::Mortal(mortal) = &mut self.form
            && mortal.deadlines.is_empty()
        {
            self.form = Form::Plain(std::mem::take(&mut mortal.fields));
        }
    }

    /// All fields with their values: as inserted if small, else in no order.
    pub fn iter(&self) -> Iter<'_> {
        self.fields().iter()
    }

    /// The fields in the places from `place` on, each with the place after it. Places are good until the
    /// hash changes.
    pub fn iter_from(&self, place: usize) -> impl Iterator<Item = (usize, Pair<'_>)> {
        self.fields().iter_from(place)
    }

    /// Bytes outside of this value; of a large one, the fields are as long as the first `samples` of them.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        match &self.form {
            Form::Plain(fields) => fields.heap_bytes(samples),
            Form::Mortal(mortal) => {
                size_of_val(&**mortal)
                    + mortal.fields.heap_bytes(samples)
                    + mortal.deadlines.heap_bytes(samples)
            }
        }
    }
}

#[cfg(test)]
mod tests;
