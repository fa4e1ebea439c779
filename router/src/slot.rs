//! The slot of a key: CRC16 (XMODEM) of its hash tag, or of all of it, modulo 16384.

/// Slots of a cluster. Fixed by the protocol.
pub const SLOT_COUNT: u16 = 16384;

/// The slot of `key`.
pub fn slot_of(key: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(hashed_part(key)) % SLOT_COUNT
}

/// What stands between the first `{` and the next `}`, if that is not empty;
/// else the whole key.
fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&byte| byte == b'{') else { return key };
    let tag = &key[open + 1..];
    match tag.iter().position(|&byte| byte == b'}') {
        Some(length) if length > 0 => &tag[..length],
        _ => key,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        // From the specification and from `CLUSTER KEYSLOT` of a real server.
        let cases: [(&[u8], u16); 8] = [
            (b"123456789", 12739),
            (b"foo", 12182),
            (b"{user1000}.following", slot_of(b"user1000")),
            (b"foo{}{bar}", 8363),
            (b"foo{{bar}}zap", slot_of(b"{bar")),
            (b"foo{bar}{zap}", slot_of(b"bar")),
            (b"", 0),
            (b"a{b", slot_of(b"a{b")),
        ];
        for (key, slot) in cases {
            assert_eq!(slot_of(key), slot, "{}", String::from_utf8_lossy(key));
        }
    }
}
