//! Keyspace notifications: a change of a key is told to who subscribes to `__keyspace@0__:key` or `__keyevent@0__:event`.
//!
//! What an event is called is the handler's to say ([`Tx::notify`]); what happens to a key whoever does it is told here
//! and by the transaction: that it is new, has expired, was evicted, or was looked for and is not there. An event is
//! a message of its unit like one that is published, so it leaves once the unit is committed, and is never heard of a change
//! that is taken back. As in Redis it is heard at the replica where it happened, by no other: followers
//! tell none of what they apply.
//!
//! While the setting is empty an event costs one comparison.
//!
//! Source: `notify.c` of Redis 7.2.

use bytes::Bytes;
use moonraft_proto::Effect;

use super::{
    Store, Tx,
    unit::{Audience, Publication},
};
use crate::keyspace::Blob;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Class {
    /// Keys whatever they hold: `del`, `expire`, `rename_from`, ….
    Generic = 1 << 0,
    /// Strings.
    String = 1 << 1,
    /// Lists.
    List = 1 << 2,
    /// Sets.
    Set = 1 << 3,
    /// Hashes.
    Hash = 1 << 4,
    /// Sorted sets.
    Sorted = 1 << 5,
    /// Keys whose time has come.
    Expired = 1 << 6,
    /// Keys that went because memory was short.
    Evicted = 1 << 7,
    /// Streams.
    Stream = 1 << 8,
    /// Of modules, which there are none of.
    Module = 1 << 9,
    /// Keys that were looked for and are not there.
    Missed = 1 << 10,
    /// Keys that were not there before.
    New = 1 << 11,
}

/// Which events are told, and at which channels: `notify-keyspace-events`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events(u16);

/// Told at `__keyspace@0__:key`.
const AT_KEY: u16 = 1 << 12;
/// Told at `__keyevent@0__:event`.
const AT_EVENT: u16 = 1 << 13;
/// All classes that `A` stands for: all but keys that are missed and keys that are new.
const ALL: u16 = (1 << 10) - 1;

/// The letters of the classes that `A` stands for are told first, in Redis's order; the last is not told beside `A`.
const LETTERS: &[(char, u16)] = &[
    ('g', Class::Generic as u16),
    ('$', Class::String as u16),
    ('l', Class::List as u16),
    ('s', Class::Set as u16),
    ('h', Class::Hash as u16),
    ('z', Class::Sorted as u16),
    ('x', Class::Expired as u16),
    ('e', Class::Evicted as u16),
    ('t', Class::Stream as u16),
    ('d', Class::Module as u16),
    ('n', Class::New as u16),
];

/// What is told behind them.
const OTHER_LETTERS: &[(char, u16)] = &[('K', AT_KEY), ('E', AT_EVENT), ('m', Class::Missed as u16)];

impl Events {
    /// The events that these letters stand for. `None`: one stands for nothing.
    pub fn parse(letters: &str) -> Option<Self> {
        let bits = |letter: char| match letter {
            'A' => Some(ALL),
            _ => {
                LETTERS.iter().chain(OTHER_LETTERS).find(|(known, _)| *known == letter).map(|(_, bits)| *bits)
            }
        };
        letters.chars().map(bits).try_fold(0, |all, bits| Some(all | bits?)).map(Self)
    }

    /// Whether events of this class are told at any channel.
    const fn tell(self, class: Class) -> bool {
        self.0 & class as u16 != 0 && self.0 & (AT_KEY | AT_EVENT) != 0
    }
}

/// The letters, as Redis shows them: beside `A` it does not say whether keys that are new are told.
impl std::fmt::Display for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let classes = match self.0 & ALL == ALL {
            true => &[('A', ALL)],
            false => LETTERS,
        };
        let told = classes.iter().chain(OTHER_LETTERS).filter(|(_, bits)| self.0 & bits == *bits);
        told.into_iter().try_for_each(|(letter, _)| write!(f, "{letter}"))
    }
}

impl Store {
    /// These events are told from now on.
    pub const fn set_events(&mut self, events: Events) {
        self.events = events;
    }

    /// Whether events of this class are told.
    pub(super) const fn tells(&self, class: Class) -> bool {
        self.events.tell(class)
    }

    /// Tells an event, at the key's channel and then at the event's.
    pub(super) fn tell(&self, event: &str, key: &[u8]) {
        let tell = |bit: u16, channel: &str, of: &[u8], message: Bytes| {
            if self.events.0 & bit != 0 {
                let channel = [channel.as_bytes(), of].concat().into();
                let message = Publication { channel, message, audience: Audience::Replica };
                self.unit.publications.borrow_mut().push(message);
            }
        };
        tell(AT_KEY, "__keyspace@0__:", key, Bytes::copy_from_slice(event.as_bytes()));
        tell(AT_EVENT, "__keyevent@0__:", event.as_bytes(), Bytes::copy_from_slice(key));
    }

    /// These keys are read by a command that writes: those that are not there are missed.
    pub fn tell_misses<'k>(&self, keys: impl IntoIterator<Item = &'k [u8]>) {
        if self.tells(Class::Missed) {
            keys.into_iter().filter(|key| !self.is_there(key)).for_each(|key| self.tell_missed(key));
        }
    }

    /// A key was looked for that is not there.
    pub(super) fn tell_missed(&self, key: &[u8]) {
        if self.tells(Class::Missed) {
            self.tell("keymiss", key);
        }
    }
}

impl Tx<'_> {
    /// What the next command removes, and makes again, it overwrites: that is not new.
    pub fn begin_command(&mut self) {
        self.store.unit.displaced.clear();
    }

    /// Something has happened to a key, and is told if it is wanted.
    pub fn notify(&self, class: Class, event: &str, key: &[u8]) {
        if self.tells(class) && self.listeners.is_none_or(|all| all.may_hear_events()) {
            self.tell(event, key);
        }
    }

    /// Something was taken from a key; another event tells if it has gone with its last element.
    pub fn notify_taken(&self, class: Class, event: &str, key: &[u8]) {
        self.notify(class, event, key);
        if self.tells(Class::Generic) && self.keyspace.get(key).is_none() {
            self.notify(Class::Generic, "del", key);
        }
    }

    /// A key was made to hold a result, or is gone as that is empty.
    pub fn notify_stored(&self, class: Class, event: &str, key: &[u8], was_there: bool) {
        if self.keyspace.get(key).is_some() {
            self.notify(class, event, key);
        } else if was_there {
            self.notify(Class::Generic, "del", key);
        }
    }

    /// Whether the key that an effect may bring is there. `None`: nobody asks.
    pub(super) fn is_brought_there(&self, effect: &Effect<'_>) -> Option<bool> {
        self.tells(Class::New).then(|| brought_key(effect).is_none_or(|key| self.keyspace.get(key).is_some()))
    }

    /// An effect was emitted: tells if a key is new.
    pub(super) fn tell_if_new(&mut self, effect: &Effect<'_>, was_there: bool) {
        match *effect {
            Effect::Remove { key } => self.store.unit.displaced.push(Blob::new(key)),
            // What they displace is removed first, as Redis does it.
            Effect::Rename { to, .. } | Effect::Copy { to, .. } => self.notify(Class::New, "new", to),
            _ => {
                let key = brought_key(effect).filter(|key| !was_there && self.keyspace.get(key).is_some());
                let Some(key) = key else { return };
                let displaced = &mut self.store.unit.displaced;
                match displaced.iter().position(|other| **other == *key) {
                    Some(at) => drop(displaced.swap_remove(at)),
                    None => self.notify(Class::New, "new", key),
                }
            }
        }
    }
}

/// The key that an effect may bring.
fn brought_key<'e>(effect: &Effect<'e>) -> Option<&'e [u8]> {
    match *effect {
        Effect::Rename { to, .. } | Effect::Copy { to, .. } => Some(to),
        _ => effect.key(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_shown_as_redis_shows_them() {
        let shown = |letters| Events::parse(letters).map(|events| events.to_string());
        let cases = [
            ("", ""),
            ("KEA", "AKE"),
            ("g$lshzxetdKE", "AKE"),
            ("EKn", "nKE"),
            ("KEAnm", "AKEm"),
            ("mEx", "xEm"),
            ("tttK", "tK"),
        ];
        for (given, expected) in cases {
            assert_eq!(shown(given).as_deref(), Some(expected), "{given}");
        }
        assert_eq!(shown("KEy"), None);
    }

    #[test]
    fn an_event_without_a_channel_is_told_to_nobody() {
        let tells = |letters| Events::parse(letters).expect("they are known").tell(Class::Generic);
        assert!(tells("Kg") && tells("EA"));
        assert!(!tells("gA") && !tells("K$"));
    }
}
