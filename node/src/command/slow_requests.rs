//! Requests that took long: `SLOWLOG`.
//!
//! A clock reading costs as much as a small command, so that commands that are declared fast, whose time does
//! not grow with the data, are measured only now and then; see [`super::statistics`].

use std::collections::VecDeque;

use bytes::Bytes;

use super::Command;

/// Words of a request that are kept, and bytes of each; as in Redis.
const WORDS_MAX: usize = 32;
const WORD_BYTES_MAX: usize = 128;

/// A request that took long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    /// Counts them since the start.
    pub id: u64,
    /// When it was executed, Unix microseconds.
    pub at_us: u64,
    /// How long it took, microseconds.
    pub took_us: u64,
    /// Its words, the first of them, and of each the beginning.
    pub words: Vec<Bytes>,
    /// `host:port` of its client.
    pub peer_address: String,
    /// The name its client had.
    pub name: String,
}

/// The last requests that took long, newest first.
#[derive(Debug, Default)]
pub struct SlowLog {
    requests: VecDeque<SlowRequest>,
    next_id: u64,
}

impl SlowLog {
    /// Notes a request, whose number is given here, and forgets the oldest above `length_max`.
    pub fn note(&mut self, request: SlowRequest, length_max: usize) {
        self.requests.push_front(SlowRequest { id: self.next_id, ..request });
        self.next_id += 1;
        self.requests.truncate(length_max);
    }

    /// What there is, newest first.
    pub fn iter(&self) -> impl Iterator<Item = &SlowRequest> {
        self.requests.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// Forgets all; numbers go on.
    pub fn clear(&mut self) {
        self.requests.clear();
    }
}

/// What is kept of a request's words; of secrets nothing is.
pub fn kept_words(command: &Command, words: &[&[u8]]) -> Vec<Bytes> {
    let whole = if words.len() > WORDS_MAX { WORDS_MAX - 1 } else { words.len() };
    let mut kept: Vec<Bytes> = command.told_words(words).take(whole).map(kept_word).collect();
    if words.len() > whole {
        kept.push(format!("... ({} more arguments)", words.len() - whole).into());
    }
    kept
}

fn kept_word(word: &[u8]) -> Bytes {
    if word.len() <= WORD_BYTES_MAX {
        return Bytes::copy_from_slice(word);
    }
    let more = format!("... ({} more bytes)", word.len() - WORD_BYTES_MAX);
    [&word[..WORD_BYTES_MAX], more.as_bytes()].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{find, resolve};

    #[test]
    fn long_requests_are_kept_in_part() {
        let long = vec![b'x'; 200];
        let words: Vec<&[u8]> = std::iter::repeat_n(&*long, 40).collect();
        let get = find(b"get").expect("it is known");
        let kept = kept_words(get, &words);
        assert_eq!(kept.len(), 32);
        assert_eq!(kept[0], ["x".repeat(128).as_str(), "... (72 more bytes)"].concat());
        assert_eq!(kept[31], "... (9 more arguments)");
        assert_eq!(kept_words(get, &words[..32]).len(), 32);
        assert_eq!(kept_words(get, &[b"get", b"k"]), ["get", "k"]);
    }

    #[test]
    fn secrets_are_not_kept() {
        let kept = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let kept = kept_words(resolve(&words).expect("it is known"), &words);
            kept.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(kept("AUTH me x"), "AUTH (redacted) (redacted)");
        assert_eq!(kept("HELLO 3 AUTH me x SETNAME n"), "HELLO 3 AUTH (redacted) (redacted) SETNAME n");
        assert_eq!(kept("CONFIG SET requirepass x"), "CONFIG SET requirepass (redacted)");
        assert_eq!(
            kept("CONFIG SET timeout 1 MasterAuth x requirepass y hz 5"),
            "CONFIG SET timeout 1 MasterAuth (redacted) (redacted) (redacted) hz 5"
        );
        assert_eq!(kept("CONFIG SET timeout 1"), "CONFIG SET timeout 1");
    }
}
