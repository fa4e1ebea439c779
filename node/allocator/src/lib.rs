//! The allocator: mimalloc, and how many bytes are taken of it.
//!
//! `maxmemory` is about what is stored. What the process has resident says something else: pages of
//! what was removed stay for minutes, and reading the figure costs a system call. So each
//! thread counts what it takes and gives back, and adds that to a common count when it is
//! `SETTLED_BYTES` or more: the count is off by less than that a thread, and a thread always
//! sees its own. A thread that ends adds the rest ([`settle`]).
//!
//! This is the only crate with `unsafe`, which the trait of an allocator asks for. Each of its functions
//! hands its arguments to mimalloc as they came.

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    sync::atomic::{AtomicIsize, Ordering},
};

use mimalloc::MiMalloc;

/// Bytes that a thread counts on its own.
const SETTLED_BYTES: usize = 64 << 10;

static SETTLED: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    // Made at compile time and with nothing to drop: using it allocates nothing.
    static OPEN: Cell<isize> = const { Cell::new(0) };
}

/// mimalloc, which counts.
pub struct Counting;

/// Bytes that are taken, as they were asked for. 0 in a process that has another allocator.
pub fn taken() -> u64 {
    let open = OPEN.try_with(Cell::get).unwrap_or(0);
    u64::try_from(SETTLED.load(Ordering::Relaxed) + open).unwrap_or(0)
}

/// Adds what this thread has counted on its own to the common count: to be called when it is about to end. Or the
/// count would be off a little more with every thread that comes and goes.
pub fn settle() {
    let _ = OPEN.try_with(|open| SETTLED.fetch_add(open.take(), Ordering::Relaxed));
}

#[inline]
fn count(bytes: isize) {
    let _ = OPEN.try_with(|open| {
        let sum = open.get() + bytes;
        if sum.unsigned_abs() < SETTLED_BYTES {
            open.set(sum);
        } else {
            open.set(0);
            SETTLED.fetch_add(sum, Ordering::Relaxed);
        }
    });
}

// SAFETY: every function does what mimalloc's does, with the same arguments; counting neither allocates nor panics.
// A layout's size is never above `isize::MAX`.
unsafe impl GlobalAlloc for Counting {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are the ones that mimalloc asks for.
        let memory = unsafe { MiMalloc.alloc(layout) };
        if !memory.is_null() {
            count(layout.size() as isize);
        }
        memory
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        let memory = unsafe { MiMalloc.alloc_zeroed(layout) };
        if !memory.is_null() {
            count(layout.size() as isize);
        }
        memory
    }

    #[inline]
    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { MiMalloc.dealloc(memory, layout) };
        count(-(layout.size() as isize));
    }

    #[inline]
    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as above.
        let moved = unsafe { MiMalloc.realloc(memory, layout, size) };
        if !moved.is_null() {
            count(size as isize - layout.size() as isize);
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    /// The count is the process's: one test at a time looks at it.
    static ALONE: Mutex<()> = Mutex::new(());

    /// More than all threads of the tests count on their own.
    const LARGE: usize = 64 << 20;

    #[test]
    fn what_is_taken_is_counted_whoever_gives_it_back() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let before = taken();
        let large = vec![1_u8; LARGE];
        assert!(taken() >= before + LARGE as u64);
        std::thread::scope(|scope| drop(scope.spawn(move || drop(large))));
        assert!(taken() < before + LARGE as u64 / 2);
        let mut growing = vec![0_u8; LARGE];
        growing.reserve_exact(LARGE);
        assert!(taken() >= before + 2 * LARGE as u64);
        growing.truncate(1);
        growing.shrink_to_fit();
        assert!(taken() < before + LARGE as u64 / 2);
        // Little by little, too.
        let small: Vec<Box<[u8; 64]>> = (0..LARGE / 64).map(|_| Box::new([0; 64])).collect();
        assert!(taken() >= before + LARGE as u64);
        drop(small);
        assert!(taken() < before + LARGE as u64 / 2);
    }

    #[test]
    fn what_threads_count_on_their_own_is_settled_when_they_end() {
        let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        const PIECE: usize = SETTLED_BYTES / 2;
        let before = taken();
        for _ in 0..LARGE / PIECE {
            let thread = || {
                let piece = vec![1_u8; PIECE];
                settle();
                piece
            };
            drop(std::thread::scope(|scope| scope.spawn(thread).join()));
        }
        assert!(taken() < before + LARGE as u64 / 2, "each was given back by this thread");
    }
}
