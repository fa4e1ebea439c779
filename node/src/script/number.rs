//! Numbers as texts: as C's `%.<n>g` writes them, and as words of a command.
//!
//! Lua 5.1 prints numbers with `%.14g`; what a script hands to a command Redis 7.2 writes
//! with the fewest digits that read back the same. Scripts build keys from numbers, so
//! not one digit may differ.

use moonraft_proto::reply::double_text;

/// The largest magnitude below which every whole number has at most 14 digits.
const WHOLE_MAX: f64 = 1e14;

/// `%.<precision>g` of `x`. A precision of 0 counts as 1, as in C.
pub fn general(x: f64, precision: usize) -> String {
    let precision = precision.max(1);
    if x.is_nan() {
        return if x.is_sign_negative() { "-nan" } else { "nan" }.into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf" } else { "-inf" }.into();
    }
    if precision >= 14 && x.trunc() == x && x.abs() < WHOLE_MAX && (x != 0.0 || x.is_sign_positive()) {
        return itoa::Buffer::new().format(x as i64).to_owned();
    }
    // One digit before the point, `precision - 1` after it, rounded correctly.
    let text = format!("{:.*e}", precision - 1, x.abs());
    let (mantissa, exponent) = text.split_once('e').expect("the format writes an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let digits: String = mantissa.chars().filter(|&c| c != '.').collect();
    let digits = digits.trim_end_matches('0');
    let sign = if x.is_sign_negative() { "-" } else { "" };
    if digits.is_empty() {
        return format!("{sign}0");
    }
    if exponent < -4 || exponent >= precision as i32 {
        let (first, rest) = digits.split_at(1);
        let dot = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{first}{dot}{rest}e{mark}{:02}", exponent.abs());
    }
    if exponent < 0 {
        return format!("{sign}0.{}{digits}", "0".repeat(-exponent as usize - 1));
    }
    let whole = exponent as usize + 1;
    if digits.len() <= whole {
        format!("{sign}{digits}{}", "0".repeat(whole - digits.len()))
    } else {
        format!("{sign}{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// A number that a script hands to a command. (Redis 7.0 writes `%.17g`: 19.989999999999998.)
pub fn word(x: f64) -> String {
    if x == 0.0 {
        return "0".into();
    }
    if x.is_nan() && x.is_sign_negative() {
        return "-nan".into();
    }
    double_text(x)
}

/// `(long long)x` as the processors Redis runs on convert it: towards zero, and
/// what does not fit becomes the smallest integer.
pub fn truncated(x: f64) -> i64 {
    // 2^63 itself does not fit; -2^63 does.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    if (-LIMIT..LIMIT).contains(&x) { x as i64 } else { i64::MIN }
}

/// `(unsigned long long)x`, in the same way: a negative number wraps, what is too large becomes 0.
pub fn wrapped(x: f64) -> u64 {
    const HALF: f64 = 9_223_372_036_854_775_808.0;
    if x >= HALF { truncated(x - HALF) as u64 ^ (1 << 63) } else { truncated(x) as u64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_c() {
        let cases = [
            (0.1, 17, "0.10000000000000001"),
            (0.1, 14, "0.1"),
            (1.0 / 3.0, 14, "0.33333333333333"),
            (1e15, 14, "1e+15"),
            (1e15, 17, "1000000000000000"),
            (1e17, 17, "1e+17"),
            (123456789012345.0, 14, "1.2345678901234e+14"),
            (99999999999999.9, 14, "1e+14"),
            (0.0001, 14, "0.0001"),
            (0.00001, 14, "1e-05"),
            (-0.0, 17, "-0"),
            (-2.5, 17, "-2.5"),
            (3.0, 17, "3"),
            (1234.5, 2, "1.2e+03"),
            (f64::INFINITY, 17, "inf"),
            (f64::NEG_INFINITY, 14, "-inf"),
        ];
        for (x, precision, text) in cases {
            assert_eq!(general(x, precision), text, "%.{precision}g");
        }
    }

    #[test]
    fn what_does_not_fit_becomes_the_smallest_integer() {
        assert_eq!(truncated(3.99), 3);
        assert_eq!(truncated(-3.99), -3);
        for x in [1e300, -1e300, f64::NAN, 9.3e18] {
            assert_eq!(truncated(x), i64::MIN);
        }
    }

    #[test]
    fn unsigned_integers_wrap_as_the_processor_does() {
        let cases = [
            (3.99, 3),
            (-1.0, u64::MAX),
            (-1e300, 1 << 63),
            (f64::NAN, 1 << 63),
            (1e19, 10_000_000_000_000_000_000),
            (1.8446744073709552e19, 0),
            (1e300, 0),
            (f64::INFINITY, 0),
        ];
        for (x, integer) in cases {
            assert_eq!(wrapped(x), integer, "{x}");
        }
    }
}
