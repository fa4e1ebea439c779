//! How far apart the questions to the host are.
//!
//! The instruction hook counts instructions, and [`super::state::RunState::charge`]
//! bytes and steps; neither knows what one of them costs: comparing two texts of
//! 30 MB is one instruction of half a second. So the distance shrinks with what
//! one instruction may cost, and with what the last ones did cost:
//!
//! * with the longest text that a library function has made or been given: a text
//!   that grows by pieces of `n` bytes makes about `i * i * n` bytes of garbage in
//!   `i` instructions, so the distance goes with the root of `n`;
//! * with the memory that is held, since no text is longer;
//! * with how long the last stretch took, and how much memory it took.
//!
//! The first two hold for the rest of the run: a script may prepare large texts,
//! go on with cheap work, and come back to them.

/// Instructions between two questions where each is cheap: about 5 us. A question
/// costs about 0.1 us.
const INSTRUCTIONS: u32 = 1_000;
/// Bytes touched, or steps made, outside of instructions: under 1 ms.
pub(super) const WORK: usize = 1 << 20;
/// Each level halves both; at the last one every instruction is asked for.
const LEVEL_MAX: u32 = 10;
/// A stretch that takes longer was too long: a tenth of what another client notices.
const STRETCH_NS: u64 = 1_000_000;
/// A stretch that adds more to memory was too long: the collector must come in time.
const GROWTH: usize = 4 << 20;
/// A text of this length is as cheap as any other value; four times as long, one level more.
const TEXT: usize = 100;
/// Memory from which instructions may cost more than a few microseconds.
const HELD: usize = 8 << 20;
/// The level there; for twice the memory one more.
const HELD_LEVEL: u32 = 3;

/// The distance between questions, as the power of two by which it is divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Pace {
    level: u32,
    /// What the longest text asks for.
    for_text: u32,
    /// What the memory asks for.
    for_held: u32,
}

impl Pace {
    /// Instructions until the next question.
    pub fn instructions(self) -> u32 {
        (INSTRUCTIONS >> self.level).max(1)
    }

    /// Work until the next question.
    pub fn work(self) -> usize {
        WORK >> self.level
    }

    /// A library function has made, or works on, so many bytes at once.
    pub fn text(mut self, bytes: usize) -> Self {
        self.for_text = self.for_text.max((bytes / TEXT).max(1).ilog2() / 2).min(LEVEL_MAX);
        self.level = self.level.max(self.for_text);
        self
    }

    /// A stretch is over: how long it took, what it added to memory, and what is held now.
    pub fn stretch(mut self, took_ns: u64, grown: usize, held: usize) -> Self {
        self.for_held = match (held / HELD).checked_ilog2() {
            Some(doubled) => (HELD_LEVEL + doubled).min(LEVEL_MAX),
            None => 0,
        };
        let too_long = (took_ns / STRETCH_NS).max((grown / GROWTH) as u64);
        self.level = match too_long.checked_ilog2() {
            Some(halvings) => (self.level + halvings.max(1)).min(LEVEL_MAX),
            None if took_ns < STRETCH_NS / 4 => self.level.saturating_sub(1),
            None => self.level,
        };
        self.level = self.level.max(self.for_text).max(self.for_held);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn cheap_work_is_asked_seldom() {
        let pace = Pace::default().text(50).stretch(5_000, 1 << 10, 1 << 20);
        assert_eq!((pace.instructions(), pace.work()), (1_000, WORK));
    }

    #[test]
    fn slow_instructions_are_asked_for_one_by_one_and_fast_ones_again_seldom() {
        let slow = Pace::default().stretch(1_000 * MS, 0, 0);
        assert_eq!(slow.instructions(), 1_000 >> 9);
        assert_eq!(slow.stretch(10 * MS, 0, 0).instructions(), 1);
        let again = (0..10).fold(slow, |pace, _| pace.stretch(1_000, 0, 0));
        assert_eq!(again, Pace::default());
    }

    #[test]
    fn long_texts_are_not_forgotten() {
        let pace = Pace::default().text(30_000_000);
        assert!(pace.instructions() <= 2, "{pace:?}");
        let pace = (0..100).fold(pace.text(10), |pace, _| pace.stretch(0, 0, 0));
        assert!(pace.instructions() <= 2, "{pace:?}");
        let appended = Pace::default().text(10_000).instructions() as usize / 4;
        assert!(appended * appended * 10_000 / 2 < 16 << 20, "garbage of one stretch: {appended} pieces");
    }

    #[test]
    fn much_memory_is_watched_closely() {
        let pace = Pace::default().stretch(0, 0, 128 << 20);
        assert_eq!(pace.instructions(), 7);
        assert_eq!(pace.stretch(0, 0, 0).instructions(), 15, "what is given back is forgotten step by step");
        assert!(Pace::default().stretch(0, 64 << 20, 0).instructions() < 100, "growth counts, too");
    }

    #[test]
    fn there_is_always_a_next_question() {
        let pace = Pace::default().text(usize::MAX).stretch(u64::MAX, usize::MAX, usize::MAX);
        assert_eq!(pace.instructions(), 1);
        assert!(pace.work() > 0);
    }
}
