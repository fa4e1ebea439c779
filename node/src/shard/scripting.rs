//! Running a script on the shard: the world it reaches, and its end.
//!
//! The script has the shard for itself while it runs, a vacant one standing in its
//! place; each command it calls is executed by the same function as any other. A script that is killed,
//! even after it wrote, is undone whole; one that fails keeps what it did, as in
//! Redis. So a lack of memory or disk stops a script only before its first write.

use std::{rc::Rc, sync::Arc};

use moonraft_proto::{Protocol, Reply, Text};
use moonraft_router::single_slot;

use super::{
    Busy, Client, SessionId, Shard,
    execute::{Needs, check_leader, run_on_data},
    seen_scripts::SeenScripts,
    session::Queued,
};
use crate::{
    command::{Command, CommandError, Flag, Outcome, Run, find, resolve},
    keyspace::scripts::Sha1,
    script::{Engine, Flags, Host, KillReason, LogLevel, Outcome as Ended, Script, Verdict},
};

/// How a script is asked for.
pub struct Request<'a> {
    /// Its name.
    pub name: Sha1,
    /// Its text.
    pub text: &'a [u8],
    /// `KEYS`: all of one slot, which was checked.
    pub keys: &'a [&'a [u8]],
    /// `ARGV`
    pub arguments: &'a [&'a [u8]],
    /// It may not write: `EVAL_RO`.
    pub read_only: bool,
}

impl Client<'_> {
    /// The engine of this shard.
    pub fn engine(&mut self) -> &mut Engine {
        self.shard.engine.as_mut().expect("a script does not reach the engine it runs in")
    }

    /// Scripts that were sent lately.
    pub fn seen_scripts(&mut self) -> &mut SeenScripts {
        &mut self.shard.seen_scripts
    }

    /// The text of a known script, loaded or seen.
    pub fn script_text(&self, name: &[u8]) -> Option<Arc<[u8]>> {
        self.tx().whole(); // that it was loaded may not be committed
        self.shard.script_text(name).cloned()
    }

    /// Remembers a script that is not replicated.
    pub fn remember_script(&mut self, name: Sha1, text: &[u8]) {
        self.shard.seen_scripts.remember(name, text);
    }

    /// Compiles a script and keeps it: its name.
    ///
    /// # Errors
    /// It does not compile, or that took long and was killed.
    pub fn load_script(&mut self, text: &[u8]) -> Result<Sha1, CommandError> {
        let (loaded, _) = self.lend_shard(Terms::default(), |engine, host| engine.load(text, host));
        loaded.map_err(|ended| match ended {
            Ended::Failed(text) | Ended::Killed(_, text) => CommandError::Text(text),
            Ended::Done(_) => unreachable!("compiling gives no reply"),
        })
    }

    /// Runs a script in the open unit.
    ///
    /// # Errors
    /// It does not compile, failed, or was killed: then nothing of it is left.
    pub fn run_script(&mut self, request: &Request<'_>) -> Outcome<'static> {
        let flags = Engine::flags(request.text).map_err(CommandError::Text)?;
        self.check_flags(flags, request.read_only)?;
        self.slot = single_slot(request.keys.iter().copied()).ok().flatten().or(self.slot);
        let terms = Terms {
            slot: self.slot,
            read_only: request.read_only || flags.no_writes,
            any_slot: flags.undeclared || flags.allow_cross_slot_keys,
            ignores_memory: flags.allow_oom,
        };
        let savepoint = self.tx().savepoint();
        let script = Script { sha: &request.name, text: request.text };
        let (ended, last_error) =
            self.lend_shard(terms, |engine, host| engine.run(&script, request.keys, request.arguments, host));
        if last_error.is_some_and(|error| hands_on(&ended, &error)) {
            self.shard.details.expect_counted_error();
        }
        match ended {
            Ended::Done(reply) => Ok(reply),
            Ended::Failed(text) => Ok(Reply::Error(text)),
            Ended::Killed(_, text) => {
                let exceeded = self.shard.exceeded_limit();
                let text = exceeded.map_or(text, |limit| limit.refusal().into());
                self.tx_mut().roll_back_to(savepoint);
                Err(CommandError::Text(text))
            }
        }
    }

    /// Refuses a script that declares what cannot be had here and now, in Redis's order. One that declares nothing
    /// is refused by what it calls.
    fn check_flags(&self, flags: Flags, read_only: bool) -> Result<(), CommandError> {
        if flags.undeclared {
            return Ok(());
        }
        needs_of(flags).check(self.tx())?;
        check_leader(self.tx(), !flags.no_writes)?;
        if flags.no_cluster {
            return Err(CommandError::text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if read_only && !flags.no_writes {
            const TEXT: &str = "ERR Can not execute a script with write flag using *_ro command.";
            return Err(CommandError::text(TEXT));
        }
        Ok(())
    }

    /// Refuses a request of a block that must not begin now. What a script will do is not known before, but for
    /// what it declares.
    ///
    /// # Errors
    /// What the node lacks.
    pub fn check_room(&self, request: &Queued) -> Result<(), CommandError> {
        let needs = match request.command.run {
            Run::Script(_, read_only) => {
                let flags = self.shard.declared_flags(request.command, &request.words());
                needs_of(flags.unwrap_or(Flags { no_writes: read_only, ..Flags::default() }))
            }
            _ => Needs::of(request.command),
        };
        needs.check(self.tx())
    }

    /// Gives the shard away for a run of the engine, a vacant one standing in its place.
    /// Also the last error of a command that was called.
    fn lend_shard<T>(
        &mut self,
        terms: Terms,
        run: impl FnOnce(&mut Engine, ScriptHost) -> (ScriptHost, T),
    ) -> (T, Option<Text<'static>>) {
        let vacant =
            || Box::new(Shard::vacant(self.shard.settings.clone(), Rc::clone(&self.shard.surroundings)));
        let stand_in = self.shard.stand_in.take();
        let mut shard = stand_in.unwrap_or_else(vacant);
        let mut engine = self.shard.engine.take().expect("a script does not run inside a script");
        std::mem::swap(self.shard, &mut shard);
        let host = ScriptHost {
            terms,
            wrote: false,
            last_error: None,
            started_ns: shard.surroundings.boot_ns(),
            busy_ns: shard.settings.busy_ms * 1_000_000,
            was_read_only: shard.sessions[self.id].read_only,
            shard,
            id: self.id,
        };
        let (mut host, value) = run(&mut engine, host);
        std::mem::swap(self.shard, &mut host.shard);
        self.shard.stand_in = Some(host.shard);
        self.shard.engine = Some(engine);
        self.session_mut().read_only = host.was_read_only;
        self.slot = host.terms.slot;
        (value, host.last_error)
    }
}

/// What a script needs that declares flags.
const fn needs_of(flags: Flags) -> Needs {
    Needs { writes: !flags.no_writes, grows: !flags.no_writes, ignores_memory: flags.allow_oom }
}

/// What a script may do.
#[derive(Default)]
struct Terms {
    /// The slot of all its keys, unless they may be of any; `None` until it touches one.
    slot: Option<u16>,
    read_only: bool,
    /// Undeclared keys may be of any slot of this shard: a script without flags, or `allow-cross-slot-keys`.
    any_slot: bool,
    /// `allow-oom`
    ignores_memory: bool,
}

impl Shard {
    /// The text of a known script, loaded or seen.
    fn script_text(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        self.tx().keyspace().scripts().get(name).or_else(|| self.seen_scripts.get(name))
    }

    /// What the script of a request declares of itself, if it is known and declares anything.
    pub(super) fn declared_flags(&self, command: &Command, words: &[&[u8]]) -> Option<Flags> {
        let text = match command.has(Flag::ByName) {
            true => self.script_text(&words[1].to_ascii_lowercase()).map(|text| &**text),
            false => Some(words[1]),
        };
        text.and_then(|text| Engine::flags(text).ok()).filter(|flags| !flags.undeclared)
    }
}

/// What a script reaches of the shard.
struct ScriptHost {
    shard: Box<Shard>,
    /// The session that asked for the script.
    id: SessionId,
    /// A script that calls `READONLY` changes it for itself only.
    was_read_only: bool,
    terms: Terms,
    /// It has called what writes.
    wrote: bool,
    /// The last error of a command it called.
    last_error: Option<Text<'static>>,
    started_ns: u64,
    busy_ns: u64,
}

const NOT_ALLOWED: CommandError = CommandError::text("ERR This Redis command is not allowed from script");

impl ScriptHost {
    fn execute(&mut self, words: &[&[u8]]) -> Outcome<'static> {
        const UNKNOWN: CommandError = CommandError::text("ERR Unknown Redis command called from script");
        let command = resolve(words).map_err(|_| UNKNOWN)?;
        command.check_arity(words).map_err(|_| {
            self.shard.details.rejected(command);
            wrong_count()
        })?;
        if command.has(Flag::NoScript) {
            return Err(NOT_ALLOWED);
        }
        match command.run {
            Run::Read(_) | Run::Write(_) => self.execute_on_data(command, words),
            Run::Session(run) => {
                self.check_slots(command, words)?;
                let call = self.shard.begin_call(command, false);
                let mut client = Client { shard: &mut self.shard, id: self.id, may_block: false, slot: None };
                let outcome = run(&mut client, words);
                self.shard.end_call(command, call, outcome.is_err());
                outcome
            }
            Run::Script(..) | Run::Queue(_) | Run::Container => Err(NOT_ALLOWED),
        }
    }

    /// Checks in Redis's order whether a command may run, and executes it.
    fn execute_on_data(&mut self, command: &'static Command, words: &[&[u8]]) -> Outcome<'static> {
        if command.is_write() && self.is_too_large() {
            // It ends at the next question, before it hears of this.
            return Err(NOT_ALLOWED);
        }
        if command.is_write() && self.terms.read_only {
            return Err(CommandError::text("ERR Write commands are not allowed from read-only scripts."));
        }
        check_leader(self.shard.tx(), command.changes_data())?;
        if !self.wrote {
            let ignores_memory = self.terms.ignores_memory;
            Needs { ignores_memory, ..Needs::of(command) }.check(self.shard.tx())?;
        }
        self.check_slots(command, words)?;
        self.wrote |= command.changes_data();
        let call = self.shard.begin_call(command, false);
        let outcome = self.run_on_data(command, words);
        self.shard.end_call(command, call, outcome.is_err());
        outcome
    }

    /// Executes a command on data. One with too large a reply ends the script, whose unit is refused whole.
    fn run_on_data(&mut self, command: &Command, words: &[&[u8]]) -> Outcome<'static> {
        let Shard { tx, unit_reply, settings, .. } = &mut *self.shard;
        let tx = tx.as_mut().expect("the shard of a script is not vacant");
        let reply = run_on_data(tx, command, words)?;
        let weight = reply.weight();
        if weight.counted() > settings.reply_bytes_max {
            *unit_reply = weight;
            return Err(CommandError::ReplyTooLarge(settings.reply_bytes_max));
        }
        Ok(reply.into_owned())
    }

    /// A unit that exceeds a limit will be refused, so the script ends at once: one
    /// that writes in a loop would take the node's memory.
    fn is_too_large(&self) -> bool {
        self.shard.exceeded_limit().is_some()
    }

    /// The keys of a command, declared or not, must be of one slot that is served here, of the script's own
    /// unless it may go beyond it.
    fn check_slots(&mut self, command: &Command, words: &[&[u8]]) -> Result<(), CommandError> {
        const NOT_LOCAL: CommandError =
            CommandError::text("ERR Script attempted to access a non local key in a cluster node");
        const OTHER_SLOT: CommandError =
            CommandError::text("ERR Script attempted to access keys that do not hash to the same slot");
        let positions = command.key_positions(words);
        let slot = single_slot(positions.iter().map(|&at| words[at])).map_err(|_| NOT_LOCAL)?;
        let Some(slot) = slot else { return Ok(()) };
        // A follower serves who asked for it, and messages of a shard.
        let serves = self.shard.is_serving() || self.was_read_only || command.has(Flag::PubSub);
        if !serves || !self.shard.keyspace().owned().contains(slot) {
            return Err(NOT_LOCAL);
        }
        if !self.terms.any_slot && *self.terms.slot.get_or_insert(slot) != slot {
            return Err(OTHER_SLOT);
        }
        Ok(())
    }
}

/// Whether what a script ended with is an error of a command it called.
fn hands_on(ended: &Ended, error: &[u8]) -> bool {
    match ended {
        Ended::Done(Reply::Error(text)) => text.starts_with(error),
        Ended::Failed(text) => text.starts_with(error),
        _ => false,
    }
}

fn wrong_count() -> CommandError {
    CommandError::text("ERR Wrong number of args calling Redis command from script")
}

impl Host for ScriptHost {
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
        let reply = match self.execute(words) {
            Ok(reply) => return reply,
            Err(error) => Reply::from(error),
        };
        let Shard { statistics, details, .. } = &mut *self.shard;
        statistics.note_error(details, &reply);
        if let Reply::Error(text) = &reply {
            self.last_error = Some(text.clone());
        }
        reply
    }

    fn random_seed(&self) -> u64 {
        self.shard.tx().random_seed()
    }

    fn poll(&mut self) -> Verdict {
        if self.is_too_large() || self.shard.surroundings.ends_scripts() {
            return Verdict::Kill(KillReason::Host);
        }
        let ran_ns = self.shard.surroundings.boot_ns().saturating_sub(self.started_ns);
        let is_busy = ran_ns >= self.busy_ns;
        let is_heard = is_busy || ran_ns >= self.shard.settings.heard_ms * 1_000_000;
        if !is_heard || self.shard.attend_clients(is_busy) == Busy::Continue {
            Verdict::Continue
        } else {
            Verdict::Kill(KillReason::User)
        }
    }

    fn clock_ns(&self) -> u64 {
        self.shard.surroundings.boot_ns()
    }

    fn log(&mut self, level: LogLevel, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        match level {
            LogLevel::Debug | LogLevel::Verbose => tracing::debug!("script: {text}"),
            LogLevel::Notice => tracing::info!("script: {text}"),
            LogLevel::Warning => tracing::warn!("script: {text}"),
        }
    }

    fn set_protocol(&mut self, _: Protocol) {
        // Replies are typed: the engine shows them as the script asked.
    }

    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool> {
        // There are no users yet: every known command is allowed.
        words.first().and_then(|name| find(name)).map(|_| true)
    }
}
