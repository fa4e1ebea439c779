//! What the `HELP` subcommands answer.

use moonraft_proto::Reply;

use super::CommandError;

/// `<CONTAINER> HELP`: the lines as Redis frames them.
pub fn help(container: &str, lines: &[&'static str]) -> Reply<'static> {
    let first = format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:");
    let mut reply = vec![Reply::Status(first.into())];
    reply.extend(lines.iter().map(|line| Reply::status(line)));
    reply.extend([Reply::status("HELP"), Reply::status("    Prints this help.")]);
    Reply::Array(reply)
}

/// A subcommand with words that no form of it has.
pub fn unknown_form(subcommand: &[u8], container: &str) -> CommandError {
    let shown = &subcommand[..subcommand.len().min(SHOWN_BYTES_MAX)];
    let before = "ERR unknown subcommand or wrong number of arguments for '";
    CommandError::about(before, shown, &format!("'. Try {container} HELP."))
}

/// Bytes of a word that an error about it shows at most; as in Redis.
const SHOWN_BYTES_MAX: usize = 128;
