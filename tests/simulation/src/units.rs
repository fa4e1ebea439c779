//! What spans keys: units are atomic, and there is one order of all of them.
//!
//! * Amounts are moved between two accounts: their sum never changes.
//! * Twins are written together with a number drawn in a script: they are equal.
//! * Lists of one tag are appended to and read in units: the units have one order
//!   that explains what each saw, and that agrees with real time. As in Elle (Kingsbury and
//!   Alvaro, VLDB 2020), a list tells the order of its appends; from it follows which unit
//!   came before which, and a circle of units is a violation. Whether each list by itself makes
//!   sense is the other checker's part.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::history::{Action, Answer, History, Operation};

/// Checks a history.
///
/// # Errors
/// What is wrong, for a reader.
pub fn check(history: &History) -> Result<(), String> {
    if let Some((one, other)) = history.twins.iter().find(|(one, other)| one != other) {
        return Err(format!("twins differ: {one:?} and {other:?}"));
    }
    let mut units: BTreeMap<u64, Vec<&Operation>> = BTreeMap::new();
    for operation in &history.operations {
        units.entry(operation.unit).or_default().push(operation);
    }
    units.values().try_for_each(|unit| check_sum(unit))?;
    let touches_lists = |unit: &Vec<&Operation>| unit.iter().any(|operation| is_on_list(operation));
    check_order(&units.into_values().filter(touches_lists).collect::<Vec<_>>())
}

fn is_on_list(operation: &Operation) -> bool {
    matches!(operation.action, Action::Append(_) | Action::ReadList)
}

/// A unit that was told both balances was told that they sum to nothing.
fn check_sum(unit: &[&Operation]) -> Result<(), String> {
    let accounts: Vec<&&Operation> = unit.iter().filter(|it| it.key.contains("account")).collect();
    let balance = |operation: &&&Operation| match &operation.answer {
        Some(Answer::Number(n) | Answer::Count(n)) => Some(*n),
        Some(Answer::Value(value)) => Some(value.unwrap_or(0) as i64),
        _ => None,
    };
    let balances: Option<Vec<i64>> = accounts.iter().map(balance).collect();
    match balances {
        Some(balances) if balances.len() == 2 && balances[0] + balances[1] != 0 => {
            Err(format!("a unit was seen in part: {accounts:?}"))
        }
        _ => Ok(()),
    }
}

/// Edges from a unit to one that came after it.
type Graph = Vec<BTreeSet<usize>>;

fn check_order(units: &[Vec<&Operation>]) -> Result<(), String> {
    let mut graph: Graph = vec![BTreeSet::new(); units.len()];
    let mut writers: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut lists: BTreeMap<&str, &[u64]> = BTreeMap::new();
    for (at, operation) in operations(units) {
        if let Action::Append(n) = operation.action {
            writers.insert((operation.key.as_str(), n), at);
        }
        if let Some(Answer::List(list)) = &operation.answer {
            let longest = lists.entry(&operation.key).or_default();
            if list.len() > longest.len() {
                *longest = list;
            }
        }
    }
    let mut edge = |before: Option<&usize>, after: Option<&usize>| {
        if let (Some(&before), Some(&after)) = (before, after)
            && before != after
        {
            graph[before].insert(after);
        }
    };
    for (key, list) in &lists {
        for pair in list.windows(2) {
            edge(writers.get(&(*key, pair[0])), writers.get(&(*key, pair[1])));
        }
    }
    for (at, operation) in operations(units) {
        if let Some(Answer::List(seen)) = &operation.answer {
            let key = operation.key.as_str();
            let others = |n: &&u64| writers.get(&(key, **n)) != Some(&at);
            edge(seen.iter().rev().find(others).and_then(|n| writers.get(&(key, *n))), Some(&at));
            let unseen = lists[key].get(seen.len()..).unwrap_or_default();
            edge(Some(&at), unseen.first().and_then(|n| writers.get(&(key, *n))));
        }
    }
    add_real_time(units, &mut graph);
    match circle(&graph) {
        circle if circle.is_empty() => Ok(()),
        circle => {
            let shown = circle.iter().take(12).map(|&at| format!("  {:?}\n", units[at]));
            Err(format!("units have no order, among them:\n{}", shown.collect::<String>()))
        }
    }
}

fn operations<'a>(units: &'a [Vec<&Operation>]) -> impl Iterator<Item = (usize, &'a Operation)> {
    units.iter().enumerate().flat_map(|(at, unit)| unit.iter().map(move |operation| (at, *operation)))
}

/// A unit that was answered before another was asked for came before it. An edge
/// that follows from others is left out.
fn add_real_time(units: &[Vec<&Operation>], graph: &mut Graph) {
    let mut moments: Vec<(u64, bool, usize)> = Vec::new();
    for (at, unit) in units.iter().enumerate() {
        moments.push((unit[0].called, false, at));
        if unit[0].returned != u64::MAX {
            moments.push((unit[0].returned, true, at));
        }
    }
    moments.sort_unstable();
    // Units that have ended with none that began after them having ended.
    let mut last: Vec<usize> = Vec::new();
    for (_, ended, at) in moments {
        if ended {
            last.retain(|&other| units[other][0].returned >= units[at][0].called);
            last.push(at);
        } else {
            last.iter().for_each(|&before| {
                graph[before].insert(at);
            });
        }
    }
}

/// Units that are on a circle or behind one; none if there is an order.
fn circle(graph: &Graph) -> Vec<usize> {
    let mut before = vec![0; graph.len()];
    graph.iter().flatten().for_each(|&after| before[after] += 1);
    let mut free: VecDeque<usize> = (0..graph.len()).filter(|&at| before[at] == 0).collect();
    let mut placed = 0;
    while let Some(at) = free.pop_front() {
        placed += 1;
        for &after in &graph[at] {
            before[after] -= 1;
            if before[after] == 0 {
                free.push_back(after);
            }
        }
    }
    if placed == graph.len() { Vec::new() } else { (0..graph.len()).filter(|&at| before[at] > 0).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(unit: u64, key: &str, action: Action, answer: Answer) -> Operation {
        let (called, returned) = (0, 100);
        Operation { key: key.into(), action, called, returned, answer: Some(answer), unit }
    }

    fn list(unit: u64, key: &str, seen: &[u64]) -> Operation {
        operation(unit, key, Action::ReadList, Answer::List(seen.to_vec()))
    }

    #[test]
    fn a_unit_seen_in_part_is_found() {
        let read = |n, m| History {
            operations: vec![
                operation(1, "account0", Action::Read, Answer::Count(n)),
                operation(1, "account1", Action::Read, Answer::Value(m)),
            ],
            ..History::default()
        };
        assert!(check(&read(-3, Some(3))).is_ok());
        assert!(check(&read(-3, Some(2))).is_err());
        assert!(check(&read(-3, None)).is_err());
        assert!(check(&History { twins: vec![(Some(1), None)], ..History::default() }).is_err());
    }

    #[test]
    fn two_readers_that_saw_two_units_in_opposite_order_are_found() {
        let saw = |second: [&[u64]; 2]| History {
            operations: vec![
                operation(1, "a", Action::Append(1), Answer::Number(1)),
                operation(2, "b", Action::Append(2), Answer::Number(1)),
                list(3, "a", &[1]),
                list(3, "b", &[]),
                list(4, "a", second[0]),
                list(4, "b", second[1]),
                list(5, "a", &[1]),
                list(5, "b", &[2]),
            ],
            ..History::default()
        };
        assert!(check(&saw([&[], &[]])).is_ok());
        assert!(check(&saw([&[], &[2]])).is_err());
    }

    #[test]
    fn a_unit_that_ended_came_before_one_that_began_later() {
        let read = |called| {
            let append = operation(1, "a", Action::Append(1), Answer::Number(1));
            let late = Operation { called, returned: called + 10, ..list(2, "a", &[]) };
            History { operations: vec![append, late, list(3, "a", &[1])], ..History::default() }
        };
        assert!(check(&read(50)).is_ok());
        assert!(check(&read(101)).is_err());
    }
}
