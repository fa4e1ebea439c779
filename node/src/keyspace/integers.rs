//! Integers in ascending order, each in as many bytes as the widest of them needs: 2, 4 or 8. The idea is that of
//! Redis's intset.

/// Integers, each once, ascending.
#[derive(Clone, Debug)]
pub enum Integers {
    /// All fit 16 bits.
    Narrow(Vec<i16>),
    /// All fit 32 bits.
    Middle(Vec<i32>),
    /// Any. Never turns back into a narrower one, as in Redis.
    Wide(Vec<i64>),
}

impl Default for Integers {
    fn default() -> Self {
        Self::Narrow(Vec::new())
    }
}

/// Integers, ascending.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    numbers: &'a Integers,
    next: usize,
}

impl Iterator for Iter<'_> {
    type Item = i64;

    fn next(&mut self) -> Option<i64> {
        let number = self.numbers.get(self.next)?;
        self.next += 1;
        Some(number)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.numbers.len() - self.next;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

/// Puts a number in, with little room for more.
fn insert<T>(numbers: &mut Vec<T>, at: usize, number: T) {
    if numbers.len() == numbers.capacity() {
        numbers.reserve_exact(numbers.len() / 8 + 4);
    }
    numbers.insert(at, number);
}

impl Integers {
    /// How many.
    pub const fn len(&self) -> usize {
        match self {
            Self::Narrow(numbers) => numbers.len(),
            Self::Middle(numbers) => numbers.len(),
            Self::Wide(numbers) => numbers.len(),
        }
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that each takes.
    pub const fn width(&self) -> usize {
        match self {
            Self::Narrow(_) => size_of::<i16>(),
            Self::Middle(_) => size_of::<i32>(),
            Self::Wide(_) => size_of::<i64>(),
        }
    }

    /// Bytes outside of this value.
    pub const fn heap_bytes(&self) -> usize {
        let room = match self {
            Self::Narrow(numbers) => numbers.capacity(),
            Self::Middle(numbers) => numbers.capacity(),
            Self::Wide(numbers) => numbers.capacity(),
        };
        room * self.width()
    }

    /// The one at `index`.
    pub fn get(&self, index: usize) -> Option<i64> {
        match self {
            Self::Narrow(numbers) => numbers.get(index).map(|&number| number.into()),
            Self::Middle(numbers) => numbers.get(index).map(|&number| number.into()),
            Self::Wide(numbers) => numbers.get(index).copied(),
        }
    }

    /// All of them.
    pub const fn iter(&self) -> Iter<'_> {
        Iter { numbers: self, next: 0 }
    }

    /// Where a number is.
    ///
    /// # Errors
    /// It is not there: where it would be.
    pub fn find(&self, number: i64) -> Result<usize, usize> {
        match self {
            Self::Narrow(numbers) => numbers.binary_search_by(|&other| i64::from(other).cmp(&number)),
            Self::Middle(numbers) => numbers.binary_search_by(|&other| i64::from(other).cmp(&number)),
            Self::Wide(numbers) => numbers.binary_search(&number),
        }
    }

    /// Adds a number. Returns whether it is new.
    pub fn add(&mut self, number: i64) -> bool {
        let Err(at) = self.find(number) else { return false };
        self.widen_for(number);
        match self {
            Self::Narrow(numbers) => insert(numbers, at, number as i16),
            Self::Middle(numbers) => insert(numbers, at, number as i32),
            Self::Wide(numbers) => insert(numbers, at, number),
        }
        true
    }

    /// Takes a number away. Returns whether it was there.
    pub fn remove(&mut self, number: i64) -> bool {
        let Ok(at) = self.find(number) else { return false };
        match self {
            Self::Narrow(numbers) => drop(numbers.remove(at)),
            Self::Middle(numbers) => drop(numbers.remove(at)),
            Self::Wide(numbers) => drop(numbers.remove(at)),
        }
        true
    }

    /// Takes a form in which `number` fits.
    fn widen_for(&mut self, number: i64) {
        let fits = match self {
            Self::Narrow(_) => i16::try_from(number).is_ok(),
            Self::Middle(_) => i32::try_from(number).is_ok(),
            Self::Wide(_) => true,
        };
        if fits {
            return;
        }
        *self = match i32::try_from(number) {
            Ok(_) => Self::Middle(self.iter().map(|number| number as i32).collect()),
            Err(_) => Self::Wide(self.iter().collect()),
        };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = i64> {
        let edge = |at: i64| (-2..3_i64).prop_map(move |off| at.saturating_add(off));
        prop_oneof![
            -20..20_i64,
            edge(i16::MIN.into()),
            edge(i16::MAX.into()),
            edge(i32::MIN.into()),
            edge(i32::MAX.into()),
            edge(i64::MIN),
            edge(i64::MAX),
        ]
    }

    proptest! {
        #[test]
        fn they_are_what_a_sorted_set_of_numbers_is(
            changes in prop::collection::vec((prop::bool::weighted(0.7), number()), 0..60),
        ) {
            let (mut numbers, mut model) = (Integers::default(), BTreeSet::new());
            for (add, number) in changes {
                if add {
                    prop_assert_eq!(numbers.add(number), model.insert(number));
                } else {
                    prop_assert_eq!(numbers.remove(number), model.remove(&number));
                }
                prop_assert!(numbers.iter().eq(model.iter().copied()));
                prop_assert_eq!(numbers.len(), model.len());
            }
            prop_assert!(model.iter().all(|&number| numbers.find(number).is_ok()));
        }
    }

    #[test]
    fn they_take_as_many_bytes_as_the_widest_needs() {
        let mut numbers = Integers::default();
        let mut widths = Vec::new();
        for number in [1, i64::from(i16::MIN), 40_000, i64::from(i32::MIN), i64::from(i32::MAX) + 1, 2] {
            numbers.add(number);
            widths.push(numbers.width());
        }
        assert_eq!(widths, [2, 2, 4, 4, 8, 8]);
    }
}
