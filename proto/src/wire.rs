//! The primitive encodings of effects and entries: unsigned integers as LEB128,
//! byte strings with their length before them, doubles as their eight bytes.

use bytes::BufMut;

use crate::DecodeError;

const TRUNCATED: DecodeError = DecodeError::new("truncated");

/// Appends an unsigned integer, seven bits a byte, lowest first.
pub fn put_uint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Appends a signed integer; small ones of either sign are short (zigzag).
pub fn put_int(out: &mut impl BufMut, value: i64) {
    put_uint(out, ((value << 1) ^ (value >> 63)) as u64);
}

/// Appends a byte string.
pub fn put_bytes(out: &mut impl BufMut, bytes: &[u8]) {
    put_uint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Reads what the functions above wrote.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Whether all has been read.
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    ///
    /// # Errors
    /// Nothing is left.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let (&first, rest) = self.rest.split_first().ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(first)
    }

    /// As many bytes as asked for.
    ///
    /// # Errors
    /// Fewer are left.
    pub fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }

    /// An unsigned integer.
    ///
    /// # Errors
    /// The bytes end, or it does not fit 64 bits.
    pub fn uint(&mut self) -> Result<u64, DecodeError> {
        // Most are short: lengths, tags, differences.
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(DecodeError::new("integer out of range"))
    }

    /// A signed integer.
    ///
    /// # Errors
    /// As [`Reader::uint`].
    pub fn int(&mut self) -> Result<i64, DecodeError> {
        let value = self.uint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// A byte string.
    ///
    /// # Errors
    /// The bytes end before it does.
    pub fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.uint()?;
        self.take(usize::try_from(length).map_err(|_| TRUNCATED)?)
    }

    /// A double.
    ///
    /// # Errors
    /// The bytes end before it does.
    pub fn double(&mut self) -> Result<f64, DecodeError> {
        let bytes = self.take(8)?.try_into().expect("eight bytes were taken");
        Ok(f64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn reading_gives_what_was_written(u: u64, i: i64, bytes: Vec<u8>) {
            let mut out = Vec::new();
            put_uint(&mut out, u);
            put_int(&mut out, i);
            put_bytes(&mut out, &bytes);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.uint(), Ok(u));
            prop_assert_eq!(reader.int(), Ok(i));
            prop_assert_eq!(reader.bytes(), Ok(bytes.as_slice()));
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let mut reader = Reader::new(&bytes);
            while reader.uint().is_ok() && reader.bytes().is_ok() {}
        }
    }
}
