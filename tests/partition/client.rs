//! One client: a request, and what certainly or possibly became of it.
//!
//! INVARIANT: [`Outcome::Failed`] is only said of what had no effect and never
//! will: the connection was refused, or the reply is a redirect or an error. What
//! was sent and not answered is [`Outcome::Unknown`]. A redirect is followed by
//! sending the same request again, which a promise of the server makes right: a
//! redirected request was not executed.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    time::{Duration, Instant},
};

use moonraft_router::slot_of;
use moonraft_tests::value::{Value, read_value};
use rand::{RngExt as _, rngs::StdRng};
use serde_json::{Value as Json, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// A connection that is not made by then is not made: nothing was sent.
const CONNECT: Duration = Duration::from_millis(800);
/// A reply that is not there by then is unknown. The server parks requests for two
/// node timeouts, two seconds.
const REPLY: Duration = Duration::from_millis(2500);
/// How long a request is tried again that certainly had no effect.
const RETRY: Duration = Duration::from_millis(2000);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);
/// Slots of the cluster.
const SLOTS: usize = 16384;

/// Words of one command.
pub type Words = Vec<String>;

/// The words of a command.
pub fn words<const N: usize>(words: [&str; N]) -> Words {
    words.map(str::to_owned).to_vec()
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was done; the reply to its last command.
    Done(Value),
    /// It had no effect.
    Failed(String),
    /// Nobody knows.
    Unknown(String),
}

/// A request that has ended, nanoseconds since the start of the run.
#[derive(Clone, Debug)]
pub struct Ended {
    /// When it was first sent.
    pub called: u64,
    /// When it was last sent: what was sent before certainly had no effect.
    pub sent: u64,
    /// When it was answered; `u64::MAX` if it was not.
    pub returned: u64,
    /// What became of it.
    pub outcome: Outcome,
}

impl Ended {
    /// The reply, if it was done.
    pub fn value(&self) -> Option<&Value> {
        match &self.outcome {
            Outcome::Done(value) => Some(value),
            _ => None,
        }
    }

    /// Whether it may have had an effect.
    pub fn maybe(&self) -> bool {
        !matches!(self.outcome, Outcome::Failed(_))
    }
}

/// What all clients of one workload did.
pub struct Journal {
    /// The start of the run.
    pub start: Instant,
    /// All of it, for the file that is kept on a violation.
    pub lines: RefCell<Vec<Json>>,
    /// Requests done, failed, of unknown outcome.
    pub done: Cell<u64>,
    /// See `done`.
    pub failed: Cell<u64>,
    /// See `done`.
    pub unknown: Cell<u64>,
    /// Replies that no client should ever be given.
    pub surprises: RefCell<Vec<String>>,
}

impl Journal {
    /// An empty one.
    pub fn new(start: Instant) -> Rc<Self> {
        Rc::new(Self {
            start,
            lines: RefCell::default(),
            done: Cell::new(0),
            failed: Cell::new(0),
            unknown: Cell::new(0),
            surprises: RefCell::default(),
        })
    }

    /// Nanoseconds since the start.
    pub fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    fn note(&self, commands: &[Words], ended: &Ended) {
        let (counter, kind, value) = match &ended.outcome {
            Outcome::Done(value) => (&self.done, "ok", show(value)),
            Outcome::Failed(why) => (&self.failed, "fail", json!(why)),
            Outcome::Unknown(why) => (&self.unknown, "info", json!(why)),
        };
        counter.set(counter.get() + 1);
        let returned = (ended.returned != u64::MAX).then_some(ended.returned);
        self.lines.borrow_mut().push(json!({
            "called": ended.called, "returned": returned, "type": kind, "request": commands, "value": value,
        }));
    }
}

fn show(value: &Value) -> Json {
    match value {
        Value::Status(text) | Value::Error(text) => json!(text),
        Value::Int(number) => json!(number),
        Value::Bulk(bytes) => json!(String::from_utf8_lossy(bytes)),
        Value::Nil => Json::Null,
        Value::Array(items) => items.iter().map(show).collect(),
    }
}

struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

/// What came of sending a request once.
enum Attempt {
    Answered(Vec<Value>),
    NotSent(String),
    Lost(String),
}

/// What a reply tells a client.
enum Told {
    Value(Value),
    Moved(SocketAddr),
    NotDone(String),
}

/// A client of the cluster; it does one thing at a time.
pub struct Client {
    addresses: Rc<[SocketAddr]>,
    /// Who seems to lead each shard.
    owners: Vec<Option<SocketAddr>>,
    connections: HashMap<SocketAddr, Connection>,
    journal: Rc<Journal>,
    /// When the last request was last sent.
    sent: u64,
    /// What it draws from.
    pub rng: StdRng,
}

impl Client {
    /// A client that knows these addresses, of a cluster of so many shards.
    pub fn new(addresses: Rc<[SocketAddr]>, shards: usize, journal: Rc<Journal>, rng: StdRng) -> Self {
        Self { addresses, owners: vec![None; shards], connections: HashMap::new(), journal, sent: 0, rng }
    }

    /// One command at the owner of `key`.
    pub async fn one<const N: usize>(&mut self, key: &str, command: [&str; N]) -> Ended {
        self.call(key, &[words(command)]).await
    }

    /// Commands at the owner of `key`, in one go; the last reply is the answer.
    pub async fn call(&mut self, key: &str, commands: &[Words]) -> Ended {
        let shard = self.shard_of(key);
        let called = self.journal.now();
        let outcome = self.follow(shard, commands).await;
        self.end(called, commands, outcome)
    }

    /// Optimistic locking: watches `key` and reads it, and then does what `then` says
    /// of its value, on the same connection, in one `MULTI`.
    pub async fn watch(&mut self, key: &str, then: impl Fn(&Value) -> Vec<Words>) -> Ended {
        let shard = self.shard_of(key);
        let address = self.owner(shard);
        let called = self.journal.now();
        let look = [words(["WATCH", key]), words(["MGET", key])];
        let value = match self.attempt(address, &look, true).await {
            Attempt::Answered(replies) => match self.told(&replies) {
                Told::Value(value) => value,
                Told::Moved(to) => {
                    self.owners[shard] = Some(to);
                    return self.end(called, &look, Outcome::Failed("moved".into()));
                }
                Told::NotDone(why) => return self.end(called, &look, Outcome::Failed(why)),
            },
            // A look has no effect.
            Attempt::NotSent(why) | Attempt::Lost(why) => {
                self.owners[shard] = None;
                return self.end(called, &look, Outcome::Failed(why));
            }
        };
        let block = [vec![words(["MULTI"])], then(&value), vec![words(["EXEC"])]].concat();
        let outcome = match self.attempt(address, &block, false).await {
            Attempt::Answered(replies) => match self.told(&replies) {
                Told::Value(Value::Nil) => Outcome::Failed("somebody else changed it".into()),
                Told::Value(value) => Outcome::Done(value),
                Told::Moved(to) => {
                    self.owners[shard] = Some(to);
                    Outcome::Failed("moved".into())
                }
                Told::NotDone(why) => Outcome::Failed(why),
            },
            Attempt::NotSent(why) => Outcome::Failed(why),
            Attempt::Lost(why) => Outcome::Unknown(why),
        };
        self.end(called, &block, outcome)
    }

    fn end(&self, called: u64, commands: &[Words], outcome: Outcome) -> Ended {
        let unknown = matches!(outcome, Outcome::Unknown(_));
        let returned = if unknown { u64::MAX } else { self.journal.now() };
        let ended = Ended { called, sent: self.sent.max(called), returned, outcome };
        self.journal.note(commands, &ended);
        ended
    }

    fn shard_of(&self, key: &str) -> usize {
        usize::from(slot_of(key.as_bytes())) * self.owners.len() / SLOTS
    }

    fn owner(&mut self, shard: usize) -> SocketAddr {
        self.owners[shard].unwrap_or_else(|| {
            let at = self.rng.random_range(0..self.addresses.len());
            self.addresses[at]
        })
    }

    async fn follow(&mut self, shard: usize, commands: &[Words]) -> Outcome {
        let until = Instant::now() + RETRY;
        loop {
            let address = self.owner(shard);
            self.sent = self.journal.now();
            let why = match self.attempt(address, commands, true).await {
                Attempt::Lost(why) => {
                    self.owners[shard] = None;
                    return Outcome::Unknown(why);
                }
                Attempt::NotSent(why) => {
                    self.owners[shard] = None;
                    why
                }
                Attempt::Answered(replies) => match self.told(&replies) {
                    Told::Value(value) => {
                        self.owners[shard] = Some(address);
                        return Outcome::Done(value);
                    }
                    Told::Moved(to) => {
                        self.owners[shard] = Some(to);
                        format!("moved to {to}")
                    }
                    Told::NotDone(why) => why,
                },
            };
            if Instant::now() > until {
                return Outcome::Failed(why);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn told(&self, replies: &[Value]) -> Told {
        let errors = replies.iter().filter_map(|reply| match reply {
            Value::Error(text) => Some(text),
            _ => None,
        });
        let Some(first) = errors.into_iter().next() else {
            return replies.last().cloned().map_or_else(|| Told::NotDone("no reply".into()), Told::Value);
        };
        match first.split(' ').next().unwrap_or_default() {
            "MOVED" => match first.rsplit(' ').next().and_then(|to| to.parse().ok()) {
                Some(to) => Told::Moved(to),
                None => Told::NotDone(first.clone()),
            },
            "CLUSTERDOWN" | "TRYAGAIN" | "ASK" | "EXECABORT" | "LOADING" | "MASTERDOWN" | "READONLY"
            | "OOM" | "MISCONF" | "BUSY" => Told::NotDone(first.clone()),
            // A script may come before the members of a new shard have agreed on the newest format.
            _ if first.starts_with("ERR this request needs format ") => Told::NotDone(first.clone()),
            _ => {
                self.journal.surprises.borrow_mut().push(first.clone());
                Told::NotDone(first.clone())
            }
        }
    }

    /// Sends once. `fresh` allows a new connection.
    async fn attempt(&mut self, address: SocketAddr, commands: &[Words], fresh: bool) -> Attempt {
        let mut connection = match self.connections.remove(&address) {
            Some(connection) => connection,
            None if !fresh => return Attempt::NotSent("the connection is gone".into()),
            None => match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let _ = stream.set_nodelay(true);
                    Connection { stream, input: Vec::new() }
                }
                Ok(Err(error)) => return Attempt::NotSent(format!("{address}: {error}")),
                Err(_) => return Attempt::NotSent(format!("{address}: no connection in time")),
            },
        };
        match timeout(REPLY, converse(&mut connection, commands)).await {
            Ok(Ok(replies)) => {
                self.connections.insert(address, connection);
                Attempt::Answered(replies)
            }
            Ok(Err(error)) => Attempt::Lost(format!("{address}: {error}")),
            Err(_) => Attempt::Lost(format!("{address}: no reply in time")),
        }
    }
}

async fn converse(connection: &mut Connection, commands: &[Words]) -> std::io::Result<Vec<Value>> {
    let mut bytes = Vec::new();
    for words in commands {
        bytes.extend(format!("*{}\r\n", words.len()).bytes());
        words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
    }
    connection.stream.write_all(&bytes).await?;
    let mut replies = Vec::new();
    loop {
        while replies.len() < commands.len() {
            let mut rest = connection.input.as_slice();
            let Some(value) = read_value(&mut rest) else { break };
            let taken = connection.input.len() - rest.len();
            connection.input.drain(..taken);
            replies.push(value);
        }
        if replies.len() == commands.len() {
            return Ok(replies);
        }
        if connection.stream.read_buf(&mut connection.input).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}
