//! What happens when the disk fails: the process ends, with one line that names the file.
//!
//! Nothing is tried again. After a failed fsync the system may have dropped what it could not write and call the
//! next fsync a success, so whoever retries acknowledges what is nowhere (Rebello et al., "Can Applications Recover
//! from fsync Failures?", 2020).
//!
//! A failure is a panic, since that is how raft-engine tells of a failed fsync. The shell's panic hook asks
//! [`disk_failure_of`] and ends the process before anything unwinds: no thread learns of the write, so none
//! acknowledges what depends on it.
//!
//! Entries that are lost ([`entries_lost`]) end it in the same way: the line tells of them, and whoever started the
//! process knows the way out. So does what a replica cannot make sense of ([`cannot_go_on`]).

use std::any::Any;
use std::cell::RefCell;
use std::path::{Path, PathBuf};

/// What [`disk_failed`] panics with: the line for the user.
#[derive(Clone, Debug)]
pub struct DiskFailure(pub String);

thread_local! {
    /// The file of the log that this thread is writing.
    static WRITING: RefCell<Option<PathBuf>> = const { RefCell::new(None) };
}

/// The node cannot go on: its disk has failed.
#[track_caller]
pub fn disk_failed(line: String) -> ! {
    std::panic::panic_any(DiskFailure(line))
}

/// What [`entries_lost`] panics with: the line for the user.
#[derive(Clone, Debug)]
pub struct EntriesLost(pub String);

/// The node cannot go on: it once had what it has no more.
#[track_caller]
pub fn entries_lost(line: String) -> ! {
    std::panic::panic_any(EntriesLost(line))
}

/// The line for the user, if a panic with this payload is about entries that are lost.
pub fn entries_lost_of(payload: &(dyn Any + Send)) -> Option<String> {
    payload.downcast_ref().map(|EntriesLost(line)| line.clone())
}

/// What [`cannot_go_on`] panics with: the line for the user.
#[derive(Clone, Debug)]
pub struct CannotGoOn(pub String);

/// The node cannot go on: what it was handed, by its log or by its peers, makes no sense.
#[track_caller]
pub fn cannot_go_on(line: String) -> ! {
    std::panic::panic_any(CannotGoOn(line))
}

/// The line for the user, if a panic with this payload is of [`cannot_go_on`].
pub fn cannot_go_on_of(payload: &(dyn Any + Send)) -> Option<String> {
    payload.downcast_ref().map(|CannotGoOn(line)| format!("{line}; this node cannot go on"))
}

/// Notes which file this thread writes until the guard goes: the engine's own panics do not name it.
pub(super) fn writing(file: &Path) -> Writing {
    WRITING.with(|writing| *writing.borrow_mut() = Some(file.to_owned()));
    Writing
}

/// See [`writing`].
pub(super) struct Writing;

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.with(|writing| *writing.borrow_mut() = None);
    }
}

/// The line for the user, if a panic of this thread with this payload is about the disk.
pub fn disk_failure_of(payload: &(dyn Any + Send)) -> Option<String> {
    if let Some(DiskFailure(line)) = payload.downcast_ref() {
        return Some(line.clone());
    }
    let file = WRITING.with(|writing| writing.borrow().clone())?;
    Some(format!("{} cannot be written: {}", file.display(), said(payload)))
}

/// What a panic said.
pub fn said(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

/// Whether what failed was no disk: the system had no descriptor for a file. Shares of the listeners keep some for
/// the disk (`server::descriptors`), so another process, or a limit that was lowered, has taken them.
pub fn lacks_descriptors(line: &str) -> bool {
    line.contains("Too many open files")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_the_engine_is_told_with_the_file_it_wrote() {
        let payload: Box<dyn Any + Send> = Box::new("EIO".to_owned());
        assert_eq!(disk_failure_of(&*payload), None, "this thread writes nothing");
        let guard = writing(Path::new("/data/log/0000000000000001.raftlog"));
        let line = disk_failure_of(&*payload).unwrap();
        assert_eq!(line, "/data/log/0000000000000001.raftlog cannot be written: EIO");
        drop(guard);
        assert_eq!(disk_failure_of(&*payload), None);
        let own: Box<dyn Any + Send> = Box::new(DiskFailure("a line".to_owned()));
        assert_eq!(disk_failure_of(&*own).unwrap(), "a line");
    }

    #[test]
    fn a_lack_of_descriptors_is_told_from_a_failed_disk() {
        for code in [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE] {
            let error = std::io::Error::from(code);
            // As the system's text, and as the engine panics with it.
            let told =
                [format!("a.raftlog cannot be written: {error}"), format!("b cannot be written: {error:?}")];
            assert_eq!(told.map(|line| lacks_descriptors(&line)), [true; 2], "{error:?}");
        }
        let broken = std::io::Error::from(rustix::io::Errno::IO);
        assert!(!lacks_descriptors(&format!("a.raftlog cannot be written: {broken}")));
    }
}
