//! Requests that look at all keys go on in steps, and others are served between.
//!
//! What such a request looks for its row says ([`crate::command::survey`]). Beyond
//! [`super::ShardSettings::large_elements`] keys, it walks them as `SCAN` does, so many in a step, and puts down the
//! names that it finds as they are written. The request stays in its client's buffer, as one that waits; when it is
//! answered, it is passed over, as an errand is.
//!
//! The walk goes by positions that no change of the table moves. So a key that was there all the time is told once, and
//! one that came or went meanwhile once or not at all. Its reply waits for the newest batch when it ends: what
//! it saw before is in that one or in one before it. Whoever loses or takes the lead, or installs a snapshot, takes
//! back what may have been seen: then the walk begins anew, or its client is sent elsewhere.
//!
//! In a block or a script it is one look, as long as there are keys: those are as of one moment.
//!
//! INVARIANTS:
//! * A step sees no part of a batch.
//! * A request is answered once, and those behind it after it.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};
use moonraft_proto::{Protocol, Reply, Weight};

use super::{
    Core, SessionId,
    admit::Reason,
    errands::{Answer, Sent},
    monitors::Source,
    waiting::Timer,
};
use crate::{
    command::{CommandError, Request, Survey},
    glob,
};

/// Surveys of a shard under way at once: each holds what it has found.
const SURVEYS_MAX: usize = 4;
/// Keys between which it is looked whether matching has taken long.
const LOOKS_IN_A_ROW: usize = 100;
/// Room for the head of an array before its items are known: `*`, twenty digits, the end of the line.
const HEAD_BYTES: usize = 23;

/// The surveys of a shard: each goes on by a step in its turn.
pub(super) type Surveys = VecDeque<Underway>;

/// A survey under way.
pub(super) struct Underway {
    sent: Sent,
    survey: Survey,
    /// Where it goes on.
    cursor: u64,
    /// The names it has found, as they are written, behind room for the head.
    found: BytesMut,
    count: usize,
    weight: Weight,
    found_expired: bool,
}

/// Where a survey is after a step.
enum Step {
    GoesOn,
    Ended,
    Failed(CommandError),
}

impl Core {
    /// Begins a survey if a request looks at many keys. Returns what it waits for then; `None`: it is executed at once.
    pub(super) fn survey_if_large(&mut self, id: SessionId, request: &Request<'_>) -> Option<Reason> {
        let survey = request.command.survey.and_then(|survey| survey(request.words))?;
        if survey.keys(self.keyspace()) <= self.settings.large_elements {
            return None;
        }
        if self.surveys.len() >= SURVEYS_MAX {
            return Some(Reason::Helper);
        }
        self.tell_monitors(Source::Client(id), request.command, request.words);
        let underway = Underway {
            sent: self.note_sent(id, request),
            cursor: u64::from(survey.slot.unwrap_or(0)),
            survey,
            found: BytesMut::zeroed(HEAD_BYTES),
            count: 0,
            weight: Reply::Array(Vec::new()).weight(),
            found_expired: false,
        };
        self.surveys.push_back(underway);
        self.time_surveys();
        Some(Reason::Errand)
    }

    fn time_surveys(&mut self) {
        let at_ns = self.surroundings.boot_ns() + 1;
        self.timers.set(Timer::Survey, (!self.surveys.is_empty()).then_some(at_ns));
    }

    /// One of the surveys goes on by a step.
    pub(super) fn go_on_surveying(&mut self) {
        if !self.is_between_states()
            && !self.gathering.is_returning()
            && let Some(mut underway) = self.surveys.pop_front()
        {
            self.begin_unit();
            let step = self.step(&mut underway);
            let mut unit = self.store_mut().end_unit();
            underway.found_expired |= unit.found_expired;
            unit.found_expired = underway.found_expired;
            match step {
                Step::GoesOn => self.surveys.push_back(underway),
                Step::Ended => {
                    let (sent, answer) = underway.answer();
                    self.answer_sent(sent, answer, unit);
                    self.wake(&Reason::Helper);
                }
                Step::Failed(error) => {
                    let protocol =
                        self.session_of(underway.sent.session).map(|id| self.sessions[id].protocol);
                    let answer = Answer::of(Reply::from(error), protocol);
                    self.answer_sent(underway.sent, answer, unit);
                    self.wake(&Reason::Helper);
                }
            }
        }
        self.time_surveys();
    }

    fn step(&self, underway: &mut Underway) -> Step {
        let (mut looks, mut steps) = (self.settings.large_elements.max(1), 0);
        let mut next = underway.cursor;
        // A pattern may take long for each name.
        while looks > 0 && steps <= glob::STEPS_IN_A_ROW {
            let some = looks.min(LOOKS_IN_A_ROW);
            let Some(to) = self.look_at_some(underway, some, &mut steps) else { return Step::Ended };
            (next, looks) = (to, looks - some);
            if next == 0 {
                break;
            }
        }
        let Underway { weight, .. } = underway;
        let bytes_max = self.settings.limits.reply_bytes_max;
        match next {
            _ if weight.counted() > bytes_max => Step::Failed(CommandError::ReplyTooLarge(bytes_max)),
            0 => Step::Ended,
            _ => Step::GoesOn,
        }
    }

    /// Looks at about so many keys. Returns where to go on, 0 at the end; `None`: enough was found.
    fn look_at_some(&self, underway: &mut Underway, looks: usize, steps: &mut usize) -> Option<u64> {
        let Underway { survey, cursor, found, count, weight, .. } = underway;
        let store = self.store();
        let (entries, next) = match survey.slot {
            Some(_) => store.whole().scan_slot(*cursor, looks),
            None => store.whole().scan(*cursor, looks),
        };
        *cursor = next;
        for entry in entries {
            if *count == survey.count_max {
                return None;
            }
            if survey.is_met_counted(store, entry, steps) {
                let name = Reply::bulk(&*entry.key);
                *weight = weight.and(name.weight());
                name.encode(Protocol::Resp2, found); // as the other protocol writes it
                *count += 1;
            }
        }
        Some(next)
    }

    /// What surveys have seen may be taken back: they begin anew.
    pub(super) fn restart_surveys(&mut self) {
        for underway in std::mem::take(&mut self.surveys) {
            if let Some(id) = self.session_of(underway.sent.session) {
                self.wake_one(id);
            }
        }
        self.time_surveys();
        self.wake(&Reason::Helper);
    }

    /// A session is gone, and what it asked for is not wanted.
    pub(super) fn forget_survey(&mut self, id: SessionId) {
        let before = self.surveys.len();
        self.surveys.retain(|underway| underway.sent.session.0 != id);
        if self.surveys.len() < before {
            self.time_surveys();
            self.wake(&Reason::Helper);
        }
    }
}

impl Underway {
    /// The whole reply, its head before what was found.
    fn answer(self) -> (Sent, Answer) {
        let Self { sent, mut found, count, weight, .. } = self;
        let head = format!("*{count}\r\n");
        let start = HEAD_BYTES - head.len();
        found[start..HEAD_BYTES].copy_from_slice(head.as_bytes());
        found.advance(start);
        (sent, Answer { reply: found, weight, error: None })
    }
}
