//! What belongs to ids of a stream, in their order: what is pending.
//!
//! Ids come at the end, and go near the start, mostly. So they stand in sorted rows, full ones behind a growing
//! one, and the rows in a tree by their first ids: a place costs few bytes more than what is in it, where a tree of
//! single ids that is filled from one end costs twice that.
//!
//! INVARIANT: no row is empty; a row's key is not above its first id, and above the ids of the row before.

use std::{collections::BTreeMap, ops::Bound};

use moonraft_proto::StreamId;

/// Ids of a row: moving half of them is cheap.
const ROW_MAX: usize = 64;

/// A row grows by so many places.
const ROW_GROWTH: usize = 8;

type Row<V> = Vec<(StreamId, V)>;

/// See the module.
#[derive(Clone, Debug)]
pub struct IdMap<V> {
    rows: BTreeMap<StreamId, Row<V>>,
    count: usize,
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        Self { rows: BTreeMap::new(), count: 0 }
    }
}

fn find<V>(row: &Row<V>, id: StreamId) -> Result<usize, usize> {
    match row.last() {
        // Most come at the end.
        Some((last, _)) if *last < id => Err(row.len()),
        _ => row.binary_search_by_key(&id, |(id, _)| *id),
    }
}

impl<V: Copy> IdMap<V> {
    /// How many ids.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes outside of this value, about.
    pub fn heap_bytes(&self) -> usize {
        self.count * size_of::<(StreamId, V)>() + self.rows.len() * 2 * size_of::<(StreamId, Row<V>)>()
    }

    /// What belongs to an id.
    pub fn get(&self, id: StreamId) -> Option<V> {
        let (_, row) = self.rows.range(..=id).next_back()?;
        find(row, id).ok().map(|at| row[at].1)
    }

    /// Whether an id is there.
    pub fn contains(&self, id: StreamId) -> bool {
        self.get(id).is_some()
    }

    /// The ids from `id` on.
    pub fn iter_from(&self, id: StreamId) -> impl Iterator<Item = (StreamId, V)> {
        let first = self.rows.range(..=id).next_back();
        let start = first.map(|(_, row)| row.partition_point(|(own, _)| *own < id));
        let first = first.into_iter().flat_map(move |(_, row)| &row[start.unwrap_or(0)..]);
        let others = self.rows.range((Bound::Excluded(id), Bound::Unbounded));
        first.chain(others.flat_map(|(_, row)| row)).copied()
    }

    /// All ids.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, V)> {
        self.rows.values().flatten().copied()
    }

    /// The first id.
    pub fn first(&self) -> Option<StreamId> {
        self.rows.values().next()?.first().map(|(id, _)| *id)
    }

    /// The last id.
    pub fn last(&self) -> Option<StreamId> {
        self.rows.values().next_back()?.last().map(|(id, _)| *id)
    }

    /// Sets what belongs to an id. Returns what did.
    pub fn insert(&mut self, id: StreamId, value: V) -> Option<V> {
        let Some((_, row)) = self.rows.range_mut(..=id).next_back() else {
            return self.insert_first(id, value);
        };
        let at = match find(row, id) {
            Ok(at) => return Some(std::mem::replace(&mut row[at].1, value)),
            Err(at) => at,
        };
        self.count += 1;
        if row.len() < ROW_MAX {
            put(row, at, id, value);
        } else if at == row.len() {
            row.shrink_to_fit();
            self.rows.insert(id, vec![(id, value)]);
        } else {
            let mut behind = row.split_off(ROW_MAX / 2);
            let (row, at) = match at.checked_sub(ROW_MAX / 2) {
                Some(at) => (&mut behind, at),
                None => (row, at),
            };
            put(row, at, id, value);
            self.rows.insert(behind[0].0, behind);
        }
        None
    }

    /// Before all rows.
    fn insert_first(&mut self, id: StreamId, value: V) -> Option<V> {
        self.count += 1;
        match self.rows.first_entry() {
            Some(entry) if entry.get().len() < ROW_MAX => {
                let mut row = entry.remove();
                put(&mut row, 0, id, value);
                self.rows.insert(id, row);
            }
            _ => drop(self.rows.insert(id, vec![(id, value)])),
        }
        None
    }

    /// Takes an id out. Returns what belonged to it.
    pub fn remove(&mut self, id: StreamId) -> Option<V> {
        let (&key, row) = self.rows.range_mut(..=id).next_back()?;
        let at = find(row, id).ok()?;
        let (_, value) = row.remove(at);
        self.count -= 1;
        if row.is_empty() {
            self.rows.remove(&key);
        } else if row.len() <= ROW_MAX / 4 {
            self.join(key);
        }
        Some(value)
    }

    /// A row of few ids takes those of the next one, if that leaves room.
    fn join(&mut self, key: StreamId) {
        let next = self.rows.range((Bound::Excluded(key), Bound::Unbounded)).next();
        let Some((&next, behind)) = next else { return };
        if behind.len() > ROW_MAX / 2 {
            return;
        }
        let behind = self.rows.remove(&next).expect("it was found just now");
        let row = self.rows.get_mut(&key).expect("it is that of the id");
        row.reserve_exact(behind.len());
        row.extend(behind);
    }
}

fn put<V>(row: &mut Row<V>, at: usize, id: StreamId, value: V) {
    if row.len() == row.capacity() {
        row.reserve_exact((row.len() / 2).max(1).next_multiple_of(ROW_GROWTH));
    }
    row.insert(at, (id, value));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_holds_what_a_tree_holds(
            steps in prop::collection::vec((0_u64..400, any::<u8>(), 0_u8..5), 0..600), from in 0_u64..400,
        ) {
            let (mut map, mut model) = (IdMap::default(), BTreeMap::new());
            let mut next = 0;
            for (number, value, kind) in steps {
                let id = StreamId::new(number / 3, number);
                match kind {
                    0 => prop_assert_eq!(map.insert(id, value), model.insert(id, value)),
                    1 => prop_assert_eq!(map.remove(id), model.remove(&id)),
                    2 => {
                        let first = model.pop_first();
                        prop_assert_eq!(map.first(), first.map(|(id, _)| id));
                        if let Some((id, value)) = first {
                            prop_assert_eq!(map.remove(id), Some(value));
                        }
                    }
                    _ => {
                        next += 1;
                        let id = StreamId::new(1_000 + next, 0);
                        prop_assert_eq!(map.insert(id, value), model.insert(id, value));
                    }
                }
                prop_assert_eq!(map.get(id), model.get(&id).copied());
                prop_assert_eq!(map.len(), model.len());
            }
            let pairs: Vec<_> = model.iter().map(|(id, value)| (*id, *value)).collect();
            prop_assert!(map.iter().eq(pairs.iter().copied()));
            let from = StreamId::new(from / 3, from);
            prop_assert!(map.iter_from(from).eq(model.range(from..).map(|(id, value)| (*id, *value))));
            prop_assert_eq!(map.last(), model.last_key_value().map(|(id, _)| *id));
            prop_assert!(map.rows.iter().all(|(key, row)| *key <= row[0].0 && row.len() <= ROW_MAX + ROW_MAX / 2));
        }
    }
}
