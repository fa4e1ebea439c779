//! The waiting room: sessions whose next request is left unread, and what each of them waits for.
//!
//! A session waits for one [`Reason`], in a queue of those who wait for the same, first come first served. It is
//! looked at again when its reason is gone, and not before: what is left in its buffer is not parsed because
//! something else has happened. So who waits costs nothing while nothing happens, and what happens costs no more than
//! the sessions that it wakes. What is woken leaves as [`Output::Resume`]: the shell brings what is in its buffer.
//!
//! Who wakes whom:
//! * a commit those who wait for room in flight, some at a time, in their turn: [`Core::offer_room`];
//! * the walk of a snapshot who waits for the value that it has written, its writer who waits for that;
//! * a leader, or time without one, who waits for one; the end of a script, or of its patience, who waits for it;
//! * a commit that decides whose slots are who waits for that: [`Core::tell_owner`];
//! * an errand that comes back who waits for what was lent to it, or to be sent: [`super::errands`];
//! * a loss of leadership all that wait for something of a leader: they wait for the next, or are redirected.
//!
//! A request that is blocked is not in its session's buffer any more: see [`super::blocked`]. Here is only that its session
//! waits.
//!
//! INVARIANTS:
//! * A session waits for one reason, or for none; requests of one session keep their order.
//! * Whoever waits for room in flight is called when there is room, as long as those called before have been looked at.
//! * A timer rings at its time, boot clock, and once: [`Core::next_wake`].

use std::collections::{BTreeMap, BTreeSet};

use hashbrown::{HashMap, HashSet};

use super::{Core, Output, SessionId, admit::Reason};
use crate::{command::client::Pause, keyspace::Blob};

/// Sessions that wait for room in flight and are called together: about what executes in one turn.
const CALLED_AT_ONCE: usize = 64;

/// The order in which sessions came.
type Ticket = u64;

/// Sessions that wait. See the module.
#[derive(Default)]
pub(super) struct WaitingRoom {
    /// Counts all who ever came.
    tickets: Ticket,
    places: HashMap<SessionId, (Reason, Ticket)>,
    /// In an order, so that all wake in the same one in each run of a simulation.
    queues: BTreeMap<Reason, BTreeMap<Ticket, SessionId>>,
    /// How many wait for values of the walk.
    walks: usize,
    /// Those who waited for room in flight, have been called and not been looked at yet.
    called: HashMap<SessionId, Ticket>,
}

impl WaitingRoom {
    /// A session waits from now on; one that was called and found no room keeps its place.
    pub fn enter(&mut self, id: SessionId, reason: Reason) {
        let kept = self.called.get(&id).filter(|_| reason == Reason::InFlight);
        let ticket = kept.copied().unwrap_or_else(|| {
            self.tickets += 1;
            self.tickets
        });
        self.walks += usize::from(matches!(reason, Reason::Walk(_)));
        self.queues.entry(reason.clone()).or_default().insert(ticket, id);
        let before = self.places.insert(id, (reason, ticket));
        assert!(before.is_none(), "a session waits for one reason");
    }

    /// A session waits no more. Returns for what it did.
    pub fn leave(&mut self, id: SessionId) -> Option<Reason> {
        let (reason, ticket) = self.places.remove(&id)?;
        self.walks -= usize::from(matches!(reason, Reason::Walk(_)));
        let queue = self.queues.get_mut(&reason).expect("a session that waits is in the queue of its reason");
        queue.remove(&ticket);
        if queue.is_empty() {
            self.queues.remove(&reason);
        }
        Some(reason)
    }

    /// What a session waits for.
    pub fn reason(&self, id: SessionId) -> Option<&Reason> {
        self.places.get(&id).map(|(reason, _)| reason)
    }

    /// How many sessions wait for this.
    pub fn count(&self, reason: &Reason) -> usize {
        self.queues.get(reason).map_or(0, BTreeMap::len)
    }

    /// How many sessions wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether somebody waits for a value of the walk.
    pub const fn awaits_walk(&self) -> bool {
        self.walks > 0
    }

    /// The first that wait for this, no more than `most`; they wait no more.
    fn take(&mut self, reason: &Reason, most: usize) -> Vec<SessionId> {
        let queue = self.queues.get(reason);
        let first: Vec<SessionId> =
            queue.into_iter().flat_map(BTreeMap::values).take(most).copied().collect();
        first.iter().for_each(|&id| drop(self.leave(id)));
        first
    }

    /// The first that wait for room in flight, unless some have been called and not been looked at.
    fn call(&mut self) -> Vec<SessionId> {
        if !self.called.is_empty() {
            return Vec::new();
        }
        let queue = self.queues.get(&Reason::InFlight);
        let first = queue.into_iter().flatten().take(CALLED_AT_ONCE);
        self.called = first.map(|(&ticket, &id)| (id, ticket)).collect();
        self.take(&Reason::InFlight, CALLED_AT_ONCE)
    }

    /// Whether a session that was not called has others before it that wait for room in flight.
    pub fn is_behind(&self, id: SessionId) -> bool {
        self.count(&Reason::InFlight) > 0 && !self.called.contains_key(&id)
    }

    /// A session that may have been called was looked at, or is gone. Returns whether it was the last.
    pub fn answer(&mut self, id: SessionId) -> bool {
        self.called.remove(&id).is_some() && self.called.is_empty()
    }
}

/// What a moment is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Timer {
    /// The end of `CLIENT PAUSE`.
    Pause,
    /// Nobody has served for so long that requests are told so.
    Leader,
    /// What is applied or taken back in steps goes on.
    Apply,
    /// A survey goes on.
    Survey,
    /// What is lent, or comes back, some at a time.
    Gather,
    /// Eviction goes on.
    Evict,
    /// What a session waits for takes too long.
    Session(SessionId),
}

/// Moments to come, boot clock: each timer has one or none.
#[derive(Debug, Default)]
pub(super) struct Timers {
    set: HashMap<Timer, u64>,
    order: BTreeSet<(u64, Timer)>,
}

impl Timers {
    /// Sets a timer anew, or not at all.
    pub fn set(&mut self, timer: Timer, at_ns: Option<u64>) {
        let before = match at_ns {
            Some(at_ns) => self.set.insert(timer, at_ns),
            None => self.set.remove(&timer),
        };
        if let Some(before) = before {
            self.order.remove(&(before, timer));
        }
        self.order.extend(at_ns.map(|at_ns| (at_ns, timer)));
    }

    fn next(&self) -> Option<u64> {
        self.order.first().map(|&(at_ns, _)| at_ns)
    }

    /// A timer whose moment has come; it is set no more.
    fn take_due(&mut self, now_ns: u64) -> Option<Timer> {
        let &(at_ns, timer) = self.order.first()?;
        (at_ns <= now_ns).then(|| {
            self.set(timer, None);
            timer
        })
    }
}

impl Core {
    /// When [`Event::Wake`](super::Event::Wake) is wanted, boot clock.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Does what is due.
    pub(super) fn ring(&mut self) {
        let now_ns = self.surroundings.boot_ns();
        while let Some(timer) = self.timers.take_due(now_ns) {
            match timer {
                Timer::Pause => self.set_pause(None),
                Timer::Apply => self.go_on_applying(),
                Timer::Survey => self.go_on_surveying(),
                Timer::Gather => self.go_on_gathering(),
                Timer::Evict => self.evict_step(),
                Timer::Leader if self.is_leaderless_for_long(now_ns) => {
                    self.wake(&Reason::Leader);
                    self.give_blocked_up();
                }
                Timer::Leader => self.time_leader(),
                Timer::Session(id) if self.blocked.holds(id) => self.end_blocked_in_time(id),
                Timer::Session(id) => self.end_wait_in_time(id),
            }
        }
    }

    /// Those who wait for this are looked at again.
    pub(super) fn wake(&mut self, reason: &Reason) {
        let woken = self.waiting.take(reason, usize::MAX);
        self.outputs.extend(woken.into_iter().map(Output::Resume));
    }

    /// A session that waits for this is looked at again.
    pub(super) fn wake_one(&mut self, id: SessionId) {
        self.waiting.leave(id);
        self.outputs.push(Output::Resume(id));
    }

    /// Whether a session's last request is answered later.
    pub(super) fn is_blocked(&self, id: SessionId) -> bool {
        matches!(self.waiting.reason(id), Some(Reason::Followers | Reason::Key))
    }

    /// Those who wait for one of these keys, which were lent, are looked at again.
    pub(super) fn wake_borrowers(&mut self, keys: &HashSet<Blob>) {
        let is_back = |reason: &&Reason| matches!(reason, Reason::Loan(key) if keys.contains(key));
        let keyed: Vec<Reason> = self.waiting.queues.keys().filter(is_back).cloned().collect();
        keyed.iter().for_each(|reason| self.wake(reason));
    }

    /// All who wait for values of the walk are looked at again.
    pub(super) fn wake_walks(&mut self) {
        let keyed = self.waiting.queues.keys().filter(|reason| matches!(reason, Reason::Walk(_)));
        let keyed: Vec<Reason> = keyed.cloned().collect();
        keyed.iter().for_each(|reason| self.wake(reason));
    }

    // ---- a leader -----------------------------------------------------------------

    /// Somebody may serve now who did not: those who wait for a leader, or at the wrong replica for a pause to end,
    /// are looked at again.
    pub(super) fn look_for_leader(&mut self) {
        if self.is_serving() || self.leader_answers() && self.is_caught_up() {
            self.note_leader();
        }
        self.wake(&Reason::Leader);
        if !self.standing.is_leading() {
            self.wake(&Reason::Pause);
            self.send_blocked_away();
        }
    }

    /// Somebody serves, or will in a moment.
    pub(super) fn note_leader(&mut self) {
        self.leaderless_since = None;
        self.timers.set(Timer::Leader, None);
    }

    /// A majority has elected this replica just now: its first entry is worth waiting for, anew.
    pub(super) fn await_first_entry(&mut self) {
        self.note_leader();
        if self.waiting.count(&Reason::Leader) > 0 || !self.blocked.is_empty() {
            self.note_leaderless();
        }
    }

    /// A request found that nobody serves.
    pub(super) fn note_leaderless(&mut self) {
        if self.leaderless_since.is_none() {
            self.leaderless_since = Some(self.surroundings.boot_ns());
            self.time_leader();
        }
    }

    fn time_leader(&mut self) {
        let park_ns = self.settings.park_ms * 1_000_000;
        self.timers.set(Timer::Leader, self.leaderless_since.map(|since| since + park_ns));
    }

    /// Leadership is lost: what only a leader waits for is not to be waited for any more.
    pub(super) fn wake_displaced(&mut self) {
        self.wake(&Reason::InFlight);
        self.wake(&Reason::Writer);
        self.wake(&Reason::Slots);
        self.wake(&Reason::Formats);
        self.wake_walks();
    }

    // ---- a pause ------------------------------------------------------------------

    /// Requests are left unread for a while, or are read again; meanwhile the data stay as they are.
    pub(super) fn set_pause(&mut self, pause: Option<Pause>) {
        if pause.is_some() {
            self.recall_all();
        }
        self.pause = pause;
        self.timers.set(Timer::Pause, pause.map(|pause| pause.until_ns));
        self.store_mut().keep_expired(pause.is_some());
        self.wake(&Reason::Pause);
    }

    // ---- room in flight -------------------------------------------------------------

    /// Whether a session's request that may change data waits for room: no more may be executed before something in
    /// flight commits. Only a leader adds to it: who has lost the lead answers that there is none, whatever is
    /// still undecided.
    pub(super) fn lacks_room_in_flight(&self, id: SessionId) -> bool {
        self.standing.is_leading() && (self.is_over_in_flight() || self.waiting.is_behind(id))
    }

    fn is_over_in_flight(&self) -> bool {
        self.speculation.bytes() > self.settings.in_flight_bytes_max
    }

    /// Calls those who wait for room in flight, if there is some: not all at once, for the first may take all of it.
    pub(super) fn offer_room(&mut self) {
        if self.standing.is_leading() && !self.is_over_in_flight() {
            let called = self.waiting.call();
            self.outputs.extend(called.into_iter().map(Output::Resume));
        }
    }

    /// A session that may have been called for room was looked at, or is gone.
    pub(super) fn answer_call(&mut self, id: SessionId) {
        if self.waiting.answer(id) {
            self.offer_room();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_called_in_vain_keeps_its_place() {
        let mut room = WaitingRoom::default();
        (0..100).for_each(|id| room.enter(id, Reason::InFlight));
        assert_eq!(room.call(), (0..64).collect::<Vec<_>>());
        assert!(room.call().is_empty(), "those are to be looked at first");
        assert!(room.is_behind(200) && !room.is_behind(3));
        room.enter(3, Reason::InFlight);
        room.enter(5, Reason::Pause);
        let answered: Vec<bool> = (0..64).map(|id| room.answer(id)).collect();
        assert_eq!(answered.iter().position(|&last| last), Some(63));
        assert_eq!(room.call()[..2], [3, 64]);
        assert_eq!((room.reason(3), room.reason(5)), (None, Some(&Reason::Pause)));
    }

    #[test]
    fn a_timer_rings_once_at_its_last_time() {
        let mut timers = Timers::default();
        timers.set(Timer::Session(1), Some(10));
        timers.set(Timer::Pause, Some(20));
        timers.set(Timer::Session(1), Some(30));
        timers.set(Timer::Leader, Some(5));
        timers.set(Timer::Leader, None);
        assert_eq!((timers.next(), timers.take_due(19)), (Some(20), None));
        assert_eq!(timers.take_due(30), Some(Timer::Pause));
        assert_eq!(timers.take_due(30), Some(Timer::Session(1)));
        assert_eq!((timers.next(), timers.take_due(99)), (None, None));
    }
}
