//! Unions, intersections and differences of sorted sets and plain sets, whose
//! members have score 1.

use std::borrow::Cow;

use hashbrown::{HashMap, HashSet, hash_map::Entry};
use moonraft_proto::Reply;

use super::{
    super::{
        CommandError, Outcome,
        arguments::{count_or, integer, is, parse_float},
    },
    range::store,
};
use crate::keyspace::{Seed, Set, SortedSet, Tx, Value};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Union,
    Intersection,
    Difference,
}

/// What becomes of a member's scores in several inputs.
#[derive(Clone, Copy, Debug)]
enum Aggregate {
    Sum,
    Least,
    Greatest,
}

impl Aggregate {
    fn combine(self, left: f64, right: f64) -> f64 {
        match self {
            // The sum of both infinities is 0, and so is one with what is no number.
            Aggregate::Sum => number(left + right),
            Aggregate::Least => {
                if right < left {
                    right
                } else {
                    left
                }
            }
            Aggregate::Greatest => {
                if right > left {
                    right
                } else {
                    left
                }
            }
        }
    }
}

/// What is no number counts as 0.
const fn number(score: f64) -> f64 {
    if score.is_nan() { 0.0 } else { score }
}

/// What a request puts in.
#[derive(Clone, Copy)]
enum Members<'a> {
    None,
    Plain(&'a Set),
    Sorted(&'a SortedSet),
}

#[derive(Clone, Copy)]
struct Input<'a> {
    members: Members<'a>,
    weight: f64,
}

impl<'a> Input<'a> {
    fn of(tx: &'a Tx, key: &[u8]) -> Result<Self, CommandError> {
        let members = match tx.value(key) {
            None => Members::None,
            Some(Value::Set(set)) => Members::Plain(set),
            Some(Value::Sorted(sorted)) => Members::Sorted(sorted),
            Some(_) => return Err(CommandError::WrongType),
        };
        Ok(Self { members, weight: 1.0 })
    }

    fn len(&self) -> usize {
        match self.members {
            Members::None => 0,
            Members::Plain(set) => set.len(),
            Members::Sorted(sorted) => sorted.len(),
        }
    }

    fn contains(&self, member: &[u8]) -> bool {
        self.score(member).is_some()
    }

    /// The weighted score of a member, which may be no number: 0 times infinity.
    fn score(&self, member: &[u8]) -> Option<f64> {
        let score = match self.members {
            Members::None => None,
            Members::Plain(set) => set.contains(member).then_some(1.0),
            Members::Sorted(sorted) => sorted.score(member),
        };
        score.map(|score| score * self.weight)
    }

    /// All members with weighted scores.
    fn iter(&self) -> Box<dyn Iterator<Item = (Cow<'a, [u8]>, f64)> + 'a> {
        let weight = self.weight;
        match self.members {
            Members::None => Box::new(std::iter::empty()),
            Members::Plain(set) => {
                Box::new(set.iter().map(move |member| (Cow::Owned(member.to_vec()), number(weight))))
            }
            Members::Sorted(sorted) => Box::new(
                sorted.iter().map(move |(member, score)| (Cow::Borrowed(member), number(score * weight))),
            ),
        }
    }
}

/// What a request asks for.
struct Query<'a> {
    operation: Operation,
    inputs: Vec<Input<'a>>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// `numkeys key…`, as inputs, and the words behind.
fn inputs<'w, 'a>(
    tx: &'a Tx,
    words: &'w [&'a [u8]],
    name: &str,
) -> Result<(Vec<Input<'a>>, &'w [&'a [u8]]), CommandError> {
    let count = integer(words[0])?;
    if count < 1 {
        let text = format!("ERR at least 1 input key is needed for '{name}' command");
        return Err(CommandError::Text(text.into()));
    }
    let count = usize::try_from(count).map_err(|_| CommandError::Syntax)?;
    let (keys, rest) = words[1..].split_at_checked(count).ok_or(CommandError::Syntax)?;
    let inputs = keys.iter().map(|key| Input::of(tx, key)).collect::<Result<_, _>>()?;
    Ok((inputs, rest))
}

impl<'a> Query<'a> {
    /// `numkeys key… [WEIGHTS weight…] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
    fn parse(
        tx: &'a Tx,
        operation: Operation,
        words: &[&'a [u8]],
        name: &str,
        stores: bool,
    ) -> Result<Self, CommandError> {
        let (mut inputs, mut rest) = inputs(tx, words, name)?;
        let (mut aggregate, mut with_scores) = (Aggregate::Sum, false);
        let combines = operation != Operation::Difference;
        while let [option, tail @ ..] = rest {
            if combines && is(option, "weights") && tail.len() >= inputs.len() {
                let (weights, tail) = tail.split_at(inputs.len());
                for (input, weight) in inputs.iter_mut().zip(weights) {
                    let weight = parse_float(weight);
                    input.weight = weight.ok_or(CommandError::text("ERR weight value is not a float"))?;
                }
                rest = tail;
            } else if combines
                && is(option, "aggregate")
                && let [how, tail @ ..] = tail
            {
                aggregate = match () {
                    () if is(how, "sum") => Aggregate::Sum,
                    () if is(how, "min") => Aggregate::Least,
                    () if is(how, "max") => Aggregate::Greatest,
                    () => return Err(CommandError::Syntax),
                };
                rest = tail;
            } else if is(option, "withscores") && !stores {
                with_scores = true;
                rest = tail;
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(Self { operation, inputs, aggregate, with_scores })
    }

    /// The members of the result with their scores, in order.
    fn result(mut self) -> Vec<(f64, Cow<'a, [u8]>)> {
        if self.operation != Operation::Difference {
            // Smallest first, as Redis adds them up: sums of doubles depend on it.
            self.inputs.sort_by_key(Input::len);
        }
        let mut pairs: Vec<(f64, Cow<'a, [u8]>)> = match self.operation {
            Operation::Union => self.union(),
            Operation::Intersection => {
                let aggregate = self.aggregate;
                let common = intersection(&self.inputs, move |left, right| aggregate.combine(left, right));
                common.map(|(member, score)| (score, member)).collect()
            }
            Operation::Difference => {
                let (first, others) = self.inputs.split_first().expect("there is at least one input");
                let lookups = first.len().saturating_mul(others.len());
                let united: usize = others.iter().map(Input::len).sum();
                // To put a member into a table costs about twice as much as to look it up.
                let excluded: Option<HashSet<Cow<'a, [u8]>>> = (lookups / 2
                    > united.saturating_add(first.len()))
                .then(|| others.iter().flat_map(Input::iter).map(|(member, _)| member).collect());
                let is_gone = |member: &Cow<'a, [u8]>| match &excluded {
                    Some(excluded) => excluded.contains(member),
                    None => others.iter().any(|other| other.contains(member)),
                };
                let kept = first.iter().filter(|(member, _)| !is_gone(member));
                kept.map(|(member, score)| (score, member)).collect()
            }
        };
        pairs.sort_unstable_by(|left, right| {
            let scores = left.0.partial_cmp(&right.0).expect("a score is never NaN");
            scores.then_with(|| left.1.cmp(&right.1))
        });
        pairs
    }

    fn union(&self) -> Vec<(f64, Cow<'a, [u8]>)> {
        let most = self.inputs.iter().map(Input::len).max().unwrap_or(0);
        let mut scores: HashMap<Cow<'a, [u8]>, f64, Seed> =
            HashMap::with_capacity_and_hasher(most, Seed::default());
        for (member, score) in self.inputs.iter().flat_map(Input::iter) {
            match scores.entry(member) {
                Entry::Occupied(mut entry) => {
                    let before = *entry.get();
                    entry.insert(self.aggregate.combine(before, score));
                }
                Entry::Vacant(entry) => {
                    entry.insert(score);
                }
            }
        }
        scores.into_iter().map(|(member, score)| (score, member)).collect()
    }
}

/// Members that all inputs have, of which the first is the smallest.
fn intersection<'i, 'a>(
    inputs: &'i [Input<'a>],
    combine: impl Fn(f64, f64) -> f64 + 'i,
) -> impl Iterator<Item = (Cow<'a, [u8]>, f64)> + 'i {
    let (first, others) = inputs.split_first().expect("there is at least one input");
    first.iter().filter_map(move |(member, score)| {
        let scores = others.iter().map(|other| other.score(&member));
        let all = scores.into_iter().try_fold(score, |sum, score| score.map(|score| combine(sum, score)));
        all.map(|score| (member, score))
    })
}

fn answer<'a>(tx: &'a Tx, words: &[&'a [u8]], operation: Operation, name: &str) -> Outcome<'a> {
    let query = Query::parse(tx, operation, &words[1..], name, false)?;
    let with_scores = query.with_scores;
    let result = query.result().into_iter();
    Ok(match with_scores {
        true => {
            Reply::Pairs(result.map(|(score, member)| (Reply::Bulk(member), Reply::Double(score))).collect())
        }
        false => Reply::Array(result.map(|(_, member)| Reply::Bulk(member)).collect()),
    })
}

fn answer_stored<'a>(tx: &mut Tx, words: &[&'a [u8]], operation: Operation, name: &str) -> Outcome<'a> {
    let query = Query::parse(tx, operation, &words[2..], name, true)?;
    tx.tell_misses(words[3..].iter().copied().take(query.inputs.len()));
    let result = query.result().into_iter();
    let pairs: Vec<(f64, Vec<u8>)> = result.map(|(score, member)| (score, member.into_owned())).collect();

    store(tx, words[1], &pairs, name);
    Ok(Reply::count(pairs.len()))
}

/// `ZUNION numkeys key… [WEIGHTS weight…] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
pub fn zunion<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer(tx, words, Operation::Union, "zunion")
}

/// `ZINTER numkeys key… [WEIGHTS weight…] [AGGREGATE SUM | MIN | MAX] [WITHSCORES]`
pub fn zinter<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer(tx, words, Operation::Intersection, "zinter")
}

/// `ZDIFF numkeys key… [WITHSCORES]`
pub fn zdiff<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer(tx, words, Operation::Difference, "zdiff")
}

/// `ZUNIONSTORE destination numkeys key… [WEIGHTS weight…] [AGGREGATE SUM | MIN | MAX]`
pub fn zunionstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer_stored(tx, words, Operation::Union, "zunionstore")
}

/// `ZINTERSTORE destination numkeys key… [WEIGHTS weight…] [AGGREGATE SUM | MIN | MAX]`
pub fn zinterstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer_stored(tx, words, Operation::Intersection, "zinterstore")
}

/// `ZDIFFSTORE destination numkeys key…`
pub fn zdiffstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    answer_stored(tx, words, Operation::Difference, "zdiffstore")
}

/// `ZINTERCARD numkeys key… [LIMIT limit]`
pub fn zintercard<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let (mut inputs, options) = inputs(tx, &words[1..], "zintercard")?;
    let mut limit = 0;
    for option in options.chunks(2) {
        let &[name, count] = option else { return Err(CommandError::Syntax) };
        if !is(name, "limit") {
            return Err(CommandError::Syntax);
        }
        limit = count_or(count, "ERR LIMIT can't be negative")?;
    }

    inputs.sort_by_key(Input::len);
    let common = intersection(&inputs, |score, _| score);
    Ok(Reply::count(common.take(if limit == 0 { usize::MAX } else { limit }).count()))
}
