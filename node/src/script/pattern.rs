//! Lua 5.1's patterns, with a bound on the work of a match.
//!
//! The matcher of the C library backtracks without ever asking whether it may go
//! on: `("x"):rep(40):find(".-.-.-.-y")` holds a thread for hours, and no hook
//! reaches into it. This one counts its steps and asks.
//!
//! INVARIANT: between two questions at most [`STEPS_A_QUESTION`] characters, of the
//! subject or of a set in the pattern, are compared (and once the length of one set), and the stack grows by at most [`NESTING_MAX`] frames.
//!
//! Source: Lua 5.1 reference manual §5.4.1. As there, a zero byte ends a pattern.

use super::arguments::until_zero;

/// Most captures of one pattern, as in Lua 5.1.
pub const CAPTURES_MAX: usize = 32;
/// Characters compared between two questions: about 0.2 ms.
pub const STEPS_A_QUESTION: usize = 100_000;
/// Pattern items that may wait for the rest of the pattern at one time. Lua 5.2
/// and later allow 200; 5.1 runs off the C stack instead.
const NESTING_MAX: u32 = 400;

/// Why a match ended without an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// The pattern is wrong; Lua's text.
    Malformed(&'static str),
    /// The question was answered with no.
    Stopped,
}

/// One capture of a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Capture {
    /// `(…)`: a piece of the subject.
    Text {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
    },
    /// `()`: a place in the subject, counted from 0.
    Position(usize),
    /// `(` without its `)` yet.
    Open(usize),
}

/// A match at work on one subject.
pub struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    anchored: bool,
    level: usize,
    captures: [Capture; CAPTURES_MAX],
    nesting: u32,
    steps: usize,
    may_go_on: &'a mut dyn FnMut() -> bool,
}

type Found = Result<Option<usize>, Failure>;

impl<'a> Matcher<'a> {
    /// A matcher that asks `may_go_on` every [`STEPS_A_QUESTION`].
    pub fn new(subject: &'a [u8], pattern: &'a [u8], may_go_on: &'a mut dyn FnMut() -> bool) -> Self {
        let anchored = pattern.first() == Some(&b'^');
        let pattern = &pattern[usize::from(anchored)..];
        Self { anchored, ..Self::unanchored(subject, pattern, may_go_on) }
    }

    /// The same, where `^` is a character like any other, as in `gmatch`.
    pub fn unanchored(subject: &'a [u8], pattern: &'a [u8], may_go_on: &'a mut dyn FnMut() -> bool) -> Self {
        Self {
            subject,
            pattern: until_zero(pattern),
            anchored: false,
            level: 0,
            captures: [Capture::Position(0); CAPTURES_MAX],
            nesting: 0,
            steps: 0,
            may_go_on,
        }
    }

    /// Whether the pattern begins with `^`.
    pub fn anchored(&self) -> bool {
        self.anchored
    }

    /// The first match that begins at `from` or, if not anchored, after it.
    pub fn search(&mut self, from: usize) -> Result<Option<(usize, usize)>, Failure> {
        for start in from..=self.subject.len() {
            self.level = 0;
            if let Some(end) = self.run(start, 0)? {
                return Ok(Some((start, end)));
            }
            if self.anchored {
                break;
            }
        }
        Ok(None)
    }

    /// Steps since the last question.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The captures of the last match.
    pub fn captures(&self) -> &[Capture] {
        &self.captures[..self.level]
    }

    fn step(&mut self, count: usize) -> Result<(), Failure> {
        self.steps = self.steps.saturating_add(count);
        if self.steps >= STEPS_A_QUESTION {
            self.steps = 0;
            if !(self.may_go_on)() {
                return Err(Failure::Stopped);
            }
        }
        Ok(())
    }

    fn at(&self, p: usize) -> Option<u8> {
        self.pattern.get(p).copied()
    }

    /// Matches the rest of the pattern, in a frame of its own.
    fn nested(&mut self, s: usize, p: usize) -> Found {
        if self.nesting == NESTING_MAX {
            return Err(Failure::Malformed("pattern too complex"));
        }
        self.nesting += 1;
        let found = self.run(s, p);
        self.nesting -= 1;
        found
    }

    fn run(&mut self, mut s: usize, mut p: usize) -> Found {
        loop {
            self.step(1)?;
            match (self.at(p), self.at(p + 1)) {
                (None, _) => return Ok(Some(s)),
                (Some(b'('), Some(b')')) => return self.open(Capture::Position(s), s, p + 2),
                (Some(b'('), _) => return self.open(Capture::Open(s), s, p + 1),
                (Some(b')'), _) => return self.close(s, p + 1),
                (Some(b'%'), Some(b'b')) => match self.balanced(s, p + 2)? {
                    Some(end) => (s, p) = (end, p + 4),
                    None => return Ok(None),
                },
                (Some(b'%'), Some(b'f')) => match self.frontier(s, p + 2)? {
                    Some(next) => p = next,
                    None => return Ok(None),
                },
                (Some(b'%'), Some(digit @ b'0'..=b'9')) => match self.repeated(s, digit)? {
                    Some(end) => (s, p) = (end, p + 2),
                    None => return Ok(None),
                },
                (Some(b'$'), None) => return Ok((s == self.subject.len()).then_some(s)),
                _ => match self.item(s, p)? {
                    Ok((next_s, next_p)) => (s, p) = (next_s, next_p),
                    Err(found) => return Ok(found),
                },
            }
        }
    }

    /// A single character class with its suffix: where to go on, or the answer.
    #[allow(clippy::type_complexity)]
    fn item(&mut self, s: usize, p: usize) -> Result<Result<(usize, usize), Option<usize>>, Failure> {
        let end = self.class_end(p)?;
        let matches = self.single(s, p, end)?;
        match self.at(end) {
            Some(b'?') => {
                if matches && let Some(found) = self.nested(s + 1, end + 1)? {
                    return Ok(Err(Some(found)));
                }
                Ok(Ok((s, end + 1)))
            }
            Some(b'*') => Ok(Err(self.longest(s, p, end)?)),
            Some(b'+') if matches => Ok(Err(self.longest(s + 1, p, end)?)),
            Some(b'-') => Ok(Err(self.shortest(s, p, end)?)),
            Some(b'+') => Ok(Err(None)),
            _ if matches => Ok(Ok((s + 1, end))),
            _ => Ok(Err(None)),
        }
    }

    fn longest(&mut self, s: usize, p: usize, end: usize) -> Found {
        let mut count = 0;
        while self.single(s + count, p, end)? {
            count += 1;
        }
        loop {
            if let Some(found) = self.nested(s + count, end + 1)? {
                return Ok(Some(found));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    fn shortest(&mut self, mut s: usize, p: usize, end: usize) -> Found {
        loop {
            if let Some(found) = self.nested(s, end + 1)? {
                return Ok(Some(found));
            }
            if !self.single(s, p, end)? {
                return Ok(None);
            }
            s += 1;
        }
    }

    fn open(&mut self, capture: Capture, s: usize, p: usize) -> Found {
        if self.level == CAPTURES_MAX {
            return Err(Failure::Malformed("too many captures"));
        }
        self.captures[self.level] = capture;
        self.level += 1;
        let found = self.nested(s, p)?;
        if found.is_none() {
            self.level -= 1;
        }
        Ok(found)
    }

    fn close(&mut self, s: usize, p: usize) -> Found {
        let open = (0..self.level).rev().find_map(|index| match self.captures[index] {
            Capture::Open(start) => Some((index, start)),
            _ => None,
        });
        let (index, start) = open.ok_or(Failure::Malformed("invalid pattern capture"))?;
        self.captures[index] = Capture::Text { start, end: s };
        let found = self.nested(s, p)?;
        if found.is_none() {
            self.captures[index] = Capture::Open(start);
        }
        Ok(found)
    }

    /// `%bxy`: where the balanced piece ends.
    fn balanced(&mut self, s: usize, p: usize) -> Found {
        let (Some(open), Some(close)) = (self.at(p), self.at(p + 1)) else {
            return Err(Failure::Malformed("unbalanced pattern"));
        };
        if self.subject.get(s) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for at in s + 1..self.subject.len() {
            self.step(1)?;
            let byte = self.subject[at];
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + 1));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// `%f[set]`: where the pattern goes on if `s` is at such a border.
    fn frontier(&mut self, s: usize, p: usize) -> Found {
        if self.at(p) != Some(b'[') {
            return Err(Failure::Malformed("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(p)?;
        self.step(2 * (end - p))?;
        let before = if s == 0 { 0 } else { self.subject[s - 1] };
        let here = self.subject.get(s).copied().unwrap_or(0);
        let border = !self.in_set(before, p, end - 1) && self.in_set(here, p, end - 1);
        Ok(border.then_some(end))
    }

    /// `%1`: where the repetition of a capture ends.
    fn repeated(&mut self, s: usize, digit: u8) -> Found {
        let index = usize::from(digit).wrapping_sub(usize::from(b'1'));
        let (start, end) = match self.captures().get(index) {
            Some(&Capture::Text { start, end }) => (start, end),
            // A position capture has no length that fits: it matches nothing.
            Some(Capture::Position(_)) => return Ok(None),
            Some(Capture::Open(_)) | None => return Err(Failure::Malformed("invalid capture index")),
        };
        self.step(end - start)?;
        let matches = self.subject[s..].starts_with(&self.subject[start..end]);
        Ok(matches.then_some(s + end - start))
    }

    /// One past the last byte of the class that begins at `p`.
    fn class_end(&self, p: usize) -> Result<usize, Failure> {
        match self.at(p) {
            Some(b'%') => match self.at(p + 1) {
                None => Err(Failure::Malformed("malformed pattern (ends with '%')")),
                Some(_) => Ok(p + 2),
            },
            Some(b'[') => {
                let mut at = p + 1;
                if self.at(at) == Some(b'^') {
                    at += 1;
                }
                // A `]` right after the opening is a member of the set.
                loop {
                    let byte = self.at(at).ok_or(Failure::Malformed("malformed pattern (missing ']')"))?;
                    at += 1;
                    if byte == b'%' && self.at(at).is_some() {
                        at += 1;
                    }
                    if self.at(at) == Some(b']') {
                        return Ok(at + 1);
                    }
                }
            }
            _ => Ok(p + 1),
        }
    }

    /// Whether a byte is of the class from `p` to `end`: as many steps as that is long.
    fn single(&mut self, s: usize, p: usize, end: usize) -> Result<bool, Failure> {
        self.step(end - p)?;
        let Some(&byte) = self.subject.get(s) else { return Ok(false) };
        Ok(match self.pattern[p] {
            b'.' => true,
            b'%' => in_class(byte, self.pattern[p + 1]),
            b'[' => self.in_set(byte, p, end - 1),
            literal => literal == byte,
        })
    }

    /// Whether a byte is in the set from `[` at `p` to `]` at `last`.
    fn in_set(&self, byte: u8, p: usize, last: usize) -> bool {
        let negated = self.at(p + 1) == Some(b'^');
        let mut at = p + 1 + usize::from(negated);
        while at < last {
            let member = self.pattern[at];
            if member == b'%' {
                if in_class(byte, self.pattern[at + 1]) {
                    return !negated;
                }
                at += 2;
            } else if self.at(at + 1) == Some(b'-') && at + 2 < last {
                if (member..=self.pattern[at + 2]).contains(&byte) {
                    return !negated;
                }
                at += 3;
            } else {
                if member == byte {
                    return !negated;
                }
                at += 1;
            }
        }
        negated
    }
}

/// Whether a byte is in the class `%letter`; of another byte, whether it is that.
fn in_class(byte: u8, class: u8) -> bool {
    let matches = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        // The vertical tab, too, is space to C.
        b's' => byte.is_ascii_whitespace() || byte == 0x0b,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    matches != class.is_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(subject: &str, pattern: &str) -> Result<Option<(usize, usize)>, Failure> {
        Matcher::new(subject.as_bytes(), pattern.as_bytes(), &mut || true).search(0)
    }

    #[test]
    fn backtracking_asks_and_stops() {
        let subject = "x".repeat(60);
        let mut questions = 0;
        let mut may_go_on = || {
            questions += 1;
            questions < 3
        };
        let mut matcher = Matcher::new(subject.as_bytes(), b".-.-.-.-.-.-.-.-.-y", &mut may_go_on);
        assert_eq!(matcher.search(0), Err(Failure::Stopped));
        assert_eq!(questions, 3);
    }

    #[test]
    fn a_pattern_of_many_items_is_refused_rather_than_overflowing_the_stack() {
        let subject = "x".repeat(5000);
        let pattern = "x?".repeat(5000);
        assert_eq!(found(&subject, &pattern), Err(Failure::Malformed("pattern too complex")));
    }

    #[test]
    fn a_long_set_counts_as_many_steps_as_it_is_long() {
        let (subject, pattern) = ("x".repeat(100), format!("[{}]*", "y".repeat(100_000)));
        let mut questions = 0;
        let mut may_go_on = || {
            questions += 1;
            true
        };
        let mut matcher = Matcher::new(subject.as_bytes(), pattern.as_bytes(), &mut may_go_on);
        assert_eq!(matcher.search(0), Ok(Some((0, 0))));
        assert!(questions >= 1, "asked {questions} times");
        let pattern = format!("[{}x]*", "y".repeat(20_000));
        let mut questions = 0;
        let mut may_go_on = || {
            questions += 1;
            true
        };
        let mut matcher = Matcher::new(subject.as_bytes(), pattern.as_bytes(), &mut may_go_on);
        assert_eq!(matcher.search(0), Ok(Some((0, 100))));
        assert!(questions >= 10, "asked {questions} times");
    }

    #[test]
    fn malformed_patterns_have_luas_texts() {
        let cases = [
            ("%", "malformed pattern (ends with '%')"),
            ("[a", "malformed pattern (missing ']')"),
            ("[]", "malformed pattern (missing ']')"),
            ("[^]", "malformed pattern (missing ']')"),
            ("[a%", "malformed pattern (missing ']')"),
            ("a)", "invalid pattern capture"),
            ("a%1", "invalid capture index"),
            ("a%b", "unbalanced pattern"),
            ("a%f", "missing '[' after '%f' in pattern"),
        ];
        for (pattern, text) in cases {
            assert_eq!(found("aaa", pattern), Err(Failure::Malformed(text)), "{pattern}");
        }
    }

    proptest::proptest! {
        /// No pattern, however broken, panics; none runs on when told to stop.
        #[test]
        fn any_pattern_ends(subject in "[a-c()%]{0,40}", pattern in "[a-c%\\[\\]().*+?^$f\\-b1]{0,24}") {
            let mut left = 20;
            let mut may_go_on = || { left -= 1; left > 0 };
            let mut matcher = Matcher::new(subject.as_bytes(), pattern.as_bytes(), &mut may_go_on);
            if let Ok(Some((start, end))) = matcher.search(0) {
                proptest::prop_assert!(start <= end && end <= subject.len());
            }
        }
    }
}
