//! A stream with a group: what is added stays and is in order, each entry is delivered once and acknowledged once, and
//! what was delivered and not acknowledged is pending.

use std::collections::{BTreeMap, BTreeSet};

/// An id as a pair of numbers, and the number that the entry holds.
pub type Entry = ((u64, u64), u64);

/// What is done with a stream and its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// An entry with this number is added.
    Add(u64),
    /// What is new is given to a consumer.
    Read,
    /// Something pending is claimed by another and acknowledged, in a script.
    Finish,
    /// All entries and all that is pending are read.
    Look,
}

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The entry that was added, delivered or acknowledged; `None` if there was none.
    Entry(Option<Entry>),
    /// All entries, and the ids of those that are pending.
    All(Vec<Entry>, Vec<(u64, u64)>),
}

/// One request, and what came of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The stream.
    pub stream: u32,
    /// What was asked.
    pub ask: Ask,
    /// When, nanoseconds of true time.
    pub called: u64,
    /// When it was answered; `u64::MAX` if it never was: it may have been done.
    pub returned: u64,
    /// What was answered.
    pub told: Option<Told>,
}

impl Asked {
    fn entry(&self) -> Option<Entry> {
        match self.told {
            Some(Told::Entry(entry)) => entry,
            _ => None,
        }
    }
}

/// Checks all that was asked of streams.
///
/// # Errors
/// What is wrong, for a reader.
pub fn check(asked: &[Asked]) -> Result<(), String> {
    let mut by_stream: BTreeMap<u32, Vec<&Asked>> = BTreeMap::new();
    asked.iter().for_each(|one| by_stream.entry(one.stream).or_default().push(one));
    by_stream.values().try_for_each(|all| check_one(all))
}

fn check_one(all: &[&Asked]) -> Result<(), String> {
    let of = |kind: fn(&Ask) -> bool| all.iter().copied().filter(move |one| kind(&one.ask));
    let added: Vec<_> = of(|ask| matches!(ask, Ask::Add(_))).collect();
    let read: Vec<_> = of(|ask| *ask == Ask::Read).collect();
    let finished: Vec<_> = of(|ask| *ask == Ask::Finish).collect();
    for (what, asked) in [("added", &added), ("delivered", &read), ("acknowledged", &finished)] {
        let mut ids = BTreeSet::new();
        if let Some(one) = asked.iter().find(|one| one.entry().is_some_and(|(id, _)| !ids.insert(id))) {
            return Err(format!("an entry was {what} twice: {one:?}"));
        }
    }
    for asked in [&added, &read] {
        check_order(asked)?;
    }
    let looks = of(|ask| *ask == Ask::Look);
    looks.into_iter().try_for_each(|look| check_look(look, &added, &read, &finished))
}

/// Of two requests, one after the other, the second gets the later id.
fn check_order(asked: &[&Asked]) -> Result<(), String> {
    for one in asked {
        let Some((id, _)) = one.entry() else { continue };
        let before = asked.iter().filter(|other| other.returned < one.called);
        if let Some(other) =
            before.into_iter().find(|other| other.entry().is_some_and(|(other, _)| other >= id))
        {
            return Err(format!("ids do not rise: {other:?}, then {one:?}"));
        }
    }
    Ok(())
}

fn check_look(look: &Asked, added: &[&Asked], read: &[&Asked], finished: &[&Asked]) -> Result<(), String> {
    let Some(Told::All(entries, pending)) = &look.told else { return Ok(()) };
    let wrong = |what: &str, about: &dyn std::fmt::Debug| Err(format!("{what}: {about:?} in {look:?}"));
    if !entries.is_sorted_by(|(one, _), (other, _)| one < other) {
        return wrong("ids do not rise", entries);
    }
    let there: BTreeMap<_, _> = entries.iter().copied().collect();
    let numbers: BTreeSet<u64> = there.values().copied().collect();
    if numbers.len() < entries.len() {
        return wrong("an entry is there twice", entries);
    }
    let before = |one: &&&Asked| one.returned < look.called;
    let may_be = |number| added.iter().any(|one| one.ask == Ask::Add(number) && one.called < look.returned);
    if let Some(number) = numbers.iter().find(|number| !may_be(**number)) {
        return wrong("nobody added it, or it was refused", number);
    }
    for one in added.iter().chain(read).chain(finished).filter(before) {
        if let Some((id, number)) = one.entry()
            && there.get(&id) != Some(&number)
        {
            return wrong("an entry is lost", one);
        }
    }
    if let Some(id) = pending.iter().find(|id| !there.contains_key(id)) {
        return wrong("what is pending is not there", id);
    }
    let pending: BTreeSet<_> = pending.iter().copied().collect();
    let is_pending = |one: &&&Asked| one.entry().is_some_and(|(id, _)| pending.contains(&id));
    if let Some(one) = finished.iter().filter(before).find(is_pending) {
        return wrong("an acknowledgement is lost", one);
    }
    for one in read.iter().filter(before) {
        let Some((id, _)) = one.entry() else { continue };
        let may_have = |other: &&&Asked| {
            other.called < look.returned
                && other.told.as_ref().is_none_or(|_| other.entry().is_some_and(|it| it.0 == id))
        };
        if !pending.contains(&id) && !finished.iter().any(|other| may_have(&other)) {
            return wrong("a delivery is lost", one);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(ask: Ask, called: u64, entry: Option<Entry>) -> Asked {
        Asked { stream: 0, ask, called, returned: called + 5, told: Some(Told::Entry(entry)) }
    }

    fn look(called: u64, entries: &[Entry], pending: &[(u64, u64)]) -> Asked {
        let told = Some(Told::All(entries.to_vec(), pending.to_vec()));
        Asked { stream: 0, ask: Ask::Look, called, returned: called + 5, told }
    }

    const ONE: Entry = ((10, 0), 1);
    const TWO: Entry = ((10, 1), 2);

    /// Two entries, of which one is delivered and acknowledged, and the other delivered.
    fn history() -> Vec<Asked> {
        vec![
            asked(Ask::Add(1), 0, Some(ONE)),
            asked(Ask::Add(2), 10, Some(TWO)),
            asked(Ask::Read, 20, Some(ONE)),
            asked(Ask::Read, 30, Some(TWO)),
            asked(Ask::Finish, 40, Some(ONE)),
            asked(Ask::Finish, 50, None),
        ]
    }

    fn is_wrong(change: impl FnOnce(&mut Vec<Asked>)) -> bool {
        let mut history = history();
        change(&mut history);
        check(&history).is_err()
    }

    #[test]
    fn a_history_that_keeps_the_promises_passes() {
        assert!(!is_wrong(|all| all.push(look(60, &[ONE, TWO], &[TWO.0]))));
        // Nobody knows what an unanswered request did.
        assert!(!is_wrong(|all| {
            all.push(Asked { returned: u64::MAX, told: None, ..asked(Ask::Finish, 55, None) });
            all.push(look(60, &[ONE, TWO], &[]));
        }));
    }

    #[test]
    fn what_is_lost_doubled_or_out_of_order_is_found() {
        assert!(is_wrong(|all| all.push(look(60, &[ONE], &[]))), "an entry is lost");
        assert!(is_wrong(|all| all.push(look(60, &[TWO, ONE], &[TWO.0]))), "out of order");
        assert!(is_wrong(|all| all.push(look(60, &[ONE, TWO, ((10, 2), 9)], &[TWO.0]))), "made up");
        assert!(is_wrong(|all| all.push(look(60, &[ONE, TWO], &[]))), "a delivery is lost");
        assert!(is_wrong(|all| all.push(look(60, &[ONE, TWO], &[ONE.0, TWO.0]))), "acknowledged and pending");
        assert!(is_wrong(|all| all.push(asked(Ask::Read, 60, Some(ONE)))), "delivered twice");
        assert!(is_wrong(|all| all.push(asked(Ask::Finish, 60, Some(ONE)))), "acknowledged twice");
        assert!(is_wrong(|all| all.push(asked(Ask::Add(3), 60, Some(((9, 0), 3))))), "an id that falls");
    }
}
