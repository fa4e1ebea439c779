//! The table of all commands.

use std::sync::OnceLock;

use hashbrown::HashMap;
use moonraft_proto::Text;

use super::{Command, CommandError, Flag, help::unknown_form};

/// The rows of every family.
const FAMILIES: &[&[Command]] = &[
    super::bitmap::COMMANDS,
    super::blocking::COMMANDS,
    super::cluster::COMMANDS,
    super::connection::COMMANDS,
    super::database::COMMANDS,
    super::debug::COMMANDS,
    super::expiry::COMMANDS,
    super::functions::COMMANDS,
    super::generic::COMMANDS,
    super::geo::COMMANDS,
    super::hash::COMMANDS,
    super::hash::expiry::COMMANDS,
    super::hyperloglog::COMMANDS,
    super::object::COMMANDS,
    super::introspection::COMMANDS,
    super::lcs::COMMANDS,
    super::list::COMMANDS,
    super::memory::COMMANDS,
    super::monitor::COMMANDS,
    super::persistence::COMMANDS,
    super::restore::COMMANDS,
    super::scripting::COMMANDS,
    super::server::COMMANDS,
    super::set::COMMANDS,
    super::latency::COMMANDS,
    super::slow_log::COMMANDS,
    super::sort::COMMANDS,
    super::stream::COMMANDS,
    super::string::COMMANDS,
    super::string::conditional::COMMANDS,
    super::subscribe::COMMANDS,
    super::transactions::COMMANDS,
    super::zset::COMMANDS,
];

/// Words with which lines of HTTP begin: not commands, and nothing a client sends. A browser or proxy
/// that is made to post something to this port sends one of them before the body. Redis refuses the same.
const HTTP: [&[u8]; 2] = [b"post", b"host:"];

/// Bytes of the longest name that is looked up: longer ones are unknown.
const NAME_BYTES_MAX: usize = 32;

type Index<V> = HashMap<&'static [u8], V, foldhash::fast::FixedState>;

/// A command that is no subcommand, and those it has by their names.
struct Top {
    command: &'static Command,
    children: Index<&'static Command>,
}

fn index() -> &'static Index<Top> {
    static INDEX: OnceLock<Index<Top>> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut index = Index::<Top>::default();
        for command in rows().filter(|row| row.parent.is_none()) {
            let top = Top { command, children: Index::default() };
            let twice = index.insert(command.name.as_bytes(), top);
            assert!(twice.is_none(), "two rows are named '{}'", command.name);
        }
        for command in rows() {
            let Some(parent) = command.parent else { continue };
            let top = index.get_mut(parent.as_bytes()).expect("a subcommand's container has a row");
            let twice = top.children.insert(command.name.as_bytes(), command);
            assert!(twice.is_none(), "two rows are named '{}'", command.full_name());
        }
        index
    })
}

/// All rows, subcommands included.
pub fn rows() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().copied().flatten()
}

/// `name` in lower case, in place.
fn lower<'a>(name: &[u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a [u8]> {
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(lower)
}

fn find_top(name: &[u8]) -> Option<&'static Top> {
    index().get(lower(name, &mut [0; NAME_BYTES_MAX])?)
}

/// The command of this name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    find_top(name).map(|top| top.command)
}

/// The subcommand of a container, both names in any case.
pub fn find_child(parent: &str, name: &[u8]) -> Option<&'static Command> {
    find_top(parent.as_bytes())?.children.get(lower(name, &mut [0; NAME_BYTES_MAX])?).copied()
}

/// The subcommands of a command.
pub fn children(parent: &'static str) -> impl Iterator<Item = &'static Command> {
    rows().filter(move |row| row.parent == Some(parent))
}

/// The row of a request: of its subcommand if the command has any and more words
/// than its name follow.
///
/// # Errors
/// There is no such command or subcommand.
pub fn resolve(words: &[&[u8]]) -> Result<&'static Command, CommandError> {
    let name = words.first().copied().unwrap_or_default();
    let top = find_top(name).ok_or_else(|| unknown_command(name, words.get(1..).unwrap_or_default()))?;
    match words.get(1) {
        Some(&child) if !top.children.is_empty() => {
            let mut buffer = [0; NAME_BYTES_MAX];
            let row = lower(child, &mut buffer).and_then(|name| top.children.get(name)).copied();
            row.ok_or_else(|| unknown_child(top.command, child))
        }
        _ => Ok(top.command),
    }
}

/// Whether a request that names no command is a line of HTTP.
pub fn is_http(words: &[&[u8]]) -> bool {
    words.first().is_some_and(|name| HTTP.iter().any(|known| known.eq_ignore_ascii_case(name)))
}

/// Bytes of a client's words that an error repeats.
const SHOWN_MAX: usize = 128;

/// What an error repeats of a word: `bytes_max` at most, up to a zero byte, which
/// ends a text in C.
fn shown(word: &[u8], bytes_max: usize) -> &[u8] {
    let word = &word[..word.len().min(bytes_max)];
    word.split(|&byte| byte == 0).next().unwrap_or_default()
}

fn unknown_command(name: &[u8], rest: &[&[u8]]) -> CommandError {
    let mut arguments = Vec::new();
    for word in rest {
        if arguments.len() >= SHOWN_MAX {
            break;
        }
        let word = shown(word, SHOWN_MAX - arguments.len());
        arguments.extend_from_slice(&[b"'", word, b"' "].concat());
    }
    let name = shown(name, SHOWN_MAX);
    let parts = [b"ERR unknown command '", name, b"', with args beginning with: ", &arguments];
    CommandError::Text(Text::joined(&parts))
}

fn unknown_child(parent: &Command, name: &[u8]) -> CommandError {
    let shown_parent = parent.name.to_ascii_uppercase();
    if parent.has(Flag::Words) {
        return unknown_form(name, &shown_parent);
    }
    let after = format!("'. Try {shown_parent} HELP.");
    CommandError::about("ERR unknown subcommand '", shown(name, SHOWN_MAX), &after)
}

#[cfg(test)]
mod tests;
