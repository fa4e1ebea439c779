//! Copies that clients keep (`CLIENT TRACKING`), of leaders and of followers: who is told to forget a key finds a later value when it
//! asks again, nobody reads less than before on one connection, and no copy that is old outlives the faults.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use moonraft_proto::{Reply, replies};
use rand::RngExt as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{Names, SERVED_WITHIN, TOLD_MAX, Workload, number, settled};
use crate::client::{Client, words};

/// Tags enough that every shard has one; a connection reads keys of one.
const TAGS: u64 = 4;
const KEYS: u64 = 3;
/// Workers that write; the others keep copies.
const WRITERS: u64 = 2;
const KEEPERS: u64 = 6;
/// A connection that says nothing for so long is given up, with its copies.
const REPLY: Duration = Duration::from_millis(2500);
/// How often a connection is given up for no reason.
const LEAVES: f64 = 0.02;

/// A connection that keeps copies of what it reads.
struct Keeper {
    stream: TcpStream,
    input: Vec<u8>,
    tag: u64,
    keys: BTreeMap<String, Known>,
}

/// What a connection knows of a key.
#[derive(Debug, Default)]
struct Known {
    /// What was read last.
    read: i64,
    /// It is kept.
    is_kept: bool,
    /// The server remembers that it was read, and has told nothing of it yet.
    is_remembered: bool,
    /// It was told that this has changed.
    has_changed: bool,
    /// Changes of which it will still be told though it has read them already: a reply that was held until the change was
    /// committed comes before what is told of it.
    overtaken: u32,
}

impl Keeper {
    /// Connects, and asks to be told. A follower answers it, too, if it may.
    async fn connect(address: SocketAddr, tag: u64, reads_followers: bool) -> Option<Self> {
        let stream = timeout(REPLY, TcpStream::connect(address)).await.ok()?.ok()?;
        let mut keeper = Self { stream, input: Vec::new(), tag, keys: BTreeMap::new() };
        keeper.ask(&["HELLO", "3"]).await?;
        if reads_followers {
            keeper.ask(&["READONLY"]).await?;
        }
        keeper.ask(&["CLIENT", "TRACKING", "ON"]).await?;
        Some(keeper)
    }

    /// The reply to a request; what comes before it is heard. `None`: the connection is of no use any more.
    async fn ask(&mut self, words: &[&str]) -> Option<Reply<'static>> {
        let mut request = format!("*{}\r\n", words.len());
        words.iter().for_each(|word| request += &format!("${}\r\n{word}\r\n", word.len()));
        self.stream.write_all(request.as_bytes()).await.ok()?;
        timeout(REPLY, self.reply()).await.ok()?
    }

    async fn reply(&mut self) -> Option<Reply<'static>> {
        loop {
            while let Some((reply, taken)) = replies::read(&self.input).ok()? {
                let reply = reply.into_owned();
                self.input.drain(..taken);
                match reply {
                    Reply::Push(message) => self.hear(&message),
                    reply => return Some(reply),
                }
            }
            if self.stream.read_buf(&mut self.input).await.ok()? == 0 {
                return None;
            }
        }
    }

    /// What is told to forget is forgotten.
    fn hear(&mut self, message: &[Reply<'_>]) {
        let [_, Reply::Array(keys)] = message else {
            return self
                .keys
                .values_mut()
                .for_each(|known| *known = Known { read: known.read, ..Known::default() });
        };
        for key in keys {
            let Reply::Bulk(key) = key else { continue };
            let Some(known) = self.keys.get_mut(&*String::from_utf8_lossy(key)) else { continue };
            known.is_kept = false;
            match known.overtaken {
                0 => known.is_remembered = false,
                _ => known.overtaken -= 1,
            }
            known.has_changed |= !known.is_remembered;
        }
    }

    /// Keeps what was read. What is wrong with it, if anything is.
    fn keep(&mut self, key: String, read: i64) -> Option<String> {
        let known = self.keys.entry(key.clone()).or_default();
        let least = known.read + i64::from(known.has_changed);
        let wrong =
            (read < least).then(|| format!("{key} was read as {read}, and is {least} at least: {known:?}"));
        known.overtaken += u32::from(known.is_remembered && read > known.read);
        *known = Known { read, is_kept: true, is_remembered: true, has_changed: false, ..*known };
        wrong
    }

    fn keeps_any(&self) -> bool {
        self.keys.values().any(|known| known.is_kept)
    }
}

pub struct Copies {
    names: Names,
    addresses: Vec<SocketAddr>,
    keepers: RefCell<BTreeMap<u64, Keeper>>,
    /// Where the leader of a tag's shard is said to be.
    leaders: RefCell<BTreeMap<u64, SocketAddr>>,
    wrong: RefCell<Vec<String>>,
}

impl Copies {
    pub fn new(names: &Names, addresses: &[SocketAddr]) -> Self {
        Self {
            names: names.clone(),
            addresses: addresses.to_vec(),
            keepers: RefCell::default(),
            leaders: RefCell::default(),
            wrong: RefCell::default(),
        }
    }

    fn key(&self, tag: u64, number: u64) -> String {
        format!("{}{number}", self.names.tag("copies", tag))
    }

    async fn connect(&self, client: &mut Client) -> Option<Keeper> {
        let (tag, reads_followers) = (client.rng.random_range(0..TAGS), client.rng.random_bool(0.5));
        let any = self.addresses[client.rng.random_range(0..self.addresses.len())];
        let leader = self.leaders.borrow().get(&tag).copied();
        let address = if reads_followers { any } else { leader.unwrap_or(any) };
        Keeper::connect(address, tag, reads_followers).await
    }

    /// Reads a key. Returns whether the connection is of use.
    async fn read(&self, keeper: &mut Keeper, number: u64) -> bool {
        let key = self.key(keeper.tag, number);
        let read = match keeper.ask(&["GET", &key]).await {
            None => return false,
            Some(Reply::Null) => 0,
            Some(Reply::Bulk(text)) => String::from_utf8_lossy(&text).parse().unwrap_or(-1),
            Some(Reply::Error(text)) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let Some(moved) = text.strip_prefix("MOVED ") else { return true };
                if let Some(to) = moved.rsplit(' ').next().and_then(|to| to.parse().ok()) {
                    self.leaders.borrow_mut().insert(keeper.tag, to);
                }
                // Of its copies it is told where it has them from; it reads no more there.
                return keeper.keeps_any();
            }
            Some(other) => {
                self.wrong.borrow_mut().push(format!("{key} was read as {other:?}"));
                return false;
            }
        };
        self.wrong.borrow_mut().extend(keeper.keep(key, read));
        true
    }

    /// What a connection keeps that is not so, or no more.
    async fn old_copies(&self, keeper: &mut Keeper, client: &mut Client) -> Result<Vec<String>, String> {
        if keeper.ask(&["PING"]).await.is_none() {
            return Ok(Vec::new()); // whose connection is gone keeps nothing
        }
        let mut old = Vec::new();
        for (key, known) in keeper.keys.iter().filter(|(_, known)| known.is_kept) {
            let ended = settled(client, key, &[words(["GET", key])]).await?;
            let is = ended.value().and_then(number).unwrap_or(0);
            if is != known.read {
                old.push(format!("{key} is {is}, and a copy of {} is kept", known.read));
            }
        }
        Ok(old)
    }
}

impl Workload for Copies {
    fn name(&self) -> &'static str {
        "copies"
    }
    fn workers(&self) -> u64 {
        WRITERS + KEEPERS
    }

    async fn step(&self, client: &mut Client, worker: u64) {
        let number = client.rng.random_range(0..KEYS);
        if worker < WRITERS {
            let key = self.key(client.rng.random_range(0..TAGS), number);
            client.one(&key, ["INCR", &key]).await;
            return;
        }
        let kept = self.keepers.borrow_mut().remove(&worker);
        let keeper = match kept {
            Some(keeper) => Some(keeper),
            None => self.connect(client).await,
        };
        let Some(mut keeper) = keeper else { return };
        if self.read(&mut keeper, number).await && !client.rng.random_bool(LEAVES) {
            self.keepers.borrow_mut().insert(worker, keeper);
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let until = Instant::now() + SERVED_WITHIN;
        let keepers = self.keepers.take();
        for mut keeper in keepers.into_values() {
            loop {
                let old = self.old_copies(&mut keeper, client).await?;
                if old.is_empty() {
                    break;
                }
                if Instant::now() > until {
                    self.wrong.borrow_mut().extend(old);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        self.wrong.borrow().iter().take(TOLD_MAX).cloned().collect()
    }
}
