//! What belongs to ids of a stream, in their order: what is pending.
//!
//! Ids come at the end, and go near the start, mostly. So they stand in sorted rows, full ones behind a growing
//! one, and the rows in a tree by their first ids: a place costs few bytes more than what is in it, where a tree of
//! single ids that is filled from one end costs twice that. The last row stands beside the tree: most maps have no
//! other, and the first node of a tree is larger than all that is in them.
//!
//! INVARIANT: no row is empty, but the last one if there are no ids; a row's key is not above its first id, and above the
//! ids of the row before; all ids of the last row are above those of the others.

use std::{collections::BTreeMap, ops::Bound};

use moonraft_proto::StreamId;

use super::put_exactly;

/// Ids of a row: moving half of them is cheap.
const ROW_MAX: usize = 64;

type Row<V> = Vec<(StreamId, V)>;

/// See the module.
#[derive(Clone, Debug)]
pub struct IdMap<V> {
    /// All rows but the last; `None` if there are none.
    #[allow(clippy::box_collection, reason = "most maps have none, and these are two words less")]
    rows: Option<Box<BTreeMap<StreamId, Row<V>>>>,
    last: Row<V>,
    count: usize,
}

impl<V> Default for IdMap<V> {
    fn default() -> Self {
        Self { rows: None, last: Row::new(), count: 0 }
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
        let tree = self.rows.as_ref().map_or(0, |rows| {
            size_of::<BTreeMap<StreamId, Row<V>>>() + rows.len() * 2 * size_of::<(StreamId, Row<V>)>()
        });
        self.count * size_of::<(StreamId, V)>() + tree
    }

    /// Whether an id belongs into the last row, if it is there or comes.
    fn is_of_last(&self, id: StreamId) -> bool {
        self.last.first().is_some_and(|(first, _)| *first <= id)
    }

    /// All rows but the last, in order.
    fn others(&self) -> impl DoubleEndedIterator<Item = &Row<V>> {
        self.rows.iter().flat_map(|rows| rows.values())
    }

    /// What belongs to an id.
    pub fn get(&self, id: StreamId) -> Option<V> {
        let row = match self.is_of_last(id) {
            true => &self.last,
            false => self.rows.as_ref()?.range(..=id).next_back()?.1,
        };
        find(row, id).ok().map(|at| row[at].1)
    }

    /// Whether an id is there.
    pub fn contains(&self, id: StreamId) -> bool {
        self.get(id).is_some()
    }

    /// The ids from `id` on.
    pub fn iter_from(&self, id: StreamId) -> impl Iterator<Item = (StreamId, V)> {
        let rows = self.rows.iter().filter(move |_| !self.is_of_last(id));
        let others = rows.flat_map(move |rows| {
            let first = rows.range(..=id).next_back().map(|(_, row)| row);
            first.into_iter().chain(rows.range((Bound::Excluded(id), Bound::Unbounded)).map(|(_, row)| row))
        });
        let from = move |row: &'_ Row<V>| row.partition_point(|(own, _)| *own < id);
        others.chain(std::iter::once(&self.last)).flat_map(move |row| &row[from(row)..]).copied()
    }

    /// All ids.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, V)> {
        self.others().chain(std::iter::once(&self.last)).flatten().copied()
    }

    /// The first id.
    pub fn first(&self) -> Option<StreamId> {
        self.others().next().unwrap_or(&self.last).first().map(|(id, _)| *id)
    }

    /// The last id.
    pub fn last(&self) -> Option<StreamId> {
        self.last.last().map(|(id, _)| *id)
    }

    /// Sets what belongs to an id. Returns what did.
    pub fn insert(&mut self, id: StreamId, value: V) -> Option<V> {
        if !self.is_of_last(id) && self.rows.is_some() {
            return self.insert_among_others(id, value);
        }
        let row = &mut self.last;
        let at = match find(row, id) {
            Ok(at) => return Some(std::mem::replace(&mut row[at].1, value)),
            Err(at) => at,
        };
        self.count += 1;
        if row.len() < ROW_MAX {
            put_exactly(row, at, (id, value));
            return None;
        }
        let mut behind = Row::new();
        match at {
            ROW_MAX => behind.push((id, value)),
            at => {
                behind = row.split_off(ROW_MAX / 2);
                let (row, at) = half_of(row, &mut behind, at);
                put_exactly(row, at, (id, value));
            }
        }
        let mut full = std::mem::replace(&mut self.last, behind);
        full.shrink_to_fit();
        self.rows.get_or_insert_default().insert(full[0].0, full);
        None
    }

    /// Sets what belongs to an id before those of the last row, where there are other rows.
    fn insert_among_others(&mut self, id: StreamId, value: V) -> Option<V> {
        let rows = self.rows.as_mut().expect("there are other rows");
        let Some((_, row)) = rows.range_mut(..=id).next_back() else {
            self.count += 1;
            insert_first(rows, id, value);
            return None;
        };
        let at = match find(row, id) {
            Ok(at) => return Some(std::mem::replace(&mut row[at].1, value)),
            Err(at) => at,
        };
        self.count += 1;
        if row.len() < ROW_MAX {
            put_exactly(row, at, (id, value));
        } else if at == row.len() {
            rows.insert(id, vec![(id, value)]);
        } else {
            let mut behind = row.split_off(ROW_MAX / 2);
            let (row, at) = half_of(row, &mut behind, at);
            put_exactly(row, at, (id, value));
            rows.insert(behind[0].0, behind);
        }
        None
    }

    /// Takes an id out. Returns what belonged to it.
    pub fn remove(&mut self, id: StreamId) -> Option<V> {
        if self.is_of_last(id) {
            let at = find(&self.last, id).ok()?;
            let (_, value) = self.last.remove(at);
            self.count -= 1;
            if self.last.is_empty() {
                self.last = self.take_row(|rows| rows.pop_last()).unwrap_or_default();
            }
            return Some(value);
        }
        let (&key, row) = self.rows.as_mut()?.range_mut(..=id).next_back()?;
        let at = find(row, id).ok()?;
        let (_, value) = row.remove(at);
        self.count -= 1;
        if row.is_empty() {
            self.take_row(|rows| rows.remove_entry(&key));
        } else if row.len() <= ROW_MAX / 4 {
            self.join(key);
        }
        Some(value)
    }

    /// Takes a row out of the tree, which goes with the last of them.
    fn take_row(
        &mut self,
        take: impl FnOnce(&mut BTreeMap<StreamId, Row<V>>) -> Option<(StreamId, Row<V>)>,
    ) -> Option<Row<V>> {
        let rows = self.rows.as_mut()?;
        let taken = take(rows);
        if rows.is_empty() {
            self.rows = None;
        }
        taken.map(|(_, row)| row)
    }

    /// A row of few ids takes those of the next one, if that leaves room.
    fn join(&mut self, key: StreamId) {
        let rows = self.rows.as_mut().expect("the row is among them");
        let next = rows.range((Bound::Excluded(key), Bound::Unbounded)).next();
        let Some((&next, behind)) = next else { return };
        if behind.len() > ROW_MAX / 2 {
            return;
        }
        let behind = rows.remove(&next).expect("it was found just now");
        let row = rows.get_mut(&key).expect("it is that of the id");
        row.reserve_exact(behind.len());
        row.extend(behind);
    }
}

/// Where what is to come to a place of a row comes now that the row's second half stands apart.
fn half_of<'r, V>(row: &'r mut Row<V>, behind: &'r mut Row<V>, at: usize) -> (&'r mut Row<V>, usize) {
    match at.checked_sub(ROW_MAX / 2) {
        Some(at) => (behind, at),
        None => (row, at),
    }
}

/// Before all rows, of which there are some.
fn insert_first<V>(rows: &mut BTreeMap<StreamId, Row<V>>, id: StreamId, value: V) {
    match rows.first_entry() {
        Some(entry) if entry.get().len() < ROW_MAX => {
            let mut row = entry.remove();
            put_exactly(&mut row, 0, (id, value));
            rows.insert(id, row);
        }
        _ => drop(rows.insert(id, vec![(id, value)])),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_ids_take_little_more_than_themselves() {
        assert_eq!(size_of::<IdMap<u64>>(), 40);
        let mut map = IdMap::default();
        map.insert(StreamId::new(1, 0), 7_u64);
        assert_eq!((map.last.capacity(), map.rows.is_some()), (1, false));
        for ms in 2..=100 {
            map.insert(StreamId::new(ms, 0), 7);
        }
        assert!(map.rows.is_some());
        for ms in 1..100 {
            map.remove(StreamId::new(ms, 0));
        }
        assert!(map.rows.is_none(), "a tree goes with its last row");
        assert_eq!(map.iter().collect::<Vec<_>>(), [(StreamId::new(100, 0), 7)]);
    }

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
            let rows: Vec<_> = map.rows.iter().flat_map(|rows| rows.iter()).collect();
            prop_assert!(rows.iter().all(|(key, row)| **key <= row[0].0 && row.len() <= ROW_MAX + ROW_MAX / 2));
            prop_assert!(map.last.is_empty() == map.is_empty() && map.rows.is_some() != rows.is_empty());
        }
    }
}
