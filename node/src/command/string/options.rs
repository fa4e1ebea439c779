//! The options of `SET`, `GETEX` and `MSETEX`: on what condition, and until when.

use super::{
    super::{
        CommandError,
        arguments::{TimeUnit, deadline, integer, is, time_option},
    },
    conditional::Comparison,
};
use crate::keyspace::Tx;

/// When `SET` sets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Condition<'a> {
    /// `NX`
    Absent,
    /// `XX`
    Present,
    /// `IFEQ` and its like
    Compared(Comparison<'a>),
}

/// What becomes of the deadline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expiry<'a> {
    /// `KEEPTTL`
    Keep,
    /// `PERSIST`
    Clear,
    /// `EX`, `PX`, `EXAT`, `PXAT` with its number, which is read only when all
    /// words are known to be in order.
    Time { unit: TimeUnit, relative: bool, number: &'a [u8] },
}

/// Whose options are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `SET`
    Set,
    /// `GETEX`
    GetEx,
    /// `MSETEX`
    MSetEx,
}

/// The options of `SET`, `GETEX` and `MSETEX`.
#[derive(Clone, Copy, Default)]
pub struct Options<'a> {
    /// When it sets.
    pub condition: Option<Condition<'a>>,
    /// What becomes of the deadline; `None`: there is none any more.
    pub expiry: Option<Expiry<'a>>,
    /// `GET`
    pub get: bool,
}

impl<'a> Options<'a> {
    /// Options that exclude each other are an error; one given twice is not, and
    /// the last counts.
    ///
    /// # Errors
    /// A word is none of `form`, or excludes another.
    pub fn read(words: &[&'a [u8]], form: Form) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if form != Form::GetEx && options.read_presence(word) || form == Form::Set && is(word, "get") {
                options.get |= is(word, "get");
                continue;
            }
            if form == Form::Set && Comparison::is_one(word) {
                let other = words.next().ok_or(CommandError::Syntax)?;
                let comparison = Comparison::read(word, other).ok_or(CommandError::Syntax)?;
                match options.condition.replace(Condition::Compared(comparison)) {
                    None => continue,
                    Some(_) => return Err(CommandError::Syntax),
                }
            }
            let expiry = match time_option(word) {
                Some((unit, relative)) => {
                    Expiry::Time { unit, relative, number: words.next().ok_or(CommandError::Syntax)? }
                }
                None if form != Form::GetEx && is(word, "keepttl") => Expiry::Keep,
                None if form == Form::GetEx && is(word, "persist") => Expiry::Clear,
                None => return Err(CommandError::Syntax),
            };
            if options.expiry.is_some_and(|other| !other.is_same_option(expiry)) {
                return Err(CommandError::Syntax);
            }
            options.expiry = Some(expiry);
        }
        Ok(options)
    }

    /// Takes an option that tells whether the key must be there. Returns whether it is one that may stand here.
    fn read_presence(&mut self, word: &[u8]) -> bool {
        let condition = match () {
            () if is(word, "nx") => Condition::Absent,
            () if is(word, "xx") => Condition::Present,
            () => return false,
        };
        *self.condition.get_or_insert(condition) == condition
    }

    /// What deadline a key gets; `command` is named in the error.
    ///
    /// # Errors
    /// The time is none.
    pub fn deadline(&self, tx: &Tx, command: &'static str) -> Result<Deadline, CommandError> {
        Ok(match self.expiry {
            None | Some(Expiry::Clear) => Deadline::Is(None),
            Some(Expiry::Keep) => Deadline::Stays,
            Some(Expiry::Time { unit, relative, number }) => {
                Deadline::Is(Some(moment(tx, unit, relative, number, command)?))
            }
        })
    }
}

/// What deadline a key gets.
#[derive(Clone, Copy)]
pub enum Deadline {
    /// This one, or none.
    Is(Option<u64>),
    /// That which it has.
    Stays,
}

impl Deadline {
    /// Whether it is set anew.
    pub const fn is_new(self) -> bool {
        matches!(self, Deadline::Is(Some(_)))
    }

    /// The deadline of this key from now on.
    pub fn of(self, tx: &Tx, key: &[u8]) -> Option<u64> {
        match self {
            Deadline::Is(at) => at,
            Deadline::Stays => tx.deadline(key),
        }
    }
}

impl Expiry<'_> {
    fn is_same_option(self, other: Expiry<'_>) -> bool {
        match (self, other) {
            (
                Expiry::Time { unit, relative, .. },
                Expiry::Time { unit: other_unit, relative: other_relative, .. },
            ) => (unit, relative) == (other_unit, other_relative),
            _ => self == other,
        }
    }
}

/// The deadline that a time stands for. A relative time becomes a moment here;
/// replicas do no arithmetic.
///
/// # Errors
/// It is none, or not positive.
pub fn moment(
    tx: &Tx,
    unit: TimeUnit,
    relative: bool,
    number: &[u8],
    command: &'static str,
) -> Result<u64, CommandError> {
    if integer(number)? <= 0 {
        return Err(CommandError::InvalidExpire(command));
    }
    let at = deadline(number, unit, relative.then(|| tx.now_ms()), command)?;
    u64::try_from(at).map_err(|_| CommandError::InvalidExpire(command))
}
