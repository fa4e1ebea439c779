//! The payload of `DUMP` and `RESTORE`: one value in the format of Redis's
//! snapshot files, then the format's version and a checksum.
//!
//! Written are the forms that Redis 7.0 writes, so that it and all that came after
//! can restore them, but of a hash whose fields have deadlines, which came with 7.4; nothing is compressed. Read is what Redis wrote for strings,
//! lists, sets, hashes, sorted sets and streams since version 2.6, compressed or not; of hashes whose fields have
//! deadlines what 7.4 and 8 write.
//!
//! Libraries of functions are texts in the same format, one after the other.
//!
//! INVARIANT: no bytes, however broken, make the decoder panic, or allocate more
//! than [`bytes::DECODED_BYTES_MAX`] (a compressed string is up to 88 times its own
//! length). A value that no command could make (empty, a member twice, a score
//! that is no number) is refused.
//!
//! Sources: `rdb.c`, `listpack.c`, `ziplist.c`, `intset.c`, `lzf_d.c` of Redis 7.2.

mod bytes;
mod checksum;
mod listpack;
mod lzf;
mod read;
mod stream;
mod write;

use crate::keyspace::Value;

pub use self::write::{dump, dump_libraries};

/// Bytes of version and checksum at the end of a payload.
pub const FOOTER_BYTES: usize = 10;

/// The version that is written: that of Redis 7.0.
const VERSION_WRITTEN: u16 = 10;

/// The version that is written of a hash whose fields have deadlines: that of Redis 7.4.
const VERSION_OF_DEADLINES: u16 = 12;

/// The newest version that is read: that of Redis 7.4 and 8.
const VERSION_READ_MAX: u16 = 12;

/// Bytes of a list in the form that Redis calls `listpack`;
/// `list-max-listpack-size` of -2.
const LISTPACK_BYTES_MAX: usize = 8192;

/// What a value's form is called in a payload.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    pub const SORTED_TEXT: u8 = 3;
    pub const HASH: u8 = 4;
    pub const SORTED: u8 = 5;
    pub const LIST_ZIPLIST: u8 = 10;
    pub const SET_INTEGERS: u8 = 11;
    pub const SORTED_ZIPLIST: u8 = 12;
    pub const HASH_ZIPLIST: u8 = 13;
    pub const LIST_OF_ZIPLISTS: u8 = 14;
    pub const STREAM: u8 = 15;
    pub const HASH_LISTPACK: u8 = 16;
    pub const SORTED_LISTPACK: u8 = 17;
    pub const LIST_OF_LISTPACKS: u8 = 18;
    pub const STREAM_2: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    /// A library of functions, as the previews of Redis 7.0 had it.
    pub const LIBRARY_DRAFT: u8 = 246;
    /// A library of functions: its text.
    pub const LIBRARY: u8 = 245;
    pub const STREAM_3: u8 = 21;
    /// A hash whose fields have deadlines.
    pub const HASH_DEADLINES: u8 = 24;
    /// The same as a listpack.
    pub const HASH_DEADLINES_LISTPACK: u8 = 25;
}

/// Why a payload was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A newer version, or the checksum does not fit.
    Footer,
    /// What is inside makes no value.
    Content,
}

/// The value of a payload.
///
/// # Errors
/// The payload is none, or was damaged.
pub fn restore(payload: &[u8]) -> Result<Value, Refusal> {
    read::value(checked(payload).ok_or(Refusal::Footer)?).ok_or(Refusal::Content)
}

/// The content of a payload that is whole and not too new.
fn checked(payload: &[u8]) -> Option<&[u8]> {
    let (content, _) = payload.split_last_chunk::<FOOTER_BYTES>()?;
    let (checked, sum) = payload.split_last_chunk::<8>()?;
    let (_, version) = checked.split_last_chunk::<2>()?;
    let is_whole = u64::from_le_bytes(*sum) == checksum::crc64(checked);
    (u16::from_le_bytes(*version) <= VERSION_READ_MAX && is_whole).then_some(content)
}

/// Why a payload of libraries was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadLibraries {
    /// A newer version, or the checksum does not fit.
    Footer,
    /// It holds something else.
    OtherKind,
    /// It holds libraries as the previews of Redis 7.0 had them.
    Draft,
    /// What is inside is no text.
    Content,
}

/// The texts of the libraries of a payload, in order.
///
/// # Errors
/// The payload is none, or was damaged.
pub fn restore_libraries(payload: &[u8]) -> Result<Vec<Vec<u8>>, BadLibraries> {
    let mut content = bytes::Bytes::new(checked(payload).ok_or(BadLibraries::Footer)?);
    let mut codes = Vec::new();
    while let Some(kind) = content.byte() {
        match kind {
            kind::LIBRARY => {}
            kind::LIBRARY_DRAFT => return Err(BadLibraries::Draft),
            _ => return Err(BadLibraries::OtherKind),
        }
        codes.push(content.string().ok_or(BadLibraries::Content)?.into_owned());
    }
    Ok(codes)
}

/// What makes a payload of its content: version and checksum.
pub fn seal(content: &mut Vec<u8>) {
    seal_as(content, VERSION_WRITTEN);
}

/// The same, of a version.
fn seal_as(content: &mut Vec<u8>, version: u16) {
    content.reserve_exact(FOOTER_BYTES);
    content.extend_from_slice(&version.to_le_bytes());
    let sum = checksum::crc64(content);
    content.extend_from_slice(&sum.to_le_bytes());
}

/// Whether these elements fit a list that Redis 7.2 calls a `listpack`.
pub fn fits_listpack<'a>(elements: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut bytes = listpack::EMPTY_BYTES;
    for element in elements {
        bytes += listpack::entry_bytes(element);
        if bytes > LISTPACK_BYTES_MAX {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
