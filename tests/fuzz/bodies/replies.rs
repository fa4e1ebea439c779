//! What servers answer: what is read is what is read of it written anew, and no part of it is taken for the whole.

use moonraft_proto::{Protocol, Reply, replies::read};

/// Inputs up to so many bytes are also read in every part of them.
const PARTS_BYTES_MAX: usize = 200;

/// See the module.
pub fn run(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((reply, taken))) = read(rest) {
        assert!((1..=rest.len()).contains(&taken), "{taken} of {}", rest.len());
        let written = encoded(&reply);
        let (again, all) = read(&written).expect("it was just written").expect("all of it");
        assert_eq!((encoded(&again), all), (written.clone(), written.len()));
        for end in 0..taken.min(PARTS_BYTES_MAX) {
            assert_eq!(read(&rest[..end]), Ok(None), "{end} of {taken} bytes");
        }
        rest = &rest[taken..];
    }
}

fn encoded(reply: &Reply<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    reply.encode(Protocol::Resp3, &mut bytes);
    bytes
}
