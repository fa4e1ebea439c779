//! Looking at the sessions of this replica, and ending them.

use moonraft_proto::{Protocol, Reply};

use super::super::{
    Client, CommandError, Outcome,
    arguments::{is, parse_integer},
    session::{Copies, Session},
};
use crate::subscriptions::SessionId;

/// `CLIENT INFO`
pub(super) fn info(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let now_us = client.unix_us();
    let id = client.session_id();
    let beside = Beside::of(client, id, bytes_of(words));
    let text = line(id, client.session(), now_us, beside);
    Ok(Reply::Verbatim(*b"txt", (text + "\n").into()))
}

fn bytes_of(words: &[&[u8]]) -> usize {
    words.iter().map(|word| word.len()).sum()
}

/// `CLIENT LIST [TYPE type | ID id [id …]]`
pub(super) fn list(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let filter = match &words[2..] {
        [] => Filter::All,
        [option, kind] if is(option, "type") => Filter::Kind(kind_of(kind)?),
        [option, ids @ ..] if is(option, "id") && !ids.is_empty() => Filter::Ids(client_ids(ids)?),
        _ => return Err(CommandError::Syntax),
    };

    let now_us = client.unix_us();
    let mut shown: Vec<_> = client.sessions().filter(|(_, session)| filter.takes(session)).collect();
    shown.sort_by_key(|(_, session)| session.number);
    let mut text = String::new();
    for (id, session) in shown {
        // Only the client that asks is executing a request.
        let executing = if id == client.session_id() { bytes_of(words) } else { 0 };
        text += &line(id, session, now_us, Beside::of(client, id, executing));
        text.push('\n');
    }
    Ok(Reply::Verbatim(*b"txt", text.into()))
}

enum Filter {
    All,
    Kind(Kind),
    Ids(Vec<i64>),
}

impl Filter {
    fn takes(&self, session: &Session) -> bool {
        match self {
            Filter::All => true,
            Filter::Kind(kind) => *kind == Kind::of(session),
            Filter::Ids(ids) => ids.contains(&(session.number as i64)),
        }
    }
}

/// What a client is for. Replicas are no clients here: these kinds are empty.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    PubSub,
    Master,
    Replica,
}

impl Kind {
    fn of(session: &Session) -> Self {
        if session.listening.count() > 0 { Kind::PubSub } else { Kind::Normal }
    }
}

fn kind_of(word: &[u8]) -> Result<Kind, CommandError> {
    match () {
        () if is(word, "normal") => Ok(Kind::Normal),
        () if is(word, "pubsub") => Ok(Kind::PubSub),
        () if is(word, "master") => Ok(Kind::Master),
        () if is(word, "replica") || is(word, "slave") => Ok(Kind::Replica),
        () => Err(CommandError::about("ERR Unknown client type '", word, "'")),
    }
}

fn client_ids(words: &[&[u8]]) -> Result<Vec<i64>, CommandError> {
    let ids: Option<Vec<i64>> = words.iter().map(|word| parse_integer(word)).collect();
    ids.ok_or(CommandError::text("ERR Invalid client ID"))
}

/// What the state of a session does not tell of it.
struct Beside {
    /// Bytes of the words of its present request.
    executing: usize,
    /// Bytes of replies and messages that its client has not read.
    unread: usize,
    /// Its last request is answered later.
    is_blocked: bool,
}

impl Beside {
    fn of(client: &dyn Client, id: SessionId, executing: usize) -> Self {
        Self { executing, unread: client.unread_bytes(id), is_blocked: client.is_blocked(id) }
    }
}

/// One line, as Redis 7.2 writes it.
fn line(id: SessionId, session: &Session, now_us: u64, beside: Beside) -> String {
    let Beside { executing, unread, is_blocked } = beside;
    let seconds_since = |us: u64| now_us.saturating_sub(us) / 1_000_000;
    let (query_bytes, query_room) = session.query_bytes;
    let (queued, queued_bytes) =
        session.queue.as_ref().map_or((-1, 0), |queue| (queue.requests.len() as i64, queue.bytes));
    let command = session.last_command.map_or("NULL".into(), |command| command.full_name());
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={} db=0 sub={} psub={} ssub={} multi={} \
         qbuf={} qbuf-free={} argv-mem={} multi-mem={} rbs=0 rbp=0 obl=0 oll=0 omem={} tot-mem={} events=r cmd={} \
         user=default redir={} resp={} lib-name={} lib-ver={}",
        session.number,
        session.peer_address,
        session.local_address,
        // Not the system's number, but as unique among open connections.
        id,
        session.name,
        seconds_since(session.connected_us),
        seconds_since(session.active_us),
        flags(session, is_blocked),
        session.listening.channels.len(),
        session.listening.patterns.len(),
        session.listening.shard_channels.len(),
        queued,
        query_bytes,
        query_room,
        executing,
        queued_bytes,
        unread,
        query_bytes + query_room + executing + unread + queued_bytes + size_of::<Session>(),
        command,
        super::tracking::redirect_of(session),
        if session.protocol == Protocol::Resp3 { 3 } else { 2 },
        session.library_name,
        session.library_version,
    )
}

fn flags(session: &Session, is_blocked: bool) -> String {
    let tracking = session.tracking.as_deref();
    let all = [
        ('O', session.monitors),
        ('P', session.listening.count() > 0),
        ('x', session.queue.is_some()),
        ('b', is_blocked),
        ('t', tracking.is_some()),
        ('R', tracking.is_some_and(|tracking| tracking.is_broken)),
        ('B', tracking.is_some_and(|tracking| tracking.copies == Copies::Broadcast)),
        ('c', session.closing),
        ('r', session.read_only),
        ('e', session.no_evict),
        ('T', session.no_touch),
    ];
    let set: String = all.iter().filter(|(_, set)| *set).map(|(letter, _)| letter).collect();
    if set.is_empty() { "N".into() } else { set }
}

// ---- KILL ------------------------------------------------------------------

/// What `CLIENT KILL` asks for: all that is given must be met.
#[derive(Default)]
struct Target<'a> {
    id: Option<u64>,
    kind: Option<Kind>,
    address: Option<&'a [u8]>,
    local_address: Option<&'a [u8]>,
    /// The asking connection too.
    me_too: bool,
}

impl Target<'_> {
    fn is_met(&self, session: &Session) -> bool {
        self.id.is_none_or(|id| id == session.number)
            && self.kind.is_none_or(|kind| kind == Kind::of(session))
            && self.address.is_none_or(|address| address == session.peer_address.as_bytes())
            && self.local_address.is_none_or(|address| address == session.local_address.as_bytes())
    }
}

/// `CLIENT KILL ip:port` or `CLIENT KILL option value [option value …]`
pub(super) fn kill(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let old_form = words.len() == 3;
    let target = match old_form {
        true => Target { address: Some(words[2]), me_too: true, ..Target::default() },
        false => target(&words[2..])?,
    };

    let me = client.session_id();
    let met =
        client.sessions().filter(|(id, session)| target.is_met(session) && (target.me_too || *id != me));
    let ids: Vec<SessionId> = met.map(|(id, _)| id).collect();
    ids.iter().for_each(|&id| client.close(id));
    match (old_form, ids.len()) {
        (true, 0) => Err(CommandError::text("ERR No such client")),
        (true, _) => Ok(Reply::OK),
        (false, count) => Ok(Reply::count(count)),
    }
}

fn target<'a>(words: &[&'a [u8]]) -> Result<Target<'a>, CommandError> {
    let mut target = Target::default();
    for pair in words.chunks(2) {
        let [option, value] = pair else { return Err(CommandError::Syntax) };
        match () {
            () if is(option, "id") => {
                const BAD: CommandError = CommandError::text("ERR client-id should be greater than 0");
                let id = parse_integer(value).filter(|&id| id > 0).ok_or(BAD)?;
                target.id = Some(id as u64);
            }
            () if is(option, "type") => target.kind = Some(kind_of(value)?),
            () if is(option, "addr") => target.address = Some(value),
            () if is(option, "laddr") => target.local_address = Some(value),
            () if is(option, "user") && *value == b"default" => {}
            () if is(option, "user") => return Err(CommandError::about("ERR No such user '", value, "'")),
            () if is(option, "skipme") && is(value, "yes") => target.me_too = false,
            () if is(option, "skipme") && is(value, "no") => target.me_too = true,
            () => return Err(CommandError::Syntax),
        }
    }
    Ok(target)
}
