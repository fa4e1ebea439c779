//! What a shard is told, and the end of a turn.

use bytes::Bytes;
use moonraft_proto::{DecodeError, Effect, Reply, entry::Batch};

use super::{
    CommittedEntry, Core, Event, Output, PlantedFault, SessionId, Standing,
    admit::Reason,
    outbox::{BatchId, RoundId},
    speculation::InFlight,
    waiting::Timer,
};
use crate::{
    command::latency,
    glob,
    keyspace::{
        Undo,
        tx::{Audience, Publication},
        undo::UNDOS_FREED_AT_ONCE,
    },
    log::{Fatal, cannot_go_on, newer_entry},
    marks,
};

/// What a batch in flight costs besides its entry: its bookkeeping, and the reply that waits for it.
const BATCH_BYTES: usize = 256;
/// What an effect in flight costs besides its part of the entry: what takes it back, and the mark
/// of its key.
const EFFECT_BYTES: usize = 160;
/// No effect takes fewer bytes.
const EFFECT_BYTES_MIN: usize = 3;
/// Expired keys that one tick removes at most: a tick must stay short.
const EXPIRED_PER_TICK: usize = 500;

impl Core {
    /// Takes an event in.
    pub fn handle(&mut self, event: Event) {
        self.take_in(event);
        self.read_ns = None;
    }

    fn take_in(&mut self, event: Event) {
        match event {
            Event::Lead { term } => self.lead(term),
            Event::Follow { leader } => self.follow(leader),
            Event::Committed(entries) => self.commit_all(entries),
            Event::RoundConfirmed { term, round } => self.confirm_round(term, round),
            Event::TakeSnapshot => self.take_snapshot(),
            Event::InstallSnapshot { index, term, chunks } => self.install(index, term, &chunks),
            Event::SnapshotTaken { number, bytes } => self.snapshot_taken(number, bytes),
            Event::SnapshotFailed { number } => self.snapshot_failed(number),
            Event::Followers { term, matched } => self.followers(term, matched),
            Event::Readable { term, format } => self.note_readable(term, format),
            Event::Deliver(publications) => publications.iter().for_each(|message| self.deliver(message)),
            // A leader that did not answer may do so again.
            Event::MapChanged if self.leader_answers() => self.look_for_leader(),
            Event::MapChanged => {}
            Event::DiskRoom(room) => self.room.disk = room,
            Event::ErrandsDone => self.end_errands(),
            Event::Tick => self.tick(),
            Event::Wake => self.ring(),
        }
    }

    /// Whether [`Core::end_turn`] has something to do.
    pub fn wants_turn(&self) -> bool {
        self.stamp_wanted || self.round_wanted || self.store().has_effects()
    }

    /// Seals what this turn executed into one batch and proposes it.
    pub fn end_turn(&mut self) {
        let Standing::Leading { term, serving: true } = self.standing else { return };
        self.begin_evictions();
        if self.store().has_effects() || self.stamp_wanted {
            self.stamp_wanted = false;
            let stamp_ms = self.clock.stamp();
            let (sequence, data, open) = self.store_mut().seal(stamp_ms);
            self.speculation.push(InFlight {
                batch: BatchId { term, sequence },
                bytes: data.len() + BATCH_BYTES + open.undos.len() * EFFECT_BYTES,
                open,
                stamp_ms,
                waiting: std::mem::take(&mut self.open_waiting),
                publications: std::mem::take(&mut self.open_publications),
                forgets: std::mem::take(&mut self.open_forgets),
            });
            self.outputs.push(Output::Propose { term, sequence, data });
            self.begin_snapshot();
        }
        if std::mem::take(&mut self.round_wanted) {
            self.outputs.push(Output::ReadRound { term, round: self.next_round });
            self.next_round += 1;
        }
    }

    // ---- leadership -------------------------------------------------------------

    /// The replica leads; it serves once an entry of the term is applied.
    fn lead(&mut self, term: u64) {
        self.recall_all();
        self.restart_surveys();
        self.step_down();
        self.undo_all();
        if !self.held_entries.is_empty() {
            self.commit_held(false); // only a follower has time to wait
        }
        self.standing = Standing::Leading { term, serving: false };
        self.await_first_entry();
        if self.applied.1 == term {
            self.serve();
        }
    }

    fn follow(&mut self, leader: Option<u64>) {
        self.step_down();
        self.standing = Standing::Following { leader };
        self.check_waits();
        if !self.blocked.is_empty() {
            self.note_leaderless(); // they wait for the next one, but not for ever
        }
        if leader.is_some() {
            self.redirect_unconfirmed();
            self.look_for_leader();
        }
    }

    /// Takes back all that is speculative, newest first. The replies stay held
    /// until the log tells their fate.
    pub(super) fn step_down(&mut self) {
        let Standing::Leading { term, .. } = self.standing else { return };
        if self.settings.fault != Some(PlantedFault::OutcomeOfOtherTerm) {
            self.recall_all();
        }
        self.restart_surveys();
        self.end_time();
        self.may_be_unsettled = true;
        self.wake_displaced();
        self.give_up_speculative_snapshot();
        let open = self.abandon_open_batch(term);
        if self.settings.fault == Some(PlantedFault::UndoSkipped) {
            self.speculation.take_undos();
            self.undo_in_steps(vec![open]);
            return self.forget_copies();
        }
        self.speculation.mark_undo();
        let mut batches = self.speculation.take_undos();
        batches.push(open);
        self.undo_in_steps(batches);
        self.forget_copies();
    }

    /// The open batch was never proposed: its requests had no effect. Returns what takes it back.
    fn abandon_open_batch(&mut self, term: u64) -> Vec<Undo> {
        let sequence = self.store().open_sequence();
        let undos = self.store_mut().abandon();
        self.open_publications.clear();
        self.open_forgets.clear();
        self.stamp_wanted = false;
        self.round_wanted = false;
        let waiting = std::mem::take(&mut self.open_waiting);
        // It counts as in flight until the log closes the term: by then the new
        // leader is known, and the clients are redirected to it.
        self.speculation.push(InFlight {
            batch: BatchId { term, sequence },
            open: Default::default(),
            bytes: 0,
            stamp_ms: 0,
            waiting,
            publications: Vec::new(),
            forgets: Vec::new(),
        });
        undos
    }

    fn serve(&mut self) {
        let Standing::Leading { term, .. } = self.standing else { return };
        self.standing = Standing::Leading { term, serving: true };
        self.begin_time(term);
        self.store_mut().begin_term();
        self.give_birth();
        self.next_round = 1;
        self.waits.begin_anew(self.applied.0);
        self.redirect_unconfirmed();
        self.look_for_leader();
        if !self.blocked.is_empty() {
            marks::reached("blocked request outlived an election");
        }
        self.resume_blocked();
    }

    // ---- the log ----------------------------------------------------------------

    fn commit_all(&mut self, entries: Vec<CommittedEntry>) {
        self.held_entries.extend(entries);
        self.commit_held(true);
    }

    /// Applies what is committed, as far as it need not wait for a snapshot, if it may.
    pub(super) fn commit_held(&mut self, may_wait: bool) {
        if !self.undoing.is_empty() {
            return; // it is applied when that has been taken back
        }
        let lagged = !self.is_caught_up();
        while let Some(entry) = self.held_entries.pop_front() {
            let entry = self.join_parts(entry);
            let is_begun = self.applying.is_some();
            if may_wait && !is_begun && !self.is_entry_ready(&entry) {
                return self.held_entries.push_front(entry);
            }
            if may_wait && !self.is_little_left(&entry) {
                marks::reached("batch applied in steps");
                self.timers.set(Timer::Apply, Some(self.surroundings.boot_ns() + 1));
                return self.held_entries.push_front(entry);
            }
            self.commit(&entry);
        }
        let index = self.applied.0;
        self.outputs.push(Output::Applied { index });
        self.check_waits();
        self.begin_snapshot();
        self.offer_room();
        if lagged && self.is_caught_up() {
            self.look_for_leader();
        }
        self.serve_blocked();
    }

    fn commit(&mut self, entry: &CommittedEntry) {
        assert_eq!(entry.index, self.applied.0 + 1, "entries are applied in order, each once");
        assert!(entry.term >= self.applied.1, "terms of a log never go down");
        self.close_terms_before(entry.term);
        if entry.more {
            self.parts.push(entry.data.clone());
        } else if !entry.data.is_empty() {
            if let Some(line) = newer_entry(self.settings.shard, entry.index, &entry.data) {
                Fatal::Newer(line).stop();
            }
            let batch = Batch::decode(&entry.data).unwrap_or_else(|error| self.fatal(entry, &error));
            let id = BatchId { term: entry.term, sequence: batch.sequence };
            let led = matches!(self.standing, Standing::Leading { term, .. } if term == entry.term);
            let hands_over = self.store().is_any_changing_hands();
            let own = self.speculation.commit(id);
            assert!(own.is_some() || !led, "a leader executed every batch of its own term");
            if !led {
                self.assume_birth(&batch);
                self.apply(entry, &batch);
            }
            self.is_born = true;
            self.clock.committed(entry.term, batch.stamp_ms, self.surroundings.boot_ns());
            self.note_format(batch.format);
            if let Some(own) = own {
                if !led {
                    marks::reached("reply of a batch that a later leader committed");
                }
                self.settle_snapshot(id, entry.index, entry.term);
                self.open_gate(id, own);
                self.waits.committed(id, entry.index);
            }
            self.tell_owner();
            if hands_over && !self.store().is_any_changing_hands() {
                self.resume_blocked();
            }
        }
        self.applied = (entry.index, entry.term);
        if self.standing == (Standing::Leading { term: entry.term, serving: false }) {
            self.serve();
        }
    }

    /// The last entry of a batch with the whole of it. Who leads its term has executed it,
    /// and needs but its head. Parts whose last did not come in their term are of a leader that lost it.
    fn join_parts(&mut self, last: CommittedEntry) -> CommittedEntry {
        if last.term > self.applied.1 && !self.parts.is_empty() {
            marks::reached("parts given up by a shard");
            self.parts.clear();
        }
        if last.more || last.data.is_empty() || self.parts.is_empty() {
            return last;
        }
        let mut parts = std::mem::take(&mut self.parts);
        let leads = matches!(self.standing, Standing::Leading { term, .. } if term == last.term);
        if leads {
            return CommittedEntry { data: parts.swap_remove(0), ..last };
        }
        parts.push(last.data);
        let mut whole = Vec::with_capacity(parts.iter().map(Bytes::len).sum());
        parts.iter().for_each(|part| whole.extend_from_slice(part));
        CommittedEntry { data: whole.into(), ..last }
    }

    /// Applies a batch that was executed elsewhere, or here and then taken back.
    fn apply(&mut self, entry: &CommittedEntry, batch: &Batch<'_>) {
        let dropped = self.settings.fault == Some(PlantedFault::EffectDropped) && entry.index % 7 == 3;
        let from = self.applying.take().unwrap_or_default();
        self.note_time_of(batch);
        batch.effects_from(&from).skip(usize::from(dropped)).for_each(|effect| self.apply_one(entry, effect));
        self.tell_applied();
        self.wake(&Reason::Applying);
    }

    /// What a batch writes is used at about this time.
    fn note_time_of(&mut self, batch: &Batch<'_>) {
        self.store_mut().keyspace_mut().uses.set_time(batch.stamp_ms.saturating_mul(1000));
    }

    fn apply_one(&mut self, entry: &CommittedEntry, effect: Result<Effect<'_>, DecodeError>) {
        let effect = effect.unwrap_or_else(|error| self.fatal(entry, &error));
        let undo = self.store_mut().keyspace_mut().apply(&effect);
        if undo.is_slow_to_drop() {
            self.discard(vec![undo]);
        }
    }

    /// Applies some effects of a batch that has many: others are heard before it goes on. Returns whether the rest may be
    /// applied in one go.
    fn is_little_left(&mut self, entry: &CommittedEntry) -> bool {
        let most = self.settings.large_elements.max(1);
        let is_small = entry.data.len() / EFFECT_BYTES_MIN <= most;
        if is_small || entry.more || self.standing.is_leading() || !self.is_born {
            return true;
        }
        // Whoever applies it tells what is wrong with it.
        let Ok(batch) = Batch::decode(&entry.data) else { return true };
        let from = self.applying.take().unwrap_or_default();
        self.note_time_of(&batch);
        let mut effects = batch.effects_from(&from);
        effects.by_ref().take(most).for_each(|effect| self.apply_one(entry, effect));
        self.tell_applied();
        self.applying = Some(batch.place(&effects));
        effects.next().is_none()
    }

    /// Frees what was displaced: elsewhere if it is much, unless the next request may need the memory.
    pub(super) fn discard(&self, undos: Vec<Undo>) {
        let slow = match undos.len() > UNDOS_FREED_AT_ONCE {
            true => undos,
            false => undos.into_iter().filter(Undo::is_slow_to_drop).collect(),
        };
        if !slow.is_empty() && self.surroundings.used_bytes() <= self.settings.memory_bytes_max {
            self.surroundings.free(Box::new(slow));
        }
    }

    fn fatal(&self, entry: &CommittedEntry, error: &DecodeError) -> ! {
        let (shard, index) = (self.settings.shard, entry.index);
        cannot_go_on(format!("shard {shard}, entry {index}: {error}"))
    }

    /// A batch of ours committed: what waited for it may leave.
    fn open_gate(&mut self, id: BatchId, own: InFlight) {
        self.store_mut().committed(id.sequence, &own.open.changed);
        match own.open.evicted_bytes {
            0 => self.discard(own.open.undos),
            bytes => self.discard_evicted(own.open.undos, bytes),
        }
        self.publish(own.publications);
        self.tell_trackers(own.forgets);
        for session in own.waiting {
            self.release(session);
        }
    }

    fn release(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let speculation = &self.speculation;
        if session.outbox.release(|batch| speculation.fate(batch)) {
            self.outputs.push(Output::Flush(id));
        }
    }

    /// Batches of earlier terms that have not committed by now never will.
    fn close_terms_before(&mut self, term: u64) {
        let lost = self.speculation.close_terms_before(term);
        if lost.is_empty() {
            return;
        }
        let mut waiting: Vec<SessionId> = lost.into_iter().flat_map(|batch| batch.waiting).collect();
        waiting.sort_unstable();
        waiting.dedup();
        for id in waiting {
            self.redirect_lost(id);
        }
    }

    fn redirect_lost(&mut self, id: SessionId) {
        let Some(mut outbox) = self.sessions.get_mut(id).map(|session| std::mem::take(&mut session.outbox))
        else {
            return;
        };
        let (protocol, network) = (self.sessions[id].protocol, self.sessions[id].network);
        let leading = self.leading();
        let must_close = outbox.redirect_lost(
            |batch| self.fate(batch),
            leading,
            |slot| self.redirect_reply(network, slot),
            protocol,
        );
        self.sessions[id].outbox = outbox;
        self.outputs.push(if must_close { Output::Close(id) } else { Output::Flush(id) });
    }

    /// The term in which rounds can be confirmed: rounds of terms before never will be.
    fn leading(&self) -> u64 {
        match self.standing {
            Standing::Leading { term, .. } => term,
            Standing::Following { .. } => u64::MAX,
        }
    }

    /// Reads of an earlier term that no round confirmed had no effect: their clients ask elsewhere.
    fn redirect_unconfirmed(&mut self) {
        let leading = self.leading();
        let unconfirmed =
            self.sessions.iter().filter(|(_, session)| session.outbox.is_barred_before(leading));
        let unconfirmed: Vec<SessionId> = unconfirmed.map(|(id, _)| id).collect();
        unconfirmed.into_iter().for_each(|id| self.redirect_lost(id));
    }

    fn confirm_round(&mut self, term: u64, round: u64) {
        let confirmed = RoundId { term, round };
        let speculation = &self.speculation;
        for (id, session) in &mut self.sessions {
            if session.outbox.release_round(confirmed, |batch| speculation.fate(batch)) {
                self.outputs.push(Output::Flush(id));
            }
        }
    }

    // ---- time and messages --------------------------------------------------------

    fn tick(&mut self) {
        self.tick_time();
        self.ring();
        if self.is_serving() {
            let began_ns = self.begin_event();
            self.begin_unit();
            let removed = match self.expires_actively && self.store().removes_expired() {
                true => self.tx().remove_expired(EXPIRED_PER_TICK),
                false => 0,
            };
            if removed > 0 {
                marks::reached("expired key removed by a tick");
            }
            let unit = self.store_mut().end_unit();
            self.end_event(latency::Event::ExpireCycle, began_ns);
            if removed > 0 {
                self.settle_unit(unit);
                self.serve_blocked();
            }
        }
        self.evict_step();
        self.tick_formats();
        self.begin_snapshot();
        self.offer_errands();
        self.rates.tick(self.surroundings.boot_ns(), self.statistics);
        self.tick_unsettled();
        self.tick_readers();
    }

    /// A reply whose fate the log has not told for too long: the connection is closed, which every
    /// client knows as "outcome unknown". A read that no round can confirm waits for the new leader
    /// as long as a request that is parked; then its client is told that there is none.
    fn tick_unsettled(&mut self) {
        if !std::mem::take(&mut self.may_be_unsettled) {
            return; // only who has led has such replies
        }
        let now = self.surroundings.boot_ns();
        let leading = match self.standing {
            Standing::Leading { term, serving: true } => term,
            _ => u64::MAX,
        };
        let (settle_ns, park_ns) = (self.settings.settle_ms * 1_000_000, self.settings.park_ms * 1_000_000);
        let mut unconfirmed = false;
        for (id, session) in &mut self.sessions {
            let open = session.outbox.oldest_hold().is_some_and(|batch| batch.term < leading);
            let lost_read = session.outbox.is_barred_before(leading);
            if !open && !lost_read {
                session.unsettled_since = None;
                continue;
            }
            self.may_be_unsettled = true;
            let waited_ns = now - *session.unsettled_since.get_or_insert(now);
            if waited_ns > settle_ns {
                self.outputs.push(Output::Close(id));
            }
            unconfirmed |= lost_read && waited_ns > park_ns;
        }
        if unconfirmed {
            self.redirect_unconfirmed();
        }
    }

    /// Sends a message to those who listen here.
    fn deliver(&mut self, message: &Publication) {
        let bulk = |bytes: &Bytes| Reply::Bulk(bytes.to_vec().into());
        let (channel, text) = (&message.channel, &message.message);
        let sharded = message.audience == Audience::Shard;
        let kind = if sharded { "smessage" } else { "message" };
        let plain = Reply::Push(vec![Reply::text(kind), bulk(channel), bulk(text)]);
        let listeners = if sharded { &self.listeners.shard_channels } else { &self.listeners.channels };
        for id in listeners.get(channel).cloned().unwrap_or_default() {
            self.push_message(id, &plain);
        }
        if sharded {
            return;
        }
        let matching = self.listeners.patterns.iter().filter(|(pattern, _)| glob::matches(pattern, channel));
        let matching: Vec<_> =
            matching.map(|(pattern, sessions)| (pattern.clone(), sessions.clone())).collect();
        for (pattern, sessions) in matching {
            let reply = Reply::Push(vec![Reply::text("pmessage"), bulk(&pattern), bulk(channel), bulk(text)]);
            sessions.into_iter().for_each(|id| self.push_message(id, &reply));
        }
    }

    pub(super) fn push_message(&mut self, id: SessionId, reply: &Reply<'_>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.outbox.push(reply, session.protocol);
        self.limit_outbox(id);
        self.outputs.push(Output::Flush(id));
    }
}
