//! Skeleton.

pub mod consensus;
pub mod log;
