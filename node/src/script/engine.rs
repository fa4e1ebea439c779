//! Compiles, keeps and runs scripts.

use std::any::Any;
use std::rc::Rc;

use bstr::BStr;
use mlua::{Lua, LuaString, MultiValue, Value};
use moonraft_proto::{Reply, Text};

use super::arguments::{text_of, until_zero};
use super::convert::{Fields, to_reply};
use super::globals::{self, Globals};
use super::header::{self, Flags};
use super::kept::Kept;
use super::library::Library;
use super::settle::settle;
use super::shelf::{Place, Shelf};
use super::state::{KillReason, RunState};
use super::{CHUNKS_MAX, Host, Limits, sha1_hex};

/// A script: its name and its text. The name must be the text's: [`sha1_hex`].
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// The SHA1 of the text.
    pub sha: &'a [u8; 40],
    /// The text, with its first line `#!lua …` if it has one.
    pub text: &'a [u8],
}

/// Who an error is of: a script, by its SHA1, or a function, by its name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub name: &'a [u8],
    pub is_function: bool,
}

impl<'a> Caller<'a> {
    /// What is loaded has no name yet.
    pub const LIBRARY: Caller<'static> = Caller { name: b"", is_function: true };

    fn of(script: &Script<'a>) -> Self {
        Self { name: script.sha, is_function: false }
    }
}

/// A compiled script.
struct Chunk {
    place: Place,
    /// No text in it is longer.
    literal: usize,
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The script returned this. A returned error reply is here, too: as in Redis,
    /// what the script wrote stays.
    Done(Reply<'static>),
    /// The script does not compile or raised an error: the text for the client.
    Failed(Text<'static>),
    /// The script was stopped: why, and the text for the client.
    Killed(KillReason, Text<'static>),
}

/// See the module.
pub struct Engine {
    pub(super) lua: Lua,
    pub(super) globals: Globals,
    pub(super) state: Rc<RunState>,
    chunks: Kept<Rc<Chunk>>,
    pub(super) libraries: Kept<Rc<Library>>,
    pub(super) shelf: Rc<Shelf>,
    names: [LuaString; 2],
    fields: Fields,
    /// What an engine without scripts needs.
    empty_bytes: usize,
}

impl Engine {
    /// An engine without scripts.
    ///
    /// # Errors
    /// The memory limit is too small even for Lua's own libraries.
    pub fn new(limits: Limits) -> mlua::Result<Self> {
        let lua = globals::bare()?;
        let chunks = Kept::new(limits.chunk_bytes, CHUNKS_MAX);
        let libraries = Kept::new(limits.chunk_bytes, CHUNKS_MAX);
        let state = Rc::new(RunState::new(limits));
        lua.set_app_data(Rc::clone(&state));
        let shelf = Shelf::new(&lua)?;
        let globals = globals::install(&lua, &state, &shelf)?;
        let names = [lua.create_string("KEYS")?, lua.create_string("ARGV")?];
        let fields = Fields::new(&lua)?;
        lua.gc_collect()?;
        let empty_bytes = lua.used_memory();
        state.memory.set_base(empty_bytes);
        lua.set_memory_limit(state.memory.hard_limit(empty_bytes + 2 * state.limits.chunk_bytes))?;
        Ok(Self { lua, globals, state, chunks, libraries, shelf, names, fields, empty_bytes })
    }

    /// What a script declares of itself in its first line; the error text for the client.
    pub fn flags(text: &[u8]) -> Result<Flags, Text<'static>> {
        header::parse(text).map(|(flags, _)| flags)
    }

    /// Compiles a text, for `SCRIPT LOAD`, and keeps it: its name, or the error text for
    /// the client. The host is lent for it, since some texts take long.
    pub fn load<H: Host>(&mut self, text: &[u8], host: H) -> (H, Result<[u8; 40], Outcome>) {
        let sha = sha1_hex(text);
        let script = Script { sha: &sha, text };
        self.lend(host, |engine| match engine.begun(&Caller::of(&script)) {
            Ok(()) => engine.chunk(&script).map(|_| sha),
            Err(outcome) => Err(outcome),
        })
    }

    /// Forgets all compiled chunks: `SCRIPT FLUSH`.
    pub fn forget_all(&mut self) {
        self.chunks.clear();
        self.tidy_up();
    }

    /// Gives back what is not kept any more.
    pub(super) fn tidy_up(&mut self) {
        // Without it the chunks give way when others come.
        let _ = self.shelf.tidy();
        self.note_kept();
        // Failing to collect leaves garbage, which the next collection finds.
        let _ = self.lua.gc_collect();
    }

    /// What is kept is not a script's.
    pub(super) fn note_kept(&self) {
        self.state.memory.set_base(self.empty_bytes + self.chunks.bytes() + self.libraries.bytes());
    }

    /// Bytes that Lua holds.
    pub fn memory_bytes(&self) -> usize {
        self.lua.used_memory()
    }

    /// Compiled chunks that are kept.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The most work there ever was between two questions to a host, in bytes touched
    /// or steps made.
    pub fn work_longest(&self) -> usize {
        self.state.work_longest()
    }

    /// Runs a script. The host is lent for the run and handed back.
    pub fn run<H: Host>(
        &mut self,
        script: &Script<'_>,
        keys: &[&[u8]],
        arguments: &[&[u8]],
        host: H,
    ) -> (H, Outcome) {
        self.lend(host, |engine| match engine.begun(&Caller::of(script)) {
            Ok(()) => engine.execute(script, keys, arguments),
            Err(outcome) => outcome,
        })
    }

    pub(super) fn lend<H: Host, T>(&mut self, host: H, run: impl FnOnce(&mut Self) -> T) -> (H, T) {
        self.state.lend(Box::new(host));
        let value = run(self);
        if self.state.stopped() == Some(KillReason::Memory) || self.state.memory.is_littered(&self.lua) {
            self.state.clean(&self.lua);
            self.drop_hoards();
        }
        let host: Box<dyn Any> = self.state.end();
        let host = host.downcast::<H>().expect("the host that comes back is the one that went in");
        (*host, value)
    }

    pub(super) fn begun(&self, caller: &Caller<'_>) -> Result<(), Outcome> {
        self.state.begin(&self.lua).map_err(|error| self.failure(caller, Value::Error(Box::new(error))))
    }

    /// What a run has left and no collection finds, a library keeps in its variables. If little could run beside that,
    /// libraries are forgotten.
    fn drop_hoards(&mut self) {
        /// Of what a script may hold.
        const PART: usize = 4;
        if !self.libraries.is_empty()
            && self.state.memory.taken(&self.lua) > self.state.limits.memory_bytes / PART
        {
            self.forget_libraries();
        }
    }

    fn execute(&mut self, script: &Script<'_>, keys: &[&[u8]], arguments: &[&[u8]]) -> Outcome {
        let chunk = match self.chunk(script) {
            Ok(chunk) => chunk,
            Err(outcome) => return outcome,
        };
        let ended = self
            .state
            .note_text(&self.lua, chunk.literal)
            .and_then(|()| self.set_words(keys, arguments))
            .and_then(|()| self.globals.drive.call::<MultiValue>(chunk.place.function()?));
        self.finish(&Caller::of(script), ended)
    }

    /// What came of a run.
    pub(super) fn finish(&self, caller: &Caller<'_>, ended: mlua::Result<MultiValue>) -> Outcome {
        match ended {
            // Something caught the stop and returned before the hook noticed.
            _ if self.state.stopped().is_some() => self.killed(caller),
            Err(error) => self.failure(caller, Value::Error(Box::new(error))),
            Ok(mut values) => {
                let succeeded = matches!(values.pop_front(), Some(Value::Boolean(true)));
                let value = values.pop_front().unwrap_or_default();
                if !succeeded {
                    return self.failure(caller, value);
                }
                match to_reply(&self.state, &self.lua, &self.fields, &value) {
                    Ok(reply) => Outcome::Done(reply),
                    Err(reason) => {
                        self.state.stop(&self.lua, reason);
                        self.killed(caller)
                    }
                }
            }
        }
    }

    /// `KEYS` and `ARGV`: new tables each time, since scripts change them.
    fn set_words(&self, keys: &[&[u8]], arguments: &[&[u8]]) -> mlua::Result<()> {
        self.state.unlimited(&self.lua, || {
            for (name, words) in self.names.iter().zip([keys, arguments]) {
                let mut charged = Ok(());
                let mut charge = |word: &[u8]| {
                    if charged.is_ok() {
                        charged = self.state.charge(&self.lua, word.len() + 1);
                    }
                };
                let words = words.iter().inspect(|word| charge(word)).map(BStr::new);
                let list = self.lua.create_sequence_from(words)?;
                charged?;
                self.globals.real.raw_set(name, list)?;
            }
            Ok(())
        })
    }

    /// The compiled chunk of a script, or why there is none.
    fn chunk(&mut self, script: &Script<'_>) -> Result<Rc<Chunk>, Outcome> {
        if let Some(chunk) = self.chunks.get(script.sha) {
            return Ok(Rc::clone(chunk));
        }
        let (_, start) = header::parse(script.text).map_err(Outcome::Failed)?;
        let before = self.lua.used_memory();
        let text = &script.text[start..];
        match globals::compile(&self.state, &self.lua, &self.globals.load, text, b"@user_script") {
            Ok(Ok(function)) => {
                // What the parser was given is garbage now.
                let bytes = self.lua.used_memory().saturating_sub(before + text.len());
                let place = self.state.unlimited(&self.lua, || self.shelf.put(function));
                let place = place.map_err(|_| self.killed(&Caller::of(script)))?;
                let chunk = Rc::new(Chunk { place, literal: longest_literal(text) });
                self.chunks.insert(*script.sha, Rc::clone(&chunk), bytes);
                self.shelf.tidy().map_err(|_| self.killed(&Caller::of(script)))?;
                self.note_kept();
                Ok(chunk)
            }
            Ok(Err(text)) => {
                let before = b"ERR Error compiling script (new function): ";
                Err(Outcome::Failed(Text::joined(&[before, until_zero(&text)])))
            }
            Err(_) => Err(self.killed(&Caller::of(script))),
        }
    }

    /// The outcome of an uncaught error.
    fn failure(&self, caller: &Caller<'_>, raised: Value) -> Outcome {
        match self.raised_text(raised) {
            Some(text) => Outcome::Failed(self.placed(caller, &text)),
            None => self.killed(caller),
        }
    }

    /// The text of an uncaught error; `None` if the run was stopped.
    pub(super) fn raised_text(&self, raised: Value) -> Option<Vec<u8>> {
        let value = settle(&self.state, &self.lua, raised).ok()?;
        let text = match &value {
            // As Redis looks for it: a metatable may answer.
            Value::Table(table) => match table.get("err").as_ref().map(text_of) {
                Ok(Some(text)) => text.to_vec(),
                // Redis 7.0 ends here, and newer ones where the metatable raises an error.
                _ => b"ERR unknown error".to_vec(),
            },
            other => [b"ERR ", &*shown(other)].concat(),
        };
        self.state.stopped().is_none().then_some(text)
    }

    fn killed(&self, caller: &Caller<'_>) -> Outcome {
        let reason = self.state.stopped().unwrap_or(KillReason::Host);
        let text = match reason {
            KillReason::User if caller.is_function => "ERR Script killed by user with FUNCTION KILL...",
            KillReason::User => "ERR Script killed by user with SCRIPT KILL...",
            KillReason::Host | KillReason::Time => "ERR Script killed by the server",
            KillReason::Memory => "ERR Script killed: not enough memory",
        };
        Outcome::Killed(reason, self.placed(caller, text.as_bytes()))
    }

    fn placed(&self, caller: &Caller<'_>, text: &[u8]) -> Text<'static> {
        let place = match &*self.state.place.borrow() {
            Some(place) => format!(", on {}:{}.", place.source, place.line),
            None => String::new(),
        };
        Text::joined(&[until_zero(text), b" script: ", caller.name, place.as_bytes()])
    }
}

/// The longest piece of a script's text without a quote or bracket in it: no text that
/// is written there is much longer.
pub(super) fn longest_literal(text: &[u8]) -> usize {
    let mut begin = 0;
    let ends = memchr::memchr3_iter(b'\'', b'"', b']', text).chain([text.len()]);
    ends.map(|end| end - std::mem::replace(&mut begin, end)).max().unwrap_or(0)
}

/// What `tostring` would say.
fn shown(value: &Value) -> Vec<u8> {
    match text_of(value) {
        Some(text) => text.to_vec(),
        None => value.to_string().unwrap_or_else(|_| super::fault::type_name(value).to_owned()).into_bytes(),
    }
}
