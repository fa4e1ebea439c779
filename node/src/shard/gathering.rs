//! A request that names very many keys: to lend them all at once would keep others waiting, and so would their return.
//!
//! They are lent some at a time, and others are served between. When all are lent the request is sent on its errand
//! like any other ([`super::errands`]). What comes of it comes back some keys at a time, too, and none of them is
//! looked at before the last is there; then the errand is settled, as one unit. One request gathers at a time: it waits
//! for keys while it holds others, and two that do could wait for each other.
//!
//! Called back, what was gathered comes back as it was; what has begun to come back comes back whole, at once.
//!
//! INVARIANTS:
//! * Keys that are back are lent until the errand is settled.
//! * What is about all keys waits while some are back and others are not: it would see a part of a batch.

use std::collections::VecDeque;

use super::{
    Core, SessionId,
    admit::Reason,
    errand::{Asker, Errand, Outcome, Part},
    errands::Sent,
    monitors::Source,
    waiting::Timer,
};
use crate::{
    command::Request,
    keyspace::{Blob, Store, tx::Loan},
    marks,
};

/// How long a request waits that needs a key which is lent to another, or has to be written first.
const RETRY_NS: u64 = 1_000_000;

/// Requests whose keys are on their way. See the module.
#[derive(Default)]
pub(super) struct Gathering {
    begun: Option<Gathered>,
    returning: VecDeque<(Sent, Outcome)>,
}

/// A request whose keys are lent some at a time.
struct Gathered {
    number: u64,
    sent: Sent,
    part: Part,
    asker: Asker,
    loan: Loan,
    /// Keys that are looked at are lent.
    looked_at: usize,
}

impl Gathering {
    /// Requests on their way to their errands.
    pub fn len(&self) -> usize {
        usize::from(self.begun.is_some())
    }

    /// Whether some keys of an errand are back, and not all.
    pub fn is_returning(&self) -> bool {
        !self.returning.is_empty()
    }

    fn is_busy(&self) -> bool {
        self.begun.is_some() || self.is_returning()
    }
}

impl Core {
    /// Begins to lend the keys of a request, or lets it wait until that can be.
    pub(super) fn gather(&mut self, id: SessionId, request: &Request<'_>) -> Reason {
        if self.gathering.begun.is_some() || !self.may_send() {
            return Reason::Helper;
        }
        marks::reached("keys lent some at a time");
        self.tell_monitors(Source::Client(id), request.command, request.words);
        let number = self.number_errand();
        let mut sent = self.note_sent(id, request);
        sent.needs_leader = self.is_serving();
        self.gathering.begun = Some(Gathered {
            number,
            sent,
            part: Part::new(request),
            asker: self.asker(id),
            loan: self.store_mut().begin_loan(number, request.keys.len()),
            looked_at: 0,
        });
        self.time_gathering(0);
        Reason::Errand
    }

    /// Whether a request's keys will be lent some at a time: then it waits for none of them before.
    pub(super) fn is_gathered(&self, id: SessionId, request: &Request<'_>) -> bool {
        request.keys.len() > self.settings.lent_at_once_max
            && !self.is_queued(id, request.command)
            && self.is_sent(request).is_some_and(|work| !self.lends_at_once(request, work))
    }

    fn time_gathering(&mut self, wait_ns: u64) {
        let at_ns = self.surroundings.boot_ns() + wait_ns.max(1);
        self.timers.set(Timer::Gather, self.gathering.is_busy().then_some(at_ns));
    }

    /// Some more keys are lent, and some come back.
    pub(super) fn go_on_gathering(&mut self) {
        if self.is_between_states() {
            return self.time_gathering(RETRY_NS); // no part of a batch is lent
        }
        let waits = match self.gathering.begun.take() {
            Some(mut gathered) => match self.lend_some(&mut gathered) {
                Step::GoesOn { waits } => {
                    self.gathering.begun = Some(gathered);
                    waits
                }
                Step::Ended => {
                    self.send_gathered(gathered);
                    false
                }
            },
            None => true,
        };
        let is_returning = self.gathering.is_returning();
        self.return_some();
        if !self.held_entries.is_empty() {
            self.commit_held(true);
        }
        self.time_gathering(if waits && !is_returning { RETRY_NS } else { 0 });
    }

    fn lend_some(&mut self, gathered: &mut Gathered) -> Step {
        let Gathered { number, part, loan, looked_at, .. } = gathered;
        for (step, key) in part.keys_from(*looked_at).enumerate() {
            if step == self.settings.lent_a_step_max() {
                *looked_at += step;
                return Step::GoesOn { waits: false };
            }
            let own = self.store().is_lent_to(*number, key);
            let is_lent = !own && self.store().is_lent(key);
            let is_written = own || !is_lent && self.store_mut().keyspace_mut().prepare_change(key);
            if !is_written {
                self.snapshots.awaiting |= !is_lent;
                *looked_at += step;
                marks::reached("gathering waited for a key");
                return Step::GoesOn { waits: true };
            }
            self.store_mut().lend(loan, Blob::new(key));
        }
        Step::Ended
    }

    fn send_gathered(&mut self, gathered: Gathered) {
        let Gathered { number, sent, part, asker, mut loan, .. } = gathered;
        self.begin_unit();
        self.store().renew_loan(&mut loan);
        self.store_mut().end_unit();
        let errand = Errand::new(number, vec![part], false, loan, self.settings.clone(), asker);
        self.send_errand(errand, sent);
        self.offer_errands();
    }

    /// An errand is over, and its keys begin to come back.
    pub(super) fn begin_return(&mut self, sent: Sent, outcome: Outcome) {
        marks::reached("keys came back some at a time");
        self.gathering.returning.push_back((sent, outcome));
        self.time_gathering(0);
    }

    fn return_some(&mut self) {
        let most = self.settings.lent_a_step_max();
        let Some((sent, mut outcome)) = self.gathering.returning.pop_front() else { return };
        if outcome.borrowed.keys_out() > most {
            self.store_mut().take_some_back(&mut outcome.borrowed, most);
            self.gathering.returning.push_front((sent, outcome));
        } else {
            self.settle_outcome(sent, outcome);
            self.serve_after_errand();
            self.begin_snapshot();
            self.offer_errands();
        }
    }

    /// What is gathered, if it is meant, comes back as it was, and what is coming back comes back whole.
    pub(super) fn recall_gathered(&mut self, is_meant: impl Fn(&Store, u64) -> bool) {
        let is_begun_meant = |gathered: &mut Gathered| is_meant(&self.store, gathered.number);
        if let Some(Gathered { number, sent, loan, .. }) = self.gathering.begun.take_if(is_begun_meant) {
            marks::reached("gathered keys called back");
            self.store_mut().recall_loan(loan);
            self.end_loan(number);
            if let Some(id) = self.session_of(sent.session) {
                self.wake_one(id);
            }
            // Entries that waited for one of them are looked at then.
            self.timers.set(Timer::Gather, Some(self.surroundings.boot_ns() + 1));
        }
        let returning = std::mem::take(&mut self.gathering.returning);
        let is_meant = |(_, outcome): &(Sent, Outcome)| is_meant(self.store(), outcome.number);
        let (meant, others): (VecDeque<_>, VecDeque<_>) = returning.into_iter().partition(is_meant);
        self.gathering.returning = others;
        for (sent, outcome) in meant {
            marks::reached("returning keys called back");
            self.settle_outcome(sent, outcome);
        }
    }
}

/// How a step ended.
enum Step {
    GoesOn {
        /// It needs a key that cannot be lent now.
        waits: bool,
    },
    Ended,
}
