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
    lua: Lua,
    globals: Globals,
    state: Rc<RunState>,
    chunks: Kept<Rc<Chunk>>,
    shelf: Rc<Shelf>,
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
        let state = Rc::new(RunState::new(limits));
        lua.set_app_data(Rc::clone(&state));
        let globals = globals::install(&lua, &state)?;
        let names = [lua.create_string("KEYS")?, lua.create_string("ARGV")?];
        let fields = Fields::new(&lua)?;
        let shelf = Shelf::new(&lua)?;
        lua.gc_collect()?;
        let empty_bytes = lua.used_memory();
        state.memory.set_base(empty_bytes);
        lua.set_memory_limit(state.memory.hard_limit(empty_bytes + state.limits.chunk_bytes))?;
        Ok(Self { lua, globals, state, chunks, shelf, names, fields, empty_bytes })
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
        self.lend(host, |engine| match engine.begun(&script) {
            Ok(()) => engine.chunk(&script).map(|_| sha),
            Err(outcome) => Err(outcome),
        })
    }

    /// Forgets all compiled chunks: `SCRIPT FLUSH`.
    pub fn forget_all(&mut self) {
        self.chunks.clear();
        // Without it the chunks give way when others come.
        let _ = self.shelf.tidy();
        self.state.memory.set_base(self.empty_bytes);
        // Failing to collect leaves garbage, which the next collection finds.
        let _ = self.lua.gc_collect();
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
        self.lend(host, |engine| match engine.begun(script) {
            Ok(()) => engine.execute(script, keys, arguments),
            Err(outcome) => outcome,
        })
    }

    fn lend<H: Host, T>(&mut self, host: H, run: impl FnOnce(&mut Self) -> T) -> (H, T) {
        self.state.lend(Box::new(host));
        let value = run(self);
        if self.state.stopped() == Some(KillReason::Memory) || self.state.memory.is_littered(&self.lua) {
            self.state.clean(&self.lua);
        }
        let host: Box<dyn Any> = self.state.end();
        let host = host.downcast::<H>().expect("the host that comes back is the one that went in");
        (*host, value)
    }

    fn begun(&self, script: &Script<'_>) -> Result<(), Outcome> {
        self.state.begin(&self.lua).map_err(|error| self.failure(script, Value::Error(Box::new(error))))
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
        match ended {
            // Something caught the stop and returned before the hook noticed.
            _ if self.state.stopped().is_some() => self.killed(script),
            Err(error) => self.failure(script, Value::Error(Box::new(error))),
            Ok(mut values) => {
                let succeeded = matches!(values.pop_front(), Some(Value::Boolean(true)));
                let value = values.pop_front().unwrap_or_default();
                if !succeeded {
                    return self.failure(script, value);
                }
                match to_reply(&self.state, &self.lua, &self.fields, &value) {
                    Ok(reply) => Outcome::Done(reply),
                    Err(reason) => {
                        self.state.stop(&self.lua, reason);
                        self.killed(script)
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
                let place = place.map_err(|_| self.killed(script))?;
                let chunk = Rc::new(Chunk { place, literal: longest_literal(text) });
                self.chunks.insert(*script.sha, Rc::clone(&chunk), bytes);
                self.shelf.tidy().map_err(|_| self.killed(script))?;
                self.state.memory.set_base(self.empty_bytes + self.chunks.bytes());
                Ok(chunk)
            }
            Ok(Err(text)) => {
                let before = b"ERR Error compiling script (new function): ";
                Err(Outcome::Failed(Text::joined(&[before, until_zero(&text)])))
            }
            Err(_) => Err(self.killed(script)),
        }
    }

    /// The outcome of an uncaught error.
    fn failure(&self, script: &Script<'_>, raised: Value) -> Outcome {
        let Ok(value) = settle(&self.state, &self.lua, raised) else { return self.killed(script) };
        let text = match &value {
            // As Redis looks for it: a metatable may answer.
            Value::Table(table) => match table.get("err").as_ref().map(text_of) {
                Ok(Some(text)) => text.to_vec(),
                // Redis 7.0 ends here, and newer ones where the metatable raises an error.
                _ => b"ERR unknown error".to_vec(),
            },
            other => [b"ERR ", &*shown(other)].concat(),
        };
        if self.state.stopped().is_some() {
            return self.killed(script);
        }
        Outcome::Failed(self.placed(script, &text))
    }

    fn killed(&self, script: &Script<'_>) -> Outcome {
        let reason = self.state.stopped().unwrap_or(KillReason::Host);
        let text = match reason {
            KillReason::User => "ERR Script killed by user with SCRIPT KILL...",
            KillReason::Host => "ERR Script killed by the server",
            KillReason::Memory => "ERR Script killed: not enough memory",
        };
        Outcome::Killed(reason, self.placed(script, text.as_bytes()))
    }

    fn placed(&self, script: &Script<'_>, text: &[u8]) -> Text<'static> {
        let place = match &*self.state.place.borrow() {
            Some(place) => format!(", on {}:{}.", place.source, place.line),
            None => String::new(),
        };
        Text::joined(&[until_zero(text), b" script: ", script.sha, place.as_bytes()])
    }
}

/// The longest piece of a script's text without a quote or bracket in it: no text that
/// is written there is much longer.
fn longest_literal(text: &[u8]) -> usize {
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
