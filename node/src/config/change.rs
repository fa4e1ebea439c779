//! Reading and changing settings by their names: `CONFIG GET`, `CONFIG SET`, `--set`, the cluster file.
//!
//! Source: `config.c` of Redis 7.2 for the error texts.

use std::ops::RangeInclusive;

use super::{
    rows::{Change, Kind, ROWS, Row, SECONDS_MAX, find},
    settings::{OutputLimit, Settings, Share},
};
use crate::keyspace::integer::parse_integer;

const NOT_INTEGER: &str = "argument couldn't be parsed into an integer";

/// Why a setting was refused. `Display` writes what follows `ERR ` on the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// No setting has this name.
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// The setting takes no such value, or not now.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Refused {
        /// The setting.
        name: String,
        /// Why.
        reason: String,
    },
}

impl SettingError {
    /// For a person who writes a file or a command line rather than `CONFIG SET`.
    pub fn explain(&self) -> String {
        match self {
            SettingError::Unknown(name) => {
                let known = ROWS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten();
                match super::nearest(name, known) {
                    Some(near) => format!("there is no setting '{name}'; did you mean '{near}'?"),
                    None => format!("there is no setting '{name}'"),
                }
            }
            SettingError::Refused { name, reason } => format!("setting '{name}': {reason}"),
        }
    }
}

impl Settings {
    /// The settings whose names `matches` accepts, with their values, as `CONFIG GET` shows them.
    pub fn get(&self, matches: impl Fn(&str) -> bool) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        for row in ROWS {
            for name in [Some(row.name), row.alias].into_iter().flatten() {
                if matches(name) {
                    found.push((name, self.value(row)));
                }
            }
        }
        found
    }

    /// The value of one row.
    pub fn value(&self, row: &Row) -> String {
        let mut copy = self.clone();
        match row.kind {
            Kind::Number(_, field) | Kind::Bytes(_, field) | Kind::BytesOrOff(_, _, field) => {
                field(&mut copy).to_string()
            }
            Kind::Signed(_, _, field) => field(&mut copy).to_string(),
            Kind::Share(_, _, field) => match *field(&mut copy) {
                Share::Percent(percent) if percent > 0 => format!("{percent}%"),
                Share::Bytes(number) | Share::Percent(number) => number.to_string(),
            },
            Kind::Choice(choices, read, _) => choices[read(self)].to_owned(),
            Kind::OutputLimits => {
                let shown = |limit: &OutputLimit| {
                    format!("{} {} {}", limit.hard_bytes, limit.soft_bytes, limit.soft_seconds)
                };
                let (normal, pubsub) = (shown(&self.output_normal), shown(&self.output_pubsub));
                format!("normal {normal} slave 0 0 0 pubsub {pubsub}")
            }
            Kind::Fixed(value) => value.to_owned(),
        }
    }

    /// `CONFIG SET`: all the pairs, or an error and none of them.
    ///
    /// # Errors
    /// A name is unknown or comes twice, or a value is not what its setting takes.
    pub fn set_all<'a>(
        &mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), SettingError> {
        let mut changed = self.clone();
        let mut seen: Vec<&'static str> = Vec::new();
        for (name, value) in pairs {
            let row = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
            let refused = |reason: String| SettingError::Refused { name: name.to_owned(), reason };
            if seen.contains(&row.name) {
                return Err(refused("duplicate parameter".to_owned()));
            }
            seen.push(row.name);
            if row.change == Change::AtStart && self.value(row) != value {
                return Err(refused("can't set immutable config".to_owned()));
            }
            changed.assign(row, value).map_err(refused)?;
        }
        *self = changed;
        Ok(())
    }

    /// One setting of a cluster file or of `--set`.
    ///
    /// # Errors
    /// The name is unknown, or the value is not what the setting takes.
    pub fn set_at_start(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        let row = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
        self.assign(row, value).map_err(|reason| SettingError::Refused { name: name.to_owned(), reason })
    }

    fn assign(&mut self, row: &Row, value: &str) -> Result<(), String> {
        match row.kind {
            Kind::Number(bounds, field) => {
                let range = bounds.0..=bounds.1;
                let number = parse_integer(value.as_bytes()).ok_or(NOT_INTEGER)?;
                *field(self) = within(u64::try_from(number).unwrap_or(u64::MAX), range)?;
            }
            Kind::Signed(least, most, field) => {
                let number = parse_integer(value.as_bytes()).ok_or(NOT_INTEGER)?;
                *field(self) = within(number, least..=most)?;
            }
            Kind::Bytes(bounds, field) => {
                let bytes = parse_bytes(value).ok_or("argument must be a memory value")?;
                *field(self) = within(bytes, bounds.0..=bounds.1)?;
            }
            Kind::Share(bounds, why, field) => {
                *field(self) = match value.strip_suffix('%').map(|percent| percent.parse::<u64>()) {
                    Some(Ok(percent @ 0..=100)) => Share::Percent(percent),
                    Some(Ok(_)) => return Err("percentage argument must be less or equal to 100".to_owned()),
                    Some(Err(_)) => return Err("argument must be a memory or percent value".to_owned()),
                    None => {
                        let bytes = parse_bytes(value).ok_or("argument must be a memory or percent value")?;
                        Share::Bytes(off_or_within(bytes, bounds, why)?)
                    }
                };
            }
            Kind::BytesOrOff(bounds, why, field) => {
                let bytes = parse_bytes(value).ok_or("argument must be a memory value")?;
                *field(self) = off_or_within(bytes, bounds, why)?;
            }
            Kind::Choice(choices, _, write) => {
                let choice = choices.iter().position(|choice| choice.eq_ignore_ascii_case(value));
                let list = || format!("argument(s) must be one of the following: {}", choices.join(", "));
                write(self, choice.ok_or_else(list)?);
            }
            Kind::OutputLimits => self.assign_output_limits(value)?,
            Kind::Fixed(only) if only == value => {}
            Kind::Fixed(only) => return Err(format!("it is always '{only}'. {}", row.doc)),
        }
        Ok(())
    }

    /// `class hard soft seconds`, any number of times.
    fn assign_output_limits(&mut self, value: &str) -> Result<(), String> {
        let words: Vec<&str> = value.split_ascii_whitespace().collect();
        if words.is_empty() || !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        for limit in words.chunks_exact(4) {
            let (hard, soft, seconds) = (parse_bytes(limit[1]), parse_bytes(limit[2]), limit[3].parse());
            let (Some(hard_bytes), Some(soft_bytes), Ok(soft_seconds)) = (hard, soft, seconds) else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration.".into()
                );
            };
            if [hard_bytes, soft_bytes].iter().any(|bytes| (1..OutputLimit::BYTES_MIN).contains(bytes)) {
                return Err(format!(
                    "a limit must be 0 or at least {}: less would disconnect clients for the reply to their first request, CONFIG SET included",
                    OutputLimit::BYTES_MIN
                ));
            }
            within(soft_seconds, 0..=SECONDS_MAX)?;
            let parsed = OutputLimit { hard_bytes, soft_bytes, soft_seconds };
            match limit[0].to_ascii_lowercase().as_str() {
                "normal" => self.output_normal = parsed,
                "pubsub" => self.output_pubsub = parsed,
                // No client is a replica here: replicas are peers, bounded elsewhere.
                "slave" | "replica" => {}
                _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
            }
        }
        Ok(())
    }
}

/// 0, or within bounds; `why` says why so little is not taken.
fn off_or_within(bytes: u64, (least, most): (u64, u64), why: &str) -> Result<u64, String> {
    if bytes == 0 || (least..=most).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("argument must be 0, or between {least} and {most} inclusive: {why}"))
}

fn within<N: PartialOrd + std::fmt::Display>(number: N, range: RangeInclusive<N>) -> Result<N, String> {
    if range.contains(&number) {
        return Ok(number);
    }
    Err(format!("argument must be between {} and {} inclusive", range.start(), range.end()))
}

/// `512mb` and its like: `k`, `m`, `g` count in thousands, `kb`, `mb`, `gb` in powers of two.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.len() - text.trim_start_matches(|letter: char| letter.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let number = if number.is_empty() { "0" } else { number }; // as in Redis
    let factor = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(&str, &str)]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let outcome = settings.set_all(pairs.iter().copied());
        outcome.map(|()| settings).map_err(|error| error.to_string())
    }

    #[test]
    fn every_row_takes_its_own_default() {
        for row in ROWS {
            let mut settings = Settings::default();
            let value = settings.value(row);
            settings.set_at_start(row.name, &value).expect("a default is a legal value");
            assert_eq!(settings, Settings::default(), "{}", row.name);
        }
    }

    #[test]
    fn every_row_that_can_change_writes_what_it_reads() {
        for row in ROWS {
            let other = match row.kind {
                Kind::Number((least, most), _) | Kind::Bytes((least, most), _) => {
                    [least, most].map(|number| number.to_string()).to_vec()
                }
                Kind::Share((least, most), ..) => {
                    vec!["0".to_owned(), least.to_string(), most.to_string(), "10%".to_owned()]
                }
                Kind::BytesOrOff((least, most), ..) => {
                    [0, least, most].map(|number| number.to_string()).to_vec()
                }
                Kind::Signed(least, most, _) => [least, most].map(|number| number.to_string()).to_vec(),
                Kind::Choice(choices, ..) => choices.iter().map(|&choice| choice.to_owned()).collect(),
                Kind::OutputLimits => {
                    vec!["normal 1048578 1048577 1 slave 0 0 0 pubsub 1048580 1048579 4".to_owned()]
                }
                Kind::Fixed(_) => continue,
            };
            for value in other {
                let mut settings = Settings::default();
                settings.set_at_start(row.name, &value).expect("a bound is a legal value");
                assert_eq!(settings.value(row), value, "{}", row.name);
            }
        }
    }

    #[test]
    fn names_are_told_apart() {
        let mut names: Vec<&str> =
            ROWS.iter().flat_map(|row| [Some(row.name), row.alias]).flatten().collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn several_settings_change_together_or_not_at_all() {
        let both = set(&[("maxclients", "70"), ("MAXMEMORY", "100mb")]).unwrap();
        assert_eq!((both.clients_max, both.memory_bytes_max), (70, 100 << 20));

        let mut settings = Settings::default();
        let pairs = [("maxclients", "70"), ("maxmemory", "much")];
        assert!(settings.set_all(pairs).is_err());
        assert_eq!(settings, Settings::default());
    }

    #[test]
    fn refusals_have_the_texts_of_redis() {
        let refusal = |name, value| set(&[(name, value)]).unwrap_err();
        assert_eq!(refusal("foo", "1"), "Unknown option or number of arguments for CONFIG SET - 'foo'");
        let failed = |name| format!("CONFIG SET failed (possibly related to argument '{name}') - ");
        assert_eq!(
            refusal("maxclients", "x"),
            failed("maxclients") + "argument couldn't be parsed into an integer"
        );
        assert_eq!(
            refusal("maxclients", "0"),
            failed("maxclients") + "argument must be between 16 and 1000000 inclusive"
        );
        assert_eq!(refusal("maxmemory", "1tb"), failed("maxmemory") + "argument must be a memory value");
        assert_eq!(refusal("tcp-backlog", "5"), failed("tcp-backlog") + "can't set immutable config");
        assert_eq!(refusal("appendonly", "no"), failed("appendonly") + "can't set immutable config");
        assert_eq!(set(&[("appendonly", "yes")]), Ok(Settings::default()));
        let twice = set(&[("timeout", "1"), ("timeout", "2")]).unwrap_err();
        assert_eq!(twice, failed("timeout") + "duplicate parameter");
    }

    #[test]
    fn a_share_is_bytes_or_a_part_of_maxmemory() {
        let share = |value| set(&[("maxmemory", "1gb"), ("maxmemory-clients", value)]);
        assert_eq!(share("10%").unwrap().client_memory_bytes_max(), (1 << 30) / 100 * 10);
        assert_eq!(share("16mb").unwrap().client_memory_bytes_max(), 16 << 20);
        let small = set(&[("maxmemory", "1mb"), ("maxmemory-clients", "1%")]).unwrap();
        assert_eq!(small.client_memory_bytes_max(), Settings::CLIENT_MEMORY_MIN);
        assert_eq!(set(&[("maxmemory-clients", "10%")]).unwrap().client_memory_bytes_max(), 0);
        let failed = "CONFIG SET failed (possibly related to argument 'maxmemory-clients') - ".to_owned();
        assert_eq!(share("101%"), Err(failed.clone() + "percentage argument must be less or equal to 100"));
        for wrong in ["%", "-1%", "1.5%", "x", "1tb"] {
            assert_eq!(share(wrong), Err(failed.clone() + "argument must be a memory or percent value"));
        }
    }

    #[test]
    fn no_setting_is_taken_that_locks_its_owner_out() {
        for value in ["normal 1 1 1", "normal 0 1048575 60", "pubsub 1mb 1 1", "normal 0 0 2147483649"] {
            let name = "client-output-buffer-limit";
            assert!(set(&[(name, value)]).is_err(), "{value}");
        }
        for (name, least) in [
            ("maxmemory-clients", 8 << 20),
            ("min-free-disk", 128 << 20),
            ("snapshot-bytes-per-second", 1 << 20),
        ] {
            let refused = set(&[(name, &(least - 1).to_string())]).unwrap_err();
            assert!(refused.contains(&format!("must be 0, or between {least} and")), "{refused}");
            assert!(set(&[(name, &least.to_string())]).is_ok() && set(&[(name, "0")]).is_ok());
        }
    }

    #[test]
    fn an_alias_is_the_same_setting() {
        let settings = set(&[("lua-time-limit", "100")]).unwrap();
        assert_eq!(settings.busy_after_ms, 100);
        let shown = settings.get(|name| name.ends_with("limit") && name.starts_with("lua"));
        assert_eq!(shown, [("lua-time-limit", "100".to_owned())]);
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(parse_bytes("1gb"), Some(1 << 30));
        assert_eq!(parse_bytes("2K"), Some(2000));
        assert_eq!(parse_bytes("5"), Some(5));
        assert_eq!(parse_bytes(""), Some(0));
        assert_eq!(parse_bytes("mb"), Some(0));
        for wrong in ["-1", "1 mb", "99999999999999999999", "18446744073709551615kb"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
