//! Commands: one declaration each, and its handler.
//!
//! A command is one row of a family's table: name, arity, keys, flags and the
//! function that runs it. `COMMAND`, routing, access rights, `MULTI`, scripts and
//! the fuzzers read the rows; nothing else knows a command by name.
//!
//! A handler has three paragraphs: read the words, decide, emit and answer. It
//! checks everything before it emits: an `Err` has left no effect, which
//! [`Request::execute`] asserts. It never sees a connection, a RESP version, a
//! slot, a user or Raft.
//!
//! Sources: command reference of Redis 7.2; `src/commands/*.json` for the facts.

pub mod arguments;
pub mod client;
pub mod error;
pub mod key_specs;
pub mod monitor;
pub mod request;
pub mod session;
pub mod slow_requests;
pub mod statistics;
pub mod survey;
pub mod table;
pub mod work;

mod bitmap;
mod blocking;
mod categories;
mod cluster;
#[cfg(test)]
mod compatibility;
mod connection;
mod database;
mod debug;
mod documentation;
mod expiry;
mod functions;
mod generic;
mod geo;
mod hash;
mod help;
mod hyperloglog;
mod introspection;
pub mod latency;
mod lcs;
mod list;
mod long_double;
mod memory;
mod object;
mod persistence;
#[cfg(test)]
mod properties;
pub mod rdb;
mod restore;
mod scripting;
mod server;
mod set;
mod slow_log;
mod sort;
mod sparkline;
mod stream;
mod string;
mod subscribe;
mod transactions;
mod zset;

use moonraft_proto::{Reply, entry::FIRST_FORMAT};
use moonraft_router::Keys;

pub use self::{
    client::Client,
    error::CommandError,
    request::{Request, Slots},
    survey::{Survey, Surveys},
    table::{find, find_child, is_http, resolve, rows},
    work::Work,
};
use crate::keyspace::Tx;

/// What a handler gives back.
pub type Outcome<'a> = Result<Reply<'a>, CommandError>;

/// How many words a request may have, the command's name included; for a
/// subcommand both names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// This many.
    Exactly(usize),
    /// This many or more.
    AtLeast(usize),
}

impl Arity {
    /// Whether so many words are right.
    pub const fn allows(self, count: usize) -> bool {
        match self {
            Arity::Exactly(exact) => count == exact,
            Arity::AtLeast(least) => count >= least,
        }
    }

    /// As `COMMAND` shows it: negative for a minimum.
    pub const fn shown(self) -> i64 {
        match self {
            Arity::Exactly(exact) => exact as i64,
            Arity::AtLeast(least) => -(least as i64),
        }
    }
}

/// What a command is about: an ACL category, if Redis has one for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Any key.
    Generic,
    /// Strings.
    String,
    /// Bits of strings.
    Bitmap,
    /// Lists.
    List,
    /// Hashes.
    Hash,
    /// Sets.
    Set,
    /// Sorted sets.
    SortedSet,
    /// HyperLogLog.
    HyperLogLog,
    /// Places on earth.
    Geo,
    /// Streams.
    Stream,
    /// Publish and subscribe.
    PubSub,
    /// `MULTI` and its like.
    Transactions,
    /// Lua.
    Scripting,
    /// The connection itself.
    Connection,
    /// The server.
    Server,
    /// The cluster.
    Cluster,
}

/// Facts about a command beside those that its [`Run`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Refused when memory is short.
    DenyOom,
    /// Takes constant or logarithmic time.
    Fast,
    /// May wait until something comes to its keys.
    Blocking,
    /// Not allowed in scripts.
    NoScript,
    /// Not allowed inside `MULTI`.
    NoMulti,
    /// For operators: the categories `@admin` and `@dangerous`.
    Admin,
    /// Works on data of many keys at once: the category `@dangerous`.
    Dangerous,
    /// Answered while the shard has no leader or is loading.
    Stale,
    /// Of those, refused by Redis while it loads; data are always loaded here.
    NotLoading,
    /// Refused by Redis while it loads beside serving.
    NotAsyncLoading,
    /// Answered while a script is over its time.
    AllowBusy,
    /// Allowed before `AUTH`.
    NoAuth,
    /// Publishes or subscribes: any replica of the shard does.
    PubSub,
    /// Allowed on a RESP2 connection that listens.
    Listening,
    /// Executed at once inside `MULTI`, not queued.
    Immediate,
    /// Sets the mark that `ASK` redirects ask for.
    Asking,
    /// It is not enabled, so it is refused whoever asks: before all that depends on the shard's state.
    Protected,
    /// Refused to those whom `enable-debug-command` does not let, before all that depends on the shard's state.
    Debugging,
    /// Its subcommands are words to Redis, and no subcommands: one that is unknown is refused as one with wrong words is.
    Words,
    /// It reads, and notes what it found in what it read: at a leader that is a change, elsewhere it is left out.
    NotesResult,
    /// May answer differently to the same request: not a hint to scripts, which
    /// replicate effects, but to clients.
    Random,
    /// Keys that it looks at do not count as used.
    Untouching,
    /// A key that it looks for and that is not there is told to nobody: see [`crate::keyspace::tx`].
    Unheard,
    /// What `CLIENT CACHING` has said is not about it, but about the request after it.
    KeepsCaching,
    /// Keys that it looks at count as used, even if its client wants none to.
    Touching,
    /// Though about the session, it works with what the shard's log holds: routed as what reads data.
    OnData,
    /// Though about the session, it changes what the shard's log holds.
    Changes,
}

/// Runs on the data, reading only.
pub type Read = for<'a> fn(&'a Tx<'_>, &[&'a [u8]]) -> Outcome<'a>;
/// Runs on the data.
pub type Write = for<'a> fn(&mut Tx, &[&'a [u8]]) -> Outcome<'a>;
/// Runs on the client's session, and asks its shard.
pub type Session = fn(&mut dyn Client, &[&[u8]]) -> Outcome<'static>;
/// What a request with these words does to its key.
pub type NarrowedKeyFlags = fn(&[&[u8]]) -> &'static [key_specs::KeyFlag];

/// Whether a request with these words looks at keys that it does not name.
pub type FormsKeys = fn(&[&[u8]]) -> bool;

/// Whether a request with these words asks by an option to be blocked.
pub type AsksToBlock = fn(&[&[u8]]) -> bool;

/// Which words of a request are secrets.
pub type Secrets = fn(&[&[u8]]) -> std::ops::Range<usize>;

/// How a command says what script it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// It brings the text.
    Text,
    /// It names the text by its SHA1.
    Sha1,
    /// It names a function of a library.
    Function,
}

/// How a command runs a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eval {
    /// What its first argument is.
    pub subject: Subject,
    /// The script may not write.
    pub read_only: bool,
}

/// How a command runs. The difference between reading and writing is in the
/// type: a reader gets `&Tx` and cannot emit.
#[derive(Clone, Copy)]
pub enum Run {
    /// Reads data.
    Read(Read),
    /// Changes data.
    Write(Write),
    /// Is about the session, the server or the cluster.
    Session(Session),
    /// Runs a script.
    Eval(Eval),
    /// Runs what the session queued; belongs where the queued keys do.
    Exec,
    /// Has subcommands, which are rows of their own.
    Container,
}

/// One row: all there is to know of a command.
#[derive(Clone, Copy)]
pub struct Command {
    /// Its name, in lower case.
    pub name: &'static str,
    /// For a subcommand: the name of its container.
    pub parent: Option<&'static str>,
    /// How many words.
    pub arity: Arity,
    /// Which of them are keys.
    pub keys: Keys,
    /// What it is about.
    pub family: Family,
    /// Further facts.
    pub flags: &'static [Flag],
    /// What runs it.
    pub run: Run,
    /// What it does to its keys, see [`key_specs::KeyFlag`]. Several: the last is
    /// about all keys but the first ones, which have one each. None: what most
    /// commands do that run so.
    pub key_flags: &'static [&'static [key_specs::KeyFlag]],
    /// For [`key_specs::KeyFlag::Variable`]: what this request does to its key.
    pub narrowed_key_flags: Option<NarrowedKeyFlags>,
    /// How much a request works through. None: little, whatever its keys hold.
    pub work: Option<Work>,
    /// What a request looks for among all keys, or those of a slot. None: it looks at no more than its own.
    pub survey: Option<Surveys>,
    /// Whether a request with these words looks at keys that it does not name. None: it does not.
    pub forms_keys: Option<FormsKeys>,
    /// Whether a request with these words asks by an option to be blocked, which a script may not. None: by none.
    pub asks_to_block: Option<AsksToBlock>,
    /// The families whose ACL categories it is in. None: its own.
    pub categories: &'static [Family],
    /// Which of its words are secrets, by their places: they are not told.
    pub secrets: Option<Secrets>,
    /// How clients may split a request and join replies; `COMMAND` shows them.
    pub tips: &'static [&'static str],
    /// The newest [format](moonraft_proto::entry) that its effects need: until the shard has agreed on that, it is
    /// refused.
    pub format: u8,
}

impl Command {
    /// A row to be completed with struct update syntax.
    pub const BASE: Command = Command {
        name: "",
        parent: None,
        arity: Arity::AtLeast(1),
        keys: Keys::None,
        family: Family::Generic,
        flags: &[],
        run: Run::Container,
        key_flags: &[],
        narrowed_key_flags: None,
        work: None,
        survey: None,
        forms_keys: None,
        asks_to_block: None,
        categories: &[],
        secrets: None,
        tips: &[],
        format: FIRST_FORMAT,
    };

    /// `name`, or `parent|name`.
    pub fn full_name(&self) -> std::borrow::Cow<'static, str> {
        match self.parent {
            None => self.name.into(),
            Some(parent) => format!("{parent}|{}", self.name).into(),
        }
    }

    /// The words of a request, as they may be told: secrets are not.
    pub fn told_words<'w>(&self, words: &'w [&'w [u8]]) -> impl Iterator<Item = &'w [u8]> {
        /// What is shown in place of a word that is a secret.
        const REDACTED: &[u8] = b"(redacted)";
        let secrets = self.secrets.map_or(0..0, |secrets| secrets(words));
        words.iter().enumerate().map(move |(at, word)| if secrets.contains(&at) { REDACTED } else { *word })
    }

    /// Whether the row has this flag.
    pub fn has(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Whether keys that it looks at count as used, for a client that wants none to or any other.
    pub fn touches(&self, client_untouching: bool) -> bool {
        self.has(Flag::Touching) || !client_untouching && !self.has(Flag::Untouching)
    }

    /// Whether it may change data.
    pub const fn is_write(&self) -> bool {
        matches!(self.run, Run::Write(_))
    }

    /// Whether it reads data and never changes it.
    pub const fn is_read(&self) -> bool {
        matches!(self.run, Run::Read(_) | Run::Eval(Eval { read_only: true, .. }))
    }

    /// Checks the number of words.
    ///
    /// # Errors
    /// It is not what the command takes.
    pub fn check_arity(&self, words: &[&[u8]]) -> Result<(), CommandError> {
        if self.arity.allows(words.len()) { Ok(()) } else { Err(CommandError::Arity(self.full_name())) }
    }
}

#[cfg(test)]
mod golden;
