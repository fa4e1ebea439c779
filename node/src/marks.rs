//! Marks on rare paths: how a simulation knows that it took them.
//!
//! [`reached`] counts, on its thread, that a path was taken. The simulator collects the counts
//! of each run, and its tests fail if a path that they are there for was never taken. In a
//! release build it is nothing.
//!
//! INVARIANT: nothing in the product reads a mark.

use std::{cell::RefCell, collections::BTreeMap};

/// How often each path was taken.
pub type Marks = BTreeMap<&'static str, u64>;

thread_local! {
    static REACHED: RefCell<Marks> = const { RefCell::new(BTreeMap::new()) };
}

/// The path of this name was taken.
#[inline]
pub fn reached(name: &'static str) {
    if cfg!(debug_assertions) {
        REACHED.with_borrow_mut(|marks| *marks.entry(name).or_default() += 1);
    }
}

/// What was reached on this thread since the last call.
pub fn take() -> Marks {
    REACHED.take()
}
