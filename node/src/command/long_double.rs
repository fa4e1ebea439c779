//! The numbers of `INCRBYFLOAT` and `HINCRBYFLOAT`.
//!
//! Redis computes them in C's `long double`, which on x86-64 is a number of 64
//! binary digits, and writes 17 decimals without trailing zeros. A double would
//! answer otherwise: 0.1 + 0.2 is 0.3 there and 0.30000000000000004 here. So this
//! is that arithmetic: reading, adding and writing are each rounded exactly, to
//! the nearest, ties to even.
//!
//! Left out: numbers below 2^-16382 keep all 64 digits, where the processor would
//! drop some. No sum of 17 decimals shows it.
//!
//! Sources: IEEE 754, extended precision; `string2ld` and `ld2string` of Redis 7.2.

use super::arguments::is;

/// Bytes of a word that is read as a number, at most: the buffer of `string2ld`.
const TEXT_BYTES_MAX: usize = 5 * 1024 - 1;

/// The largest exponent of a finite number: below 2^16384.
const EXPONENT_MAX: i32 = 16383 - 63;

/// The exponent of the smallest number that is not taken for 0: 2^-16446 and
/// less are nearer to 0 than to the smallest number there is.
const EXPONENT_MIN: i32 = -16446 - 63;

/// Powers of ten beyond which any number of [`TEXT_BYTES_MAX`] digits is out of
/// range, so that none larger is computed.
const POWER_OF_TEN_MAX: i32 = 11_000;

/// Decimals that are written: `%.17Lf`.
const DECIMALS: usize = 17;

/// 10^17.
const DECIMALS_SCALE: u128 = 10_u128.pow(DECIMALS as u32);

/// A number of 64 binary digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    /// The digits, the highest set; 0 is the number 0.
    mantissa: u64,
    /// The number is `mantissa` times 2 to this; more than [`EXPONENT_MAX`] is
    /// infinite.
    exponent: i32,
}

impl LongDouble {
    /// The number 0.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// The number that a word is the text of, as C's `strtold` reads it: all of
    /// the word, decimal or hexadecimal, perhaps infinite, never NaN. `None` if
    /// it is none, or out of range.
    pub fn parse(word: &[u8]) -> Option<Self> {
        if word.len() > TEXT_BYTES_MAX {
            return None;
        }
        let (negative, rest) = match word.split_first() {
            Some((b'-', rest)) => (true, rest),
            Some((b'+', rest)) => (false, rest),
            _ => (false, word),
        };
        if is(rest, "inf") || is(rest, "infinity") {
            return Some(Self { negative, mantissa: 1 << 63, exponent: EXPONENT_MAX + 1 });
        }
        let number = match rest {
            [b'0', b'x' | b'X', digits @ ..] => Digits::parse(digits, 16)?.hexadecimal(),
            digits => Digits::parse(digits, 10)?.decimal()?,
        };
        let read = Self { negative, ..number };
        let in_range = read.mantissa == 0 || (EXPONENT_MIN..=EXPONENT_MAX).contains(&read.exponent);
        in_range.then_some(read)
    }

    /// Whether it is not infinite.
    pub const fn is_finite(self) -> bool {
        self.exponent <= EXPONENT_MAX
    }

    /// The sum, unless it is not finite.
    pub fn add(self, other: Self) -> Option<Self> {
        if !self.is_finite() || !other.is_finite() {
            return None;
        }
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        // Digits of both stand highest, so the order of exponents is that of sizes.
        let other_is_larger = (other.exponent, other.mantissa) > (self.exponent, self.mantissa);
        let (large, small) = if other_is_larger { (other, self) } else { (self, other) };
        // 62 digits below those of the larger one: room for a carry above.
        const BELOW: u32 = 62;
        let apart = large.exponent.abs_diff(small.exponent);
        let high = u128::from(large.mantissa) << BELOW;
        let (low, lost) = match apart {
            0..=BELOW => (u128::from(small.mantissa) << (BELOW - apart), false),
            _ => match small.mantissa.checked_shr(apart - BELOW) {
                Some(kept) => (u128::from(kept), kept << (apart - BELOW) != small.mantissa),
                None => (0, true),
            },
        };
        let sum = if large.negative == small.negative { high + low } else { high - low - u128::from(lost) };
        let sum = Self { negative: large.negative, ..round(sum, large.exponent - BELOW as i32, lost) };
        sum.is_finite().then_some(sum)
    }

    /// A thousand times the number, rounded as C does and then up to a whole one; the greatest or least there is, if it is
    /// beyond.
    pub fn thousandfold_up(self) -> i64 {
        let beyond = if self.negative { i64::MIN } else { i64::MAX };
        if !self.is_finite() {
            return beyond;
        }
        let Self { mantissa, exponent, .. } = round(u128::from(self.mantissa) * 1000, self.exponent, false);
        let whole = match exponent {
            0.. => {
                if mantissa == 0 {
                    0
                } else {
                    return beyond;
                }
            }
            _ => {
                let by = exponent.unsigned_abs();
                let kept = mantissa.checked_shr(by).unwrap_or(0);
                let has_rest = kept.checked_shl(by).unwrap_or(0) != mantissa;
                kept + u64::from(has_rest && !self.negative)
            }
        };
        match i64::try_from(whole) {
            Ok(whole) if self.negative => -whole,
            Ok(whole) => whole,
            Err(_) => beyond,
        }
    }

    /// Its text: 17 decimals, without zeros at the end. It is finite.
    pub fn text(self) -> String {
        let whole_digits;
        let mut decimals = String::new();
        if self.exponent >= 0 {
            whole_digits = Big::from_u128(self.mantissa.into()).shifted(self.exponent as u32).text();
        } else {
            let scaled =
                shift_right(u128::from(self.mantissa) * DECIMALS_SCALE, self.exponent.unsigned_abs());
            whole_digits = (scaled / DECIMALS_SCALE).to_string();
            decimals = format!("{:0DECIMALS$}", scaled % DECIMALS_SCALE);
            decimals.truncate(decimals.trim_end_matches('0').len());
        }
        let sign = if self.negative && (whole_digits != "0" || !decimals.is_empty()) { "-" } else { "" };
        let point = if decimals.is_empty() { "" } else { "." };
        format!("{sign}{whole_digits}{point}{decimals}")
    }
}

/// `value` without its `by` lowest digits, rounded to the nearest, ties to even.
pub fn shift_right(value: u128, by: u32) -> u128 {
    let Some(kept) = value.checked_shr(by) else { return 0 };
    if by == 0 {
        return kept;
    }
    let (rest, half) = (value - (kept << by), 1_u128 << (by - 1));
    kept + u128::from(rest > half || rest == half && kept % 2 == 1)
}

/// The number nearest to `value` times 2 to the `exponent`; `lost` says that the
/// true value is a little more, by less than the lowest digit.
fn round(value: u128, exponent: i32, lost: bool) -> LongDouble {
    if value == 0 {
        return LongDouble::ZERO;
    }
    let width = 128 - value.leading_zeros();
    assert!(!lost || width >= 66, "what is lost lies below the digit that decides");
    if width <= 64 {
        let mantissa = (value << (64 - width)) as u64;
        return LongDouble { negative: false, mantissa, exponent: exponent - (64 - width) as i32 };
    }
    let by = width - 64;
    // The lowest digit stands for all that is below it.
    let rounded = shift_right(value | u128::from(lost), by);
    let exponent = exponent + by as i32;
    match u64::try_from(rounded) {
        Ok(mantissa) => LongDouble { negative: false, mantissa, exponent },
        Err(_) => LongDouble { negative: false, mantissa: 1 << 63, exponent: exponent + 1 },
    }
}

/// Digits as they are written: the number is `value` times the base to the
/// `exponent` (2 to it, if the base is 16).
struct Digits {
    value: Big,
    exponent: i32,
}

impl Digits {
    fn parse(text: &[u8], base: u32) -> Option<Self> {
        let mark = if base == 16 { b'p' } else { b'e' };
        let end = text.iter().position(|byte| byte.to_ascii_lowercase() == mark).unwrap_or(text.len());
        let (digits, exponent) = text.split_at(end);
        let exponent = if exponent.is_empty() { 0 } else { parse_exponent(&exponent[1..])? };
        let (mut value, mut count, mut behind_point) = (Big::default(), 0, None);
        for &byte in digits {
            if byte == b'.' {
                if behind_point.replace(0).is_some() {
                    return None;
                }
                continue;
            }
            value.multiply(base.into(), char::from(byte).to_digit(base)?.into());
            count += 1;
            behind_point = behind_point.map(|behind| behind + 1);
        }
        let behind: i32 = behind_point.unwrap_or(0) * if base == 16 { 4 } else { 1 };
        (count > 0).then_some(Self { value, exponent: exponent - behind })
    }

    fn hexadecimal(&self) -> LongDouble {
        self.value.over(&Big::from_u128(1), self.exponent)
    }

    fn decimal(&self) -> Option<LongDouble> {
        if self.value.is_zero() {
            return Some(LongDouble::ZERO);
        }
        if let [value] = self.value.0[..]
            && let Some(number) = decimal_of_few_digits(value, self.exponent)
        {
            return Some(number);
        }
        if self.exponent.abs() > POWER_OF_TEN_MAX {
            return None;
        }
        let power = Big::power_of_ten(self.exponent.unsigned_abs());
        Some(if self.exponent < 0 {
            self.value.over(&power, 0)
        } else {
            self.value.times(&power).over(&Big::from_u128(1), 0)
        })
    }
}

/// `value` times 10 to the `exponent`, if that can be had in 128 bits: what
/// people write can.
fn decimal_of_few_digits(value: u64, exponent: i32) -> Option<LongDouble> {
    let ten = |power: i32| 10_u128.pow(power.unsigned_abs());
    match exponent {
        0..=19 => Some(round(u128::from(value) * ten(exponent), 0, false)),
        // Of 128 digits over at most 60, at least 67 are before the point.
        -18..=-1 => {
            let up = value.leading_zeros();
            let raised = u128::from(value << up) << 64;
            let (quotient, rest) = (raised / ten(exponent), raised % ten(exponent));
            Some(round(quotient, -64 - up as i32, rest != 0))
        }
        _ => None,
    }
}

/// The exponent behind its mark; one that is out of any range is a large one.
fn parse_exponent(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text.split_first()? {
        (b'-', rest) => (true, rest),
        (b'+', rest) => (false, rest),
        _ => (false, text),
    };
    let mut exponent = 0_i32;
    for &byte in digits {
        let digit = char::from(byte).to_digit(10)?;
        exponent = (exponent * 10 + digit as i32).min(POWER_OF_TEN_MAX * 10);
    }
    (!digits.is_empty()).then_some(if negative { -exponent } else { exponent })
}

/// A whole number of any size: digits of base 2^64, lowest first, none of the
/// highest 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Big(Vec<u64>);

impl Big {
    fn from_u128(value: u128) -> Self {
        let mut big = Self(vec![value as u64, (value >> 64) as u64]);
        big.trim();
        big
    }

    fn power_of_ten(mut exponent: u32) -> Self {
        const STEP: u32 = 19; // 10^19 is the largest in a word
        let mut power = Self::from_u128(1);
        while exponent > 0 {
            let step = exponent.min(STEP);
            power.multiply(10_u64.pow(step), 0);
            exponent -= step;
        }
        power
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn width(&self) -> u32 {
        self.0.last().map_or(0, |high| self.0.len() as u32 * 64 - high.leading_zeros())
    }

    /// Becomes `self * by + plus`.
    fn multiply(&mut self, by: u64, plus: u64) {
        let mut carry = plus;
        for word in &mut self.0 {
            let product = u128::from(*word) * u128::from(by) + u128::from(carry);
            (*word, carry) = (product as u64, (product >> 64) as u64);
        }
        if carry != 0 {
            self.0.push(carry);
        }
    }

    fn times(&self, other: &Self) -> Self {
        let mut product = vec![0; self.0.len() + other.0.len()];
        for (at, &left) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (offset, &right) in other.0.iter().enumerate() {
                let word: &mut u64 = &mut product[at + offset];
                let sum = u128::from(left) * u128::from(right) + u128::from(*word) + carry;
                (*word, carry) = (sum as u64, sum >> 64);
            }
            product[at + other.0.len()] = carry as u64;
        }
        let mut product = Self(product);
        product.trim();
        product
    }

    fn shifted(&self, by: u32) -> Self {
        let mut words = vec![0; by as usize / 64];
        let mut carry = 0;
        for &word in &self.0 {
            let wide = u128::from(word) << (by % 64) | carry;
            words.push(wide as u64);
            carry = wide >> 64;
        }
        words.push(carry as u64);
        let mut shifted = Self(words);
        shifted.trim();
        shifted
    }

    fn is_at_least(&self, other: &Self) -> bool {
        let lengths = self.0.len().cmp(&other.0.len());
        lengths.then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_ge()
    }

    /// Becomes `self - other`, which is not negative.
    fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (at, word) in self.0.iter_mut().enumerate() {
            let (less, first) = word.overflowing_sub(other.0.get(at).copied().unwrap_or(0));
            let (less, second) = less.overflowing_sub(u64::from(borrow));
            (*word, borrow) = (less, first || second);
        }
        self.trim();
    }

    /// The number nearest to `self / divisor` times 2 to the `exponent`: long
    /// division, a binary digit at a time, two more than are kept.
    fn over(&self, divisor: &Self, exponent: i32) -> LongDouble {
        const DIGITS: u32 = 66;
        if self.is_zero() {
            return LongDouble::ZERO;
        }
        // Both so wide that the quotient is at least 1/2 and less than 2.
        let (up, divisor_up) = match self.width().cmp(&divisor.width()) {
            std::cmp::Ordering::Less => (divisor.width() - self.width(), 0),
            _ => (0, self.width() - divisor.width()),
        };
        let (mut rest, divisor) = (self.shifted(up), divisor.shifted(divisor_up));
        let mut quotient = 0_u128;
        for _ in 0..=DIGITS {
            quotient <<= 1;
            if rest.is_at_least(&divisor) {
                rest.subtract(&divisor);
                quotient |= 1;
            }
            rest = rest.shifted(1);
        }
        let exponent = exponent.saturating_add(divisor_up as i32 - up as i32 - DIGITS as i32);
        round(quotient, exponent, !rest.is_zero())
    }

    /// Its decimal digits.
    fn text(&self) -> String {
        const DIGITS: usize = 19; // as many as a word holds
        let mut words = self.0.clone();
        let mut groups = Vec::new();
        while !words.is_empty() {
            let mut rest = 0;
            for word in words.iter_mut().rev() {
                let wide = u128::from(rest) << 64 | u128::from(*word);
                let ten = u128::from(10_u64.pow(DIGITS as u32));
                (*word, rest) = ((wide / ten) as u64, (wide % ten) as u64);
            }
            groups.push(rest);
            while words.last() == Some(&0) {
                words.pop();
            }
        }
        let mut text = groups.pop().unwrap_or(0).to_string();
        groups.iter().rev().for_each(|group| text.push_str(&format!("{group:0DIGITS$}")));
        text
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(left: &str, right: &str) -> String {
        let read = |text: &str| LongDouble::parse(text.as_bytes()).unwrap_or_else(|| panic!("{text}"));
        read(left).add(read(right)).map_or("none".into(), LongDouble::text)
    }

    #[test]
    fn a_thousandfold_is_rounded_up_to_a_whole_number() {
        let up = |text: &str| LongDouble::parse(text.as_bytes()).map(LongDouble::thousandfold_up);
        let exact = [
            ("0", 0),
            ("0.001", 1),
            ("1.5", 1500),
            ("-1", -1000),
            ("9007199254740.993", 9_007_199_254_740_993),
        ];
        let rounded =
            [("0.0001", 1), ("1e-300", 1), ("0.0011", 2), ("-0.0001", 0), ("-1.0009", -1000), ("0x.01", 4)];
        for (text, whole) in exact.into_iter().chain(rounded) {
            assert_eq!(up(text), Some(whole), "{text}");
        }
        for (text, whole) in [("9223372036854776", i64::MAX), ("1e4000", i64::MAX), ("inf", i64::MAX)] {
            assert_eq!((up(text), up(&format!("-{text}"))), (Some(whole), Some(i64::MIN)), "{text}");
        }
        assert_eq!(up("nan"), None);
    }

    #[test]
    fn sums_are_those_of_a_real_server() {
        for (left, right, expected) in [
            ("0", "0", "0"),
            ("0.1", "0.2", "0.3"),
            ("3000", "0.1", "3000.10000000000000009"),
            ("3000.10000000000000009", "1e20", "100000000000000003000"),
            ("0.3", "0x10", "16.3"),
            ("16.3", "0x1.8p1", "19.3"),
            ("0", "1e40", "9999999999999999999783686092270256259072"),
            ("-0.00000000000000000001", "0", "0"),
            ("5.0e3", "2.0e2", "5200"),
            ("10.50", "0.1", "10.6"),
            ("10.6", "-5", "5.6"),
            ("1", "-1", "0"),
            // Half way between two numbers: to the even one, unless a little is added.
            ("18446744073709551616", "1", "18446744073709551616"),
            ("18446744073709551618", "1", "18446744073709551620"),
            ("18446744073709551616", "1.00001", "18446744073709551618"),
            ("-1.5", "0.25", "-1.25"),
            ("1e-17", "0", "0.00000000000000001"),
            ("inf", "-inf", "none"),
            ("1e4932", "1e4932", "none"),
        ] {
            assert_eq!(sum(left, right), expected, "{left} + {right}");
        }
    }

    #[test]
    fn words_that_are_no_number_are_refused() {
        for word in [
            "",
            " 1",
            "1 ",
            "+",
            "-",
            ".",
            "e1",
            "1e",
            "1e+",
            "1.2.3",
            "1f",
            "0x",
            "0x.p1",
            "nan",
            "--1",
            "1e4940",
            "-1e4940",
            "1e-4960",
            "1e99999999999",
            "0x1p20000",
            "0x1p-20000",
            "infinit",
            "1_0",
        ] {
            assert_eq!(LongDouble::parse(word.as_bytes()), None, "{word:?}");
        }
        assert_eq!(LongDouble::parse(&b"0".repeat(5120)), None);
        assert!(LongDouble::parse(&b"0".repeat(5119)).is_some());
        for word in ["1.", ".5", "+1", "1e-4940", "0e99999", "-inf", "1E5"] {
            assert!(LongDouble::parse(word.as_bytes()).is_some(), "{word:?}");
        }
    }

    proptest! {
        #[test]
        fn both_ways_of_reading_agree(value: u64, exponent in -18_i32..=19) {
            let few = decimal_of_few_digits(value, exponent).expect("it fits");
            // More zeros than the short way takes.
            let long = format!("{value}{}e{}", "0".repeat(40), exponent - 40);
            prop_assert_eq!(LongDouble::parse(long.as_bytes()), Some(few));
        }

        /// Sums of integers below 2^62 are exact, however they are written.
        #[test]
        fn integers_add_up(left in -(1_i64 << 62)..1 << 62, right in -(1_i64 << 62)..1 << 62) {
            prop_assert_eq!(sum(&left.to_string(), &right.to_string()), (left + right).to_string());
        }

        /// Reading two and adding rounds three times, each by half of the lowest
        /// digit, which is 2^-42 for numbers below 2^22: 2.3 * 10^-13.
        #[test]
        fn a_sum_is_near_the_true_one(left in -(1_i64 << 40)..1 << 40, right in -(1_i64 << 40)..1 << 40) {
            let text = sum(&format!("{left}e-6"), &format!("{right}e-6"));
            let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
            let scaled: i128 = format!("{whole}{decimals:0<17}").parse().expect("these are digits");
            let true_sum = i128::from(left + right) * 10_i128.pow(11);
            prop_assert!((scaled - true_sum).abs() < 34_200, "{text}");
        }

        #[test]
        fn reading_what_was_written_changes_nothing(left: i32, scale in 0_i32..9) {
            let text = sum(&format!("{left}e-{scale}"), "0");
            prop_assert_eq!(sum(&text, "0"), text);
        }

        #[test]
        fn no_bytes_make_it_panic(word: Vec<u8>, text in "[0-9a-fxp.+-]{0,40}") {
            for word in [word.as_slice(), text.as_bytes()] {
                let read = LongDouble::parse(word).unwrap_or(LongDouble::ZERO);
                let _ = read.add(LongDouble { negative: true, ..read }).map(LongDouble::text);
            }
        }
    }
}
