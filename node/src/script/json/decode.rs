//! JSON as Lua values.

use mlua::{Lua, MultiValue, Table, Value};

use super::settings::{NESTING_MAX, Settings};
use crate::script::{arguments::Arguments, fault::fault, state::RunState};

/// `cjson.decode`
pub(super) fn decode(
    state: &RunState,
    settings: &Settings,
    lua: &Lua,
    values: MultiValue,
) -> mlua::Result<Value> {
    let arguments = Arguments::new(lua, values);
    if arguments.len() != 1 {
        return Err(arguments.error(1, "expected 1 argument"));
    }
    let text = arguments.text(1)?;
    if text.len() >= 2 && (text[0] == 0 || text[1] == 0) {
        return Err(fault(lua, "JSON parser does not support UTF-16 or UTF-32"));
    }
    let mut reader = Reader { state, lua, text: &text, at: 0, charged: 0, settings, depth: 0 };
    let (token, index) = reader.next()?;
    let value = reader.value(token, index)?;
    match reader.next()? {
        (Token::End, _) => Ok(value),
        (token, index) => Err(reader.unexpected("the end", &token, index)),
    }
}

enum Token {
    ObjectBegin,
    ObjectEnd,
    ArrayBegin,
    ArrayEnd,
    Text(Vec<u8>),
    Number(f64),
    Boolean(bool),
    Null,
    Colon,
    Comma,
    End,
    Wrong(&'static str),
}

impl Token {
    /// CJSON's name, as its error texts show it.
    fn name(&self) -> &'static str {
        match self {
            Token::ObjectBegin => "T_OBJ_BEGIN",
            Token::ObjectEnd => "T_OBJ_END",
            Token::ArrayBegin => "T_ARR_BEGIN",
            Token::ArrayEnd => "T_ARR_END",
            Token::Text(_) => "T_STRING",
            Token::Number(_) => "T_NUMBER",
            Token::Boolean(_) => "T_BOOLEAN",
            Token::Null => "T_NULL",
            Token::Colon => "T_COLON",
            Token::Comma => "T_COMMA",
            Token::End => "T_END",
            Token::Wrong(text) => text,
        }
    }
}

/// What one token is counted as, its bytes apart: 0.1 us.
const TOKEN_WORK: usize = 64;
/// Bytes of one text between two charges.
const CHARGE_BYTES: usize = 64 << 10;

struct Reader<'a> {
    state: &'a RunState,
    lua: &'a Lua,
    text: &'a [u8],
    at: usize,
    /// How much of the text was charged.
    charged: usize,
    settings: &'a Settings,
    depth: usize,
}

impl Reader<'_> {
    fn unexpected(&self, expected: &str, found: &Token, index: usize) -> mlua::Error {
        let text = format!("Expected {expected} but found {} at character {}", found.name(), index + 1);
        fault(self.lua, text)
    }

    /// The byte at `at`; zero, which ends the text, after the last.
    fn byte(&self, at: usize) -> u8 {
        self.text.get(at).copied().unwrap_or(0)
    }

    fn charge(&mut self, work: usize) -> mlua::Result<()> {
        let read = self.at - std::mem::replace(&mut self.charged, self.at);
        self.state.charge(self.lua, read + work)
    }

    /// The next token and where it begins (or, if wrong, where it went wrong).
    fn next(&mut self) -> mlua::Result<(Token, usize)> {
        while matches!(self.byte(self.at), b' ' | b'\t' | b'\n' | b'\r') {
            self.at += 1;
        }
        self.charge(TOKEN_WORK)?;
        if self.byte(self.at) == b'"' {
            return self.text_token(self.at);
        }
        Ok(self.short_token())
    }

    /// A token that begins here and is no text.
    fn short_token(&mut self) -> (Token, usize) {
        let index = self.at;
        let single = match self.byte(index) {
            b'{' => Token::ObjectBegin,
            b'}' => Token::ObjectEnd,
            b'[' => Token::ArrayBegin,
            b']' => Token::ArrayEnd,
            b':' => Token::Colon,
            b',' => Token::Comma,
            0 => return (Token::End, index),
            b'-' | b'0'..=b'9' => return self.number_token(index),
            _ => return self.word_token(index),
        };
        self.at += 1;
        (single, index)
    }

    fn word_token(&mut self, index: usize) -> (Token, usize) {
        let words: [(&[u8], Token); 3] =
            [(b"true", Token::Boolean(true)), (b"false", Token::Boolean(false)), (b"null", Token::Null)];
        for (word, token) in words {
            if self.text[index..].starts_with(word) {
                self.at += word.len();
                return (token, index);
            }
        }
        let may_be_number = matches!(self.byte(index), b'+' | b'i' | b'I' | b'n' | b'N');
        if may_be_number && self.settings.decode_invalid && self.invalid_number() {
            return self.number_token(index);
        }
        (Token::Wrong("invalid token"), index)
    }

    /// What C reads as a number and JSON does not: `+1`, `0x10`, `01`, `inf`, `nan`.
    fn invalid_number(&self) -> bool {
        let mut at = self.at;
        if self.byte(at) == b'+' {
            return true;
        }
        if self.byte(at) == b'-' {
            at += 1;
        }
        if self.byte(at) == b'0' {
            return self.byte(at + 1) | 0x20 == b'x' || self.byte(at + 1).is_ascii_digit();
        }
        if self.byte(at) <= b'9' {
            return false;
        }
        let word = self.text.get(at..at + 3).unwrap_or_default();
        word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"nan")
    }

    fn number_token(&mut self, index: usize) -> (Token, usize) {
        let signed_or_digit = matches!(self.byte(index), b'-' | b'0'..=b'9');
        if signed_or_digit && !self.settings.decode_invalid && self.invalid_number() {
            return (Token::Wrong("invalid number"), index);
        }
        match c_number(&self.text[index..]) {
            Some((x, length)) => {
                self.at += length;
                (Token::Number(x), index)
            }
            None => (Token::Wrong("invalid number"), index),
        }
    }

    fn text_token(&mut self, index: usize) -> mlua::Result<(Token, usize)> {
        let mut out = Vec::new();
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0)).count();
            out.extend_from_slice(&rest[..plain]);
            self.at += plain;
            if self.at - self.charged > CHARGE_BYTES {
                self.charge(0)?;
            }
            match self.byte(self.at) {
                b'"' => {
                    self.at += 1;
                    return Ok((Token::Text(out), index));
                }
                b'\\' => {
                    if let Err(text) = self.escape(&mut out) {
                        return Ok((Token::Wrong(text), self.at));
                    }
                }
                _ => return Ok((Token::Wrong("unexpected end of string"), self.at)),
            }
        }
    }

    fn escape(&mut self, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let byte = match self.byte(self.at + 1) {
            letter @ (b'"' | b'\\' | b'/') => letter,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                let (character, length) = self.unicode().ok_or("invalid unicode escape code")?;
                out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                self.at += length;
                return Ok(());
            }
            _ => return Err("invalid escape code"),
        };
        out.push(byte);
        self.at += 2;
        Ok(())
    }

    /// `\uXXXX`, or a pair of them: the character and the length of its escape.
    fn unicode(&self) -> Option<(char, usize)> {
        let unit = |at: usize| {
            let digits = std::str::from_utf8(self.text.get(at..at + 4)?).ok()?;
            let hexadecimal = digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            hexadecimal.then(|| u32::from_str_radix(digits, 16).ok())?
        };
        let first = unit(self.at + 2)?;
        if first & 0xf800 != 0xd800 {
            return Some((char::from_u32(first)?, 6));
        }
        if first & 0x400 != 0 || self.byte(self.at + 6) != b'\\' || self.byte(self.at + 7) != b'u' {
            return None;
        }
        let second = unit(self.at + 8)?;
        if second & 0xfc00 != 0xdc00 {
            return None;
        }
        let code = 0x10000 + ((first & 0x3ff) << 10) + (second & 0x3ff);
        Some((char::from_u32(code)?, 12))
    }

    fn value(&mut self, token: Token, index: usize) -> mlua::Result<Value> {
        match token {
            Token::Text(text) => self.lua.create_string(text).map(Value::String),
            Token::Number(x) => Ok(Value::Number(x)),
            Token::Boolean(truth) => Ok(Value::Boolean(truth)),
            Token::Null => Ok(Value::NULL),
            Token::ObjectBegin => self.object().map(Value::Table),
            Token::ArrayBegin => self.array().map(Value::Table),
            other => Err(self.unexpected("value", &other, index)),
        }
    }

    fn descend(&mut self) -> mlua::Result<Table> {
        self.depth += 1;
        if self.depth as i64 > self.settings.decode_depth || self.depth > NESTING_MAX {
            let text =
                format!("Found too many nested data structures ({}) at character {}", self.depth, self.at);
            return Err(fault(self.lua, text));
        }
        self.lua.create_table()
    }

    fn object(&mut self) -> mlua::Result<Table> {
        let table = self.descend()?;
        let (mut token, mut index) = self.next()?;
        while !matches!(token, Token::ObjectEnd) {
            let Token::Text(key) = token else {
                return Err(self.unexpected("object key string", &token, index));
            };
            let key = self.lua.create_string(key)?;
            match self.next()? {
                (Token::Colon, _) => {}
                (other, index) => return Err(self.unexpected("colon", &other, index)),
            }
            (token, index) = self.next()?;
            table.raw_set(key, self.value(token, index)?)?;
            match self.next()? {
                (Token::ObjectEnd, _) => break,
                (Token::Comma, _) => (token, index) = self.next()?,
                (other, index) => return Err(self.unexpected("comma or object end", &other, index)),
            }
            // After a comma only another key may stand.
            if matches!(token, Token::ObjectEnd) {
                return Err(self.unexpected("object key string", &token, index));
            }
        }
        self.depth -= 1;
        Ok(table)
    }

    fn array(&mut self) -> mlua::Result<Table> {
        let table = self.descend()?;
        let (mut token, mut index) = self.next()?;
        if !matches!(token, Token::ArrayEnd) {
            for position in 1_i64.. {
                table.raw_set(position, self.value(token, index)?)?;
                match self.next()? {
                    (Token::ArrayEnd, _) => break,
                    (Token::Comma, _) => (token, index) = self.next()?,
                    (other, index) => return Err(self.unexpected("comma or array end", &other, index)),
                }
            }
        }
        self.depth -= 1;
        Ok(table)
    }
}

/// A number as C's `strtod` reads it, and its length.
fn c_number(text: &[u8]) -> Option<(f64, usize)> {
    let signs = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let negative = text.first() == Some(&b'-');
    let rest = &text[signs..];
    let (x, length) =
        if rest.len() > 2 && rest[0] == b'0' && rest[1] | 0x20 == b'x' && hexadecimal(&rest[2..]).1 > 0 {
            let (x, length) = hexadecimal(&rest[2..]);
            (x, length + 2)
        } else if rest.len() >= 3 && rest[..3].eq_ignore_ascii_case(b"inf") {
            let long = rest.len() >= 8 && rest[..8].eq_ignore_ascii_case(b"infinity");
            (f64::INFINITY, if long { 8 } else { 3 })
        } else if rest.len() >= 3 && rest[..3].eq_ignore_ascii_case(b"nan") {
            (f64::NAN, 3 + payload(&rest[3..]))
        } else if matches!(rest.first(), Some(b'0'..=b'9' | b'.')) {
            fast_float2::parse_partial::<f64, _>(rest).ok()?
        } else {
            return None;
        };
    Some((if negative { -x } else { x }, signs + length))
}

/// How long the digits of a NaN are, with their brackets: `(1f)`.
fn payload(text: &[u8]) -> usize {
    let Some((b'(', rest)) = text.split_first() else { return 0 };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
    if rest.get(digits) == Some(&b')') { digits + 2 } else { 0 }
}

/// Hexadecimal digits with an optional point and binary exponent, as in C: the nearest
/// double, and their length, which is 0 if there are no digits.
fn hexadecimal(text: &[u8]) -> (f64, usize) {
    let (mut mantissa, mut exponent, mut at, mut digits, mut is_behind_point) = (0_u64, 0_i32, 0, 0, false);
    while let Some(&byte) = text.get(at) {
        if let Some(digit) = char::from(byte).to_digit(16) {
            digits += 1;
            if mantissa >> 60 == 0 {
                mantissa = mantissa << 4 | u64::from(digit);
                exponent -= if is_behind_point { 4 } else { 0 };
            } else {
                // More than a double holds: the lowest digit stands for all that follow.
                mantissa |= u64::from(digit != 0);
                exponent += if is_behind_point { 0 } else { 4 };
            }
        } else if byte == b'.' && !is_behind_point {
            is_behind_point = true;
        } else {
            break;
        }
        at += 1;
    }
    if digits == 0 {
        return (0.0, 0);
    }
    if text.get(at).is_some_and(|byte| byte | 0x20 == b'p') {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'-' | b'+')));
        let power = &text[at + 1 + sign..];
        let count = power.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count > 0 {
            // Beyond this every double is 0 or infinite, however many digits there are.
            const LARGE: i32 = 1 << 29;
            let value = std::str::from_utf8(&power[..count]).ok().and_then(|text| text.parse().ok());
            let value = value.unwrap_or(LARGE).min(LARGE);
            exponent = exponent.saturating_add(if text[at + 1] == b'-' { -value } else { value });
            at += 1 + sign + count;
        }
    }
    (scaled(mantissa, exponent), at)
}

/// The double nearest to `mantissa` times 2 to the `exponent`.
fn scaled(mantissa: u64, exponent: i32) -> f64 {
    /// The exponent of the lowest digit of any double, and one that is out of every double's range.
    const LOWEST: i32 = -1074;
    const TOO_LARGE: i32 = 1100;
    let width = (u64::BITS - mantissa.leading_zeros()) as i32;
    let lowest = (exponent + width - f64::MANTISSA_DIGITS as i32).max(LOWEST);
    let (kept, exponent) = if lowest <= exponent {
        (mantissa, exponent)
    } else {
        // The digits below the lowest go: to the nearest, ties to even.
        let (value, cut) = (u128::from(mantissa), (lowest - exponent).min(127));
        let kept = value >> cut;
        let (rest, half) = (value - (kept << cut), 1_u128 << (cut - 1));
        ((kept + u128::from(rest > half || rest == half && kept % 2 == 1)) as u64, lowest)
    };
    // In two steps, for a power of two may be out of range where the number is not.
    let exponent = exponent.min(TOO_LARGE);
    kept as f64 * 2.0_f64.powi(exponent / 2) * 2.0_f64.powi(exponent - exponent / 2)
}
