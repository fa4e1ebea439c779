//! The scripts a shard knows, by the SHA-1 of their text. They are replicated
//! state: a script that was loaded is known on every leader to come.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Seed;
pub use crate::script::sha1_hex as sha1;

/// 40 lower-case hexadecimal digits.
pub type Sha1 = [u8; 40];

/// The known scripts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scripts {
    texts: HashMap<Sha1, Arc<[u8]>, Seed>,
    /// Bytes of all texts.
    bytes: usize,
}

impl Scripts {
    /// The text of a script; its name may be in upper case.
    pub fn get(&self, name: &[u8]) -> Option<&Arc<[u8]>> {
        let name: Sha1 = name.to_ascii_lowercase().try_into().ok()?;
        self.texts.get(&name)
    }

    /// Adds a script. Returns its name if it is new.
    pub fn load(&mut self, text: &[u8]) -> Option<Sha1> {
        let name = sha1(text);
        if self.texts.contains_key(&name) {
            return None;
        }
        self.bytes += text.len();
        self.texts.insert(name, text.into());
        Some(name)
    }

    /// Takes a script away.
    pub fn unload(&mut self, name: &Sha1) {
        if let Some(text) = self.texts.remove(name) {
            self.bytes -= text.len();
        }
    }

    /// All texts.
    pub fn iter(&self) -> impl Iterator<Item = (&Sha1, &Arc<[u8]>)> {
        self.texts.iter()
    }

    /// How many scripts.
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    /// Bytes of all texts.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}
