//! The table of all commands.

use std::sync::OnceLock;

use hashbrown::HashMap;

use super::{Command, client, cluster, server, string, subscribe, transactions};

/// The rows of every family.
const FAMILIES: &[&[Command]] = &[
    client::COMMANDS,
    cluster::COMMANDS,
    server::COMMANDS,
    string::COMMANDS,
    subscribe::COMMANDS,
    transactions::COMMANDS,
];

/// Bytes of the longest name that is looked up: longer ones are unknown.
const NAME_BYTES_MAX: usize = 32;

type Index = HashMap<&'static [u8], &'static Command, foldhash::fast::FixedState>;

struct Indexes {
    top: Index,
    children: HashMap<(&'static str, &'static [u8]), &'static Command, foldhash::fast::FixedState>,
}

fn indexes() -> &'static Indexes {
    static INDEXES: OnceLock<Indexes> = OnceLock::new();
    INDEXES.get_or_init(|| {
        let mut indexes = Indexes { top: Index::default(), children: HashMap::default() };
        for command in rows() {
            let name = command.name.as_bytes();
            let twice = match command.parent {
                None => indexes.top.insert(name, command),
                Some(parent) => indexes.children.insert((parent, name), command),
            };
            assert!(twice.is_none(), "two rows are named '{}'", command.full_name());
        }
        indexes
    })
}

/// All rows, subcommands included.
pub fn rows() -> impl Iterator<Item = &'static Command> {
    FAMILIES.iter().copied().flatten()
}

/// `name` in lower case, in place.
fn lower<'a>(name: &[u8], buffer: &'a mut [u8; NAME_BYTES_MAX]) -> Option<&'a [u8]> {
    let lower = buffer.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    Some(lower)
}

/// The command of this name, in any case.
pub fn find(name: &[u8]) -> Option<&'static Command> {
    indexes().top.get(lower(name, &mut [0; NAME_BYTES_MAX])?).copied()
}

/// The subcommand of a container.
pub fn find_child(parent: &'static str, name: &[u8]) -> Option<&'static Command> {
    let mut buffer = [0; NAME_BYTES_MAX];
    let name = lower(name, &mut buffer)?;
    let known = indexes().children.iter();
    known
        .filter(|((container, _), _)| *container == parent)
        .find(|((_, child), _)| *child == name)
        .map(|(_, command)| *command)
}
