//! Flags and ACL categories of a row, as `COMMAND` shows them: derived from the row, so that no second list can
//! disagree with it.

use moonraft_router::Keys;

use super::{Command, Family, Flag, Run};

impl Command {
    /// Whether it changes data, so that `COMMAND` calls it `write`. Publishing runs
    /// as a change, because it leaves with the log, but changes none; what is noted of a reading is none either.
    pub fn changes_data(&self) -> bool {
        let writes = self.is_write() || self.has(Flag::Changes);
        writes && !self.has(Flag::PubSub) && !self.has(Flag::NotesResult)
    }

    /// Whether it reads data, so that `COMMAND` calls it `readonly`. Those that are
    /// answered without data do not.
    pub fn reads_data(&self) -> bool {
        let without = self.has(Flag::Stale) || self.family == Family::Connection;
        let reads = self.is_read() || self.has(Flag::NotesResult);
        reads && (matches!(self.run, Run::Eval(_)) || !without)
    }

    /// Its flags, as `COMMAND` shows them.
    pub fn flag_names(&self) -> Vec<&'static str> {
        let flag = |flag: Flag, name: &'static str| self.has(flag).then_some(name);
        let names = [
            self.changes_data().then_some("write"),
            self.reads_data().then_some("readonly"),
            flag(Flag::DenyOom, "denyoom"),
            flag(Flag::Admin, "admin"),
            flag(Flag::PubSub, "pubsub"),
            flag(Flag::NoScript, "noscript"),
            flag(Flag::Blocking, "blocking"),
            (self.has(Flag::Stale) && !self.has(Flag::NotLoading)).then_some("loading"),
            flag(Flag::Stale, "stale"),
            flag(Flag::Fast, "fast"),
            flag(Flag::NoAuth, "no_auth"),
            self.has_movable_keys().then_some("movablekeys"),
            matches!((self.run, self.keys), (Run::Eval(_), Keys::Counted { .. }))
                .then_some("no_mandatory_keys"),
            flag(Flag::NotAsyncLoading, "no_async_loading"),
            flag(Flag::AllowBusy, "allow_busy"),
            (self.is_write() && self.has(Flag::Asking)).then_some("asking"),
            flag(Flag::NoMulti, "no_multi"),
        ];
        names.into_iter().flatten().collect()
    }

    /// Its ACL categories, each with its `@`.
    pub fn category_names(&self) -> Vec<&'static str> {
        let own = [self.family];
        let families = match self.categories {
            [] if matches!(self.run, Run::Container) => &[],
            [] => own.as_slice(),
            named => named,
        };
        let dangerous = self.has(Flag::Dangerous) || self.has(Flag::Admin);
        let mut names: Vec<&'static str> = families.iter().filter_map(|family| family.category()).collect();
        names.extend(self.changes_data().then_some("@write"));
        names.extend((self.reads_data() && !matches!(self.run, Run::Eval(_))).then_some("@read"));
        names.extend(self.has(Flag::Admin).then_some("@admin"));
        names.push(if self.has(Flag::Fast) { "@fast" } else { "@slow" });
        names.extend(dangerous.then_some("@dangerous"));
        names.extend(self.has(Flag::Blocking).then_some("@blocking"));
        names
    }
}

impl Family {
    /// Its ACL category; `None` if it has none.
    pub const fn category(self) -> Option<&'static str> {
        Some(match self {
            Family::Generic => "@keyspace",
            Family::String => "@string",
            Family::Bitmap => "@bitmap",
            Family::List => "@list",
            Family::Hash => "@hash",
            Family::Set => "@set",
            Family::SortedSet => "@sortedset",
            Family::HyperLogLog => "@hyperloglog",
            Family::Geo => "@geo",
            Family::Stream => "@stream",
            Family::PubSub => "@pubsub",
            Family::Transactions => "@transaction",
            Family::Scripting => "@scripting",
            Family::Connection => "@connection",
            Family::Server | Family::Cluster => return None,
        })
    }
}
