//! Lists of strings and integers in one block of bytes: Redis's listpack, and
//! the ziplist that it had before version 7.

use std::borrow::Cow;

use super::bytes::Bytes;
pub use crate::keyspace::listpack_size::{EMPTY as EMPTY_BYTES, text as entry_bytes};
use crate::keyspace::{integer::parse_integer, listpack_size};

/// An element: bytes of the block, or the text of an integer.
pub type Element<'a> = Cow<'a, [u8]>;

/// Elements of one block. Redis makes none of so many; each takes far more room here than a byte that it may have there.
const ELEMENTS_MAX: usize = 1 << 20;

/// The byte that ends either form.
const END: u8 = 0xff;

/// The count of a form that has more elements than it can say.
const COUNT_UNKNOWN: u16 = u16::MAX;

fn text<'a>(number: i64) -> Element<'a> {
    Cow::Owned(itoa::Buffer::new().format(number).as_bytes().to_vec())
}

/// The lowest `bits` of a number, the highest of them its sign.
const fn signed(number: u64, bits: u32) -> i64 {
    let unused = 64 - bits;
    (number << unused) as i64 >> unused
}

/// The elements of a listpack.
pub fn listpack(block: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut bytes = Bytes::new(block);
    let (total, count) = (bytes.little(4)?, bytes.little(2)? as u16);
    if total != block.len() as u64 {
        return None;
    }
    elements(bytes, count, |bytes, first| {
        let before = bytes.rest().len();
        let element = listpack_element(bytes, first)?;
        let length = 1 + before - bytes.rest().len();
        bytes.take(listpack_size::length(length))?;
        Some(element)
    })
}

fn listpack_element<'a>(bytes: &mut Bytes<'a>, first: u8) -> Option<Element<'a>> {
    let low = u64::from(first);
    Some(match first {
        0x00..=0x7f => text(low as i64),
        0x80..=0xbf => bytes.take((low & 0x3f) as usize)?.into(),
        0xc0..=0xdf => text(signed((low & 0x1f) << 8 | bytes.little(1)?, 13)),
        0xe0..=0xef => {
            let length = (low & 0x0f) << 8 | bytes.little(1)?;
            bytes.take(length as usize)?.into()
        }
        0xf0 => {
            let length = bytes.little(4)?;
            bytes.take(length as usize)?.into()
        }
        0xf1 => text(signed(bytes.little(2)?, 16)),
        0xf2 => text(signed(bytes.little(3)?, 24)),
        0xf3 => text(signed(bytes.little(4)?, 32)),
        0xf4 => text(signed(bytes.little(8)?, 64)),
        _ => return None,
    })
}

/// The elements of a ziplist.
pub fn ziplist(block: &[u8]) -> Option<Vec<Element<'_>>> {
    let mut bytes = Bytes::new(block);
    let (total, _tail, count) = (bytes.little(4)?, bytes.little(4)?, bytes.little(2)? as u16);
    if total != block.len() as u64 {
        return None;
    }
    elements(bytes, count, |bytes, first| {
        // How long the element before is: for walking backwards.
        if first == 0xfe {
            bytes.take(4)?;
        }
        let encoding = bytes.byte()?;
        ziplist_element(bytes, encoding)
    })
}

fn ziplist_element<'a>(bytes: &mut Bytes<'a>, encoding: u8) -> Option<Element<'a>> {
    let low = u64::from(encoding);
    Some(match encoding {
        0x00..=0x3f => bytes.take(low as usize)?.into(),
        0x40..=0x7f => {
            let length = (low & 0x3f) << 8 | bytes.little(1)?;
            bytes.take(length as usize)?.into()
        }
        0x80 => {
            let length = bytes.big(4)?;
            bytes.take(length as usize)?.into()
        }
        0xc0 => text(signed(bytes.little(2)?, 16)),
        0xd0 => text(signed(bytes.little(4)?, 32)),
        0xe0 => text(signed(bytes.little(8)?, 64)),
        0xf0 => text(signed(bytes.little(3)?, 24)),
        0xfe => text(signed(bytes.little(1)?, 8)),
        0xf1..=0xfd => text(low as i64 - 0xf1),
        _ => return None,
    })
}

/// Elements up to the end, which is where the block ends, as many as it says.
/// `element` is given the first byte of each.
fn elements<'a>(
    mut bytes: Bytes<'a>,
    count: u16,
    mut element: impl FnMut(&mut Bytes<'a>, u8) -> Option<Element<'a>>,
) -> Option<Vec<Element<'a>>> {
    let mut elements = Vec::new();
    loop {
        let first = bytes.byte()?;
        if first == END {
            let whole = bytes.is_empty() && (count == COUNT_UNKNOWN || usize::from(count) == elements.len());
            return whole.then_some(elements);
        }
        if elements.len() == ELEMENTS_MAX {
            return None;
        }
        elements.push(element(&mut bytes, first)?);
    }
}

/// Writes a listpack.
pub struct Writer {
    block: Vec<u8>,
    count: usize,
}

impl Default for Writer {
    fn default() -> Self {
        Self { block: vec![0; EMPTY_BYTES - 1], count: 0 }
    }
}

impl Writer {
    /// Whether nothing has been appended.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the whole, if it ended here.
    pub fn bytes(&self) -> usize {
        self.block.len() + 1
    }

    /// Appends an element.
    pub fn push(&mut self, element: &[u8]) {
        let start = self.block.len();
        match parse_integer(element) {
            Some(number) => self.push_integer(number),
            None => self.push_string(element),
        }
        let length = self.block.len() - start;
        // Seven bits a byte, the highest first, all but that marked.
        let count = listpack_size::length(length);
        for at in (0..count).rev() {
            let bits = (length >> (7 * at)) as u8 & 0x7f;
            self.block.push(if at + 1 == count { bits } else { bits | 0x80 });
        }
        self.count += 1;
    }

    fn push_integer(&mut self, number: i64) {
        let bytes = number.to_le_bytes();
        let (mark, length) = match number {
            0..=127 => return self.block.push(number as u8),
            -4096..=4095 => {
                self.block.push(0xc0 | (number >> 8) as u8 & 0x1f);
                return self.block.push(number as u8);
            }
            -0x8000..=0x7fff => (0xf1, 2),
            -0x80_0000..=0x7f_ffff => (0xf2, 3),
            -0x8000_0000..=0x7fff_ffff => (0xf3, 4),
            _ => (0xf4, 8),
        };
        self.block.push(mark);
        self.block.extend_from_slice(&bytes[..length]);
    }

    fn push_string(&mut self, element: &[u8]) {
        let length = element.len();
        match length {
            0..=63 => self.block.push(0x80 | length as u8),
            64..=4095 => self.block.extend([0xe0 | (length >> 8) as u8, length as u8]),
            _ => {
                self.block.push(0xf0);
                self.block.extend_from_slice(&(length as u32).to_le_bytes());
            }
        }
        self.block.extend_from_slice(element);
    }

    /// The listpack.
    pub fn finish(mut self) -> Vec<u8> {
        self.block.push(END);
        let total = (self.block.len() as u32).to_le_bytes();
        let count = u16::try_from(self.count).unwrap_or(COUNT_UNKNOWN).to_le_bytes();
        self.block[..4].copy_from_slice(&total);
        self.block[4..6].copy_from_slice(&count);
        self.block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_element() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            any::<i64>().prop_map(|number| number.to_string().into_bytes()),
            (0..64_u32, any::<i64>()).prop_map(|(shift, number)| (number >> shift).to_string().into_bytes()),
            prop::collection::vec(any::<u8>(), 0..200),
            (0_usize..20_000).prop_map(|length| vec![b'x'; length]),
        ]
    }

    proptest! {
        #[test]
        fn a_listpack_holds_what_was_written(written in prop::collection::vec(any_element(), 0..20)) {
            let mut writer = Writer::default();
            let mut bytes = EMPTY_BYTES;
            for element in &written {
                writer.push(element);
                bytes += entry_bytes(element);
                prop_assert_eq!(writer.bytes(), bytes);
            }
            let block = writer.finish();
            prop_assert_eq!(block.len(), bytes);
            let read = listpack(&block).map(|all| all.into_iter().map(Cow::into_owned).collect::<Vec<_>>());
            prop_assert_eq!(read, Some(written));
        }

        #[test]
        fn no_bytes_make_it_panic(block: Vec<u8>) {
            for whole in [block.clone(), [&(block.len() as u32 + 4).to_le_bytes(), &block[..]].concat()] {
                listpack(&whole);
                ziplist(&whole);
            }
        }
    }
}
