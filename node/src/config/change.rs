//! Reading and changing settings by their names: `CONFIG GET`, `CONFIG SET`, `--set`, the cluster file.
//!
//! Source: `config.c` of Redis 7.2 for the error texts.

use super::{
    form::{bytes, number, one_of, parse_bytes, within},
    rows::{Change, Kind, Row, SECONDS_MAX, find, rows},
    settings::{OutputLimit, Settings, Share},
};

use crate::{glob, keyspace::tx::Events};

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
    fn of(name: &str, reason: String) -> Self {
        SettingError::Refused { name: name.to_owned(), reason }
    }

    /// For a person who writes a file or a command line rather than `CONFIG SET`.
    pub fn explain(&self) -> String {
        match self {
            SettingError::Unknown(name) => match super::nearest(name, rows().flat_map(Row::names)) {
                Some(near) => format!("there is no setting '{name}'; did you mean '{near}'?"),
                None => format!("there is no setting '{name}'"),
            },
            SettingError::Refused { name, reason } => format!("setting '{name}': {reason}"),
        }
    }
}

impl Settings {
    /// The settings whose names match a pattern, with their values, as `CONFIG GET` shows them; `of_node` knows
    /// those that only the node does.
    pub fn get(&self, pattern: &[u8], of_node: impl Fn(&str) -> String) -> Vec<(&'static str, String)> {
        let pattern = pattern.to_ascii_lowercase();
        let named = rows().flat_map(|row| row.names().map(move |name| (name, row)));
        let is_asked = |name: &str, row: &Row| match row.is_hidden {
            true => pattern == name.as_bytes(),
            false => glob::matches(&pattern, name.as_bytes()),
        };
        let found = named.filter(|(name, row)| is_asked(name, row));
        let value = |row: &Row| match row.kind {
            Kind::OfNode(_) => of_node(row.name),
            _ => self.value(row),
        };
        found.map(|(name, row)| (name, value(row))).collect()
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
            Kind::Events => self.events.to_string(),
            Kind::Kept(_, default) => self.kept.get(row.name).cloned().unwrap_or_else(|| default.to_owned()),
            Kind::Only(_, value) => value.to_owned(),
            Kind::OfNode(_) => String::new(),
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
        let mut found: Vec<(&str, &'static Row, &str)> = Vec::new();
        for (name, value) in pairs {
            let row = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
            let refused = |reason: &str| SettingError::of(name, reason.to_owned());
            match row.change {
                Change::AtStart => return Err(refused("can't set immutable config")),
                Change::Protected => return Err(refused("can't set protected config")),
                Change::Anytime | Change::AtStartHere => {}
            }
            if found.iter().any(|(other, ..)| other.eq_ignore_ascii_case(name)) {
                return Err(refused("duplicate parameter"));
            }
            found.push((name, row, value));
        }
        for (name, row, value) in found {
            changed.assign(row, value).map_err(|reason| SettingError::of(name, reason))?;
            if row.change == Change::AtStartHere && changed.value(row) != self.value(row) {
                let why = "it is settled when the node starts, by the cluster file or --set";
                return Err(SettingError::of(name, why.to_owned()));
            }
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
        self.assign(row, value).map_err(|reason| SettingError::of(name, reason))
    }

    fn assign(&mut self, row: &Row, value: &str) -> Result<(), String> {
        match row.kind {
            Kind::Number((least, most), field) => {
                let bound = |bound: u64| i64::try_from(bound).unwrap_or(i64::MAX);
                *field(self) = number(value, bound(least)..=bound(most))? as u64;
            }
            Kind::Signed(least, most, field) => *field(self) = number(value, least..=most)?,
            Kind::Bytes((least, most), field) => *field(self) = within(bytes(value)?, least..=most)?,
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
                *field(self) = off_or_within(bytes(value)?, bounds, why)?;
            }
            Kind::Choice(choices, _, write) => {
                write(self, one_of(choices, value)?);
            }
            Kind::OutputLimits => self.assign_output_limits(value)?,
            Kind::Events => {
                const UNKNOWN: &str = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
                self.events = Events::parse(value).ok_or(UNKNOWN)?;
            }
            Kind::Kept(form, _) => drop(self.kept.insert(row.name, form.shown(value)?)),
            Kind::Only(form, only) => {
                if form.shown(value)? != only {
                    return Err(format!("it is always '{only}'. {}", row.doc));
                }
            }
            Kind::OfNode(form) => {
                form.shown(value)?;
                return Err(row.doc.to_owned());
            }
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
        for row in rows().filter(|row| !matches!(row.kind, Kind::OfNode(_))) {
            let mut settings = Settings::default();
            let value = settings.value(row);
            settings.set_at_start(row.name, &value).expect("a default is a legal value");
            assert_eq!(settings.value(row), value, "{}", row.name);
            settings.kept.clear();
            assert_eq!(settings, Settings::default(), "{}", row.name);
        }
    }

    #[test]
    fn every_row_that_can_change_writes_what_it_reads() {
        for row in rows().filter(|row| !matches!(row.kind, Kind::OfNode(_))) {
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
                Kind::Events => vec!["AKEm".to_owned(), "g$lshzxedn".to_owned()],
                Kind::Kept(..) | Kind::Only(..) | Kind::OfNode(_) => continue,
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
        let mut names: Vec<&str> = rows().flat_map(Row::names).collect();
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
        let always = "it is always 'yes'. Every write is in the Raft log before it is acknowledged.";
        assert_eq!(refusal("appendonly", "no"), failed("appendonly") + always);
        assert_eq!(refusal("appendonly", "x"), failed("appendonly") + "argument must be 'yes' or 'no'");
        assert_eq!(refusal("daemonize", "no"), failed("daemonize") + "can't set immutable config");
        assert_eq!(refusal("dir", "/tmp"), failed("dir") + "can't set protected config");
        assert_eq!(refusal("port", "x"), failed("port") + "argument couldn't be parsed into an integer");
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
        let shown = settings.get(b"lua*limit", |_| String::new());
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
