//! What a command or a script needs that the node may lack.

use super::Core;
use crate::{
    command::{Command, CommandError, Flag, Request, Run},
    script::Flags,
};

/// How much room the disk has for what clients write. Every change is an entry of the log first, also one that
/// removes; but what is removed is not in the next snapshot, and the log before that goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DiskRoom {
    /// For everything.
    #[default]
    Enough,
    /// Only for what makes the data smaller or leaves its size.
    Short,
    /// For no write of a client: the rest is for what is committed already.
    Last,
}

/// What the node has.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    /// Memory is short.
    pub out_of_memory: bool,
    /// Of the disk.
    pub disk: DiskRoom,
}

/// What a command or a script needs that the node may lack.
#[derive(Clone, Copy, Default)]
pub(super) struct Needs {
    /// It may write.
    pub writes: bool,
    /// It may take more memory and disk.
    pub grows: bool,
    /// It runs however much memory is taken: a script with `allow-oom`.
    pub ignores_memory: bool,
}

impl Needs {
    /// Of a command. What a script will do is not known of the command that runs it.
    pub fn of(command: &Command) -> Self {
        let grows = command.has(Flag::DenyOom);
        Self { writes: command.changes_data(), grows, ignores_memory: false }
    }

    /// Of a script that declares flags.
    pub const fn of_script(flags: Flags) -> Self {
        Self { writes: !flags.no_writes, grows: !flags.no_writes, ignores_memory: flags.allow_oom }
    }

    /// Refuses what must not run now: it would take memory or disk that the node lacks.
    pub fn check(self, room: Room) -> Result<(), CommandError> {
        if self.grows && !self.ignores_memory && room.out_of_memory {
            return Err(CommandError::text("OOM command not allowed when used memory > 'maxmemory'."));
        }
        match room.disk {
            DiskRoom::Short if self.grows => Err(SHORT_OF_DISK),
            DiskRoom::Last if self.writes => Err(SHORT_OF_DISK),
            _ => Ok(()),
        }
    }
}

impl Core {
    /// What a request of a block needs: of a script that declares nothing, all that it may do.
    pub(super) fn needs_of_queued(&self, request: &Request<'_>) -> Needs {
        let Run::Eval(eval) = request.command.run else { return Needs::of(request.command) };
        let undeclared = Flags { no_writes: eval.read_only, ..Flags::default() };
        Needs::of_script(self.declared_flags(request).unwrap_or(undeclared))
    }
}

/// What is answered while less than `min-free-disk` is free.
const SHORT_OF_DISK: CommandError = CommandError::text(
    "MISCONF Moonraft is short of disk space: less than 'min-free-disk' is free on this node. Commands that may grow the data set are disabled until there is space again, and all writes when next to none is left.",
);

/// What is answered to who would write at a follower.
pub(super) const READ_ONLY: CommandError =
    CommandError::text("READONLY You can't write against a read only replica.");
