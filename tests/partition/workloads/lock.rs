//! Locks with a time to live and a fencing token.
//!
//! Tokens are unique and grow in real time; the protected thing never takes an older
//! token after a newer one. Nobody else gets the lock before the whole of its time is over,
//! by the fastest clock there is, or its holder began to release it: whatever wall clocks do.

use std::cell::RefCell;

use rand::RngExt as _;

use super::{Names, Reading, TOLD_MAX, Workload, falling, number, numbers, settled};
use crate::{
    client::{Client, words},
    nemesis::Fault,
};

const LOCKS: u64 = 2;
/// Time to live, of the lock.
const LIVES_MS: u64 = 1500;
/// A shard's time may run so much faster than its leader's clock, in parts per million: `clock-slew-per-mille`.
const SLEW_PPM: u64 = 5000;

const ACQUIRE: &str = "if redis.call('set', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
return redis.call('incr', KEYS[2]) end return 0";
const USE: &str = "local last = tonumber(redis.call('lindex', KEYS[1], -1) or '0')
if tonumber(ARGV[1]) < last then return 0 end
redis.call('rpush', KEYS[1], ARGV[1]) return 1";
const RELEASE: &str =
    "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0";

/// One holding: when it was asked for and got, and when its release was sent.
#[derive(Clone, Debug)]
struct Held {
    lock: u64,
    token: Reading,
    /// It was not got before this: when the request was last sent.
    sent: u64,
    released: u64,
    used: bool,
}

pub struct Lock {
    names: Names,
    fault: Fault,
    held: RefCell<Vec<Held>>,
    uses: RefCell<Vec<(u64, Vec<i64>)>>,
}

impl Lock {
    pub fn new(names: &Names, fault: Fault) -> Self {
        Self { names: names.clone(), fault, held: RefCell::default(), uses: RefCell::default() }
    }

    fn overlaps(&self) -> Vec<String> {
        let held = self.held.borrow();
        let faster = |ns: u64, ppm: u64| (u128::from(ns) * 1_000_000 / u128::from(1_000_000 + ppm)) as u64;
        let lives_ns = faster(faster(LIVES_MS * 1_000_000, self.fault.fastest_ppm()), SLEW_PPM);
        let mut wrong = Vec::new();
        for first in held.iter() {
            let ends = (first.sent + lives_ns).min(first.released);
            let others = held.iter().filter(|other| {
                other.lock == first.lock
                    && other.token.value != first.token.value
                    && other.token.called > first.token.returned
                    && other.token.returned < ends
            });
            wrong.extend(others.map(|second| format!("two had the lock: {first:?} and {second:?}")));
        }
        wrong
    }
}

impl Workload for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }
    fn workers(&self) -> u64 {
        4
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let lock = client.rng.random_range(0..LOCKS);
        let tag = self.names.tag("lock", lock);
        let (key, fence, thing) = (format!("{tag}key"), format!("{tag}fence"), format!("{tag}thing"));
        let owner = self.names.unique().to_string();
        let request = ["EVAL", ACQUIRE, "2", &key, &fence, &owner, &LIVES_MS.to_string()];
        let got = client.one(&key, request).await;
        let Some(token) = got.value().and_then(number).filter(|token| *token > 0) else { return };
        let text = token.to_string();
        let used = client.one(&key, ["EVAL", USE, "1", &thing, &text]).await;
        let used = used.value().and_then(number) == Some(1);
        let token = Reading { called: got.called, returned: got.returned, value: token, grows: true };
        let at = self.held.borrow().len();
        self.held.borrow_mut().push(Held { lock, token, sent: got.sent, released: u64::MAX, used });
        // Some holders die.
        if client.rng.random_bool(0.8) {
            let released = client.one(&key, ["EVAL", RELEASE, "1", &key, &owner]).await;
            self.held.borrow_mut()[at].released = released.called;
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        for lock in 0..LOCKS {
            let thing = format!("{}thing", self.names.tag("lock", lock));
            let ended = settled(client, &thing, &[words(["LRANGE", &thing, "0", "-1"])]).await?;
            self.uses.borrow_mut().push((lock, ended.value().and_then(numbers).unwrap_or_default()));
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (lock, uses) in self.uses.borrow().iter() {
            let held: Vec<Held> =
                self.held.borrow().iter().filter(|held| held.lock == *lock).cloned().collect();
            let tokens: Vec<Reading> = held.iter().map(|held| held.token).collect();
            wrong.extend(falling(&tokens));
            if !uses.is_sorted() {
                wrong.push(format!("lock {lock}: tokens were used out of order: {uses:?}"));
            }
            let lost = held.iter().filter(|held| held.used && !uses.contains(&held.token.value));
            wrong.extend(lost.map(|held| format!("lock {lock}: an acknowledged use is lost: {held:?}")));
        }
        wrong.extend(self.overlaps());
        wrong.truncate(TOLD_MAX);
        wrong
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;

    #[test]
    fn two_holders_at_a_time_are_found() {
        let names = Names { phase: "p".into(), last: Rc::default() };
        let held = |value, called, released| {
            let token = Reading { called, returned: called + 10, value, grows: true };
            Held { lock: 0, token, sent: called, released, used: false }
        };
        let check_under = |fault: Fault, first: Held, second: Held| {
            let lock = Lock::new(&names, fault);
            lock.held.borrow_mut().extend([first, second]);
            lock.uses.borrow_mut().push((0, vec![]));
            lock.check()
        };
        let check = |second: Held| check_under(Fault::Kill, held(1, 0, 1000), second);
        assert_eq!(check(held(2, 1500, u64::MAX)), Vec::<String>::new());
        assert_eq!(check(held(2, 500, u64::MAX)).len(), 1);
        assert_eq!(check(held(1, 1500, u64::MAX)).len(), 1, "a token that does not grow");
        // It dies without a release: the whole of its time counts, by the fastest clock.
        let after = |fault: Fault, ms: u64| {
            check_under(fault, held(1, 0, u64::MAX), held(2, ms * 1_000_000, u64::MAX)).len()
        };
        assert_eq!((after(Fault::ClockJump, 1491), after(Fault::ClockJump, 1493)), (1, 0));
        assert_eq!((after(Fault::ClockRate, 1430), after(Fault::ClockRate, 1432)), (1, 0));
    }
}
