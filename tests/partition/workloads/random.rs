//! Scripts full of what differs from run to run: time, chance, the order of sets, expiry.
//!
//! What they leave must be the same on all replicas; that is seen when the digests
//! of all replicas are compared after the phase. Here it is seen that a script's own
//! reply is what it left.

use std::cell::RefCell;

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, TOLD_MAX, Workload, settled};
use crate::client::{Client, words};

const TAGS: u64 = 4;

const SCRIPT: &str = "local now, set, out = redis.call('time'), KEYS[1], KEYS[2]
for i = 1, 5 do redis.call('sadd', set, math.random(1, 1000)) end
local one = redis.call('srandmember', set)
local gone = redis.call('spop', set)
local members = redis.call('smembers', set)
local any = redis.call('randomkey')
local text = now[1] .. ':' .. now[2] .. ':' .. tostring(one) .. ':' .. tostring(gone) .. ':' .. #members
  .. ':' .. tostring(members[1]) .. ':' .. tostring(any) .. ':' .. math.random()
redis.call('hset', out, ARGV[1], text)
redis.call('set', KEYS[3], text, 'PX', math.random(1, 400))
redis.call('zadd', KEYS[4], math.random(), text)
if redis.call('zcard', KEYS[4]) > 20 then redis.call('zpopmin', KEYS[4], 5) end
return text";

pub struct Random {
    names: Names,
    told: RefCell<Vec<(u64, u64, Vec<u8>)>>,
    wrong: RefCell<Vec<String>>,
}

impl Random {
    pub fn new(names: &Names) -> Self {
        Self { names: names.clone(), told: RefCell::default(), wrong: RefCell::default() }
    }
}

impl Workload for Random {
    fn name(&self) -> &'static str {
        "random-scripts"
    }
    fn workers(&self) -> u64 {
        2
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let (number, id) = (client.rng.random_range(0..TAGS), self.names.unique());
        let tag = self.names.tag("random", number);
        let mut request = words(["EVAL", SCRIPT, "4"]);
        request.extend(["set", "out", "brief", "scores"].map(|key| format!("{tag}{key}")));
        request.push(id.to_string());
        let ended = client.call(&tag, &[request]).await;
        if let Some(Value::Bulk(text)) = ended.value() {
            self.told.borrow_mut().push((number, id, text.clone()));
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        for (number, id, text) in self.told.take() {
            let out = format!("{}out", self.names.tag("random", number));
            let ended = settled(client, &out, &[words(["HGET", &out, &id.to_string()])]).await?;
            if ended.value() != Some(&Value::Bulk(text.clone())) {
                let text = String::from_utf8_lossy(&text).into_owned();
                self.wrong.borrow_mut().push(format!("told {text}, left {:?}", ended.value()));
            }
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        self.wrong.take().into_iter().take(TOLD_MAX).collect()
    }
}
