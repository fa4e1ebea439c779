//! Compiles, keeps and runs scripts.

use std::any::Any;
use std::rc::Rc;

use bstr::BStr;
use hashbrown::HashMap;
use mlua::{Function, Lua, LuaString, MultiValue, Value};
use moonraft_proto::Reply;

use super::convert::{Fields, to_reply};
use super::globals::{self, Globals};
use super::header::{self, Flags};
use super::settle::settle;
use super::state::{KillReason, RunState};
use super::{Host, Limits, sha1_hex};

/// The part of its memory that a script may leave filled: more is collected at
/// once, so that the next one has nearly all it is promised.
const COLLECT_PART: usize = 16;

/// A script: its name and its text. The name must be the text's: [`sha1_hex`].
#[derive(Clone, Copy, Debug)]
pub struct Script<'a> {
    /// The SHA1 of the text.
    pub sha: &'a [u8; 40],
    /// The text, with its first line `#!lua …` if it has one.
    pub text: &'a [u8],
}

/// How a run ended.
#[derive(Debug, PartialEq)]
pub enum Outcome {
    /// The script returned this. A returned error reply is here, too: as in Redis,
    /// what the script wrote stays.
    Done(Reply<'static>),
    /// The script does not compile or raised an error: the text for the client.
    Failed(String),
    /// The script was stopped: why, and the text for the client.
    Killed(KillReason, String),
}

/// See the module.
pub struct Engine {
    lua: Lua,
    globals: Globals,
    state: Rc<RunState>,
    chunks: HashMap<[u8; 40], Function, foldhash::fast::RandomState>,
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
        let memory = limits.memory_bytes;
        let state = Rc::new(RunState::new(limits));
        lua.set_app_data(Rc::clone(&state));
        let globals = globals::install(&lua, &state)?;
        let names = [lua.create_string("KEYS")?, lua.create_string("ARGV")?];
        let fields = Fields::new(&lua)?;
        lua.gc_collect()?;
        lua.set_memory_limit(memory)?;
        let empty_bytes = lua.used_memory();
        Ok(Self { lua, globals, state, chunks: HashMap::default(), names, fields, empty_bytes })
    }

    /// What a script declares of itself in its first line; the error text for the client.
    pub fn flags(text: &[u8]) -> Result<Flags, String> {
        header::parse(text).map(|(flags, _)| flags)
    }

    /// Whether a text compiles, for `SCRIPT LOAD`: its name, or the error text for
    /// the client. The compiled chunk is kept.
    pub fn compile_check(&mut self, text: &[u8]) -> Result<[u8; 40], String> {
        let sha = sha1_hex(text);
        match self.chunk(&Script { sha: &sha, text }) {
            Ok(_) => Ok(sha),
            Err(Outcome::Failed(text) | Outcome::Killed(_, text)) => Err(text),
            Err(Outcome::Done(_)) => unreachable!("compiling gives no reply"),
        }
    }

    /// Forgets all compiled chunks: `SCRIPT FLUSH`.
    pub fn forget_all(&mut self) {
        self.chunks.clear();
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

    /// Runs a script. The host is lent for the run and handed back.
    pub fn run<H: Host>(
        &mut self,
        script: &Script<'_>,
        keys: &[&[u8]],
        arguments: &[&[u8]],
        host: H,
    ) -> (H, Outcome) {
        let begun = RunState::begin(&self.state, &self.lua, Box::new(host));
        let outcome = match begun {
            Ok(()) => self.execute(script, keys, arguments),
            Err(error) => self.failure(script, Value::Error(Box::new(error))),
        };
        let host: Box<dyn Any> = self.state.end();
        let host = host.downcast::<H>().expect("the host that comes back is the one that went in");
        self.clean();
        (*host, outcome)
    }

    fn execute(&mut self, script: &Script<'_>, keys: &[&[u8]], arguments: &[&[u8]]) -> Outcome {
        let chunk = match self.chunk(script) {
            Ok(chunk) => chunk,
            Err(outcome) => return outcome,
        };
        let ended =
            self.set_words(keys, arguments).and_then(|()| self.globals.drive.call::<MultiValue>(chunk));
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
                match to_reply(&self.state, &self.fields, &value) {
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
                let words = words.iter().map(BStr::new);
                self.globals.real.raw_set(name, self.lua.create_sequence_from(words)?)?;
            }
            Ok(())
        })
    }

    /// The compiled chunk of a script, or why there is none.
    fn chunk(&mut self, script: &Script<'_>) -> Result<Function, Outcome> {
        if let Some(chunk) = self.chunks.get(script.sha) {
            return Ok(chunk.clone());
        }
        let (_, start) = header::parse(script.text).map_err(Outcome::Failed)?;
        let compiled = globals::compile(&self.state, &self.lua, &script.text[start..], b"@user_script");
        match compiled {
            Ok(Ok(chunk)) => {
                if self.chunks.len() >= self.state.limits.chunks {
                    // Who runs so many scripts makes a new one for each request: none is worth keeping.
                    self.chunks.clear();
                }
                self.chunks.insert(*script.sha, chunk.clone());
                Ok(chunk)
            }
            Ok(Err(text)) => {
                Err(Outcome::Failed(format!("ERR Error compiling script (new function): {text}")))
            }
            Err(_) => Err(self.killed(script)),
        }
    }

    /// The outcome of an uncaught error.
    fn failure(&self, script: &Script<'_>, raised: Value) -> Outcome {
        let Ok(value) = settle(&self.state, &self.lua, raised) else { return self.killed(script) };
        let text = match &value {
            Value::Table(table) => match table.raw_get("err") {
                Ok(Value::String(text)) => text.to_string_lossy(),
                // Redis 7.0 crashes on such an error.
                _ => "ERR unknown error".to_owned(),
            },
            other => format!("ERR {}", shown(other)),
        };
        Outcome::Failed(self.placed(script, &text))
    }

    fn killed(&self, script: &Script<'_>) -> Outcome {
        let reason = self.state.stopped().unwrap_or(KillReason::Host);
        let text = match reason {
            KillReason::User => "ERR Script killed by user with SCRIPT KILL...",
            KillReason::Host => "ERR Script killed by the server",
            KillReason::Memory => "ERR Script killed: not enough memory",
        };
        Outcome::Killed(reason, self.placed(script, text))
    }

    fn placed(&self, script: &Script<'_>, text: &str) -> String {
        let sha = String::from_utf8_lossy(script.sha);
        match &*self.state.place.borrow() {
            Some(place) => format!("{text} script: {sha}, on {}:{}.", place.source, place.line),
            None => format!("{text} script: {sha}"),
        }
    }

    fn clean(&mut self) {
        if self.lua.used_memory() > self.empty_bytes + self.state.limits.memory_bytes / COLLECT_PART {
            let _ = self.lua.gc_collect();
        }
    }
}

/// What `tostring` would say.
fn shown(value: &Value) -> String {
    match super::arguments::text_of(value) {
        Some(text) => String::from_utf8_lossy(&text).into_owned(),
        None => value.to_string().unwrap_or_else(|_| super::fault::type_name(value).to_owned()),
    }
}
