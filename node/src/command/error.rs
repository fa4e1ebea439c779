//! Why a request was refused.

use std::borrow::Cow;

use moonraft_proto::{Reply, Text};
use moonraft_router::Redirect;

use super::arguments::c_text;
use crate::keyspace::WrongType;

/// Why a request was refused. `Display` writes the exact text of the wire.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The key holds a value of another type.
    #[error("WRONGTYPE Operation against a key holding the wrong kind of value")]
    WrongType,
    /// Words that no form of the command allows.
    #[error("ERR syntax error")]
    Syntax,
    /// A word that should be an integer is none, or none of 64 bits.
    #[error("ERR value is not an integer or out of range")]
    NotInteger,
    /// A word that should be a number is none.
    #[error("ERR value is not a valid float")]
    NotFloat,
    /// The key must be there and is not.
    #[error("ERR no such key")]
    NoSuchKey,
    /// A position outside what is there.
    #[error("ERR index out of range")]
    IndexOutOfRange,
    /// The result would not fit 64 bits.
    #[error("ERR increment or decrement would overflow")]
    Overflow,
    /// A deadline that is not positive or too far, in this command.
    #[error("ERR invalid expire time in '{0}' command")]
    InvalidExpire(&'static str),
    /// Too few or too many words for this command; `parent|child` for a subcommand.
    #[error("ERR wrong number of arguments for '{0}' command")]
    Arity(Cow<'static, str>),
    /// A string would grow over `proto-max-bulk-len`.
    #[error("ERR string exceeds maximum allowed size (proto-max-bulk-len)")]
    TooLong,
    /// The changes of a request exceed this limit, which is so many bytes.
    #[error("ERR the changes of this request exceed {0} ({1}); nothing was changed")]
    ChangesTooLarge(&'static str, usize),
    /// The reply would be larger than `max-reply-bytes`, which is so much.
    #[error("ERR the reply to this request exceeds max-reply-bytes ({0}); nothing was changed")]
    ReplyTooLarge(usize),
    /// What it writes is of this format, which not all members of the shard read yet.
    #[error(
        "ERR this request needs format {0} of the log, which the members of the shard have not agreed on yet; nothing was changed"
    )]
    FormatNotAgreed(u8),
    /// It is about modules, of which there are none.
    #[error(
        "ERR MODULE command not allowed. If the enable-module-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server."
    )]
    ModulesNotAllowed,
    /// It is a word of `DEBUG` that this client may not say.
    #[error(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server."
    )]
    DebugNotAllowed,
    /// This replica cannot serve the slot; the client must go elsewhere.
    #[error(transparent)]
    Redirect(#[from] Redirect),
    /// Any other refusal: the whole text, its code first.
    #[error("{0}")]
    Text(Text<'static>),
}

impl From<WrongType> for CommandError {
    fn from(_: WrongType) -> Self {
        CommandError::WrongType
    }
}

impl CommandError {
    /// A refusal whose whole text, code first, is known at compile time.
    pub const fn text(text: &'static str) -> Self {
        CommandError::Text(Text::fixed(text))
    }

    /// A refusal of these texts, one behind another, each up to a zero byte, which ends a text in C.
    pub fn joined(parts: &[&[u8]]) -> Self {
        let parts: Vec<&[u8]> = parts.iter().map(|part| c_text(part)).collect();
        CommandError::Text(Text::joined(&parts))
    }

    /// A refusal that repeats a word of the client, up to a zero byte, which ends a text in C.
    pub fn about(before: &str, word: &[u8], after: &str) -> Self {
        let word = word.split(|&byte| byte == 0).next().unwrap_or_default();
        CommandError::Text(Text::joined(&[before.as_bytes(), word, after.as_bytes()]))
    }
}

impl From<CommandError> for Reply<'_> {
    fn from(error: CommandError) -> Self {
        Reply::Error(match error {
            CommandError::Text(text) => text,
            other => other.to_string().into(),
        })
    }
}
