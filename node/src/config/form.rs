//! What a setting's value looks like, and what Redis says of one that does not.
//!
//! Source: `config.c` of Redis 7.2 for the error texts.

use std::ops::RangeInclusive;

pub use crate::command::arguments::parse_bytes;
use crate::keyspace::integer::parse_integer;

/// What a setting takes that has no field of its own.
#[derive(Clone, Copy, Debug)]
pub enum Form {
    /// `yes` or `no`.
    YesNo,
    /// An integer from the first to the second.
    Number(i64, i64),
    /// A number of bytes, with a unit.
    Bytes(u64, u64),
    /// One of some words.
    OneOf(&'static [&'static str]),
    /// Anything.
    Text,
    /// What this function takes: the value as it is shown, or why it is refused.
    Own(fn(&str) -> Result<String, String>),
}

/// What most integers of Redis are.
pub const INT: Form = Form::Number(0, i32::MAX as i64);

impl Form {
    /// The value as it is shown.
    ///
    /// # Errors
    /// Why Redis would not take it.
    pub fn shown(self, value: &str) -> Result<String, String> {
        match self {
            Form::YesNo => match one_of(&["no", "yes"], value) {
                Ok(choice) => Ok(["no", "yes"][choice].to_owned()),
                Err(_) => Err("argument must be 'yes' or 'no'".to_owned()),
            },
            Form::Number(least, most) => Ok(number(value, least..=most)?.to_string()),
            Form::Bytes(least, most) => Ok(within(bytes(value)?, least..=most)?.to_string()),
            Form::OneOf(words) => Ok(words[one_of(words, value)?].to_owned()),
            Form::Text => Ok(value.to_owned()),
            Form::Own(own) => own(value),
        }
    }
}

/// An integer within bounds.
///
/// # Errors
/// It is none, or not within.
pub fn number(value: &str, range: RangeInclusive<i64>) -> Result<i64, String> {
    let number = parse_integer(value.as_bytes()).ok_or("argument couldn't be parsed into an integer")?;
    within(number, range)
}

/// A number of bytes.
///
/// # Errors
/// It is none.
pub fn bytes(value: &str) -> Result<u64, String> {
    parse_bytes(value).ok_or_else(|| "argument must be a memory value".to_owned())
}

/// Which of some words it is, in any case.
///
/// # Errors
/// None.
pub fn one_of(words: &[&str], value: &str) -> Result<usize, String> {
    let found = words.iter().position(|word| word.eq_ignore_ascii_case(value));
    found.ok_or_else(|| not_one_of(words))
}

fn not_one_of(words: &[&str]) -> String {
    format!("argument(s) must be one of the following: {}", words.join(", "))
}

/// A number, if it is within bounds.
///
/// # Errors
/// It is not.
pub fn within<N: PartialOrd + std::fmt::Display>(number: N, range: RangeInclusive<N>) -> Result<N, String> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()))
}

// ---- settings with a form of their own -----------------------------------------

/// `hz`: as many ticks a second as Redis does at most, and at least.
pub fn hertz(value: &str) -> Result<String, String> {
    Ok(number(value, 0..=i32::MAX.into())?.clamp(1, 500).to_string())
}

/// `watchdog-period`: off, or 200 ms at least.
pub fn watchdog(value: &str) -> Result<String, String> {
    let period = number(value, 0..=i32::MAX.into())?;
    Ok(if period == 0 { 0 } else { period.max(200) }.to_string())
}

/// `repl-backlog-size`: Redis makes less than 16 KiB that much.
pub fn backlog(value: &str) -> Result<String, String> {
    Ok(within(bytes(value)?, 1..=i64::MAX as u64)?.max(16 << 10).to_string())
}

/// `save`: pairs of seconds and changes.
pub fn save_points(value: &str) -> Result<String, String> {
    let words: Vec<&str> = value.split(' ').collect();
    if value.is_empty() {
        return Ok(String::new());
    }
    let is_right =
        |(at, word): (usize, &&str)| word.parse::<i64>().is_ok_and(|number| number >= 1 - (at % 2) as i64);
    if words.len() % 2 == 1 || !words.iter().enumerate().all(is_right) {
        return Err("Invalid save parameters".to_owned());
    }
    Ok(words.join(" "))
}

/// `oom-score-adj-values`: three scores.
pub fn scores(value: &str) -> Result<String, String> {
    let words: Vec<&str> = value.split(' ').collect();
    if words.len() != 3 {
        return Err("wrong number of arguments".to_owned());
    }
    let is_right = |word: &&str| word.parse().is_ok_and(|score: i64| (-2000..=2000).contains(&score));
    if !words.iter().all(is_right) {
        return Err("Invalid oom-score-adj-values, elements must be between -2000 and 2000.".to_owned());
    }
    Ok(value.to_owned())
}

/// `shutdown-on-sigterm`: words of `SHUTDOWN`.
pub fn shutdown(value: &str) -> Result<String, String> {
    const WORDS: &[&str] = &["default", "save", "nosave", "now", "force"];
    let given = value.split(' ').map(|word| one_of(WORDS, word)).collect::<Result<Vec<_>, _>>()?;
    if given.contains(&1) && given.contains(&2) {
        return Err("shutdown options SAVE and NOSAVE can't be used simultaneously".to_owned());
    }
    let is_given = |(at, _): &(usize, &&str)| *at > 0 && given.contains(at);
    let shown: Vec<&str> = WORDS.iter().enumerate().filter(is_given).map(|(_, word)| *word).collect();
    Ok(if shown.is_empty() { "default".to_owned() } else { shown.join(" ") })
}

/// `proc-title-template`: variables in braces that Redis knows.
pub fn title(value: &str) -> Result<String, String> {
    const VARIABLES: &[&str] =
        &["title", "listen-addr", "server-mode", "port", "tls-port", "unixsocket", "config-file"];
    let mut rest = value;
    while let Some((_, after)) = rest.split_once('{') {
        let name = after.split_once('}').filter(|(name, _)| VARIABLES.contains(name));
        let (_, after) = name.ok_or("template format is invalid or contains unknown variables")?;
        rest = after;
    }
    Ok(value.to_owned())
}

/// `latency-tracking-info-percentiles`: some percentages.
pub fn percentiles(value: &str) -> Result<String, String> {
    if value.is_empty() {
        return Ok(String::new());
    }
    let shown = |word: &str| {
        let percent: f64 =
            word.parse().map_err(|_| "Invalid latency-tracking-info-percentiles parameters")?;
        if !(0.0..=100.0).contains(&percent) {
            return Err("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]");
        }
        let text = format!("{percent:.6}");
        Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
    };
    let shown = value.split(' ').map(shown).collect::<Result<Vec<_>, _>>()?;
    Ok(shown.join(" "))
}
