//! What a block or a script calls that works through much is executed elsewhere while it waits, so that clients are
//! heard meanwhile as they are between its calls: see [`super::busy`].
//!
//! Its keys are lent as to any errand ([`super::errands`]), within the unit that is open: what comes back is part of it.
//! The shard serves nothing on data until then, so nobody else minds.
//!
//! A block or script that is ended meanwhile is undone when the values are back.

use std::time::Duration;

use moonraft_proto::Reply;

use super::{
    Core, Surroundings,
    errand::{Asker, Errand, Outcome, Part},
    errands::may_be_sent,
    execute::weigh_call,
};
use crate::{
    command::{self, Request},
    keyspace::Blob,
    marks,
};

/// How often it is asked meanwhile whether it is to end, and clients are heard if it is over its time.
const ASKED_EVERY: Duration = Duration::from_millis(10);

impl Core {
    /// Whether a call is executed elsewhere: it works through much, and its keys may be lent at once.
    pub(super) fn is_large_call(&mut self, request: &Request<'_>) -> bool {
        let Some(work) = request.command.work else { return false };
        let work = work(self.keyspace(), request);
        let is_large =
            work > self.settings.large_elements && may_be_sent(request) && self.lends_at_once(request, work);
        // Who cannot wait has a snapshot's part of them written when they change.
        is_large && request.keys().all(|key| self.store_mut().keyspace_mut().prepare_change(key))
    }

    /// Sends a call of the open unit on an errand. Returns its number.
    pub(super) fn send_call(&mut self, request: &Request<'_>) -> u64 {
        let number = self.number_errand();
        let mut loan = self.store_mut().begin_loan(number, request.keys.len());
        request.keys().for_each(|key| self.store_mut().lend(&mut loan, Blob::new(key)));
        let (parts, settings) = (vec![Part::new(request)], self.settings.clone());
        self.surroundings.send(Box::new(Errand::new(number, parts, false, loan, settings, Asker::Call)));
        marks::reached("call executed elsewhere");
        number
    }

    /// What came of a call is part of the open unit: its reply, as if it had been executed here.
    ///
    /// # Errors
    /// As the command's.
    pub(super) fn take_call(&mut self, outcome: Outcome, in_block: bool) -> command::Outcome<'static> {
        let Outcome { number, mut borrowed, weight, value, .. } = outcome;
        self.store_mut().take_back(&mut borrowed);
        self.store_mut().end_loan(number);
        let Self { unit_reply, settings, .. } = self;
        let fits = weigh_call(unit_reply, weight, in_block, settings)?;
        value.filter(|_| fits).unwrap_or(Ok(Reply::Nothing))
    }

    /// Who called is to end: nothing of the call is left.
    pub(super) fn recall_call(&mut self, mut outcome: Outcome) {
        marks::reached("call ended with who called");
        self.store_mut().recall(&mut outcome.borrowed);
        self.store_mut().end_loan(outcome.number);
    }
}

/// Waits for what comes of a call. Meanwhile it is asked now and then whether who called is to end; returns whether it
/// is, too.
pub(super) fn await_call(
    surroundings: &dyn Surroundings,
    number: u64,
    mut is_to_end: impl FnMut() -> bool,
) -> (Outcome, bool) {
    let mut ends = false;
    loop {
        if let Some(outcome) = surroundings.outcome_within(number, ASKED_EVERY) {
            return (outcome, ends);
        }
        ends |= is_to_end();
    }
}
