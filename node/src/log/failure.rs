//! Why the process ends: the disk has failed, entries are lost, a newer build wrote something, or what a replica was
//! handed makes no sense. Each time with one line for the user.
//!
//! Nothing is tried again. After a failed fsync the system may have dropped what it could not write and call the
//! next fsync a success, so whoever retries acknowledges what is nowhere (Rebello et al., "Can Applications Recover
//! from fsync Failures?", 2020).
//!
//! An end is a panic with a [`Fatal`], since a panic is how raft-engine tells of a failed fsync. The shell's panic hook
//! asks [`Fatal::of`] and ends the process before anything unwinds: no thread learns of the write, so none
//! acknowledges what depends on it, and nothing is made of what cannot be read.

use std::any::Any;
use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;

thread_local! {
    /// The file of the log that this thread is writing.
    static WRITING: RefCell<Option<Arc<Path>>> = const { RefCell::new(None) };
}

/// Why the node cannot go on, with the line for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fatal {
    /// Its disk has failed.
    Disk(String),
    /// It once had what it has no more.
    Lost(String),
    /// A newer build wrote what it was handed.
    Newer(String),
    /// What it was handed, by its log or by its peers, makes no sense.
    Senseless(String),
}

impl Fatal {
    /// The node cannot go on.
    #[track_caller]
    pub fn stop(self) -> ! {
        std::panic::panic_any(self)
    }

    /// What a panic of this thread with this payload says of the node; `None`: it is a mistake of the program.
    pub fn of(payload: &(dyn Any + Send)) -> Option<Self> {
        if let Some(fatal) = payload.downcast_ref::<Self>() {
            return Some(fatal.clone());
        }
        let file = WRITING.with(|writing| writing.borrow().clone())?;
        Some(Self::Disk(format!("{} cannot be written: {}", file.display(), said(payload))))
    }

    /// The line for the user.
    pub fn line(&self) -> &str {
        match self {
            Self::Disk(line) | Self::Lost(line) | Self::Newer(line) | Self::Senseless(line) => line,
        }
    }
}

/// The node cannot go on: its disk has failed.
#[track_caller]
pub fn disk_failed(line: String) -> ! {
    Fatal::Disk(line).stop()
}

/// The node cannot go on: it once had what it has no more.
#[track_caller]
pub fn entries_lost(line: String) -> ! {
    Fatal::Lost(line).stop()
}

/// The node cannot go on: what it was handed, by its log or by its peers, makes no sense.
#[track_caller]
pub fn cannot_go_on(line: String) -> ! {
    Fatal::Senseless(line).stop()
}

/// Notes which file this thread writes until the guard goes: the engine's own panics do not name it.
pub(super) fn writing(file: Arc<Path>) -> Writing {
    WRITING.with(|writing| *writing.borrow_mut() = Some(file));
    Writing
}

/// See [`writing`].
pub(super) struct Writing;

impl Drop for Writing {
    fn drop(&mut self) {
        WRITING.with(|writing| *writing.borrow_mut() = None);
    }
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
        assert_eq!(Fatal::of(&*payload), None, "this thread writes nothing");
        let guard = writing(Path::new("/data/log/0000000000000001.raftlog").into());
        let line = "/data/log/0000000000000001.raftlog cannot be written: EIO".to_owned();
        assert_eq!(Fatal::of(&*payload), Some(Fatal::Disk(line)));
        let own: Box<dyn Any + Send> = Box::new(Fatal::Newer("a line".to_owned()));
        assert_eq!(Fatal::of(&*own), Some(Fatal::Newer("a line".to_owned())), "it knows better");
        drop(guard);
        assert_eq!(Fatal::of(&*payload), None);
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
