//! A request that works through much, on its way to where it is executed, and what came of it.
//!
//! It is all that is needed: the request, or those of a block, the values of its keys, the limits. So whoever carries it out needs nothing
//! of the shard, which serves others meanwhile: see [`super::errands`].

use bytes::BytesMut;
use moonraft_proto::{Protocol, Reply, Weight};
use moonraft_router::keys::KeyPositions;

use super::{ShardSettings, execute::exceeded_limit};
use crate::{
    command::{self, Command, Request, Slots},
    keyspace::{
        Store,
        tx::{Borrowed, Loan},
    },
};

/// See the module.
pub struct Errand {
    /// Its number: the shard counts them.
    pub number: u64,
    /// The request, or those of a block.
    parts: Vec<Part>,
    is_block: bool,
    loan: Loan,
    settings: ShardSettings,
    asker: Asker,
}

/// Who asks for an errand.
#[derive(Clone, Copy)]
pub enum Asker {
    /// A client, for whom the reply is written; `None`: it wants none.
    Client(Option<Protocol>),
    /// A block or a script, which goes on with the reply.
    Call,
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
    /// The reply to a call, unless it is too large.
    pub value: Option<command::Outcome<'static>>,
    /// It again, if it is an error.
    pub error: Option<Reply<'static>>,
    /// It has found nothing, and would wait: nothing was done.
    pub waits: bool,
    /// The requests of a block that were executed, each with its reply if that is an error.
    pub called: Vec<(&'static Command, Option<Reply<'static>>)>,
}

/// One request, with words of its own.
pub struct Part {
    command: &'static Command,
    words: Words,
    keys: KeyPositions,
    slots: Slots,
}

impl Part {
    /// A copy of a request.
    pub fn new(request: &Request<'_>) -> Self {
        let Request { command, words, ref keys, slots } = *request;
        Self { command, words: Words::new(words), keys: keys.clone(), slots }
    }

    /// Its keys from this one on, as they come.
    pub fn keys_from(&self, nth: usize) -> impl Iterator<Item = &[u8]> {
        self.keys[nth..].iter().map(|&position| self.words.get(position))
    }

    fn request<'t>(&self, words: &'t [&'t [u8]]) -> Request<'t> {
        let Self { command, ref keys, slots, .. } = *self;
        Request { command, words, keys: keys.clone(), slots }
    }
}

/// A reply on its way.
#[derive(Default)]
struct Written {
    reply: BytesMut,
    weight: Weight,
    value: Option<command::Outcome<'static>>,
    error: Option<Reply<'static>>,
    waits: bool,
    called: Vec<(&'static Command, Option<Reply<'static>>)>,
}

impl Written {
    /// Puts a reply down, unless it is too large, or its client wants none.
    fn put(&mut self, answer: &Reply<'_>, settings: &ShardSettings, protocol: Option<Protocol>) {
        let Some(protocol) = protocol else { return };
        self.weight = self.weight.and(answer.weight());
        if self.weight.counted() <= settings.limits.reply_bytes_max {
            answer.encode(protocol, &mut self.reply);
        }
    }
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

    fn get(&self, nth: usize) -> &[u8] {
        let start = nth.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[start..self.ends[nth]]
    }

    fn all(&self) -> Vec<&[u8]> {
        let mut start = 0;
        let word = |&end: &usize| &self.text[std::mem::replace(&mut start, end)..end];
        self.ends.iter().map(word).collect()
    }
}

impl Errand {
    /// A request, or those of a block, with what their keys hold.
    pub fn new(
        number: u64,
        parts: Vec<Part>,
        is_block: bool,
        loan: Loan,
        settings: ShardSettings,
        asker: Asker,
    ) -> Self {
        Self { number, parts, is_block, loan, settings, asker }
    }

    /// Carries it out.
    pub fn run(self) -> Outcome {
        let Self { number, parts, is_block, loan, settings, asker } = self;
        let mut borrowed = loan.open();
        let store = borrowed.store();
        let written = match asker {
            Asker::Call => call(&parts[0], store, &settings),
            Asker::Client(protocol) => answer(&parts, is_block, store, &settings, protocol),
        };
        borrowed.close();
        let Written { reply, weight, value, error, waits, called } = written;
        Outcome { number, borrowed, reply, weight, value, error, waits, called }
    }
}

/// What a block or a script has called. Its limits are those of all that it does.
fn call(part: &Part, store: &mut Store, settings: &ShardSettings) -> Written {
    let words = part.words.all();
    let mut tx = store.tx();
    let outcome = part.request(&words).execute(&mut tx);
    let weight = outcome.as_ref().map_or_else(|_| Weight::default(), Reply::weight);
    let fits = weight.counted() <= settings.limits.reply_bytes_max;
    Written { weight, value: fits.then(|| outcome.map(Reply::into_owned)), ..Written::default() }
}

/// What a client has asked for, unless it does too much at once.
fn answer(
    parts: &[Part],
    is_block: bool,
    store: &mut Store,
    settings: &ShardSettings,
    protocol: Option<Protocol>,
) -> Written {
    let written = match is_block {
        true => run_block(parts, store, settings, protocol),
        false => run_one(&parts[0], store, settings, protocol),
    };
    let Some(limit) = exceeded_limit(store, settings, written.weight) else { return written };
    store.roll_back_unit();
    let answer = Reply::from(limit);
    let mut refused = Written { called: written.called, ..Written::default() };
    refused.put(&answer, settings, protocol);
    refused.error = Some(answer);
    refused
}

fn run_one(part: &Part, store: &mut Store, settings: &ShardSettings, protocol: Option<Protocol>) -> Written {
    let mut written = Written::default();
    let words = part.words.all();
    let mut tx = store.tx();
    let answer = part.request(&words).execute(&mut tx).unwrap_or_else(Reply::from);
    written.put(&answer, settings, protocol);
    let found_nothing = matches!(answer, Reply::Null | Reply::NullArray);
    written.error = answer.is_error().then(|| answer.into_owned());
    written.waits = found_nothing && tx.take_wish().is_some();
    written
}

/// The requests of a block, one after the other: one that fails leaves nothing of its own.
fn run_block(
    parts: &[Part],
    store: &mut Store,
    settings: &ShardSettings,
    protocol: Option<Protocol>,
) -> Written {
    let mut written = Written { weight: Reply::Array(Vec::new()).weight(), ..Written::default() };
    written.reply.extend_from_slice(format!("*{}\r\n", parts.len()).as_bytes());
    for part in parts {
        if exceeded_limit(store, settings, written.weight).is_some() {
            break; // it will be refused whole
        }
        let words = part.words.all();
        let mut tx = store.tx();
        let answer = part.request(&words).execute(&mut tx).unwrap_or_else(Reply::from);
        written.put(&answer, settings, protocol);
        written.called.push((part.command, answer.is_error().then(|| answer.into_owned())));
    }
    if protocol.is_none() {
        written.reply.clear();
    }
    written
}
