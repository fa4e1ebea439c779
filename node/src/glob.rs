//! Glob patterns, as `KEYS`, `SCAN`, `PSUBSCRIBE` and `CONFIG GET` take them.
//!
//! `*` stands for any bytes, `?` for one byte, `[a-c]` for one of a class (`[^…]`
//! for one outside of it), and a backslash takes the next byte as it is.
//!
//! INVARIANT: matching takes no more than pattern length times text length steps
//! and no stack: when what follows a `*` does not match, only the newest `*` takes one byte more.
//! An older one never has to, because the newest could take whatever it would.
//! (A recursive matcher is what CVE-2024-31228 and CVE-2022-36021 exhaust.)
//! Those steps are bounded too, see `STEPS_MAX`.
//!
//! Source: `stringmatchlen` of Redis 7.2, whose answers to malformed classes this
//! gives as well.

use moonraft_router::slot_of;

/// Steps that one match may take, each looking at one byte of the pattern. A longer one is given up and does not match:
/// no pattern that means something comes near, and one that is made to be slow
/// holds the shard for a tenth of a millisecond rather than minutes.
const STEPS_MAX: usize = 1 << 16;

/// Steps after which who matches one name after the other lets others go on: some milliseconds.
pub const STEPS_IN_A_ROW: usize = 1 << 22;

/// Whether `pattern` matches all of `text`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_counted(pattern, text, &mut 0)
}

/// The same. The steps that it took are added to `steps`.
pub fn matches_counted(pattern: &[u8], text: &[u8], steps: &mut usize) -> bool {
    search(pattern, text, false, steps)
}

/// Whether `pattern` matches all of `text`, ASCII letters in any case.
pub fn matches_any_case(pattern: &[u8], text: &[u8]) -> bool {
    search(pattern, text, true, &mut 0)
}

/// Whether a pattern matches everything.
pub fn is_everything(pattern: &[u8]) -> bool {
    pattern == b"*"
}

/// The slot that all matches are in: that of a hash tag in the pattern which
/// contains nothing that stands for other bytes.
pub fn slot_of_matches(pattern: &[u8]) -> Option<u16> {
    let open = pattern.iter().position(|&byte| byte == b'{')?;
    let length = pattern[open..].iter().position(|&byte| byte == b'}')?;
    let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
    let plain = length > 1 && !pattern[..open + length].iter().any(special);
    plain.then(|| slot_of(pattern))
}

/// Where to go on when the rest does not match: the newest `*` takes one byte more.
#[derive(Clone, Copy)]
struct Retry {
    /// Behind the `*`.
    pattern: usize,
    /// The first byte that it does not take.
    text: usize,
}

fn search(pattern: &[u8], text: &[u8], any_case: bool, steps: &mut usize) -> bool {
    let (mut at, mut position) = (0, 0);
    let mut retry: Option<Retry> = None;
    let most = steps.saturating_add(STEPS_MAX);
    while *steps < most {
        *steps += 1;
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            if at == pattern.len() {
                return true;
            }
            retry = Some(Retry { pattern: at, text: position });
            continue;
        }
        let Some(&byte) = text.get(position) else {
            // Nothing is left to match, and taking more would leave less.
            return at == pattern.len();
        };
        let (met, length) = one(&pattern[at..], byte, any_case);
        *steps += length;
        if met {
            at += length;
            position += 1;
        } else {
            let Some(star) = &mut retry else { return false };
            star.text += 1;
            (at, position) = (star.pattern, star.text);
        }
    }
    false
}

/// Whether the first element of a pattern, which is not `*`, matches a byte; and
/// how long it is. The end of the pattern matches none.
fn one(pattern: &[u8], byte: u8, any_case: bool) -> (bool, usize) {
    let same = |left: u8| left == byte || any_case && left.eq_ignore_ascii_case(&byte);
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', ..] => class(pattern, byte, any_case),
        [b'\\', escaped, ..] => (same(*escaped), 2),
        [plain, ..] => (same(*plain), 1),
        [] => (false, 0),
    }
}

/// As [`one`] for a pattern that begins with `[`. A class that is not closed ends
/// with the pattern.
fn class(pattern: &[u8], byte: u8, any_case: bool) -> (bool, usize) {
    let fold = |byte: u8| if any_case { byte.to_ascii_lowercase() } else { byte };
    let byte = fold(byte);
    let negated = pattern.get(1) == Some(&b'^');
    let mut at = 1 + usize::from(negated);
    let mut found = false;
    loop {
        match pattern[at.min(pattern.len())..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                found |= fold(escaped) == byte;
                at += 2;
            }
            [first, b'-', last, ..] => {
                let (first, last) = (fold(first.min(last)), fold(first.max(last)));
                found |= (first..=last).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                found |= fold(plain) == byte;
                at += 1;
            }
        }
    }
    (found != negated, at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn patterns_match_as_those_of_redis() {
        for (pattern, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("**", "anything", true),
            ("?", "", false),
            ("h?llo", "hello", true),
            ("h[ae]llo", "hallo", true),
            ("h[ae]llo", "hillo", false),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hallo", true),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hallo", true),
            ("h\\*llo", "h*llo", true),
            ("h\\*llo", "hello", false),
            ("[\\]]", "]", true),
            ("[abc", "b", true),
            ("[", "a", false),
            ("[^", "a", true),
            ("[]", "a", false),
            ("[a-", "-", true),
            ("[a-]", "]", true),
            ("a\\", "a\\", true),
            ("*a*b*c", "xxaxxbxxc", true),
            ("*a*b*c", "xxaxxbxx", false),
            ("a*", "ba", false),
            ("*ab", "aab", true),
            ("A", "a", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(matches_any_case(b"H[A-C]?*o", b"hbLLO"));
    }

    #[test]
    fn a_pattern_made_to_be_slow_is_given_up() {
        // Without the bound, this test takes minutes.
        let pattern = b"*a".repeat(50_000);
        let text = [b"a".repeat(1_000_000), b"b".to_vec()].concat();
        assert!(!matches(&[&pattern[..], b"*c*c"].concat(), &text));
        assert!(!matches(&b"*?".repeat(500_000), b"a"));
        let class = [b"*[".as_slice(), &b"x".repeat(1_000_000)].concat();
        assert!(!matches(&class, &text));
    }

    #[test]
    fn a_plain_hash_tag_names_the_slot_of_all_matches() {
        assert_eq!(slot_of_matches(b"{user}*"), Some(slot_of(b"user")));
        assert_eq!(slot_of_matches(b"a{user}?"), Some(slot_of(b"user")));
        for pattern in ["{us*r}", "*{user}", "{}*", "{user*", "user*", "[{]user}", "\\{user}"] {
            assert_eq!(slot_of_matches(pattern.as_bytes()), None, "{pattern}");
        }
    }

    /// The meaning of a pattern, written down without a thought for cost.
    fn simple(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', rest @ ..] => (0..=text.len()).any(|taken| simple(rest, &text[taken..])),
            _ => {
                let Some((&byte, rest)) = text.split_first() else { return false };
                let (met, length) = one(pattern, byte, false);
                met && simple(&pattern[length..], rest)
            }
        }
    }

    proptest! {
        #[test]
        fn it_matches_what_the_meaning_matches(
            pattern in "[*?ab\\\\\\[\\]^-]{0,8}",
            text in "[ab\\-\\]]{0,8}",
        ) {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), simple(pattern, text));
        }

        #[test]
        fn no_bytes_make_it_panic(pattern: Vec<u8>, text: Vec<u8>) {
            matches(&pattern, &text);
            matches_any_case(&pattern, &text);
            slot_of_matches(&pattern);
        }
    }
}
