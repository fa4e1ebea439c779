//! Where the keys of a request stand and what is done to them, as a row tells it to clients and to access rights.
//!
//! All of it is derived from the row, so that no second list can disagree with it.
//!
//! Sources: "Key specifications" of Redis 7.2's documentation.

use moonraft_router::Keys;

use super::{Command, Eval, Run};

/// One thing that is done to a key. The first four tell what becomes of the
/// entry, the others of the value as a user sees it: who may not read a key may
/// not run a command that has [`KeyFlag::Access`] for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFlag {
    /// Looked at only.
    ReadOnly,
    /// Changed, depending on what it was.
    ReadWrite,
    /// Replaced, whatever it was.
    Overwrite,
    /// Removed, whatever it was.
    Remove,
    /// Of the value, something is returned, copied or moved.
    Access,
    /// Of the value, something is changed.
    Update,
    /// Something is added to the value, nothing changed.
    Insert,
    /// Something is taken from the value.
    Delete,
    /// Which of these apply depends on the words of the request.
    Variable,
    /// It is no key, but is routed like one: a shard channel.
    NotKey,
}

impl KeyFlag {
    /// As `COMMAND` shows it.
    pub const fn name(self) -> &'static str {
        match self {
            KeyFlag::ReadOnly => "RO",
            KeyFlag::ReadWrite => "RW",
            KeyFlag::Overwrite => "OW",
            KeyFlag::Remove => "RM",
            KeyFlag::Access => "access",
            KeyFlag::Update => "update",
            KeyFlag::Insert => "insert",
            KeyFlag::Delete => "delete",
            KeyFlag::Variable => "variable_flags",
            KeyFlag::NotKey => "not_key",
        }
    }
}

/// Some of the rows' [`Command::key_flags`].
pub mod uses {
    use super::KeyFlag::{self, *};

    /// The value is returned.
    pub const READ: &[KeyFlag] = &[ReadOnly, Access];
    /// Something about the value is returned: its size, its type.
    pub const LOOK: &[KeyFlag] = &[ReadOnly];
    /// The value is changed and something of it returned.
    pub const CHANGE: &[KeyFlag] = &[ReadWrite, Access, Update];
    /// The value is changed.
    pub const UPDATE: &[KeyFlag] = &[ReadWrite, Update];
    /// Something is added to the value.
    pub const ADD: &[KeyFlag] = &[ReadWrite, Insert];
    /// Something is taken from the value.
    pub const TAKE: &[KeyFlag] = &[ReadWrite, Delete];
    /// Something is taken from the value and returned, or put elsewhere.
    pub const MOVE: &[KeyFlag] = &[ReadWrite, Access, Delete];
    /// The value is replaced.
    pub const STORE: &[KeyFlag] = &[Overwrite, Update];
    /// The key is removed.
    pub const REMOVE: &[KeyFlag] = &[Remove, Delete];
}

/// Where keys begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// At this position.
    Index(usize),
    /// Behind this word, in lower case, looked for from a position on.
    Keyword(&'static str, usize),
    /// Where only the command itself knows.
    Unknown,
}

/// Which words are keys from there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// Up to `last`, counted from where they begin, or from the end if negative.
    Range {
        /// Position of the last key.
        last: isize,
        /// Words from a key to the next.
        step: usize,
    },
    /// The first half of the words from there on.
    FirstHalf,
    /// As many as the word at the beginning says, which stand behind it.
    Counted,
    /// The same, each followed by its value.
    CountedPairs,
    /// Only the command itself knows.
    Unknown,
}

/// Where some keys of a command stand and what is done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeySpec {
    /// What is done to them.
    pub flags: &'static [KeyFlag],
    /// Where they begin.
    pub begin: Begin,
    /// How they go on.
    pub find: Find,
}

const FROM_CONTENT: &str = "For the optional BY/GET keyword. It is marked 'unknown' because the key names derive from the content of the key we sort";

/// What Redis remarks on the keys of some commands, place by place.
const NOTES: &[(&str, usize, &str)] = &[
    ("bitfield", 0, "This command allows both access and modification of the key"),
    ("eval", 0, "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE"),
    ("eval_ro", 0, "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS"),
    ("fcall", 0, "We cannot tell how the keys will be used so we assume the worst, RW and UPDATE"),
    ("fcall_ro", 0, "We cannot tell how the keys will be used so we assume the worst, RO and ACCESS"),
    ("getex", 0, "RW and UPDATE because it changes the TTL"),
    ("hgetex", 0, "RW and UPDATE because it changes the TTL"),
    (
        "pfcount",
        0,
        "RW because it may change the internal representation of the key, and propagate to replicas",
    ),
    ("xadd", 0, "UPDATE instead of INSERT because of the optional trimming feature"),
    ("set", 0, "RW and ACCESS due to the optional `GET` argument"),
    ("sort", 1, FROM_CONTENT),
    ("sort_ro", 1, FROM_CONTENT),
    (
        "sort",
        2,
        "For the optional STORE keyword. It is marked 'unknown' because the keyword can appear anywhere in the argument array",
    ),
];

impl Command {
    /// What it does to the key that is `nth` among the keys of a request, from 0.
    pub fn key_flags_of(&self, nth: usize) -> &'static [KeyFlag] {
        // What stands behind a token is all alike.
        let behind_token = nth > 0 && matches!(self.keys, Keys::After { .. });
        match (self.key_flags, self.run) {
            ([.., last], _) if behind_token => last,
            ([.., last], _) => self.key_flags.get(nth).unwrap_or(last),
            ([], Run::Read(_) | Run::Eval(Eval { read_only: true, .. })) => uses::READ,
            ([], _) => uses::CHANGE,
        }
    }

    /// What Redis remarks on the keys of its place `nth`.
    pub fn key_note(&self, nth: usize) -> Option<&'static str> {
        let noted = NOTES.iter().find(|(name, at, _)| (*name, *at) == (self.name, nth))?;
        self.parent.is_none().then_some(noted.2)
    }

    /// Its keys, place by place.
    pub fn key_specs(&self) -> Vec<KeySpec> {
        let single = Find::Range { last: 0, step: 1 };
        let spec = |nth, begin, find| KeySpec { flags: self.key_flags_of(nth), begin, find };
        match self.keys {
            Keys::None => Vec::new(),
            Keys::Range { first, last, step } => {
                let own = self.key_flags.len().saturating_sub(1);
                let mut specs: Vec<KeySpec> =
                    (0..own).map(|nth| spec(nth, Begin::Index(first + nth * step), single)).collect();
                let start = first + own * step;
                let last = if last < 0 { last } else { last - start as isize };
                specs.push(spec(own, Begin::Index(start), Find::Range { last, step }));
                specs
            }
            Keys::Counted { count, also } => {
                let also_spec = also.map(|at| spec(0, Begin::Index(at), single));
                let counted = spec(usize::from(also.is_some()), Begin::Index(count), Find::Counted);
                also_spec.into_iter().chain([counted]).collect()
            }
            Keys::CountedPairs { count } => vec![spec(0, Begin::Index(count), Find::CountedPairs)],
            Keys::Behind { first, from, tokens } => {
                let behind = tokens.iter().zip(1..);
                let behind = behind.map(|(token, nth)| spec(nth, Begin::Keyword(token, from), single));
                std::iter::once(spec(0, Begin::Index(first), single)).chain(behind).collect()
            }
            Keys::After { first, .. } => {
                let behind = self.key_flags.iter().skip(1);
                let behind =
                    behind.map(|flags| KeySpec { flags, begin: Begin::Unknown, find: Find::Unknown });
                std::iter::once(spec(0, Begin::Index(first), single)).chain(behind).collect()
            }
            Keys::FirstHalf { token, from, .. } => {
                vec![spec(0, Begin::Keyword(token, from), Find::FirstHalf)]
            }
        }
    }

    /// First and last position and step of its keys, as `COMMAND` shows them: of
    /// those that stand at fixed places.
    pub const fn key_range(&self) -> (i64, i64, i64) {
        match self.keys {
            Keys::Range { first, last, step } => (first as i64, last as i64, step as i64),
            Keys::Counted { also: Some(at), .. }
            | Keys::After { first: at, .. }
            | Keys::Behind { first: at, .. } => (at as i64, at as i64, 1),
            Keys::None
            | Keys::FirstHalf { .. }
            | Keys::CountedPairs { .. }
            | Keys::Counted { also: None, .. } => (0, 0, 0),
        }
    }

    /// Whether some keys are only found by reading the request.
    pub const fn has_movable_keys(&self) -> bool {
        matches!(
            self.keys,
            Keys::Counted { .. }
                | Keys::CountedPairs { .. }
                | Keys::After { .. }
                | Keys::Behind { .. }
                | Keys::FirstHalf { .. }
        )
    }
}
