//! Skeleton.

pub mod script;
