//! Entries of the log: what is read of one is what is read of it written anew, and that is no longer.

use moonraft_proto::{
    Effect,
    entry::{Batch, BatchWriter, Head, NEWEST_FORMAT},
};

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((batch, effects)) = read(bytes) else { return };
    let mut writer = BatchWriter::default();
    effects.iter().for_each(|effect| writer.push(effect));
    let again = writer.seal(Head { stamp_ms: batch.stamp_ms, sequence: batch.sequence }, NEWEST_FORMAT);
    assert!(again.len() <= bytes.len(), "{} bytes of {}", again.len(), bytes.len());

    let (read_again, effects_again) = read(&again).expect("it was just written");
    assert!(read_again.format <= batch.format, "no more is needed than was");
    assert_eq!((read_again.stamp_ms, read_again.sequence), (batch.stamp_ms, batch.sequence));
    // Compared as text: a score that is no number equals nothing.
    assert_eq!(format!("{effects_again:?}"), format!("{effects:?}"));
}

fn read(bytes: &[u8]) -> Option<(Batch<'_>, Vec<Effect<'_>>)> {
    let batch = Batch::decode(bytes).ok()?;
    let effects = batch.effects().collect::<Result<Vec<_>, _>>().ok()?;
    assert!(effects.len() <= bytes.len(), "each takes a byte at least");
    Some((batch, effects))
}
