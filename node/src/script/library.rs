//! Libraries of functions: `FUNCTION LOAD` and `FCALL`.
//!
//! A library's text is run once, to register functions: then it finds `redis.register_function` and next to nothing
//! else. It is run again where a function is called and the engine has it no more: after a failover, or when others
//! took its place. What it keeps in variables of its own lives as long as the engine keeps it, as in Redis; none of
//! that is replicated.
//!
//! INVARIANTS
//!
//! * A library that holds so much that nothing else can run is forgotten, and its text run anew.
//! * What is registered is bounded: in number, and in bytes.
//!
//! Source: `functions.c` and `function_lua.c` of Redis 7.0, for the error texts and their order.

use std::collections::HashMap;
use std::rc::Rc;

use bstr::BStr;
use mlua::{Function, Lua, MultiValue, Table, Value};
use moonraft_proto::{Text, resp::split_line};

use super::arguments::{text_of, until_zero};
use super::engine::{Caller, Engine, Outcome, longest_literal};
use super::fault::Fault;
use super::header::Flags;
use super::shelf::{Place, Shelf};
use super::state::{KillReason, RunState};
use super::{Host, globals, sha1_hex};

/// Functions that a library may register: far more than any has.
const FUNCTIONS_MAX: usize = 4096;

/// Redis says so of functions, too.
const BAD_NAME: &str = "Library names can only contain letters, numbers, or underscores(_) and must be at least one character long";

/// What the first line of a library says: `#!lua name=…`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The library's name.
    pub name: Vec<u8>,
    /// Where its code begins: at the line end, so that line numbers stay those of the text.
    start: usize,
}

impl Metadata {
    /// Reads the first line of a library.
    ///
    /// # Errors
    /// It is none: the text for the client.
    pub fn of(text: &[u8]) -> Result<Self, Text<'static>> {
        if !text.starts_with(b"#!") {
            return Err("ERR Missing library metadata".into());
        }
        const INVALID: &str = "ERR Invalid library metadata";
        let start = memchr::memchr2(b'\n', 0, text).filter(|&at| text[at] == b'\n').ok_or(INVALID)?;
        let words = split_line(&text[..start]).filter(|words| !words.is_empty()).ok_or(INVALID)?;
        let mut name = None;
        for word in &words[1..] {
            let is_name = word.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"name="));
            match name {
                _ if !is_name => {
                    return Err(Text::joined(&[b"ERR Invalid metadata value given: ", until_zero(word)]));
                }
                Some(_) => {
                    return Err("ERR Invalid metadata value, name argument was given multiple times".into());
                }
                None => name = Some(word[5..].to_vec()),
            }
        }
        let name = name.ok_or("ERR Library name was not given")?;
        if !is_name(&name) {
            return Err(format!("ERR {BAD_NAME}").into());
        }
        let engine = &words[0][2..];
        if !engine.eq_ignore_ascii_case(b"lua") {
            return Err(Text::joined(&[b"ERR Engine '", until_zero(engine), b"' not found"]));
        }
        Ok(Self { name, start })
    }
}

/// Whether a library or function may be called so.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|&byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What a library registered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredFunction {
    /// Its name.
    pub name: Vec<u8>,
    /// What it declares of itself.
    pub flags: Flags,
    /// What is told of it.
    pub description: Option<Vec<u8>>,
}

/// A function of a library that is to be called.
#[derive(Clone, Copy, Debug)]
pub struct FunctionCall<'a> {
    /// The library's text.
    pub code: &'a [u8],
    /// The SHA1 of that.
    pub sha: &'a [u8; 40],
    /// The function's name as it was registered.
    pub name: &'a [u8],
}

/// What a library has registered so far.
#[derive(Default)]
pub(super) struct Registering {
    functions: Vec<(RegisteredFunction, Place)>,
    /// Bytes of names and descriptions.
    bytes: usize,
}

/// A library whose text has been run.
pub(super) struct Library {
    functions: HashMap<Vec<u8>, Place>,
    /// No text in it is longer.
    literal: usize,
}

/// `redis.register_function`
pub(super) fn registrar(lua: &Lua, state: &Rc<RunState>, shelf: &Rc<Shelf>) -> mlua::Result<Function> {
    let (state, shelf) = (Rc::clone(state), Rc::clone(shelf));
    lua.create_function(move |_, values: MultiValue| register(&state, &shelf, values).map_err(raised))
}

/// Why a function was not registered.
enum Refused {
    /// Redis's text.
    Text(&'static str),
    /// Lua's own error.
    Lua(mlua::Error),
}

impl From<mlua::Error> for Refused {
    fn from(error: mlua::Error) -> Self {
        Refused::Lua(error)
    }
}

fn raised(refused: Refused) -> mlua::Error {
    match refused {
        Refused::Text(text) => Fault::Reply(format!("ERR {text}").into(), false).into(),
        Refused::Lua(error) => error,
    }
}

fn register(state: &RunState, shelf: &Rc<Shelf>, values: MultiValue) -> Result<(), Refused> {
    let mut registering = state.registering.borrow_mut();
    let registering = registering
        .as_mut()
        .ok_or(Refused::Text("redis.register_function can only be called on FUNCTION LOAD command"))?;
    let values: Vec<Value> = values.into_iter().collect();
    let (function, run) = match &*values {
        [Value::Table(arguments)] => named(arguments)?,
        [_] => {
            return Err(Refused::Text(
                "calling redis.register_function with a single argument is only applicable to Lua table (representing named arguments).",
            ));
        }
        [name, run] => positional(name, run)?,
        _ => return Err(Refused::Text("wrong number of arguments to redis.register_function")),
    };
    if !is_name(&function.name) {
        return Err(Refused::Text(BAD_NAME));
    }
    if registering.functions.iter().any(|(known, _)| known.name == function.name) {
        return Err(Refused::Text("Function already exists in the library"));
    }
    registering.bytes += function.name.len() + function.description.as_ref().map_or(0, Vec::len);
    if registering.functions.len() >= FUNCTIONS_MAX || registering.bytes > state.limits.script_bytes {
        return Err(Refused::Text(
            "the library registers too much: 4096 functions at most, and with their descriptions no more bytes than script-bytes-max",
        ));
    }
    let place = shelf.put(run)?;
    registering.functions.push((function, place));
    Ok(())
}

fn positional(name: &Value, run: &Value) -> Result<(RegisteredFunction, Function), Refused> {
    let name = text_of(name)
        .ok_or(Refused::Text("first argument to redis.register_function must be a string"))?
        .to_vec();
    let Value::Function(run) = run else {
        return Err(Refused::Text("second argument to redis.register_function must be a function"));
    };
    Ok((RegisteredFunction { name, flags: Flags::default(), description: None }, run.clone()))
}

fn named(arguments: &Table) -> Result<(RegisteredFunction, Function), Refused> {
    let (mut name, mut description, mut run, mut flags) = (None, None, None, Flags::default());
    for pair in arguments.pairs::<Value, Value>() {
        let (key, value) = pair?;
        let key = text_of(&key)
            .ok_or(Refused::Text("named argument key given to redis.register_function is not a string"))?;
        match (&*key.to_ascii_lowercase(), &value) {
            (b"function_name", value) => {
                let text = text_of(value).ok_or(Refused::Text(
                    "function_name argument given to redis.register_function must be a string",
                ))?;
                name = Some(text.to_vec());
            }
            (b"description", value) => {
                let text = text_of(value).ok_or(Refused::Text(
                    "description argument given to redis.register_function must be a string",
                ))?;
                description = Some(text.to_vec());
            }
            (b"callback", Value::Function(function)) => run = Some(function.clone()),
            (b"callback", _) => {
                return Err(Refused::Text(
                    "callback argument given to redis.register_function must be a function",
                ));
            }
            (b"flags", Value::Table(list)) => flags = read_flags(list)?,
            (b"flags", _) => {
                return Err(Refused::Text(
                    "flags argument to redis.register_function must be a table representing function flags",
                ));
            }
            _ => return Err(Refused::Text("unknown argument given to redis.register_function")),
        }
    }
    let name = name.ok_or(Refused::Text("redis.register_function must get a function name argument"))?;
    let run = run.ok_or(Refused::Text("redis.register_function must get a callback argument"))?;
    Ok((RegisteredFunction { name, flags, description }, run))
}

fn read_flags(list: &Table) -> Result<Flags, Refused> {
    let mut flags = Flags::default();
    for index in 1_i64.. {
        match list.raw_get::<Value>(index)? {
            Value::Nil => break,
            value if text_of(&value).is_some_and(|name| flags.declare(&name)) => {}
            _ => return Err(Refused::Text("unknown flag given")),
        }
    }
    Ok(flags)
}

impl Engine {
    /// Runs the text of a library: what it registers, in the order in which it does, or the error text for the
    /// client. The host is lent for it.
    pub fn load_library<H: Host>(
        &mut self,
        code: &[u8],
        host: H,
    ) -> (H, Result<Vec<RegisteredFunction>, Outcome>) {
        self.lend(host, |engine| {
            engine.begun(&Caller::LIBRARY)?;
            let (functions, _) = engine.make_library(code, &sha1_hex(code))?;
            if functions.is_empty() {
                return Err(Outcome::Failed("ERR No functions registered".into()));
            }
            Ok(functions)
        })
    }

    /// Calls a function of a library. The host is lent for the call and handed back.
    pub fn call<H: Host>(
        &mut self,
        call: &FunctionCall<'_>,
        keys: &[&[u8]],
        arguments: &[&[u8]],
        host: H,
    ) -> (H, Outcome) {
        let caller = Caller { name: call.name, is_function: true };
        self.lend(host, |engine| match engine.begun(&caller) {
            Ok(()) => engine.execute_function(call, &caller, keys, arguments),
            Err(outcome) => outcome,
        })
    }

    /// Forgets all libraries, and with them what they keep: `FUNCTION FLUSH`.
    pub fn forget_libraries(&mut self) {
        self.libraries.clear();
        self.tidy_up();
    }

    /// Libraries that are kept.
    pub fn library_count(&self) -> usize {
        self.libraries.len()
    }

    fn execute_function(
        &mut self,
        call: &FunctionCall<'_>,
        caller: &Caller<'_>,
        keys: &[&[u8]],
        arguments: &[&[u8]],
    ) -> Outcome {
        let library = match self.libraries.get(call.sha) {
            Some(library) => Rc::clone(library),
            None => match self.make_library(call.code, call.sha) {
                Ok((_, library)) => library,
                Err(outcome) => return outcome,
            },
        };
        let Some(place) = library.functions.get(call.name) else {
            // Its text has registered it once, and does not any more.
            return Outcome::Failed("ERR Function not found".into());
        };
        let ended = self.state.note_text(&self.lua, library.literal).and_then(|()| {
            let (keys, arguments) = (self.words(keys)?, self.words(arguments)?);
            let run = place.function()?;
            self.as_library(|| self.globals.libraries.drive.call::<MultiValue>((run, keys, arguments)))
        });
        self.finish(caller, ended)
    }

    /// Runs something whose globals are those of libraries.
    fn as_library<T>(&self, run: impl FnOnce() -> mlua::Result<T>) -> mlua::Result<T> {
        self.lua.set_globals(self.globals.libraries.shown.clone())?;
        let ran = run();
        // It takes no memory, so it cannot fail.
        self.lua.set_globals(self.globals.shown.clone())?;
        ran
    }

    /// Runs the text of a library, and keeps what it has registered.
    fn make_library(
        &mut self,
        code: &[u8],
        sha: &[u8; 40],
    ) -> Result<(Vec<RegisteredFunction>, Rc<Library>), Outcome> {
        let Metadata { start, .. } = Metadata::of(code).map_err(Outcome::Failed)?;
        let (before, text) = (self.lua.used_memory(), &code[start..]);
        let compiled = self.as_library(|| {
            globals::compile(&self.state, &self.lua, &self.globals.load, text, b"@user_function")
        });
        let run = match compiled {
            Ok(Ok(run)) => run,
            Ok(Err(text)) => {
                return Err(Outcome::Failed(Text::joined(&[
                    b"ERR Error compiling function: ",
                    until_zero(&text),
                ])));
            }
            Err(_) => return Err(self.stopped_at_load()),
        };
        *self.state.registering.borrow_mut() = Some(Registering::default());
        let ended = self
            .as_library(|| self.globals.libraries.registering(|| self.globals.drive.call::<MultiValue>(run)));
        let registered = self.state.registering.take().unwrap_or_default();
        self.check_load(ended)?;

        let bytes = self.lua.used_memory().saturating_sub(before + text.len());
        let (told, places): (Vec<_>, Vec<_>) = registered.functions.into_iter().unzip();
        let names = told.iter().map(|function| function.name.clone());
        let library =
            Rc::new(Library { functions: names.zip(places).collect(), literal: longest_literal(text) });
        self.libraries.insert(*sha, Rc::clone(&library), bytes);
        self.shelf.tidy().map_err(|_| self.stopped_at_load())?;
        self.note_kept();
        Ok((told, library))
    }

    /// Whether a library's text came to its end.
    fn check_load(&self, ended: mlua::Result<MultiValue>) -> Result<(), Outcome> {
        if self.state.stopped().is_some() {
            return Err(self.stopped_at_load());
        }
        let raised = match ended {
            Err(error) => Value::Error(Box::new(error)),
            Ok(mut values) => match values.pop_front() {
                Some(Value::Boolean(true)) => return Ok(()),
                _ => values.pop_front().unwrap_or_default(),
            },
        };
        let text = self.raised_text(raised).ok_or_else(|| self.stopped_at_load())?;
        Err(Outcome::Failed(Text::joined(&[b"ERR Error registering functions: ", until_zero(&text)])))
    }

    fn stopped_at_load(&self) -> Outcome {
        let reason = self.state.stopped().unwrap_or(KillReason::Host);
        let why = match reason {
            KillReason::Time => "ERR FUNCTION LOAD timeout",
            KillReason::Memory => "ERR not enough memory",
            KillReason::User | KillReason::Host => "ERR stopped by the server",
        };
        Outcome::Killed(reason, format!("ERR Error registering functions: {why}").into())
    }

    fn words(&self, words: &[&[u8]]) -> mlua::Result<Table> {
        let mut charged = Ok(());
        let list = self.state.unlimited(&self.lua, || {
            let words = words.iter().inspect(|word| {
                if charged.is_ok() {
                    charged = self.state.charge(&self.lua, word.len() + 1);
                }
            });
            self.lua.create_sequence_from(words.map(BStr::new))
        })?;
        charged?;
        Ok(list)
    }
}
