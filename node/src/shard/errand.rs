//! A request that works through much, on its way to where it is executed, and what came of it.
//!
//! It is all that is needed: the request, the values of its keys, the limits. So whoever carries it out needs nothing
//! of the shard, which serves others meanwhile: see [`super::errands`].

use bytes::BytesMut;
use moonraft_proto::{Protocol, Reply, Weight};
use moonraft_router::keys::KeyPositions;

use super::{ShardSettings, execute::exceeded_limit};
use crate::{
    command::{Command, Request, Slots},
    keyspace::tx::{Borrowed, Loan},
};

/// See the module.
pub struct Errand {
    /// Its number: the shard counts them.
    pub number: u64,
    command: &'static Command,
    words: Words,
    keys: KeyPositions,
    slots: Slots,
    loan: Loan,
    settings: ShardSettings,
    /// How its reply is written; `None`: its client wants none.
    protocol: Option<Protocol>,
}

/// What came of an errand.
pub struct Outcome {
    /// The errand's number.
    pub number: u64,
    /// The values, with what was done to them.
    pub borrowed: Borrowed,
    /// The reply, as it is written.
    pub reply: BytesMut,
    /// What it weighs.
    pub weight: Weight,
    /// It again, if it is an error.
    pub error: Option<Reply<'static>>,
}

/// Words in one piece: there may be a million.
struct Words {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Words {
    fn new(words: &[&[u8]]) -> Self {
        let mut text = Vec::with_capacity(words.iter().map(|word| word.len()).sum());
        let mut ends = Vec::with_capacity(words.len());
        for word in words {
            text.extend_from_slice(word);
            ends.push(text.len());
        }
        Self { text, ends }
    }

    fn all(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let word = |&end: &usize| &self.text[std::mem::replace(&mut start, end)..end];
        self.ends.iter().map(word).collect()
    }
}

impl Errand {
    /// A request with what its keys hold. Its client wants the reply written so, or none.
    pub fn new(
        number: u64,
        request: &Request<'_>,
        loan: Loan,
        settings: ShardSettings,
        protocol: Option<Protocol>,
    ) -> Self {
        let Request { command, words, ref keys, slots } = *request;
        let (words, keys) = (Words::new(words), keys.clone());
        Self { number, command, words, keys, slots, loan, settings, protocol }
    }

    /// Carries it out.
    pub fn run(self) -> Outcome {
        let Self { number, command, words, keys, slots, loan, settings, protocol } = self;
        let words = words.all();
        let request = Request { command, words: &words, keys, slots };
        let mut borrowed = loan.open();
        let mut tx = borrowed.store().tx();
        let answer = request.execute(&mut tx).unwrap_or_else(Reply::from);
        let mut error = answer.is_error().then(|| answer.clone().into_owned());
        let mut weight = protocol.map_or(Weight::default(), |_| answer.weight());
        let mut reply = BytesMut::new();
        if let Some(protocol) = protocol.filter(|_| weight.counted() <= settings.limits.reply_bytes_max) {
            answer.encode(protocol, &mut reply);
        }
        drop(answer);
        if let Some(limit) = exceeded_limit(borrowed.store(), &settings, weight) {
            borrowed.store().roll_back_unit();
            let answer = Reply::from(limit);
            reply.clear();
            if let Some(protocol) = protocol {
                answer.encode(protocol, &mut reply);
            }
            weight = answer.weight();
            error = Some(answer);
        }
        Outcome { number, borrowed, reply, weight, error }
    }
}
