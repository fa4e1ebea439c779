//! Who hears of each request: `MONITOR`.
//!
//! A request is told when it was executed, a script before what it calls. Operators' commands are not told.
//! While nobody listens it costs one look at an empty list.

use moonraft_proto::Reply;

use super::{Core, SessionId};
use crate::command::{Command, Flag, monitor::line};

/// Who executes a request.
#[derive(Clone, Copy)]
pub(super) enum Source {
    /// A client, by itself or in its block.
    Client(SessionId),
    /// A script.
    Script,
}

impl Core {
    /// A session hears of requests from now on, or does no longer.
    pub(super) fn monitor(&mut self, id: SessionId, listens: bool) {
        self.monitors.retain(|&other| other != id);
        if listens {
            self.monitors.push(id);
        }
        if let Some(session) = self.sessions.get_mut(id) {
            session.monitors = listens;
        }
    }

    /// Tells of a request.
    pub(super) fn tell_monitors(&mut self, source: Source, command: &Command, words: &[&[u8]]) {
        if self.monitors.is_empty() || command.has(Flag::Admin) {
            return;
        }
        let source = match source {
            Source::Client(id) => self.sessions.get(id).map_or("", |session| session.peer_address.as_str()),
            Source::Script => "lua",
        };
        let line = Reply::Status(line(self.surroundings.unix_us(), source, command, words).into());
        for id in self.monitors.clone() {
            self.push_message(id, &line);
        }
    }
}
