//! The shard while a script is over its time: the same server, which runs nothing on data.
//!
//! The script has the shard (see [`super::script`]) and asks now and then whether it may go on. Then the
//! world hands over what clients have sent meanwhile, and it goes the way of any request: the same sessions, the
//! same admission, replies through the same outboxes, where those that are held stay before those that come.
//! What is served the table says ([`Flag::AllowBusy`]). All else is refused, and like any refusal that breaks an
//! open block: what is half known of a transaction must not be executed later.
//!
//! Whoever would end a script is heard after `heard_ms` even where `busy-reply-threshold` is longer, or never: then
//! all else waits, as it did before.
//!
//! Invariants:
//! * What is served is about sessions alone: the script's unit, and what it depends on, stays as it is.
//! * A client of the script itself, which waits for its reply, is not attended to: its requests are being received.

use std::rc::Rc;

use bytes::BytesMut;
use moonraft_router::Network;

use super::{Busy, Core, SessionId, Shard, admit::Reason};
use crate::command::{
    Command, CommandError, Flag, Request,
    client::{Kill, RunningFunction},
};

/// What others are told, in the words of Redis 7.
const fn busy(is_function: bool) -> CommandError {
    CommandError::text(match is_function {
        false => "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
        true => "BUSY Redis is busy running a script. You can only call FUNCTION KILL or SHUTDOWN NOSAVE.",
    })
}

/// A function that has been called, as `FUNCTION STATS` tells it.
pub(super) struct Called {
    pub name: Vec<u8>,
    pub words: Vec<Vec<u8>>,
    pub started_ns: u64,
}

/// A script that is over its time, while clients are attended to.
pub(super) struct Overdue {
    /// Others are refused; else they wait, for `busy-reply-threshold` is not reached.
    refuses: bool,
    is_killed: bool,
}

/// A shard whose script is over its time, as the world around it may use it.
pub struct BusyShard<'a> {
    shard: &'a mut Shard,
}

impl BusyShard<'_> {
    /// As [`Core::connect`].
    ///
    /// # Errors
    /// There are too many: the text to send it before its connection is closed.
    pub fn connect(
        &mut self,
        peer_address: String,
        local_address: String,
        network: Network,
    ) -> Result<SessionId, &'static str> {
        self.shard.connect(peer_address, local_address, network)
    }

    /// Deals with the requests at the start of `input` and takes them out of it. What may wait until the script
    /// has ended stays there.
    pub fn receive(&mut self, id: SessionId, input: &mut BytesMut) {
        // Those are of the client whose script runs, and nothing here reads data.
        let reads = std::mem::take(&mut self.shard.reads);
        self.shard.take_requests(id, input);
        self.shard.reads = reads;
    }

    /// As [`Core::writable`].
    pub fn writable(&self, id: SessionId) -> &[u8] {
        self.shard.writable(id)
    }

    /// As [`Core::written`].
    pub fn written(&mut self, id: SessionId, count: usize) {
        self.shard.written(id, count);
    }

    /// As [`Core::should_close`].
    pub fn should_close(&self, id: SessionId) -> bool {
        self.shard.should_close(id)
    }
}

impl Shard {
    /// Lets clients be attended to. Returns whether the script is to end: a client asked for it, or the world.
    pub(super) fn attend_clients(&mut self, refuses: bool) -> Busy {
        self.overdue = Some(Overdue { refuses, is_killed: false });
        if refuses {
            self.wake(&Reason::Script); // they are told so
        }
        let surroundings = Rc::clone(&self.surroundings);
        let told = surroundings.while_busy(&mut BusyShard { shard: self });
        let overdue = self.overdue.take().expect("only this function takes it");
        if overdue.is_killed { Busy::Kill } else { told }
    }

    /// Executes what the table allows while a script is over its time: no unit is begun, the script's is open.
    pub(super) fn run_beside_script(&mut self, id: SessionId, request: &Request<'_>) {
        let call = self.begin_call(request.command, false);
        let failed = self.run_whole(id, request);
        self.end_call(request.command, call, failed);
        self.tell_unless_script(id, request);
    }
}

impl Core {
    /// Whether a script is over its time, and others are attended to.
    pub(super) const fn is_busy(&self) -> bool {
        self.overdue.is_some()
    }

    /// Whether a request waits for the script that runs.
    ///
    /// # Errors
    /// The script is over its time.
    pub(super) fn waits_for_script(&self, command: &Command) -> Result<bool, CommandError> {
        match &self.overdue {
            Some(overdue) if !command.has(Flag::AllowBusy) => {
                if overdue.refuses {
                    Err(busy(self.called.is_some()))
                } else {
                    Ok(true)
                }
            }
            _ => Ok(false),
        }
    }

    /// Ends the script, or the function, that is over its time.
    pub(super) fn kill_script(&mut self, is_function: bool) -> Kill {
        let runs_function = self.called.is_some();
        match &mut self.overdue {
            None => Kill::NotBusy,
            Some(_) if runs_function != is_function => Kill::Other(busy(runs_function)),
            Some(overdue) => {
                overdue.is_killed = true;
                Kill::Done
            }
        }
    }

    /// The function that is over its time.
    ///
    /// # Errors
    /// It is a script.
    pub(super) fn running_function(&self) -> Result<Option<RunningFunction>, CommandError> {
        match &self.called {
            _ if !self.is_busy() => Ok(None),
            None => Err(busy(false)),
            Some(Called { name, words, started_ns }) => {
                let ran_ns = self.surroundings.boot_ns().saturating_sub(*started_ns);
                let (name, words) = (name.clone(), words.clone());
                Ok(Some(RunningFunction { name, words, ran_ms: ran_ns / 1_000_000 }))
            }
        }
    }
}
