//! A client connection, as the shard has it: its session, and what waits for it.

use std::ops::{Deref, DerefMut};

use moonraft_proto::resp::Unfinished;

use super::{ShardSettings, outbox::Outbox};
use crate::command::session::{self, ReplyMode};

/// One client. It is its session, which commands know, and more, which they do not.
pub struct Session {
    session: session::Session,
    /// What is known of the request at the start of its buffer.
    pub unfinished: Unfinished,
    /// The request at the start of its buffer was executed elsewhere, and is answered.
    pub is_answered: bool,
    /// The request at the start of its buffer is not executed elsewhere.
    pub stays_here: bool,
    /// Bytes of the request that was left in the buffer last.
    pub left_bytes: usize,
    /// Replies on their way.
    pub outbox: Outbox,
    /// Since when a reply is held that no one can settle, boot clock.
    pub unsettled_since: Option<u64>,
}

impl Session {
    /// A connection whose session has just begun.
    pub fn new(session: session::Session) -> Self {
        Self {
            session,
            unfinished: Unfinished::default(),
            is_answered: false,
            stays_here: false,
            left_bytes: 0,
            outbox: Outbox::default(),
            unsettled_since: None,
        }
    }

    /// Whether its client wants a reply to the request that is under way.
    pub const fn is_answering(&self) -> bool {
        matches!(self.session.reply_mode, ReplyMode::On | ReplyMode::SkipNext)
    }

    /// Bytes of replies and messages that it may leave unread.
    pub fn outbox_bytes_max(&self, settings: &ShardSettings) -> usize {
        match self.listening.count() {
            0 => settings.outbox_bytes_max,
            _ => settings.outbox_listening_bytes_max,
        }
    }
}

impl Deref for Session {
    type Target = session::Session;

    fn deref(&self) -> &session::Session {
        &self.session
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut session::Session {
        &mut self.session
    }
}
