//! One request, looked at once: its row, its words, which of them are keys, and their slot.
//!
//! Whoever routes it, asks whether it may run, or runs it works with this value, and nobody looks for
//! keys again.

use moonraft_router::{SLOT_COUNT, keys::KeyPositions, slot_of};

use super::{Client, Command, CommandError, Flag, Outcome, Run, table};
use crate::keyspace::{Store, Tx};

/// The slots of a request's keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// It has no keys.
    None,
    /// All its keys are of this slot.
    One(u16),
    /// Its keys are of different slots.
    Several,
}

impl Slots {
    fn of<'a>(keys: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut slots = keys.map(slot_of);
        match slots.next() {
            None => Slots::None,
            Some(first) if slots.all(|slot| slot == first) => Slots::One(first),
            Some(_) => Slots::Several,
        }
    }
}

impl From<Option<u16>> for Slots {
    fn from(slot: Option<u16>) -> Self {
        debug_assert!(slot.is_none_or(|slot| slot < SLOT_COUNT), "{slot:?} is no slot");
        slot.map_or(Slots::None, Slots::One)
    }
}

/// See the module.
#[derive(Clone)]
pub struct Request<'a> {
    /// Its row.
    pub command: &'static Command,
    /// Its words, the command's name first.
    pub words: &'a [&'a [u8]],
    /// Which of them are keys. None if their count makes no sense: then the handler, which touches no key, has
    /// the words for what is wrong.
    pub keys: KeyPositions,
    /// The slots of its keys; of the whole block for what runs one.
    pub slots: Slots,
}

impl<'a> Request<'a> {
    /// A request for this command. Of one with too few or too many words, which is refused, the keys are not
    /// looked for.
    pub fn new(command: &'static Command, words: &'a [&'a [u8]]) -> Self {
        let keys = match command.arity.allows(words.len()) {
            true => command.keys.positions(words).unwrap_or_default(),
            false => KeyPositions::new(),
        };
        let slots = Slots::of(keys.iter().map(|&at| words[at]));
        Self { command, words, keys, slots }
    }

    /// The request that these words make.
    ///
    /// # Errors
    /// There is no such command or subcommand.
    pub fn read(words: &'a [&'a [u8]]) -> Result<Self, CommandError> {
        table::resolve(words).map(|command| Self::new(command, words))
    }

    /// Its keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        self.keys.iter().map(|&at| self.words[at])
    }

    /// The one slot of its keys.
    pub const fn slot(&self) -> Option<u16> {
        match self.slots {
            Slots::One(slot) => Some(slot),
            Slots::None | Slots::Several => None,
        }
    }

    /// Executes it on data. It was admitted.
    ///
    /// # Panics
    /// The command is not about data, or its handler broke the rule that an
    /// error leaves no effect.
    pub fn execute<'r>(&self, tx: &'r mut Tx) -> Outcome<'r>
    where
        'a: 'r,
    {
        let (command, words) = (self.command, self.words);
        self.check_format(tx)?;
        tx.begin_command();
        if command.is_write() || tx.removes_expired() {
            tx.expire(self.keys());
        }
        tx.count_lookups(command.is_read());
        tx.tell_lookups(command.is_read() && !command.has(Flag::Unheard));
        tx.touch_lookups(command.touches(tx.is_client_untouching()));
        match command.run {
            Run::Read(run) => run(tx, words),
            Run::Write(run) => {
                let before = tx.unit_effects();
                let outcome = run(tx, words);
                let left = tx.unit_effects() - before;
                assert!(outcome.is_ok() || left == 0, "'{}' failed after {left} effects", command.name);
                outcome
            }
            _ => unreachable!("'{}' does not run on data alone", command.name),
        }
    }
    /// Executes what is about a client's session, the server or the cluster. It was admitted.
    ///
    /// # Panics
    /// The command is about something else.
    pub fn execute_for(&self, client: &mut dyn Client) -> Outcome<'static> {
        self.check_format(client.store())?;
        match self.command.run {
            Run::Session(run) => run(client, self.words),
            _ => unreachable!("'{}' is not about a session", self.command.name),
        }
    }

    /// Refuses what writes in a format on which the shard has not agreed: nodes of an older build are among its members.
    fn check_format(&self, store: &Store) -> Result<(), CommandError> {
        let needed = self.command.format;
        match store.keyspace().agreed_format() >= needed {
            true => Ok(()),
            false => Err(CommandError::FormatNotAgreed(needed)),
        }
    }
}
