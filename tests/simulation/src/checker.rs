//! Is there an order of the operations that explains what clients were told?
//!
//! A history of one key is linearizable if each operation can be put at one point
//! between its call and its return so that, done one by one in that order on a
//! plain value, each gives the answer it gave. An operation that was never
//! answered may be put anywhere after its call, or nowhere.
//!
//! The search is Wing & Gong's with Lowe's memory: a set of operations already
//! placed together with the value they made is never tried twice.
//!
//! What spans keys is looked at by [`units`](crate::units).

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::history::{Action, Answer, Grant, History, Operation, TimeReading};

/// What a key holds in the plain model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
enum Model {
    #[default]
    Nothing,
    Register(u64),
    /// A register that is going to expire; when, is not ours to say: clocks differ.
    Fleeting(u64),
    List(Vec<u64>),
    Counter(i64),
}

/// Steps of the search before it is given up. A history that needs more is
/// counted as undecided, never as good.
const STEPS_MAX: usize = 5_000_000;

/// Checks a whole history. Returns for how many keys the search was given up.
///
/// # Errors
/// What is wrong, for a reader.
pub fn check(history: &History) -> Result<usize, String> {
    let mut undecided = 0;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, mut operations) in keys {
        operations.sort_by_key(|operation| operation.called);
        let spoiled = drop_unseen(&mut operations);
        match is_linearizable(&operations, spoiled) {
            Some(true) => {}
            Some(false) => return Err(format!("key {key} is not linearizable:\n{}", show(&operations))),
            None => undecided += 1,
        }
    }
    crate::units::check(history)?;
    crate::jobs::check(&history.jobs_added, &history.jobs_seen)?;
    crate::queues::check(&history.queues)?;
    crate::streams::check(&history.streams)?;
    check_times(&history.times)?;
    check_locks(&history.locks)?;
    Ok(undecided)
}

fn show(operations: &[&Operation]) -> String {
    let line = |operation: &&Operation| {
        let returned = match operation.returned {
            u64::MAX => "never".to_owned(),
            at => format!("{:.3}", at as f64 / 1e6),
        };
        let called = operation.called as f64 / 1e6;
        format!("  {called:.3} .. {returned} ms  {:?} -> {:?}\n", operation.action, operation.answer)
    };
    operations.iter().map(line).collect()
}

/// Nobody is given a lock in the time of another who was given it. When it was given is not known, only between which
/// two moments, nor which of two was first: it is wrong if it cannot have been right.
fn check_locks(locks: &[Grant]) -> Result<(), String> {
    let may_precede = |first: &Grant, second: &Grant| second.returned >= first.sent + first.life;
    let mut by_key: BTreeMap<&str, Vec<&Grant>> = BTreeMap::new();
    for grant in locks {
        by_key.entry(&grant.key).or_default().push(grant);
    }
    for mut grants in by_key.into_values() {
        grants.sort_by_key(|grant| grant.sent);
        for (at, one) in grants.iter().enumerate() {
            let other =
                grants[at + 1..].iter().find(|other| !may_precede(one, other) && !may_precede(other, one));
            if let Some(other) = other {
                return Err(format!("two had a lock at a time: {one:?} and {other:?}"));
            }
        }
    }
    Ok(())
}

/// A clock reading that was shown before another was asked for is not later.
fn check_times(times: &[TimeReading]) -> Result<(), String> {
    let mut by_call: Vec<&TimeReading> = times.iter().collect();
    let mut by_return = by_call.clone();
    by_call.sort_by_key(|reading| (reading.shard, reading.called));
    by_return.sort_by_key(|reading| (reading.shard, reading.returned));
    let mut ended = by_return.into_iter().peekable();
    let mut latest: Option<&TimeReading> = None;
    for later in by_call {
        while let Some(reading) =
            ended.next_if(|reading| (reading.shard, reading.returned) < (later.shard, later.called))
        {
            let newer = |latest: &TimeReading| latest.shard == reading.shard && latest.shown >= reading.shown;
            latest = latest.filter(|latest| newer(latest)).or(Some(reading));
        }
        if let Some(earlier) =
            latest.filter(|earlier| earlier.shard == later.shard && earlier.shown > later.shown)
        {
            return Err(format!("time went backwards: {earlier:?} then {later:?}"));
        }
    }
    Ok(())
}

/// Takes away writes that were never answered and whose value nobody ever saw:
/// all they could do is to make a compare-and-set fail. Returns since when that
/// may have been.
fn drop_unseen(operations: &mut Vec<&Operation>) -> u64 {
    let seen = |value: u64| {
        operations.iter().any(|operation| match (&operation.action, &operation.answer) {
            (Action::Read, Some(Answer::Value(found))) => *found == Some(value),
            (Action::CompareAndSet(old, _), answer) => *old == value && *answer != Some(Answer::Number(0)),
            _ => false,
        })
    };
    let unseen = |operation: &Operation| match operation.action {
        Action::Write(new) | Action::WriteFleeting(new, _) | Action::CompareAndSet(_, new) => {
            operation.returned == u64::MAX && !seen(new)
        }
        _ => false,
    };
    let dropped: Vec<bool> = operations.iter().map(|operation| unseen(operation)).collect();
    let mut since = u64::MAX;
    let mut index = 0;
    operations.retain(|operation| {
        index += 1;
        if dropped[index - 1] {
            since = since.min(operation.called);
        }
        !dropped[index - 1]
    });
    since
}

/// The value after `operation`, if it could give its answer on `model`. From
/// `spoiled` on, something unknown may have changed a register for a moment.
fn step(model: &Model, operation: &Operation, spoiled: u64) -> Option<Model> {
    let answer = operation.answer.as_ref();
    let fits = |given: Answer| answer.is_none_or(|told| *told == given);
    match (&operation.action, model) {
        (Action::Write(n), _) => fits(Answer::Done).then_some(Model::Register(*n)),
        (Action::WriteFleeting(n, _), _) => fits(Answer::Done).then_some(Model::Fleeting(*n)),
        (Action::Read, Model::Register(n)) => fits(Answer::Value(Some(*n))).then(|| model.clone()),
        // Once it was seen to be gone, it is gone.
        (Action::Read, Model::Fleeting(n)) => match answer {
            Some(Answer::Value(None)) => Some(Model::Nothing),
            _ => fits(Answer::Value(Some(*n))).then(|| model.clone()),
        },
        (Action::Read, Model::Counter(n)) => {
            let given = u64::try_from(*n).map_or(Answer::Count(*n), |n| Answer::Value(Some(n)));
            fits(given).then(|| model.clone())
        }
        (Action::Read, _) => fits(Answer::Value(None)).then(|| model.clone()),
        (Action::CompareAndSet(old, new), Model::Register(n)) if n == old => {
            if fits(Answer::Number(1)) {
                return Some(Model::Register(*new));
            }
            (spoiled <= operation.returned).then(|| model.clone())
        }
        (Action::CompareAndSet(..), _) => fits(Answer::Number(0)).then(|| model.clone()),
        (Action::Append(n), _) => {
            let mut list = match model {
                Model::List(list) => list.clone(),
                _ => Vec::new(),
            };
            list.push(*n);
            fits(Answer::Number(list.len() as i64)).then_some(Model::List(list))
        }
        (Action::ReadList, Model::List(list)) => fits(Answer::List(list.clone())).then(|| model.clone()),
        (Action::ReadList, _) => fits(Answer::List(Vec::new())).then(|| model.clone()),
        (Action::Add(by), _) => {
            let count = if let Model::Counter(count) = model { count + by } else { *by };
            fits(Answer::Number(count)).then_some(Model::Counter(count))
        }
    }
}

/// Whether it is an append that was never answered and that no read saw.
fn is_unseen_append(operation: &Operation, all: &[&Operation]) -> bool {
    let Action::Append(n) = operation.action else { return false };
    let sees = |other: &&Operation| matches!(&other.answer, Some(Answer::List(list)) if list.contains(&n));
    operation.returned == u64::MAX && !all.iter().any(sees)
}

/// Whether a key is only ever appended to, or only ever added to.
fn only_grows(operations: &[&Operation]) -> bool {
    let all = |grows: fn(&Action) -> bool| operations.iter().all(|operation| grows(&operation.action));
    all(|action| matches!(action, Action::Append(_) | Action::ReadList))
        || all(|action| matches!(action, Action::Add(1..) | Action::Read))
}

/// Whether something that only grows has outgrown the answer that this operation gave.
fn has_outgrown(model: &Model, operation: &Operation) -> bool {
    match (model, &operation.action, &operation.answer) {
        (Model::List(list), Action::ReadList, Some(Answer::List(seen))) => !seen.starts_with(list),
        (Model::List(list), Action::Append(_), Some(Answer::Number(given))) => *given <= list.len() as i64,
        (Model::Counter(count), Action::Add(_), Some(Answer::Number(given))) => given <= count,
        (Model::Counter(count), Action::Read, Some(Answer::Value(seen))) => {
            seen.is_none_or(|seen| i64::try_from(seen).is_ok_and(|seen| seen < *count))
        }
        _ => false,
    }
}

/// A point of the search: what has been placed, and what it made.
struct Point {
    placed: Vec<u64>,
    model: Model,
}

fn is_placed(placed: &[u64], at: usize) -> bool {
    placed[at / 64] & (1 << (at % 64)) != 0
}

/// `operations` are of one key, in the order of their calls. `None`: too entangled to tell.
fn is_linearizable(operations: &[&Operation], spoiled: u64) -> Option<bool> {
    let start = Point { placed: vec![0; operations.len().div_ceil(64)], model: Model::default() };
    let unseen: Vec<bool> =
        operations.iter().map(|operation| is_unseen_append(operation, operations)).collect();
    let grows = only_grows(operations);
    let mut seen = HashSet::new();
    let mut open = vec![start];
    for _ in 0..STEPS_MAX {
        let Some(point) = open.pop() else { return Some(false) };
        let left = || (0..operations.len()).filter(|&at| !is_placed(&point.placed, at));
        let first_return = left().map(|at| operations[at].returned).min().unwrap_or(u64::MAX);
        if first_return == u64::MAX {
            return Some(true); // all that was answered is placed
        }
        if grows && left().any(|at| has_outgrown(&point.model, operations[at])) {
            continue;
        }
        // The last pushed is tried first: what was answered soonest. What never was
        // answered comes last, for most of it never happened.
        let mut next: Vec<usize> = left().take_while(|&at| operations[at].called <= first_return).collect();
        // A list only grows: what no read ever saw comes after all of them.
        let reads_left =
            left().any(|at| operations[at].action == Action::ReadList && operations[at].answer.is_some());
        next.retain(|&at| !(reads_left && unseen[at]));
        // Additions of the same that never were answered are alike: the first will do.
        let mut alike = BTreeSet::new();
        next.retain(|&at| match operations[at].action {
            Action::Add(by) if operations[at].returned == u64::MAX => alike.insert(by),
            _ => true,
        });
        next.sort_by_key(|&at| std::cmp::Reverse(operations[at].returned));
        for at in next {
            let Some(model) = step(&point.model, operations[at], spoiled) else { continue };
            let mut placed = point.placed.clone();
            placed[at / 64] |= 1 << (at % 64);
            if seen.insert((placed.clone(), model.clone())) {
                open.push(Point { placed, model });
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(operations: &[(Action, u64, u64, Option<Answer>)]) -> History {
        let operation = |(action, called, returned, answer): &(Action, u64, u64, Option<Answer>)| Operation {
            key: "k".into(),
            action: action.clone(),
            called: *called,
            returned: *returned,
            answer: answer.clone(),
            unit: 0,
        };
        History { operations: operations.iter().map(operation).collect(), ..History::default() }
    }

    #[test]
    fn a_read_that_is_stale_is_found() {
        let writes = |read| {
            history(&[
                (Action::Write(1), 0, 10, Some(Answer::Done)),
                (Action::Write(2), 20, 30, Some(Answer::Done)),
                (Action::Read, 40, 50, Some(Answer::Value(Some(read)))),
            ])
        };
        assert!(check(&writes(2)).is_ok());
        assert!(check(&writes(1)).is_err());
    }

    #[test]
    fn what_was_never_answered_may_have_happened_or_not() {
        for seen in [vec![1], vec![1, 2]] {
            let reads = history(&[
                (Action::Append(1), 0, 10, Some(Answer::Number(1))),
                (Action::Append(2), 20, u64::MAX, None),
                (Action::ReadList, 40, 50, Some(Answer::List(seen))),
            ]);
            assert!(check(&reads).is_ok());
        }
        let vanished = history(&[
            (Action::Append(2), 20, u64::MAX, None),
            (Action::ReadList, 40, 50, Some(Answer::List(vec![2]))),
            (Action::ReadList, 60, 70, Some(Answer::List(vec![]))),
        ]);
        assert!(check(&vanished).is_err());
    }

    #[test]
    fn many_that_were_never_answered_do_not_entangle_it() {
        let mut operations: Vec<_> = (100..140).map(|n| (Action::Append(n), 0, u64::MAX, None)).collect();
        let mut list = Vec::new();
        for (at, n) in (100..140).step_by(2).enumerate() {
            let at = 10 + 20 * at as u64;
            list.extend([n + 1, n]);
            operations.push((Action::ReadList, at, at + 5, Some(Answer::List(list.clone()))));
        }
        assert_eq!(check(&history(&operations)), Ok(0));
        list.swap(3, 4);
        operations.push((Action::ReadList, 9000, 9005, Some(Answer::List(list))));
        assert!(check(&history(&operations)).is_err());
    }

    #[test]
    fn a_doubled_increment_is_found() {
        let counts = |second| {
            history(&[
                (Action::Add(1), 0, 10, Some(Answer::Number(1))),
                (Action::Add(1), 20, 30, Some(Answer::Number(second))),
            ])
        };
        assert!(check(&counts(2)).is_ok());
        assert!(check(&counts(3)).is_err());
        assert!(check(&counts(1)).is_err());
    }

    #[test]
    fn what_has_expired_does_not_come_back() {
        let reads = |third| {
            history(&[
                (Action::WriteFleeting(1, 5), 0, 10, Some(Answer::Done)),
                (Action::Read, 20, 30, Some(Answer::Value(None))),
                (Action::Read, 40, 50, Some(Answer::Value(third))),
            ])
        };
        assert!(check(&reads(None)).is_ok());
        assert!(check(&reads(Some(1))).is_err());
    }

    #[test]
    fn two_who_have_a_lock_at_a_time_are_found() {
        let grant = |sent, returned| Grant { key: "lock".into(), sent, returned, life: 100 };
        let locks = |second| History { locks: vec![grant(0, 5), second], ..History::default() };
        assert!(check(&locks(grant(80, 100))).is_ok(), "it may have been given at 0 and at 100");
        assert!(check(&locks(grant(80, 99))).is_err());
        assert!(check(&locks(grant(1, 200))).is_ok());
    }

    #[test]
    fn time_must_not_go_backwards() {
        let reading = |called, shown| TimeReading { shard: 0, called, returned: called + 5, shown };
        let times = |shown| {
            let times = vec![reading(0, 100), reading(10, shown), reading(12, 100)];
            History { times, ..History::default() }
        };
        assert!(check(&times(100)).is_ok());
        assert!(check(&times(99)).is_err());
    }
}
