//! Admission: whether a request may run, decided once and in one place, whichever way it comes.
//!
//! [`Core::admit`] reads as a list, and who asks hears the first reason there is against the request. It is asked
//! of what a client sends, of each request of a block before the block begins, and of each command that a script
//! calls. What differs between commands stands in their rows; no command is known by name here.
//!
//! The order is Redis's: a client's request is routed before it is asked what the node lacks, and the keys of a
//! script's command are looked at last.
//!
//! INVARIANTS:
//! * Nothing is executed that was not admitted in the same turn.
//! * Only a client's request is left unread. A block or a script that has begun waits for nothing.
//! * A redirect is the answer only to a client's request, before anything was done for it.
//!
//! Source: `processCommand` (server.c) and `scriptCall` (script.c) of Redis 7.2.

use std::cell::Cell;

use bstr::BStr;
use moonraft_router::Redirect;

use super::{
    Core, PlantedFault, SessionId, errands::may_be_sent, place::Place, room::Needs, slots::Ownership,
};
use crate::{
    command::{Command, CommandError, Flag, Request, Run, Slots},
    config::DebugAccess,
    keyspace::Blob,
    marks,
};

/// The way by which a request comes.
#[derive(Clone, Copy)]
pub(super) enum Via<'a> {
    /// A client sent it.
    Client,
    /// Its block is executed, whose keys are of this slot.
    Block(&'a Home),
    /// A script calls it.
    Script(&'a Terms),
}

/// The one slot that a block keeps to with the scripts in it that may not go beyond; `None` until a key is met.
pub(super) type Home = Cell<Option<u16>>;

/// What a script may do.
#[derive(Default)]
pub(super) struct Terms {
    /// The slot of its keys, unless [`Terms::any_slot`].
    pub home: Home,
    /// Its keys may be of any slot of this shard: a script without flags, or `allow-cross-slot-keys`.
    pub any_slot: bool,
    /// It may not write.
    pub read_only: bool,
    /// `allow-oom`
    pub ignores_memory: bool,
    /// Its client asked for stale reads. If the script itself does, by `READONLY`, that is not for its own keys.
    pub reads_stale: bool,
    /// It has called what writes.
    pub wrote: Cell<bool>,
}

/// What becomes of a request that is not refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is executed here, or queued.
    Now,
    /// It stays in its client's buffer.
    Later(Reason),
}

/// Why a request is left unread: see [`super::waiting`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Too much is in flight.
    InFlight,
    /// A script runs.
    Script,
    /// `CLIENT PAUSE`
    Pause,
    /// A snapshot's writer is behind.
    Writer,
    /// Nobody is known to serve.
    Leader,
    /// The log has not decided whose the slot is.
    Slots,
    /// The members have not agreed yet on the format of what it writes.
    Formats,
    /// What this key holds has to be written for a snapshot before it changes.
    Walk(Blob),
    /// What this key holds is lent to a request that is executed elsewhere.
    Loan(Blob),
    /// Something is lent.
    Loans,
    /// It is to be executed elsewhere, or in steps, where too many are.
    Helper,
    /// It is executed elsewhere, or in steps.
    Errand,
    /// A batch is applied, or taken back, in steps.
    Applying,
    /// Its client leaves too many replies unread.
    Unread,
    /// The request before it waits for followers: `WAIT`.
    Followers,
    /// The request before it waits until something comes to its keys: see [`super::blocked`].
    Key,
}

/// Words of a request that cannot be executed elsewhere.
const WORDS_MAX: usize = 100_000;

const NOT_IN_SCRIPT: CommandError = CommandError::text("ERR This Redis command is not allowed from script");
const NOT_LOCAL: CommandError =
    CommandError::text("ERR Script attempted to access a non local key in a cluster node");

impl Core {
    /// Decides whether a request may run here and now.
    pub(super) fn admit(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        via: Via<'_>,
    ) -> Result<Admission, CommandError> {
        check_arity(request, via)?;
        if let Via::Client = via {
            check_protected(request.command)?;
            check_words(request)?;
            self.check_debugging(id, request.command)?;
        }
        self.check_mode(id, request.command, via)?;
        // Here a user's rights will be asked for.
        if let Via::Client = via {
            check_one_slot(request)?;
            let place = self.check_place(id, request)?;
            self.check_listening(id, request.command)?;
            self.check_monitoring(id, request.command)?;
            if let Some(reason) = self.must_wait(id, request, place)? {
                return Ok(Admission::Later(reason));
            }
            if self.is_queued(id, request.command) || self.is_busy() {
                return Ok(Admission::Now); // what is needed to run it is looked at then; beside a script nothing is
            }
            self.look_at_memory(id, request);
        }
        self.check_script(request.command, via)?;
        self.check_leading(request.command)?;
        self.check_room(request, via)?;
        self.check_reach(request, via)?;
        check_not_blocking(request, via)?;
        if !matches!(via, Via::Client) {
            self.recall_for(request);
        }
        Ok(Admission::Now)
    }

    /// Refuses what an open block cannot hold, and what a script may not call.
    fn check_mode(&self, id: SessionId, command: &Command, via: Via<'_>) -> Result<(), CommandError> {
        let in_block = match via {
            Via::Client => self.sessions[id].queue.is_some(),
            Via::Block(_) => true,
            Via::Script(_) => false,
        };
        match via {
            _ if in_block && command.has(Flag::NoMulti) => {
                Err(CommandError::text("ERR Command not allowed inside a transaction"))
            }
            Via::Script(_) if command.has(Flag::NoScript) => Err(NOT_IN_SCRIPT),
            _ => Ok(()),
        }
    }

    /// Refuses words of `DEBUG` to a client whom `enable-debug-command` does not let.
    fn check_debugging(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        let address = &self.sessions[id].peer_address;
        let is_let = match self.settings.debug_access {
            DebugAccess::No => false,
            DebugAccess::Yes => true,
            DebugAccess::Local => address.starts_with("127.") || address.starts_with("[::1]"),
        };
        match command.has(Flag::Debugging) && !is_let {
            true => Err(CommandError::DebugNotAllowed),
            false => Ok(()),
        }
    }

    /// Where a client's request is executed, if not elsewhere.
    fn check_place(&self, id: SessionId, request: &Request<'_>) -> Result<Place, CommandError> {
        match self.place_of(id, request) {
            Place::Elsewhere(redirect) => Err(redirect.into()),
            place => Ok(place),
        }
    }

    /// Refuses what a RESP2 connection may not send while it listens.
    fn check_listening(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        let session = &self.sessions[id];
        if session.is_listening_only() && !command.has(Flag::Listening) {
            let text = format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                command.full_name()
            );
            return Err(CommandError::Text(text.into()));
        }
        Ok(())
    }

    /// Refuses what a session that hears of each request may not send: to Redis it is a replica.
    fn check_monitoring(&self, id: SessionId, command: &Command) -> Result<(), CommandError> {
        let touches = command.is_write() || command.reads_data() || matches!(command.run, Run::Eval(_));
        match touches && self.sessions[id].monitors {
            true => Err(CommandError::text("ERR Replica can't interact with the keyspace")),
            false => Ok(()),
        }
    }

    /// What a client's request waits for, unread.
    fn must_wait(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        place: Place,
    ) -> Result<Option<Reason>, CommandError> {
        let reason = if self.waits_for_script(request.command)? {
            Reason::Script
        } else if self.is_paused(id, request) {
            Reason::Pause
        } else if self.is_held_by_writer(id, request) {
            Reason::Writer
        } else if let Place::Wait = place {
            match () {
                () if self.is_serving() => Reason::Slots,
                () if self.may_wait() => Reason::Leader,
                () => return Err(self.unserved()),
            }
        } else if self.awaits_format(request.command) && !self.is_queued(id, request.command) {
            Reason::Formats
        } else if self.lacks_room_in_flight(id)
            && !self.is_queued(id, request.command)
            && self.may_change(id, request)
        {
            Reason::InFlight
        } else if self.is_between_states() && self.is_on_data(id, request) {
            Reason::Applying
        } else if self.is_gathered(id, request) {
            return Ok(None); // it waits for each of its keys when it is lent
        } else {
            let by_loan = self.held_by_loan(id, request);
            return Ok(by_loan.or_else(|| self.held_by_walk(id, request).map(Reason::Walk)));
        };
        Ok(Some(reason))
    }

    /// Refuses what a script may not do that only reads.
    fn check_script(&self, command: &Command, via: Via<'_>) -> Result<(), CommandError> {
        match via {
            // It ends at the next question, before it hears of this: one that writes in a loop would take the
            // node's memory.
            Via::Script(_) if command.is_write() && self.exceeded_limit().is_some() => Err(NOT_IN_SCRIPT),
            Via::Script(terms) if command.is_write() && terms.read_only => {
                Err(CommandError::text("ERR Write commands are not allowed from read-only scripts."))
            }
            _ => Ok(()),
        }
    }

    /// Refuses what writes at a follower.
    fn check_leading(&self, command: &Command) -> Result<(), CommandError> {
        match command.changes_data() && !self.is_serving() {
            true => Err(super::room::READ_ONLY),
            false => Ok(()),
        }
    }

    /// Refuses what needs memory or disk that the node lacks. A script that has written is not stopped half way.
    fn check_room(&self, request: &Request<'_>, via: Via<'_>) -> Result<(), CommandError> {
        let needs = match via {
            Via::Script(terms) => {
                Needs { ignores_memory: terms.ignores_memory, ..Needs::of(request.command) }
            }
            Via::Block(_) => self.needs_of_queued(request),
            Via::Client => Needs::of(request.command),
        };
        match (needs.check(self.room), via) {
            (Err(_), Via::Script(terms)) if terms.wrote.get() && !self.stops_half_way() => {
                marks::reached("script that had written went on in a shortage");
                Ok(())
            }
            (checked, _) => checked,
        }
    }

    fn stops_half_way(&self) -> bool {
        self.settings.fault == Some(PlantedFault::ScriptStoppedHalfWay)
    }

    /// The keys that a script's command names, declared or not, must be of one slot that is served here: of the
    /// script's own, unless it may go beyond it.
    fn check_reach(&self, request: &Request<'_>, via: Via<'_>) -> Result<(), CommandError> {
        const OTHER_SLOT: CommandError =
            CommandError::text("ERR Script attempted to access keys that do not hash to the same slot");
        let Via::Script(terms) = via else { return Ok(()) };
        let slot = match request.slots {
            Slots::None => return Ok(()),
            Slots::One(slot) => slot,
            Slots::Several => return Err(NOT_LOCAL),
        };
        // A follower serves who asked for it, and messages of a shard.
        let serves = self.is_serving() || terms.reads_stale || request.command.has(Flag::PubSub);
        if !serves || self.ownership(slot) != Ownership::Own {
            return Err(NOT_LOCAL);
        }
        if !terms.any_slot && !keeps_to(&terms.home, slot) {
            return Err(OTHER_SLOT);
        }
        Ok(())
    }

    // ---- what a request may do ---------------------------------------------------

    /// Whether a request may change data or publish, now or when its block is executed: what a script declares
    /// counts, else what its command allows.
    pub(super) fn may_change(&self, id: SessionId, request: &Request<'_>) -> bool {
        match request.command.run {
            Run::Session(_) => request.command.changes_data(),
            Run::Exec => self.sessions[id].queue.as_ref().is_some_and(|queue| queue.writes),
            Run::Eval(eval) => self.declared_flags(request).map_or(!eval.read_only, |flags| !flags.no_writes),
            Run::Write(_) if request.command.has(Flag::NotesResult) => self.is_serving(),
            Run::Read(_) | Run::Write(_) | Run::Container => !request.command.is_read(),
        }
    }

    pub(super) fn is_queued(&self, id: SessionId, command: &Command) -> bool {
        self.sessions[id].queue.is_some() && !command.has(Flag::Immediate)
    }

    /// Whether `CLIENT PAUSE` keeps a request waiting.
    fn is_paused(&self, id: SessionId, request: &Request<'_>) -> bool {
        let Some(pause) = self.pause else { return false };
        let is_meant = !pause.writes_only || self.may_change(id, request);
        is_meant && self.surroundings.boot_ns() < pause.until_ns
    }

    /// Whether a request that nobody can serve now may wait: not if none could for long. All that
    /// wait share the time, or each request of a pipeline would wait as long again.
    fn may_wait(&mut self) -> bool {
        self.note_leaderless();
        !self.is_leaderless_for_long(self.surroundings.boot_ns())
    }

    pub(super) fn is_leaderless_for_long(&self, now: u64) -> bool {
        let park_ns = self.settings.park_ms * 1_000_000;
        self.leaderless_since.is_some_and(|since| now - since >= park_ns)
    }

    /// What a request is told that has waited for too long.
    pub(super) fn unserved(&self) -> CommandError {
        // What has keys has been sent to a leader that answers; the rest is for this replica.
        match self.leader_answers() && !self.is_caught_up() {
            true => CommandError::text("LOADING Redis is loading the dataset in memory"),
            false => Redirect::Down.into(),
        }
    }
}

/// Refuses a script's request that asks by an option to be blocked, as Redis does; others do not block in a script.
fn check_not_blocking(request: &Request<'_>, via: Via<'_>) -> Result<(), CommandError> {
    match (via, request.command.asks_to_block) {
        (Via::Script(_), Some(asks)) if asks(request.words) => {
            // By the name it was called by.
            let name = BStr::new(request.words[0]);
            Err(CommandError::Text(
                format!("ERR {name} command is not allowed with BLOCK option from scripts").into(),
            ))
        }
        _ => Ok(()),
    }
}

/// Refuses what is refused whoever asks, before all that depends on the shard's state.
fn check_protected(command: &Command) -> Result<(), CommandError> {
    if command.has(Flag::Protected) { Err(CommandError::ModulesNotAllowed) } else { Ok(()) }
}

/// Refuses what has so many words that it would keep others waiting, as it can only be executed here and now. Scripts
/// answer for themselves.
fn check_words(request: &Request<'_>) -> Result<(), CommandError> {
    const TOO_MANY: CommandError = CommandError::text("ERR too many words in one request of this command");
    let command = request.command;
    let stays_here = !may_be_sent(request) || command.has(Flag::Blocking);
    match stays_here && request.words.len() > WORDS_MAX && !matches!(command.run, Run::Eval(_)) {
        true => Err(TOO_MANY),
        false => Ok(()),
    }
}

/// Refuses a wrong number of words.
fn check_arity(request: &Request<'_>, via: Via<'_>) -> Result<(), CommandError> {
    request.command.check_arity(request.words).map_err(|error| match via {
        Via::Script(_) => CommandError::text("ERR Wrong number of args calling Redis command from script"),
        Via::Client | Via::Block(_) => error,
    })
}

/// Refuses a client's request with keys of several slots.
fn check_one_slot(request: &Request<'_>) -> Result<(), CommandError> {
    match request.slots {
        Slots::Several => Err(Redirect::CrossSlot.into()),
        Slots::None | Slots::One(_) => Ok(()),
    }
}

/// Whether a key of this slot may be touched where all keys are of one; the first decides.
pub(super) fn keeps_to(home: &Home, slot: u16) -> bool {
    let first = home.get().unwrap_or(slot);
    home.set(Some(first));
    first == slot
}
