//! What clients send: the same requests and the same refusal come of it, however the network cut it into pieces.

use moonraft_proto::{
    DecodeError,
    resp::{Limits, Parsed, Unfinished, parse},
};

/// Small, so that short inputs reach them.
const LIMITS: Limits = Limits { bulk_bytes_max: 300, words_max: 40, line_bytes_max: 100 };

/// All requests, and what ended them: an error, or that more would have to come.
type Heard = (Vec<Vec<Vec<u8>>>, Option<DecodeError>);

/// See the module.
pub fn run(bytes: &[u8]) {
    let whole = hear(bytes, bytes.len().max(1), &LIMITS);
    for piece in [1, 2, 7, 64] {
        assert_eq!(hear(bytes, piece, &LIMITS), whole, "pieces of {piece}");
    }
    // The usual limits, in one piece: lengths that no input has.
    hear(bytes, bytes.len().max(1), &Limits::default());
}

/// Reads as a connection does: what came is looked at again when as much is there as was asked for.
fn hear(bytes: &[u8], piece: usize, limits: &Limits) -> Heard {
    let (mut requests, mut start, mut unfinished, mut needed) = (Vec::new(), 0, Unfinished::default(), 1);
    let mut arrived = 0;
    while arrived < bytes.len() {
        arrived = (arrived + piece).min(bytes.len());
        while arrived - start >= needed {
            let mut unquoted = Vec::new();
            let input = &bytes[start..arrived];
            match parse(input, &mut unquoted, limits, &mut unfinished) {
                Ok(Parsed::Request { words, consumed }) => {
                    assert!((1..=input.len()).contains(&consumed), "{consumed} of {}", input.len());
                    assert!(words.len() <= limits.words_max.max(input.len()));
                    assert!(words.iter().map(|word| word.len()).sum::<usize>() <= consumed);
                    assert_eq!(unfinished, Unfinished::default());
                    requests.push(words.iter().map(|word| word.to_vec()).collect());
                    (start, needed) = (start + consumed, 1);
                }
                Ok(Parsed::Incomplete { needed: more }) => {
                    assert!(more > input.len(), "{more} bytes are wanted, {} are there", input.len());
                    needed = more;
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}
