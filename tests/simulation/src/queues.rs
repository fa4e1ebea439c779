//! Queues at which clients wait: no element is given twice, none is lost that was acknowledged, and nobody is told that
//! nothing came while something was there all the time.

use std::collections::{BTreeMap, BTreeSet};

/// An element that was pushed.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    /// To which queue.
    pub queue: u32,
    /// Unlike any other.
    pub element: u64,
    /// When that was asked, nanoseconds of true time.
    pub called: u64,
    /// When it was answered; `u64::MAX` if it never was.
    pub returned: u64,
}

/// A client that waited was answered.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// At which queue.
    pub queue: u32,
    /// When it asked.
    pub called: u64,
    /// When it was answered.
    pub returned: u64,
    /// What it was given; `None` if nothing came in time.
    pub element: Option<u64>,
}

/// A queue as it was read.
#[derive(Clone, Debug)]
pub struct Look {
    /// The queue.
    pub queue: u32,
    /// When that was asked.
    pub called: u64,
    /// When it was answered.
    pub returned: u64,
    /// What was in it.
    pub elements: Vec<u64>,
}

/// All that was done with all queues.
#[derive(Clone, Debug, Default)]
pub struct Queues {
    /// Elements that were pushed.
    pub pushed: Vec<Pushed>,
    /// Clients that waited and were answered.
    pub taken: Vec<Taken>,
    /// Queues as they were read.
    pub looks: Vec<Look>,
    /// The queue of each client that waited and was never answered: it may have been given one element.
    pub unanswered: Vec<u32>,
}

/// Checks all queues.
///
/// # Errors
/// What is wrong, for a reader.
pub fn check(queues: &Queues) -> Result<(), String> {
    let mut pushed: BTreeMap<(u32, u64), Pushed> = BTreeMap::new();
    for push in &queues.pushed {
        pushed.insert((push.queue, push.element), *push);
    }
    let mut taken: BTreeMap<(u32, u64), Taken> = BTreeMap::new();
    for take in &queues.taken {
        let Some(element) = take.element else { continue };
        if let Some(other) = taken.insert((take.queue, element), *take) {
            return Err(format!("an element was given twice: {other:?}, {take:?}"));
        }
        match pushed.get(&(take.queue, element)) {
            Some(push) if push.called < take.returned => {}
            push => return Err(format!("nobody had pushed what was given: {take:?}, {push:?}")),
        }
    }
    queues.looks.iter().try_for_each(|look| check_look(queues, &pushed, &taken, look))?;
    let nothing = queues.taken.iter().filter(|take| take.element.is_none());
    nothing.copied().try_for_each(|take| check_nothing(queues, &taken, &take))
}

/// What was acknowledged before is there, or was taken; what was taken before is not there.
fn check_look(
    queues: &Queues,
    pushed: &BTreeMap<(u32, u64), Pushed>,
    taken: &BTreeMap<(u32, u64), Taken>,
    look: &Look,
) -> Result<(), String> {
    let seen: BTreeSet<u64> = look.elements.iter().copied().collect();
    if seen.len() < look.elements.len() {
        return Err(format!("an element is there twice: {look:?}"));
    }
    for &element in &seen {
        let of_it = (look.queue, element);
        if let Some(take) = taken.get(&of_it).filter(|take| take.returned < look.called) {
            return Err(format!("what was given is still there: {take:?}, {look:?}"));
        }
        if pushed.get(&of_it).is_none_or(|push| push.called > look.returned) {
            return Err(format!("nobody had pushed {element}, or it was refused: {look:?}"));
        }
    }
    let lost = queues.pushed.iter().filter(|push| {
        push.queue == look.queue
            && push.returned < look.called
            && !seen.contains(&push.element)
            && taken.get(&(push.queue, push.element)).is_none_or(|take| take.called > look.returned)
    });
    let lost: Vec<&Pushed> = lost.collect();
    let unanswered = queues.unanswered.iter().filter(|&&queue| queue == look.queue).count();
    match lost.len() > unanswered {
        true => Err(format!("lost, and only {unanswered} takers were not answered: {lost:?}, {look:?}")),
        false => Ok(()),
    }
}

/// Who was told that nothing came: no element was there from before it asked until after it was answered.
fn check_nothing(
    queues: &Queues,
    taken: &BTreeMap<(u32, u64), Taken>,
    nothing: &Taken,
) -> Result<(), String> {
    let stayed = |push: &&Pushed| {
        let looks = queues.looks.iter().filter(|look| look.queue == push.queue);
        let seen_later = || {
            looks.clone().any(|look| look.called > nothing.returned && look.elements.contains(&push.element))
        };
        push.queue == nothing.queue
            && push.returned < nothing.called
            && match taken.get(&(push.queue, push.element)) {
                Some(take) => take.called > nothing.returned,
                None => seen_later(),
            }
    };
    match queues.pushed.iter().find(stayed) {
        Some(push) => Err(format!("nothing came, though this was there: {nothing:?}, {push:?}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pushed(element: u64, returned: u64) -> Pushed {
        Pushed { queue: 0, element, called: 10, returned }
    }

    fn taken(element: Option<u64>, called: u64) -> Taken {
        Taken { queue: 0, called, returned: called + 10, element }
    }

    fn found(queues: &Queues, looks: &[&[u64]]) -> bool {
        let look =
            |elements: &&[u64]| Look { queue: 0, called: 90, returned: 99, elements: elements.to_vec() };
        check(&Queues { looks: looks.iter().map(look).collect(), ..queues.clone() }).is_err()
    }

    #[test]
    fn an_element_that_is_given_twice_lost_or_made_up_is_found() {
        let both = vec![pushed(1, 20), pushed(2, u64::MAX)];
        let queues = Queues { pushed: both, taken: vec![taken(Some(1), 30)], ..Queues::default() };
        assert!(!found(&queues, &[&[]]) && !found(&queues, &[&[2]]), "the second may have been pushed");
        assert!(found(&queues, &[&[1]]) && found(&queues, &[&[2, 2]]) && found(&queues, &[&[3]]));
        let twice = Queues { taken: vec![taken(Some(1), 30), taken(Some(1), 50)], ..queues.clone() };
        assert!(found(&twice, &[]));
        let made_up = Queues { taken: vec![taken(Some(7), 30)], ..queues.clone() };
        assert!(found(&made_up, &[]));
        let lost = Queues { taken: vec![], ..queues };
        assert!(found(&lost, &[&[]]));
        assert!(!found(&Queues { unanswered: vec![0], ..lost }, &[&[]]), "it may have been given away");
    }

    #[test]
    fn nothing_came_is_wrong_only_if_something_was_there_all_the_time() {
        let queues = Queues {
            pushed: vec![pushed(1, 20)],
            taken: vec![taken(None, 30), taken(Some(1), 50)],
            ..Queues::default()
        };
        assert!(found(&queues, &[]));
        let side_by_side = Queues { taken: vec![taken(None, 30), taken(Some(1), 39)], ..queues.clone() };
        assert!(!found(&side_by_side, &[]));
        assert!(found(&Queues { taken: vec![taken(None, 30)], ..queues }, &[&[1]]), "it is there in the end");
    }
}
