//! How many bytes things take in Redis's listpacks: by them it decides on the form of lists and on the nodes of
//! streams, which clients can see.

use super::integer::parse_integer;

/// A listpack without elements: total size, count, end.
pub const EMPTY: usize = 7;

/// What the length of an element takes behind it.
pub const fn length(length: usize) -> usize {
    match length {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
    }
}

/// An element that is an integer.
pub const fn integer(number: i64) -> usize {
    1 + match number {
        0..=127 => 1,
        -4096..=4095 => 2,
        -0x8000..=0x7fff => 3,
        -0x80_0000..=0x7f_ffff => 4,
        -0x8000_0000..=0x7fff_ffff => 5,
        _ => 9,
    }
}

/// An element.
pub fn text(element: &[u8]) -> usize {
    if let Some(number) = parse_integer(element) {
        return integer(number);
    }
    let header = match element.len() {
        0..=63 => 1,
        64..=4095 => 2,
        _ => 5,
    };
    let bytes = header + element.len();
    bytes + length(bytes)
}
