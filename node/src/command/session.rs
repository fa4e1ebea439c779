//! The state of one client connection, as far as commands know of it.

use std::collections::BTreeSet;

use bytes::Bytes;
use hashbrown::HashMap;
use moonraft_proto::Protocol;
use moonraft_router::{Network, keys::KeyPositions};

use super::{Command, Request, Slots};
use crate::{
    keyspace::Blob,
    subscriptions::{Listening, SessionId},
};

/// What `CLIENT REPLY` asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReplyMode {
    /// Every request is answered.
    #[default]
    On,
    /// None is.
    Off,
    /// The next one is not.
    SkipNext,
    /// This one is not.
    Skip,
}

/// A request that waits for `EXEC`.
pub struct Queued {
    command: &'static Command,
    words: Vec<Bytes>,
    keys: KeyPositions,
    slots: Slots,
}

impl Queued {
    /// Keeps a request.
    pub fn new(request: &Request<'_>) -> Self {
        Self {
            command: request.command,
            words: request.words.iter().map(|word| Bytes::copy_from_slice(word)).collect(),
            keys: request.keys.clone(),
            slots: request.slots,
        }
    }

    /// Keeps a request of which some words, by their places, are others.
    pub fn with(request: &Request<'_>, others: &[(usize, Bytes)]) -> Self {
        let mut queued = Self::new(request);
        others.iter().for_each(|(at, word)| queued.words[*at] = word.clone());
        queued
    }

    /// Its row.
    pub const fn command(&self) -> &'static Command {
        self.command
    }

    /// One of its words.
    pub fn word(&self, at: usize) -> &[u8] {
        &self.words[at]
    }

    /// Bytes that it takes.
    pub fn bytes(&self) -> usize {
        Self::bytes_with(self.words.iter().map(Bytes::len))
    }

    /// Bytes that a request will take.
    pub fn bytes_of(request: &Request<'_>) -> usize {
        Self::bytes_with(request.words.iter().map(|word| word.len()))
    }

    fn bytes_with(lengths: impl Iterator<Item = usize>) -> usize {
        size_of::<Self>() + lengths.map(|length| size_of::<Bytes>() + length).sum::<usize>()
    }

    /// Its words.
    pub fn words(&self) -> Vec<&[u8]> {
        self.words.iter().map(|word| &**word).collect()
    }

    /// The request, of its own words.
    pub fn request<'a>(&self, words: &'a [&'a [u8]]) -> Request<'a> {
        Request { command: self.command, words, keys: self.keys.clone(), slots: self.slots }
    }
}

/// A `MULTI` block that is being queued.
#[derive(Default)]
pub struct Queue {
    /// Its requests.
    pub requests: Vec<Queued>,
    /// The slot of its first key.
    pub slot: Option<u16>,
    /// Some key is of another slot: `EXEC` will be refused, as in Redis, not the
    /// request that named the key.
    pub crosses_slots: bool,
    /// Whether one of its requests may change data or publish.
    pub writes: bool,
    /// One of its requests may work through much, or it has many words.
    pub may_be_large: bool,
    /// Words of its requests.
    pub words: usize,
    /// A request was refused: `EXEC` will be, too.
    pub broken: bool,
    /// Bytes of its words.
    pub bytes: usize,
}

/// What a session has seen of a key that it watches.
pub struct WatchedKey {
    /// The number of its last change.
    pub change: u64,
    /// It was there, and had not expired.
    pub was_there: bool,
}

/// Of what a client keeps copies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copies {
    /// Of all that it reads.
    All,
    /// Of what it says before that it will: `OPTIN`.
    OptIn,
    /// Of all but what it says before that it will not: `OPTOUT`.
    OptOut,
    /// Of keys that begin in some ways, read here or not: `BCAST`.
    Broadcast,
}

/// `CLIENT TRACKING ON`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// Of what it keeps copies.
    pub copies: Copies,
    /// It does not hear of what it changes itself: `NOLOOP`.
    pub no_loop: bool,
    /// Who hears it in its place, with that session's number.
    pub redirect: Option<(SessionId, u64)>,
    /// How keys begin of which it hears; for [`Copies::Broadcast`] only.
    pub prefixes: BTreeSet<Bytes>,
    /// `CLIENT CACHING` was about the next request.
    pub caching: bool,
    /// Who would have heard something in its place was gone.
    pub is_broken: bool,
}

/// One client.
pub struct Session {
    /// What `CLIENT ID` answers: unique in this process.
    pub number: u64,
    /// `host:port` of the client.
    pub peer_address: String,
    /// `host:port` it connected to.
    pub local_address: String,
    /// The network it comes from: it is told addresses of this one only.
    pub network: Network,
    /// When it connected, Unix microseconds.
    pub connected_us: u64,
    /// When it last sent a request, Unix microseconds.
    pub active_us: u64,
    /// The format of its replies.
    pub protocol: Protocol,
    /// `CLIENT SETNAME`
    pub name: String,
    /// `CLIENT SETINFO LIB-NAME`
    pub library_name: String,
    /// `CLIENT SETINFO LIB-VER`
    pub library_version: String,
    /// `READONLY` was sent: reads are served by a follower.
    pub read_only: bool,
    /// `CLIENT NO-EVICT`
    pub no_evict: bool,
    /// `CLIENT NO-TOUCH`
    pub no_touch: bool,
    /// `MONITOR`
    pub monitors: bool,
    /// `CLIENT TRACKING`; `None` while it is off. Only the shard changes it: see [`super::Client::track`].
    pub tracking: Option<Box<Tracking>>,
    /// `CLIENT REPLY`
    pub reply_mode: ReplyMode,
    /// The row of its last request.
    pub last_command: Option<&'static Command>,
    /// `MULTI`
    pub queue: Option<Queue>,
    /// `WATCH`
    pub watches: HashMap<Blob, WatchedKey>,
    /// What it subscribed to.
    pub listening: Listening,
    /// Bytes it has sent that are not executed, with the request that is, and that there is room for beyond.
    pub query_bytes: (usize, usize),
    /// No more requests are read; it is closed once its replies have left.
    pub closing: bool,
}

impl Session {
    /// A session that has just begun.
    pub fn new(
        number: u64,
        peer_address: String,
        local_address: String,
        network: Network,
        now_us: u64,
    ) -> Self {
        Self {
            number,
            peer_address,
            local_address,
            network,
            connected_us: now_us,
            active_us: now_us,
            protocol: Protocol::default(),
            name: String::new(),
            library_name: String::new(),
            library_version: String::new(),
            read_only: false,
            no_evict: false,
            no_touch: false,
            monitors: false,
            tracking: None,
            reply_mode: ReplyMode::default(),
            last_command: None,
            queue: None,
            watches: HashMap::new(),
            listening: Listening::default(),
            query_bytes: (0, 0),
            closing: false,
        }
    }

    /// Whether a RESP2 connection may only send what belongs to subscriptions.
    pub fn is_listening_only(&self) -> bool {
        self.protocol == Protocol::Resp2 && self.listening.count() > 0
    }
}
