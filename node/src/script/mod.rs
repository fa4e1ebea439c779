//! The Lua engine: runs a script against a [`Host`], and knows nothing else of the server.
//!
//! One [`Engine`] lives on each shard's thread. A script sees what Redis 7.2 shows
//! it: the same globals, type conversions and error texts (the oracle of the golden
//! file is a real server). It is Lua 5.1 because scripts build keys from numbers, and
//! later versions print them differently.
//!
//! The life of a run: [`Engine::run`] finds the compiled chunk by the script's
//! SHA1 (or compiles it), sets `KEYS` and `ARGV`, lends the host to the callbacks
//! and calls the chunk. `redis.call` hands its words to [`Host::call`] and turns the
//! reply into Lua values ([`convert`]). What the script returns becomes a [`Reply`].
//!
//! INVARIANTs
//!
//! * Nothing a script does is seen by the next: globals and libraries are
//!   read-only, settings and random numbers start afresh, garbage is collected. (A library of functions may
//!   keep things in variables of its own.)
//! * A script can be stopped at any instruction, and inside any of our own functions
//!   within a bounded amount of work; nothing in it can prevent that ([`state`]).
//!   Its writes are the host's to undo.
//! * Work is counted by what it costs, not by what it is called: see [`pace`].
//! * Memory is bounded by [`Limits::memory_bytes`]; to hold more is to be stopped ([`memory`]).
//! * No script makes a Rust panic, and no panic of the host is caught by a script.
//!
//! Functions of libraries run in the same way; [`library`] tells what differs.
//!
//! What bounds a script that misbehaves is told in [`globals`], [`pattern`] and [`state`].
//!
//! Deliberately left out: Redis's debugger (`SCRIPT DEBUG`), its `string.dump`, and
//! settings of `cjson` that outlive a script. Where an error names a chunk whose name is
//! not UTF-8 (`loadstring` gives names), its stray bytes are replaced.

mod arguments;
mod bits;
mod convert;
mod engine;
mod fault;
mod globals;
mod header;
mod json;
mod kept;
mod library;
mod memory;
mod message_pack;
mod number;
mod pace;
mod pattern;
mod random;
mod redis;
mod settle;
mod shelf;
mod state;
mod strings;
mod structs;
#[cfg(test)]
mod tests;

use std::any::Any;

use moonraft_proto::{Protocol, Reply};

pub use engine::{Engine, Outcome, Script};
pub use header::Flags;
pub use kept::Kept;
pub use library::{FunctionCall, Metadata, RegisteredFunction};
pub use state::KillReason;

/// What a script reaches of the world: given to the engine for one run, handed back after.
pub trait Host: Any {
    /// Executes one command for `redis.call` or `redis.pcall`. An error is
    /// [`Reply::Error`]. Never `Push`, `Several` or `Nothing`.
    fn call(&mut self, words: &[&[u8]]) -> Reply<'static>;

    /// What `math.random` starts from in this run. Only effects are replicated,
    /// so it may be truly random; the simulator draws it from its seed.
    fn random_seed(&self) -> u64;

    /// Asked every few microseconds of a running script whether it may go on, and of
    /// one that is compiled, so it should cost no more than reading a clock. Past the time Redis calls
    /// `busy-reply-threshold` it is here that other clients are served.
    fn poll(&mut self) -> Verdict;

    /// A clock, in nanoseconds, by which the engine sees what its work costs. It may
    /// stand still: then only what is counted is known.
    fn clock_ns(&self) -> u64 {
        0
    }

    /// `redis.log`
    fn log(&mut self, level: LogLevel, text: &[u8]);

    /// `redis.setresp`: replies of later calls are to be those of this protocol.
    fn set_protocol(&mut self, protocol: Protocol);

    /// `redis.acl_check_cmd`: whether the caller may run this command; `None` if
    /// there is no such command.
    fn acl_check(&mut self, words: &[&[u8]]) -> Option<bool>;
}

/// What [`Host::poll`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The script may go on.
    Continue,
    /// The script ends here.
    Kill(KillReason),
}

/// The levels of `redis.log`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// `redis.LOG_DEBUG`
    Debug,
    /// `redis.LOG_VERBOSE`
    Verbose,
    /// `redis.LOG_NOTICE`
    Notice,
    /// `redis.LOG_WARNING`
    Warning,
}

/// What a script may use.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of Lua values that a script holds; `script-memory-max`. Garbage, and what is
    /// being made, may take as much again, and so may a reply or an encoded text.
    pub memory_bytes: usize,
    /// Bytes of a script's text; `script-bytes-max`. Redis has no such limit; its parser
    /// has had holes that need long texts.
    pub script_bytes: usize,
    /// Bytes of the compiled scripts that are kept; `script-cache-bytes-max`.
    pub chunk_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 128 << 20, // a fraction of a small machine's memory, and far above any honest script
            script_bytes: 1 << 20,   // the largest known script of a library is 60 KB
            chunk_bytes: 32 << 20,   // a compiled script takes six times its text or more: a thousand of 5 KB
        }
    }
}

/// Most compiled scripts that are kept, however small: even 'return 1' takes 1 KB.
const CHUNKS_MAX: usize = 16_384;

/// The SHA1 of a script's text in lower-case hexadecimal: its name.
pub fn sha1_hex(text: &[u8]) -> [u8; 40] {
    hexadecimal(sha1_smol::Sha1::from(text).digest().bytes())
}

fn hexadecimal(digest: [u8; 20]) -> [u8; 40] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut name = [0; 40];
    for (pair, byte) in name.chunks_exact_mut(2).zip(digest) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    name
}
