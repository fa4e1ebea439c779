//! Running a script on the shard: the world it reaches, and its end.
//!
//! The script has all of the shard but the engine while it runs ([`Core`]); each command it calls is
//! admitted and executed by the same functions as any other. A script that is killed,
//! even after it wrote, is undone whole; one that fails keeps what it did, as in
//! Redis. So a lack of memory or disk stops a script only before its first write.

use std::{rc::Rc, sync::Arc};

use moonraft_proto::{Protocol, Reply, Text};
use moonraft_router::single_slot;

use super::{
    Busy, Core, SessionId, Shard,
    admit::{Home, Reason, Terms, Via},
    busy::Called,
    large_calls::await_call,
    monitors::Source,
    room::{Needs, READ_ONLY},
};
use crate::{
    command::{CommandError, Eval, Outcome, Request, Run, Subject, arguments::script_key_count, find},
    keyspace::scripts::{Sha1, sha1},
    script::{
        Engine, Flags, FunctionCall, Host, KillReason, LogLevel, Outcome as Ended, RegisteredFunction,
        Script, Verdict,
    },
};

/// How long the text of a library may run, as in Redis: it registers functions, no more. All that one request brings share it.
pub(super) const LIBRARIES_LOAD_NS_MAX: u64 = 500_000_000;

impl Shard {
    /// `EVAL` and its like: runs a script in the open unit.
    ///
    /// # Errors
    /// It is not known, does not compile, failed, or was killed: then nothing of it is left.
    pub(super) fn eval(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        eval: Eval,
        via: Via<'_>,
    ) -> Outcome<'static> {
        const UNKNOWN: CommandError = CommandError::text("NOSCRIPT No matching script. Please use EVAL.");
        let (subject, count, rest) = (request.words[1], request.words[2], &request.words[3..]);
        let name: Sha1 = match eval.subject {
            Subject::Function => return self.call_function(id, request, eval, via),
            Subject::Text => sha1(subject),
            Subject::Sha1 => subject.to_ascii_lowercase().try_into().map_err(|_| UNKNOWN)?,
        };
        let (keys, arguments) = rest.split_at(script_key_count(count, rest)?);
        let known;
        let text: &[u8] = if eval.subject == Subject::Text {
            subject
        } else {
            known = self.find_script(&name).cloned().ok_or(UNKNOWN)?;
            &known
        };
        let flags = Engine::flags(text).map_err(CommandError::Text)?;
        let script = Script { sha: &name, text };
        let run = |engine: &mut Engine, host| engine.run(&script, keys, arguments, host);
        let reply = self.run_script(id, flags, keys, eval, via, run)?;
        if eval.subject == Subject::Text {
            self.seen_scripts.remember(name, subject);
        }
        Ok(reply)
    }

    /// `FCALL function numkeys [key …] [argument …]`
    fn call_function(
        &mut self,
        id: SessionId,
        request: &Request<'_>,
        eval: Eval,
        via: Via<'_>,
    ) -> Outcome<'static> {
        const UNKNOWN: CommandError = CommandError::text("ERR Function not found");
        const BAD_COUNT: CommandError = CommandError::text("ERR Bad number of keys provided");
        let (count, rest) = (request.words[2], &request.words[3..]);
        let found = self.store().function(request.words[1]).ok_or(UNKNOWN)?;
        let flags = found.function.flags();
        let (code, sha, name) = (Arc::clone(found.library.code()), *found.library.sha(), found.name.to_vec());
        let count = script_key_count(count, rest).map_err(|error| match error {
            CommandError::NotInteger => BAD_COUNT,
            other => other,
        })?;
        let (keys, arguments) = rest.split_at(count);

        let words = request.words.iter().map(|word| word.to_vec()).collect();
        self.called = Some(Called { name: name.clone(), words, started_ns: self.surroundings.boot_ns() });
        let call = FunctionCall { code: &code, sha: &sha, name: &name };
        let run = |engine: &mut Engine, host| engine.call(&call, keys, arguments, host);
        let reply = self.run_script(id, flags, keys, eval, via, run);
        self.called = None;
        reply
    }

    fn run_script(
        &mut self,
        id: SessionId,
        flags: Flags,
        keys: &[&[u8]],
        eval: Eval,
        via: Via<'_>,
        run: impl FnOnce(&mut Engine, ScriptHost) -> (ScriptHost, Ended),
    ) -> Outcome<'static> {
        self.check_flags(flags, eval.read_only)?;
        let own_home = Home::default();
        let home = if let Via::Block(home) = via { home } else { &own_home };
        home.set(single_slot(keys.iter().copied()).ok().flatten().or(home.get()));
        let terms = Terms {
            home: home.clone(),
            any_slot: flags.undeclared || flags.allow_cross_slot_keys,
            read_only: eval.read_only || flags.no_writes,
            ignores_memory: flags.allow_oom,
            ..Terms::default()
        };
        let savepoint = self.store().savepoint();
        let (ended, after) = self.lend(id, terms, None, run);
        home.set(after.home);
        if after.last_error.is_some_and(|error| hands_on(&ended, &error)) {
            self.details.expect_counted_error();
        }
        match ended {
            Ended::Done(reply) => Ok(reply),
            Ended::Failed(text) => Ok(Reply::Error(text)),
            Ended::Killed(_, text) => {
                let exceeded = self.exceeded_limit();
                self.store_mut().roll_back_to(savepoint);
                Err(exceeded.unwrap_or(CommandError::Text(text)))
            }
        }
    }

    /// Compiles a script and keeps it: its name.
    ///
    /// # Errors
    /// It does not compile, or that took long and was killed.
    pub(super) fn load_script(&mut self, id: SessionId, text: &[u8]) -> Result<Sha1, CommandError> {
        let (loaded, _) = self.lend(id, Terms::default(), None, |engine, host| engine.load(text, host));
        loaded.map_err(|ended| match ended {
            Ended::Failed(text) | Ended::Killed(_, text) => CommandError::Text(text),
            Ended::Done(_) => unreachable!("compiling gives no reply"),
        })
    }

    /// Runs the text of a library, and keeps it: what it registers.
    ///
    /// # Errors
    /// It does not compile, failed, or took too long.
    pub(super) fn load_library(
        &mut self,
        id: SessionId,
        code: &[u8],
        ends_ns: u64,
    ) -> Result<Vec<RegisteredFunction>, CommandError> {
        let (loaded, _) =
            self.lend(id, Terms::default(), Some(ends_ns), |engine, host| engine.load_library(code, host));
        loaded.map_err(|ended| match ended {
            Ended::Failed(text) | Ended::Killed(_, text) => CommandError::Text(text),
            Ended::Done(_) => unreachable!("loading gives no reply"),
        })
    }

    /// Forgets libraries whose text has been run.
    pub(super) fn forget_libraries(&mut self) {
        self.engine.as_mut().expect("a script does not reach the engine it runs in").forget_libraries();
    }

    /// Forgets compiled scripts, and those that are not replicated.
    pub(super) fn forget_scripts(&mut self) {
        self.engine.as_mut().expect("a script does not reach the engine it runs in").forget_all();
        self.seen_scripts.clear();
    }

    /// Gives the core to a script for a run of the engine, which is stopped at `ends_ns`, boot clock.
    fn lend<T>(
        &mut self,
        id: SessionId,
        terms: Terms,
        ends_ns: Option<u64>,
        run: impl FnOnce(&mut Engine, ScriptHost) -> (ScriptHost, T),
    ) -> (T, After) {
        let reads_stale = self.sessions[id].read_only;
        let (started_ns, busy_ns) = (self.surroundings.boot_ns(), self.settings.busy_ms * 1_000_000);
        let terms = Terms { reads_stale, ..terms };
        let mut engine = self.engine.take().expect("a script does not run inside a script");
        let shard = Shard { core: self.core.take(), engine: None };
        let (host, value) = run(
            &mut engine,
            ScriptHost { shard, id, terms, last_error: None, started_ns, busy_ns, ends_ns, ends: None },
        );
        (self.core, self.engine) = (host.shard.core, Some(engine));
        self.wake(&Reason::Script);
        // A script that calls `READONLY` changes it for itself only.
        self.sessions[id].read_only = reads_stale;
        (value, After { home: host.terms.home.get(), last_error: host.last_error })
    }
}

impl Core {
    /// Refuses a script that declares what cannot be had here and now, in Redis's order. One that declares nothing
    /// is refused by what it calls.
    fn check_flags(&self, flags: Flags, read_only: bool) -> Result<(), CommandError> {
        if flags.undeclared {
            return Ok(());
        }
        Needs::of_script(flags).check(self.room)?;
        if !flags.no_writes && !self.is_serving() {
            return Err(READ_ONLY);
        }
        if flags.no_cluster {
            return Err(CommandError::text("ERR Can not run script on cluster, 'no-cluster' flag is set."));
        }
        if read_only && !flags.no_writes {
            const TEXT: &str = "ERR Can not execute a script with write flag using *_ro command.";
            return Err(CommandError::text(TEXT));
        }
        Ok(())
    }

    /// The text of a known script, for the open unit. One that was seen depends on nothing that is in flight.
    pub(super) fn find_script(&self, name: &Sha1) -> Option<&Arc<[u8]>> {
        let text = self.store().script(name).or_else(|| self.seen_scripts.get(name));
        if text.is_none() {
            self.store().note_no_script();
        }
        text
    }

    /// The text of a known script, loaded or seen.
    fn script_text(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        self.store().keyspace().scripts().get(name).or_else(|| self.seen_scripts.get(name))
    }

    /// What the script of a request declares of itself, if it is known and declares anything.
    pub(super) fn declared_flags(&self, request: &Request<'_>) -> Option<Flags> {
        let Run::Eval(eval) = request.command.run else { return None };
        let subject = request.words[1];
        let text = match eval.subject {
            Subject::Function => {
                let found = self.store().keyspace().libraries().function(subject);
                return found.map(|found| found.function.flags());
            }
            Subject::Sha1 => self.script_text(subject).map(|text| &**text),
            Subject::Text => Some(subject),
        };
        text.and_then(|text| Engine::flags(text).ok()).filter(|flags| !flags.undeclared)
    }
}

/// What is known after a run.
struct After {
    /// The slot of the keys it touched.
    home: Option<u16>,
    /// The last error of a command it called.
    last_error: Option<Text<'static>>,
}

/// What a script reaches of the shard.
struct ScriptHost {
    shard: Shard,
    /// The session that asked for the script.
    id: SessionId,
    terms: Terms,
    /// The last error of a command it called.
    last_error: Option<Text<'static>>,
    started_ns: u64,
    busy_ns: u64,
    ends_ns: Option<u64>,
    /// It was told that it is to end.
    ends: Option<KillReason>,
}

impl ScriptHost {
    fn execute(&mut self, words: &[&[u8]]) -> Outcome<'static> {
        const UNKNOWN: CommandError = CommandError::text("ERR Unknown Redis command called from script");
        let request = Request::read(words).map_err(|_| UNKNOWN)?;
        let (command, via) = (request.command, Via::Script(&self.terms));
        if let Err(error) = self.shard.admit(self.id, &request, via) {
            self.shard.details.rejected(command);
            return Err(error);
        }
        self.terms.wrote.set(self.terms.wrote.get() || command.changes_data());
        let call = self.shard.begin_call(command, false);
        let outcome = match self.shard.is_large_call(&request) {
            true => self.call_elsewhere(&request),
            false => self.shard.execute(self.id, &request, via),
        };
        self.shard.end_call(command, call, outcome.is_err());
        self.shard.tell_monitors(Source::Script, command, words);
        outcome
    }

    /// Whether the script may go on; clients are attended to if it is over its time.
    fn look_around(&mut self) -> Verdict {
        if self.shard.exceeded_limit().is_some() || self.shard.surroundings.ends_scripts() {
            return Verdict::Kill(KillReason::Host);
        }
        let now_ns = self.shard.surroundings.boot_ns();
        if self.ends_ns.is_some_and(|ends_ns| now_ns >= ends_ns) {
            return Verdict::Kill(KillReason::Time);
        }
        let ran_ns = now_ns.saturating_sub(self.started_ns);
        let is_busy = ran_ns >= self.busy_ns;
        let is_heard = is_busy || ran_ns >= self.shard.settings.heard_ms * 1_000_000;
        if !is_heard || self.shard.attend_clients(is_busy) == Busy::Continue {
            Verdict::Continue
        } else {
            Verdict::Kill(KillReason::User)
        }
    }

    /// Executes a large call elsewhere. If the script is to end meanwhile, it is when it asks next.
    fn call_elsewhere(&mut self, request: &Request<'_>) -> Outcome<'static> {
        const ENDED: CommandError = CommandError::text("ERR the script is to end");
        let number = self.shard.send_call(request);
        let surroundings = Rc::clone(&self.shard.surroundings);
        let (outcome, ends) = await_call(&*surroundings, number, || self.poll() != Verdict::Continue);
        if ends {
            self.shard.recall_call(outcome);
            return Err(ENDED);
        }
        let outcome = self.shard.take_call(outcome, false);
        self.shard.note_copies(self.id, request);
        outcome
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

impl Host for ScriptHost {
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static> {
        let reply = match self.execute(words) {
            Ok(reply) => return reply,
            Err(error) => Reply::from(error),
        };
        self.shard.note_error(&reply);
        if let Reply::Error(text) = &reply {
            self.last_error = Some(text.clone());
        }
        reply
    }

    fn random_seed(&self) -> u64 {
        self.shard.store().random_seed()
    }

    fn poll(&mut self) -> Verdict {
        let verdict = self.ends.map_or_else(|| self.look_around(), Verdict::Kill);
        if let Verdict::Kill(reason) = verdict {
            self.ends = Some(reason);
        }
        verdict
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
