//! A digest of a keyspace: equal on replicas that hold equal data.
//!
//! Each entry is hashed by itself, elements of unordered containers sorted, and
//! the hashes are combined by exclusive or, so that no table's order shows.
//! Deadlines, owned slots, scripts, libraries and the format count too.

use moonraft_proto::Effect;

use super::{Entry, Keyspace, Object, Value, dump::dump_object};

impl Keyspace {
    /// The digest, as 40 hexadecimal digits; all zeros if there are no keys.
    pub fn digest(&self) -> String {
        let mut all = [0_u8; 20];
        for entry in self.entries() {
            combine(&mut all, &entry_digest(entry));
        }
        hex(&all)
    }

    /// The digest of the rest of the state, slots, scripts, libraries and format, for comparing
    /// replicas in full.
    pub fn shared_digest(&self) -> String {
        let mut all = [0_u8; 20];
        self.dump_shared(&mut |effect| combine(&mut all, &effect_digest(effect)));
        hex(&all)
    }
}

/// The digest of one key and what it holds, as 20 bytes.
pub fn entry_digest(entry: &Entry) -> [u8; 20] {
    entry_digest_of(&entry.key, &entry.object)
}

/// The digest of `key`, were it to hold this.
pub fn entry_digest_of(key: &[u8], object: &Object) -> [u8; 20] {
    let ordered = matches!(object.value, Value::List(_) | Value::Str(_) | Value::Stream(_));
    let mut parts = Vec::new();
    dump_object(key, object, &mut |effect| parts.push(effect_digest(effect)));
    if !ordered {
        parts.sort_unstable();
    }
    let mut sha = sha1_smol::Sha1::new();
    parts.iter().for_each(|part| sha.update(part));
    sha.digest().bytes()
}

fn effect_digest(effect: &Effect<'_>) -> [u8; 20] {
    let mut bytes = Vec::new();
    effect.encode(None, &mut bytes);
    sha1_smol::Sha1::from(&bytes).digest().bytes()
}

fn combine(all: &mut [u8; 20], part: &[u8; 20]) {
    all.iter_mut().zip(part).for_each(|(byte, other)| *byte ^= other);
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
