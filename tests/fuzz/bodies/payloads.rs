//! Payloads of `RESTORE`: a value that is taken can be dumped and restored, and is not out of proportion.
//!
//! The checksum keeps a fuzzer from what is behind it, so the bytes are read twice: as they are, and as the
//! content of a payload that is sealed right.

use moonraft::{
    command::rdb::{dump, restore, seal},
    keyspace::{Object, Value},
};

/// Bytes in memory for a byte of a payload. A compressed string has 88 bytes a byte; an integer of two bytes is a
/// member of 24, in a table that may just have doubled.
const HEAP_BYTES_A_BYTE: usize = 200;
/// And for a value that holds next to nothing.
const HEAP_BYTES_BASE: usize = 1 << 10;

/// See the module.
pub fn run(bytes: &[u8]) {
    let _ = restore(bytes); // right or wrong, it does not panic
    let mut payload = bytes.to_vec();
    seal(&mut payload);
    let Ok(value) = restore(&payload) else { return };

    let may_be_empty = matches!(value, Value::Str(_) | Value::Stream(_));
    assert!(may_be_empty || !value.is_empty(), "a value that no command could make");
    assert_eq!(restore(&dump(&value)).as_ref(), Ok(&value));
    let heap_bytes = Object { value, expires_at: None }.heap_bytes(usize::MAX);
    let most = HEAP_BYTES_BASE + HEAP_BYTES_A_BYTE * bytes.len();
    assert!(heap_bytes <= most, "{heap_bytes} bytes of memory for {} of a payload", bytes.len());
}
