//! Streams and their groups.

mod add;
mod claim;
mod group;
mod id;
mod info;
mod pending;
mod read;
mod reply;
mod rows;
#[cfg(test)]
mod tests;
mod work;

pub use self::rows::COMMANDS;
