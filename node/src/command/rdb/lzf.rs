//! LZF decompression: runs of plain bytes, and references to bytes before.
//!
//! Source: `lzf_d.c` of LibLZF, by Marc Lehmann.

/// The `length` bytes that `packed` stands for; `None` if it does not stand for so
/// many.
pub fn decompress(mut packed: &[u8], length: usize) -> Option<Vec<u8>> {
    // No more is reserved than these bytes can stand for: 3 for 264.
    let mut out = Vec::with_capacity(length.min(packed.len().saturating_mul(88)));
    while let Some((&control, rest)) = packed.split_first() {
        packed = rest;
        if control < 32 {
            let (run, rest) = packed.split_at_checked(usize::from(control) + 1)?;
            out.extend_from_slice(run);
            packed = rest;
        } else {
            packed = repeat(control, packed, &mut out)?;
        }
        if out.len() > length {
            return None;
        }
    }
    (out.len() == length).then_some(out)
}

/// Appends bytes that are in `out` already; they may run into those appended.
fn repeat<'a>(control: u8, mut packed: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let mut count = usize::from(control >> 5) + 2;
    if count == 9 {
        let (&more, rest) = packed.split_first()?;
        count += usize::from(more);
        packed = rest;
    }
    let (&low, rest) = packed.split_first()?;
    let back = (usize::from(control & 31) << 8 | usize::from(low)) + 1;
    let start = out.len().checked_sub(back)?;
    for at in start..start + count {
        out.push(out[at]);
    }
    Some(rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::decompress;

    #[test]
    fn runs_and_references_are_unpacked() {
        // `aaaaaaaaaa`: a plain `a`, then nine bytes from one before.
        assert_eq!(decompress(&[0, b'a', 0xe0, 0, 0], 10).as_deref(), Some(b"aaaaaaaaaa".as_slice()));
        assert_eq!(decompress(&[0, b'a', 0xe0, 0, 0], 9), None);
        assert_eq!(decompress(&[0, b'a', 0xe0, 0, 1], 10), None, "a reference before the start");
        assert_eq!(decompress(&[5, b'a'], 6), None, "a run that is cut");
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(packed: Vec<u8>, length in 0_usize..1000) {
            if let Some(out) = decompress(&packed, length) {
                prop_assert_eq!(out.len(), length);
            }
        }
    }
}
