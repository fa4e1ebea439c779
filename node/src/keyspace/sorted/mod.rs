//! A sorted set: members in the order of their scores, equal scores in the order
//! of the members' bytes.
//!
//! A small one is one block in order, searched from the start for a member, as
//! Redis's listpack is ([`pairs`]). A large one stores each member once, with its score, in
//! `members`, and the order as numbers of members in a counting tree, `order`:
//! all that changes or finds takes logarithmic time, a score constant time, and a
//! member of 23 bytes or less about 75 bytes in all (Redis: 110).

mod members;
mod order;
mod pairs;

use std::cmp::Ordering;

use self::{members::Members, order::Order, pairs::Pairs};
use super::{Blob, small, weight::sampled};

/// Members with scores. A score is never NaN.
#[derive(Clone, Debug)]
pub struct SortedSet {
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// Few and short, in order.
    Small(Pairs),
    /// Many or long. Never turns back into a small one, as in Redis.
    Large(Box<Large>),
}

#[derive(Clone, Debug, Default)]
struct Large {
    members: Members,
    order: Order,
}

impl Default for SortedSet {
    fn default() -> Self {
        Self { form: Form::Small(Pairs::default()) }
    }
}

fn compare(left: (f64, &[u8]), right: (f64, &[u8])) -> Ordering {
    let scores = left.0.partial_cmp(&right.0).expect("a score is never NaN");
    scores.then_with(|| left.1.cmp(right.1))
}

impl PartialEq for SortedSet {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl SortedSet {
    /// How many members.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(pairs) => pairs.len(),
            Form::Large(large) => large.members.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it is in the form that Redis calls `listpack`.
    pub const fn is_small(&self) -> bool {
        matches!(self.form, Form::Small(_))
    }

    /// Bytes outside of this value; of a large one, the members are as long as the first `samples` of them. About
    /// right: how full the leaves of the order are varies.
    pub fn heap_bytes(&self, samples: usize) -> usize {
        /// A score and a number in a leaf that is two thirds full.
        const ORDER_BYTES: usize = (size_of::<f64>() + size_of::<u32>()) * 3 / 2;
        match &self.form {
            Form::Small(pairs) => pairs.heap_bytes(),
            Form::Large(large) => {
                let members = &large.members;
                let order = members.len() * ORDER_BYTES;
                let sizes = members.names().map(Blob::heap_bytes);
                size_of::<Large>() + members.heap_bytes() + order + sampled(sizes, members.len(), samples)
            }
        }
    }

    /// The score of a member.
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.form {
            Form::Small(pairs) => pairs.find(member).map(|(_, score)| score),
            Form::Large(large) => large.members.find(member).map(|number| large.members.get(number).0),
        }
    }

    /// Sets the score of a member. Returns its score before.
    pub fn put(&mut self, member: &[u8], score: f64) -> Option<f64> {
        assert!(!score.is_nan(), "a score is never NaN");
        self.make_room(member);
        match &mut self.form {
            Form::Small(pairs) => pairs.put(member, score),
            Form::Large(large) => large.put(member, score),
        }
    }

    /// Takes a member away. Returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        match &mut self.form {
            Form::Small(pairs) => pairs.take(member),
            Form::Large(large) => large.remove(member),
        }
    }

    /// The position of a member, from 0.
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.form {
            Form::Small(pairs) => pairs.find(member).map(|(at, _)| at),
            Form::Large(large) => {
                let number = large.members.find(member)?;
                Some(large.order.rank(&large.members, number))
            }
        }
    }

    /// The first position at which `before` is false; it is true for a prefix of
    /// the order only.
    pub fn position(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        match &self.form {
            Form::Small(pairs) => pairs.iter().take_while(|&(member, score)| before(score, member)).count(),
            Form::Large(large) => {
                large.order.prefix(|score, number| before(score, large.members.name(number)))
            }
        }
    }

    /// The same by scores alone, which is quicker: no member is looked at.
    pub fn position_of_score(&self, before: impl Fn(f64) -> bool) -> usize {
        match &self.form {
            Form::Small(pairs) => pairs.iter().take_while(|&(_, score)| before(score)).count(),
            Form::Large(large) => large.order.prefix(|score, _| before(score)),
        }
    }

    /// The member at a position, with its score.
    pub fn nth(&self, position: usize) -> Option<(&[u8], f64)> {
        (position < self.len()).then(|| self.range(position, position + 1).next())?
    }

    /// Members with scores, in order.
    pub fn iter(&self) -> Range<'_> {
        self.range(0, self.len())
    }

    /// About `count` members from `cursor` on, with their scores, and the cursor to go on with; 0 begins and
    /// ends. A small one is returned whole.
    pub fn scan(&self, cursor: u64, count: usize) -> (Vec<(&[u8], f64)>, u64) {
        let Form::Large(large) = &self.form else { return (self.iter().collect(), 0) };
        let (numbers, next) = large.members.scan(cursor, count);
        let pair = |number| (large.members.name(number), large.members.get(number).0);
        (numbers.into_iter().map(pair).collect(), next)
    }

    /// Members at positions from `start` up to but without `end`, in order.
    pub fn range(&self, start: usize, end: usize) -> Range<'_> {
        assert!(start <= end && end <= self.len(), "a range is inside the order");
        Range {
            form: match &self.form {
                Form::Small(pairs) => RangeForm::Small(pairs.range(start, end)),
                Form::Large(large) => RangeForm::Large(large.order.range(start..end), &large.members),
            },
        }
    }

    /// As many members drawn at random with their scores, some perhaps more than once; `below` draws a number
    /// below its argument. None if there is none.
    pub fn draw_repeated(&self, count: usize, mut below: impl FnMut(usize) -> usize) -> Vec<(&[u8], f64)> {
        match &self.form {
            _ if self.is_empty() => Vec::new(),
            Form::Small(pairs) => {
                let pairs: Vec<_> = pairs.iter().collect();
                (0..count).map(|_| pairs[below(pairs.len())]).collect()
            }
            Form::Large(_) => (0..count).filter_map(|_| self.nth(below(self.len()))).collect(),
        }
    }

    /// Changes the form if `member` is new and does not fit the present one.
    fn make_room(&mut self, member: &[u8]) {
        let Form::Small(pairs) = &self.form else { return };
        let full = pairs.len() >= small::COUNT_MAX;
        if member.len() > small::BYTES_MAX || full && pairs.find(member).is_none() {
            self.form = Form::Large(Box::new(pairs.iter().collect()));
        }
    }
}

impl<'a> FromIterator<(&'a [u8], f64)> for Large {
    fn from_iter<I: IntoIterator<Item = (&'a [u8], f64)>>(pairs: I) -> Self {
        let mut large = Self::default();
        for (name, score) in pairs {
            let number = large.members.add(Blob::new(name), score);
            large.order.insert(&large.members, number);
        }
        large
    }
}

impl Large {
    fn put(&mut self, member: &[u8], score: f64) -> Option<f64> {
        let Self { members, order } = self;
        let Some(number) = members.find(member) else {
            let number = members.add(Blob::new(member), score);
            order.insert(members, number);
            return None;
        };
        let before = members.get(number).0;
        if order.rescore(members, number, score) {
            members.set_score(number, score);
        } else {
            order.remove(members, number);
            members.set_score(number, score);
            order.insert(members, number);
        }
        Some(before)
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let Self { members, order } = self;
        let number = members.find(member)?;
        let before = members.get(number).0;
        order.remove(members, number);
        // The last member takes the number that becomes free.
        let last = members.last();
        if last != number {
            order.renumber(members, last, number);
        }
        members.remove(number);
        Some(before)
    }
}

/// Members with scores, in order, from both ends.
#[derive(Clone)]
pub struct Range<'a> {
    form: RangeForm<'a>,
}

#[derive(Clone)]
enum RangeForm<'a> {
    Small(pairs::Iter<'a>),
    Large(order::Range<'a>, &'a Members),
}

impl<'a> Iterator for Range<'a> {
    type Item = (&'a [u8], f64);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.form {
            RangeForm::Small(pairs) => pairs.next(),
            RangeForm::Large(range, members) => {
                range.next().map(|(score, number)| (members.name(number), score))
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match &self.form {
            RangeForm::Small(pairs) => pairs.size_hint(),
            RangeForm::Large(range, _) => range.size_hint(),
        }
    }
}

impl DoubleEndedIterator for Range<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match &mut self.form {
            RangeForm::Small(pairs) => pairs.next_back(),
            RangeForm::Large(range, members) => {
                range.next_back().map(|(score, number)| (members.name(number), score))
            }
        }
    }
}

impl ExactSizeIterator for Range<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Put(u16, i8),
        Remove(u16),
        /// Takes this many from the front: what empties leaves.
        PopFirst(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few scores make ties, many members make several levels.
        let step = prop_oneof![
            8 => (0..3000_u16, -3..3_i8).prop_map(|(member, score)| Step::Put(member, score)),
            4 => (0..3000_u16, any::<i8>()).prop_map(|(member, score)| Step::Put(member, score)),
            3 => (0..3000_u16).prop_map(Step::Remove),
            1 => any::<u8>().prop_map(Step::PopFirst),
        ];
        prop::collection::vec(step, 0..3000)
    }

    fn name(member: u16) -> Vec<u8> {
        format!("m{member}").into_bytes()
    }

    /// The model: all pairs, sorted anew where order matters.
    #[derive(Default)]
    struct Model(std::collections::HashMap<Vec<u8>, f64>);

    impl Model {
        fn sorted(&self) -> Vec<(Vec<u8>, f64)> {
            let mut pairs: Vec<_> = self.0.iter().map(|(name, score)| (name.clone(), *score)).collect();
            pairs.sort_by(|a, b| compare((a.1, &a.0), (b.1, &b.0)));
            pairs
        }
    }

    fn owned<'a>(range: impl Iterator<Item = (&'a [u8], f64)>) -> Vec<(Vec<u8>, f64)> {
        range.map(|(name, score)| (name.to_vec(), score)).collect()
    }

    fn check(sorted: &SortedSet, model: &Model, cut: usize) {
        let pairs = model.sorted();
        let mut backwards = owned(sorted.iter().rev());
        backwards.reverse();
        assert_eq!(owned(sorted.iter()), pairs);
        assert_eq!(backwards, pairs);
        for (rank, (name, score)) in pairs.iter().enumerate() {
            assert_eq!(sorted.rank(name), Some(rank));
            assert_eq!(sorted.score(name), Some(*score));
            assert_eq!(sorted.nth(rank).map(|(name, _)| name.to_vec()).as_ref(), Some(name));
        }
        assert_eq!(sorted.nth(pairs.len()), None);
        let cut = cut % (pairs.len() + 1);
        if let Some((name, score)) = pairs.get(cut) {
            assert_eq!(sorted.position(|s, n| compare((s, n), (*score, name)).is_lt()), cut);
            let by_score = pairs.iter().filter(|(_, other)| other <= score).count();
            assert_eq!(sorted.position_of_score(|other| other <= *score), by_score);
        }
        assert_eq!(owned(sorted.range(cut / 2, cut)), pairs[cut / 2..cut]);
        // From both ends in turn.
        let mut range = sorted.range(cut / 2, cut);
        let mut seen = (0, 0);
        while range.len() > 0 {
            assert_eq!(range.next().map(|(name, _)| name), Some(&*pairs[cut / 2 + seen.0].0));
            seen.0 += 1;
            if let Some((name, _)) = range.next_back() {
                assert_eq!(*name, *pairs[cut - 1 - seen.1].0);
                seen.1 += 1;
            }
        }
        assert_eq!(seen.0 + seen.1, cut - cut / 2);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn it_is_what_sorting_all_pairs_gives(steps in steps(), cut in any::<u16>()) {
            let (mut sorted, mut model) = (SortedSet::default(), Model::default());
            let half = steps.len() / 2;
            for (at, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(member, score) => {
                        let (name, score) = (name(member), f64::from(score));
                        assert_eq!(sorted.put(&name, score), model.0.insert(name, score));
                    }
                    Step::Remove(member) => {
                        assert_eq!(sorted.remove(&name(member)), model.0.remove(&name(member)));
                    }
                    Step::PopFirst(count) => {
                        let count = usize::from(count).min(sorted.len());
                        for (name, score) in owned(sorted.range(0, count)) {
                            assert_eq!(sorted.remove(&name), Some(score));
                            model.0.remove(&name);
                        }
                    }
                }
                assert_eq!(sorted.len(), model.0.len());
                if at == half {
                    check(&sorted, &model, usize::from(cut));
                }
            }
            check(&sorted, &model, usize::from(cut));
        }
    }

    /// The ends of the order take paths of their own through a split.
    #[test]
    fn runs_that_only_rise_or_fall_and_then_empty_stay_in_order() {
        const COUNT: i64 = 20_000;
        for sign in [1, -1] {
            let mut sorted = SortedSet::default();
            for i in 0..COUNT {
                sorted.put(format!("{i}").as_bytes(), (i * sign) as f64);
            }
            assert!(sorted.iter().is_sorted_by(|a, b| a.1 < b.1));
            assert_eq!(sorted.rank(b"77"), Some(if sign > 0 { 77 } else { COUNT as usize - 78 }));
            for i in (0..COUNT).filter(|i| i % 10 != 3) {
                assert!(sorted.remove(format!("{i}").as_bytes()).is_some());
            }
            assert_eq!(sorted.len(), COUNT as usize / 10);
            assert!(sorted.iter().is_sorted_by(|a, b| a.1 < b.1));
            for i in (0..COUNT).filter(|i| i % 10 == 3) {
                assert!(sorted.remove(format!("{i}").as_bytes()).is_some());
            }
            assert!(sorted.is_empty());
        }
    }

    #[test]
    fn it_is_small_up_to_128_members_of_64_bytes() {
        let mut sorted = SortedSet::default();
        for i in 0..small::COUNT_MAX {
            sorted.put(format!("{i}").as_bytes(), 1.0);
        }
        assert!(sorted.is_small());
        sorted.put(b"one more", 1.0);
        assert!(!sorted.is_small());
        let mut long = SortedSet::default();
        long.put(&[b'x'; 64], 1.0);
        assert!(long.is_small());
        long.put(&[b'x'; 65], 1.0);
        assert!(!long.is_small());
    }
}
