//! Some entries of a stream, one behind another in one block: what Redis keeps in a listpack.
//!
//! ```text
//! block    length-of-head head entry…
//! head     count-of-fields field…                  the fields of the first entry
//! entry    length-of-body body
//! body     ms seq 0 value…                         its fields are those of the head
//!          ms seq count-of-fields (field value)…   it has its own
//! field, value   (length << 1) bytes               or, if that is shorter
//!                (length << 1 | 1) integer         zigzag, the lowest byte first
//! ```
//!
//! Numbers are LEB128. `ms` is the difference to the node's base, an id not above that of any of its entries; `seq`
//! is so too in the base's millisecond, else the number itself. An entry is found by passing those before it, which
//! is why a node is small. A node knows nothing of its base: whoever holds it does.
//!
//! INVARIANT: the bytes are whole entries, with rising ids, and as many as are counted.

use std::{borrow::Cow, ops::Range};

use moonraft_proto::{StreamId, stream::Pairs, wire};

use crate::keyspace::{integer::parse_integer, listpack_size};

/// A block grows to so many halves of what is in it: most are full soon, and are cut to size then.
const GROWTH_HALVES: usize = 3;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    bytes: Vec<u8>,
    count: u32,
    /// Entries that it was given, those included that were deleted.
    given: u32,
    /// Bytes of a listpack of the same content but for its two counts: by that a node is full.
    weight: u32,
}

/// How much a node may hold; `stream-node-max-bytes` and `stream-node-max-entries`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeLimits {
    /// Bytes of a listpack of the same content.
    pub bytes: usize,
    /// Entries, deleted ones included.
    pub entries: usize,
}

impl NodeLimits {
    /// No node is larger, whatever is set: an entry is found by passing others.
    const BYTES_MAX: usize = 1 << 20;
    const ENTRIES_MAX: usize = 10_000;

    /// The largest that a node can be.
    pub const LARGEST: Self = Self::of(0, 0);

    /// As these settings say; 0: as large as can be.
    pub const fn of(bytes: u64, entries: u64) -> Self {
        const fn limit(set: u64, most: usize) -> usize {
            if set == 0 || set > most as u64 { most } else { set as usize }
        }
        Self { bytes: limit(bytes, Self::BYTES_MAX), entries: limit(entries, Self::ENTRIES_MAX) }
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self::of(4096, 100)
    }
}

/// What takes the last entry from a node: the weight before.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    weight: u32,
}

/// An entry, which borrows from its node.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its id.
    pub id: StreamId,
    /// The fields of the node's first entry, if it has the same.
    shared: Option<&'a [u8]>,
    count: usize,
    texts: &'a [u8],
}

impl<'a> Entry<'a> {
    /// How many fields.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether it has none, which is never.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes that its texts take here.
    pub const fn bytes(&self) -> usize {
        self.texts.len()
    }

    /// Its fields with their values.
    pub fn pairs(self) -> impl ExactSizeIterator<Item = (Cow<'a, [u8]>, Cow<'a, [u8]>)> {
        let (mut shared, mut texts) = (self.shared, self.texts);
        (0..self.count).map(move |_| {
            let field = match &mut shared {
                Some(fields) => take_text(fields),
                None => take_text(&mut texts),
            };
            (field, take_text(&mut texts))
        })
    }
}

/// The entries of a node in order.
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    base: StreamId,
    fields: &'a [u8],
    field_count: usize,
    end: usize,
    rest: &'a [u8],
}

impl Entries<'_> {
    /// Where the next begins in the block.
    const fn offset(&self) -> usize {
        self.end - self.rest.len()
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let length = take_uint(&mut self.rest) as usize;
        let (mut body, rest) = self.rest.split_at(length);
        self.rest = rest;
        let (ms, seq) = (take_uint(&mut body), take_uint(&mut body));
        let id = match ms {
            0 => StreamId::new(self.base.ms, self.base.seq + seq),
            ms => StreamId::new(self.base.ms + ms, seq),
        };
        Some(match take_uint(&mut body) as usize {
            0 => Entry { id, shared: Some(self.fields), count: self.field_count, texts: body },
            count => Entry { id, shared: None, count, texts: body },
        })
    }
}

fn take_uint(bytes: &mut &[u8]) -> u64 {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (&byte, rest) = bytes.split_first().expect("a node's numbers are whole");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
        shift += 7;
    }
}

/// The integer that a text is, in as few bytes as can be, if these are fewer than the text.
fn short_integer(text: &[u8]) -> Option<([u8; 8], usize)> {
    if text.len() < 2 {
        return None;
    }
    let number = parse_integer(text)?;
    let zigzag = ((number << 1) ^ (number >> 63)) as u64;
    let count = 8 - zigzag.leading_zeros() as usize / 8;
    (count < text.len()).then_some((zigzag.to_le_bytes(), count))
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    match short_integer(text) {
        Some((bytes, count)) => {
            wire::put_uint(out, (count << 1 | 1) as u64);
            out.extend_from_slice(&bytes[..count]);
        }
        None => {
            wire::put_uint(out, (text.len() as u64) << 1);
            out.extend_from_slice(text);
        }
    }
}

fn take_text<'a>(bytes: &mut &'a [u8]) -> Cow<'a, [u8]> {
    let header = take_uint(bytes) as usize;
    let (text, rest) = bytes.split_at(header >> 1);
    *bytes = rest;
    if header & 1 == 0 {
        return Cow::Borrowed(text);
    }
    let zigzag = text.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let number = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
    Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec())
}

impl Node {
    /// Entries that are there.
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes outside of this value.
    pub const fn heap_bytes(&self) -> usize {
        self.bytes.capacity()
    }

    /// Whether it has no room for an entry of these texts.
    pub fn is_full(&self, text_bytes: usize, limits: NodeLimits) -> bool {
        let deleted = self.given - self.count;
        let counts = listpack_size::integer(self.count.into()) + listpack_size::integer(deleted.into());
        self.weight as usize + counts + text_bytes >= limits.bytes || self.given as usize >= limits.entries
    }

    /// Its entries, which have ids from `base` on.
    pub fn entries(&self, base: StreamId) -> Entries<'_> {
        let (fields, field_count, rest) = self.parts();
        Entries { base, fields, field_count, end: self.bytes.len(), rest }
    }

    /// The fields in the head, how many there are, and the entries.
    fn parts(&self) -> (&[u8], usize, &[u8]) {
        if self.bytes.is_empty() {
            return (&[], 0, &[]);
        }
        let mut rest = &self.bytes[..];
        let length = take_uint(&mut rest) as usize;
        let (mut head, rest) = rest.split_at(length);
        let count = take_uint(&mut head) as usize;
        (head, count, rest)
    }

    /// The entry of this id, and where it is.
    pub fn find(&self, base: StreamId, id: StreamId) -> Option<(Range<usize>, Entry<'_>)> {
        let mut entries = self.entries(base);
        loop {
            let start = entries.offset();
            let entry = entries.next()?;
            if entry.id >= id {
                return (entry.id == id).then(|| (start..entries.offset(), entry));
            }
        }
    }

    /// Puts an entry at the end; its id is above those of all others.
    pub fn push(&mut self, base: StreamId, id: StreamId, fields: Pairs<'_>) -> Pushed {
        let pushed = Pushed { weight: self.weight };
        self.reserve(fields.bytes().len() + 32); // its numbers take no more
        if self.bytes.is_empty() {
            self.begin(fields);
        }
        let (count, shares) = self.compare(fields);

        let start = self.bytes.len();
        self.bytes.push(0); // its length, which mostly takes one byte
        let ms = id.ms - base.ms;
        wire::put_uint(&mut self.bytes, ms);
        wire::put_uint(&mut self.bytes, if ms == 0 { id.seq - base.seq } else { id.seq });
        wire::put_uint(&mut self.bytes, if shares { 0 } else { count as u64 });
        let seq = id.seq.wrapping_sub(base.seq) as i64;
        let mut weight = 2 + listpack_size::integer(ms as i64) + listpack_size::integer(seq);
        let mut parts = 3 + count as i64;
        if !shares {
            weight += listpack_size::integer(count as i64);
            parts += 1 + count as i64;
        }
        for (field, value) in fields.iter() {
            if !shares {
                put_text(&mut self.bytes, field);
                weight += listpack_size::text(field);
            }
            put_text(&mut self.bytes, value);
            weight += listpack_size::text(value);
        }
        self.put_length(start);
        self.add_weight(weight + listpack_size::integer(parts));
        self.count += 1;
        self.given += 1;
        pushed
    }

    /// How many fields these are, and whether they are those of the head.
    fn compare(&self, fields: Pairs<'_>) -> (usize, bool) {
        let (mut known, known_count, _) = self.parts();
        let (mut count, mut shares) = (0, true);
        for (field, _) in fields.iter() {
            shares = shares && count < known_count && *take_text(&mut known) == *field;
            count += 1;
        }
        (count, shares && count == known_count)
    }

    /// Puts the length of the body that ends the block before it, where one byte was left at `start`.
    fn put_length(&mut self, start: usize) {
        let length = self.bytes.len() - start - 1;
        if length < 0x80 {
            self.bytes[start] = length as u8;
            return;
        }
        let mut bytes = Vec::with_capacity(5);
        wire::put_uint(&mut bytes, length as u64);
        self.bytes.splice(start..=start, bytes);
    }

    fn begin(&mut self, fields: Pairs<'_>) {
        let mut head = Vec::new();
        let count = fields.iter().count();
        wire::put_uint(&mut head, count as u64);
        let mut weight =
            listpack_size::EMPTY + listpack_size::integer(count as i64) + listpack_size::integer(0);
        for (field, _) in fields.iter() {
            put_text(&mut head, field);
            weight += listpack_size::text(field);
        }
        wire::put_uint(&mut self.bytes, head.len() as u64);
        self.bytes.extend_from_slice(&head);
        self.add_weight(weight);
    }

    const fn add_weight(&mut self, bytes: usize) {
        let bytes = if bytes > u32::MAX as usize { u32::MAX } else { bytes as u32 };
        self.weight = self.weight.saturating_add(bytes);
    }

    /// Takes the last entry back, which was the last that was put in.
    pub fn take_back(&mut self, pushed: Pushed) {
        let mut entries = self.entries(StreamId::MIN);
        let mut last = entries.offset();
        while !entries.rest.is_empty() {
            last = entries.offset();
            let length = take_uint(&mut entries.rest) as usize;
            entries.rest = &entries.rest[length..];
        }
        self.bytes.truncate(last);
        self.weight = pushed.weight;
        self.count -= 1;
        self.given -= 1;
    }

    /// Takes an entry out: see [`Node::find`]. Returns its bytes.
    pub fn cut(&mut self, place: Range<usize>) -> Box<[u8]> {
        let entry = self.bytes[place.clone()].into();
        self.bytes.drain(place);
        self.count -= 1;
        self.shrink_if_sparse();
        entry
    }

    /// Takes the first `count` entries out, but not all there are. Returns their bytes.
    pub fn cut_first(&mut self, count: usize) -> Box<[u8]> {
        let mut entries = self.entries(StreamId::MIN);
        let start = entries.offset();
        for _ in 0..count {
            let length = take_uint(&mut entries.rest) as usize;
            entries.rest = &entries.rest[length..];
        }
        let end = entries.offset();
        let cut = self.bytes[start..end].into();
        self.bytes.drain(start..end);
        self.count -= count as u32;
        self.shrink_if_sparse();
        cut
    }

    /// Puts entries back that were taken out, the first of which had this id.
    pub fn put_back(&mut self, base: StreamId, id: StreamId, entries: &[u8], count: usize) {
        let mut all = self.entries(base);
        let mut at = all.offset();
        while let Some(entry) = all.next() {
            if entry.id > id {
                break;
            }
            at = all.offset();
        }
        self.bytes.splice(at..at, entries.iter().copied());
        self.count += count as u32;
    }

    /// Gives back what is not used.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    fn shrink_if_sparse(&mut self) {
        if self.bytes.len() * 2 < self.bytes.capacity() {
            self.shrink();
        }
    }

    fn reserve(&mut self, bytes: usize) {
        let needed = self.bytes.len() + bytes;
        if needed > self.bytes.capacity() {
            let grown = needed.max(self.bytes.len() * GROWTH_HALVES / 2).next_multiple_of(16);
            self.bytes.reserve_exact(grown - self.bytes.len());
        }
    }
}
