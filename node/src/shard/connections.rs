//! What the server does to a session: it begins and ends it, and writes its replies.

use moonraft_router::Network;

use super::{Core, SessionId, admit::Reason, session::Session};
use crate::command::session;

/// What a client is told that is one too many, before its connection is closed.
pub const TOO_MANY_CLIENTS: &str = "-ERR max number of clients reached\r\n";

/// What waits for a client.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backlog {
    /// Bytes of replies and messages that have not left.
    pub bytes: usize,
    /// Bytes of requests that wait for `EXEC`, or that are blocked.
    pub queued_bytes: usize,
    /// It asked not to be closed when clients together take too much: `CLIENT NO-EVICT`.
    pub stays: bool,
    /// It is subscribed to something.
    pub listens: bool,
    /// It waits for something that may never come: `WAIT`, `BLPOP`.
    pub is_blocked: bool,
}

impl Core {
    /// A client connected, from `network`.
    ///
    /// # Errors
    /// There are too many: the text to send it before its connection is closed.
    pub fn connect(
        &mut self,
        peer_address: String,
        local_address: String,
        network: Network,
    ) -> Result<SessionId, &'static str> {
        if self.sessions.len() >= self.settings.clients_max {
            self.statistics.refused += 1;
            return Err(TOO_MANY_CLIENTS);
        }
        self.statistics.connections += 1;
        self.sessions_ever += 1;
        let now_us = self.surroundings.unix_us();
        let number = self.sessions_ever;
        let session = session::Session::new(number, peer_address, local_address, network, now_us);
        Ok(self.sessions.insert(Session::new(session)))
    }

    /// The connection of a session is gone.
    pub fn disconnect(&mut self, id: SessionId) {
        if !self.sessions.contains(id) {
            return;
        }
        self.unwatch(id);
        self.forget_wait(id);
        self.forget_blocked(id);
        self.forget_survey(id);
        self.monitor(id, false);
        self.track(id, None);
        let session = self.sessions.remove(id);
        self.waiting.leave(id);
        self.answer_call(id);
        self.listeners.forget(id, &session.listening);
    }

    /// The number of a session, as clients know it.
    pub fn session_number(&self, id: SessionId) -> u64 {
        self.sessions[id].number
    }

    /// Bytes that may be written to the client now.
    pub fn writable(&self, id: SessionId) -> &[u8] {
        self.sessions.get(id).map_or(&[], |session| session.outbox.writable())
    }

    /// So many of the writable bytes were written.
    pub fn written(&mut self, id: SessionId, count: usize) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.outbox.written(count);
        self.statistics.bytes_out += count as u64;
        let has_room = session.outbox.len() <= self.settings.outbox_bytes_full / 2;
        if has_room && self.waiting.reason(id) == Some(&Reason::Unread) {
            self.wake_one(id);
        }
    }

    /// Whether the connection is to be closed: nothing more will be sent.
    pub fn should_close(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_none_or(|session| session.closing && session.outbox.is_empty())
    }

    /// Whether a reply of this session is held: nothing may be sent past it.
    pub fn is_holding(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|session| session.outbox.is_holding() || !session.outbox.is_empty())
    }

    /// What waits for this session's client.
    pub fn backlog(&self, id: SessionId) -> Backlog {
        self.sessions.get(id).map_or(Backlog::default(), |session| Backlog {
            bytes: session.outbox.len(),
            queued_bytes: session.queue.as_ref().map_or(0, |queue| queue.bytes) + self.blocked.bytes(id),
            stays: session.no_evict,
            listens: session.listening.count() > 0,
            is_blocked: self.is_blocked(id),
        })
    }

    /// The connection of a session is about to be closed: nothing more is sent there or executed.
    pub fn drop_replies(&mut self, id: SessionId) {
        self.forget_blocked(id);
        if let Some(session) = self.sessions.get_mut(id) {
            session.closing = true;
            session.outbox.clear();
        }
    }
}
