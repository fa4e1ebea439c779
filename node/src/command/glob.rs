//! Glob patterns as Redis knows them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.
//!
//! Iterative: a star remembers where it stands and is tried again one byte on,
//! so that a pattern of many stars takes time of pattern times text at most
//! (CVE-2024-31228 was the recursive form).

/// Whether `text` as a whole matches `pattern`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match one(&pattern[at..], text[read]) {
            One::Star => {
                star = Some((at + 1, read));
                at += 1;
            }
            One::Yes(length) => {
                at += length;
                read += 1;
            }
            One::No => match star {
                Some((after, from)) => {
                    star = Some((after, from + 1));
                    (at, read) = (after, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

enum One {
    Star,
    /// The byte matches the first so many bytes of the pattern.
    Yes(usize),
    No,
}

fn one(pattern: &[u8], byte: u8) -> One {
    let yes = |matched: bool, length: usize| if matched { One::Yes(length) } else { One::No };
    match pattern {
        [] => One::No,
        [b'*', ..] => One::Star,
        [b'?', ..] => One::Yes(1),
        [b'\\', escaped, ..] => yes(*escaped == byte, 2),
        [b'[', class @ ..] => {
            let (matched, length) = class_matches(class, byte);
            yes(matched, length + 1)
        }
        [other, ..] => yes(*other == byte, 1),
    }
}

/// Whether `byte` is in the class that begins after `[`, and the class's length.
/// A class that is not closed ends with the pattern.
fn class_matches(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => return (matched != negated, at),
            [b']', ..] => return (matched != negated, at + 1),
            [b'\\', escaped, ..] => {
                matched |= *escaped == byte;
                at += 2;
            }
            [low, b'-', high, ..] => {
                let (low, high) = (low.min(high), low.max(high));
                matched |= (low..=high).contains(&&byte);
                at += 3;
            }
            [other, ..] => {
                matched |= *other == byte;
                at += 1;
            }
        }
    }
}
