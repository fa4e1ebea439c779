//! The load generator: a fixed number of connections, each with a pipeline of
//! fixed depth that is refilled when all of its replies have come.
//!
//! One thread drives all of them, so that of two cores at least one is left to
//! the servers. A request's latency is that of the pipeline it was sent in.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::BytesMut;
use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

use crate::servers::System;
use crate::wire::take_replies;
use crate::workload::{Acknowledgement, COUPON_KEYS, COUPON_SCRIPT, COUPON_STOCK, Requests, Workload};
use crate::{Options, seconds};

/// Significant digits of latencies: an error of a thousandth.
const LATENCY_DIGITS: u8 = 3;

/// Requests sent together when a keyspace is loaded.
const LOAD_BATCH: u64 = 64;

/// No reply of a healthy server takes that long.
const REPLY_TIMEOUT: Duration = Duration::from_secs(30);

/// One kind of load, to be put on one side or the other.
#[derive(Clone)]
pub struct Load {
    workload: Workload,
    pipeline: usize,
    acknowledgement: Acknowledgement,
    connections: usize,
    keys: u64,
    warm_up: Duration,
    duration: Duration,
}

/// What came of it.
pub struct Measurement {
    /// Requests answered, `WAIT` not counted.
    pub operations: u64,
    /// For how long.
    pub elapsed: Duration,
    /// CPU time of all server processes in that time.
    pub cpu: Duration,
    /// Nanoseconds from sending a pipeline to its last reply, a value a request.
    pub latency: Histogram<u64>,
}

impl Measurement {
    /// Requests a second.
    pub fn throughput(&self) -> f64 {
        self.operations as f64 / self.elapsed.as_secs_f64()
    }

    /// Microseconds of CPU a request.
    pub fn cpu_micros(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.operations.max(1) as f64
    }
}

impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (rate, cpu) = (self.throughput(), self.cpu_micros());
        write!(formatter, "{rate:.0} a second, {cpu:.2} us CPU")
    }
}

impl fmt::Display for Load {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} x {}", self.workload, self.pipeline)
    }
}

/// What the connections of one measurement share.
struct Shared {
    /// Set when the connections are to end.
    is_over: Cell<bool>,
    operations: Cell<u64>,
    latency: RefCell<Histogram<u64>>,
    /// Why the first connection that failed did.
    failure: RefCell<Option<anyhow::Error>>,
}

impl Load {
    /// A load of the given kind, the rest as the options say.
    pub fn new(
        options: &Options,
        workload: Workload,
        pipeline: usize,
        acknowledgement: Acknowledgement,
    ) -> Self {
        Self {
            workload,
            pipeline,
            acknowledgement,
            connections: options.connections,
            keys: options.keys,
            warm_up: seconds(options.warm_up),
            duration: seconds(options.seconds),
        }
    }

    /// Prepares the keyspace, puts the load on, and measures.
    pub fn run(&self, runtime: &tokio::runtime::Runtime, system: &System) -> anyhow::Result<Measurement> {
        let sha = self.prepare(runtime, system)?;
        LocalSet::new().block_on(runtime, self.measure(system, sha))
    }

    /// Empties the keyspace and puts in what the workload needs; returns the script's digest.
    fn prepare(&self, runtime: &tokio::runtime::Runtime, system: &System) -> anyhow::Result<String> {
        let mut control = system.control()?;
        redis::cmd("FLUSHALL").exec(&mut control)?;
        redis::cmd("SET").arg(COUPON_KEYS[0]).arg(COUPON_STOCK).exec(&mut control)?;
        let sha = redis::cmd("SCRIPT").arg("LOAD").arg(COUPON_SCRIPT).query(&mut control)?;
        if self.workload == Workload::Get {
            fill(runtime, system, self.keys, self.connections)?;
        }
        Ok(sha)
    }

    async fn measure(&self, system: &System, sha: String) -> anyhow::Result<Measurement> {
        let shared = Rc::new(Shared {
            is_over: Cell::new(false),
            operations: Cell::new(0),
            latency: RefCell::new(Histogram::new(LATENCY_DIGITS)?),
            failure: RefCell::new(None),
        });
        let mut tasks = Vec::new();
        for number in 0..self.connections {
            let stream = connect(system).await?;
            let (acknowledgement, sha) = (self.acknowledgement, sha.clone());
            let (number, connections) = (number as u64, self.connections as u64);
            let requests = Requests::new(self.workload, acknowledgement, self.keys, sha, number, connections);
            let task = drive(stream, requests, self.pipeline, Rc::clone(&shared));
            let shared = Rc::clone(&shared);
            tasks.push(tokio::task::spawn_local(async move {
                if let Err(error) = task.await {
                    shared.is_over.set(true);
                    shared.failure.borrow_mut().get_or_insert(error);
                }
            }));
        }

        tokio::time::sleep(self.warm_up).await;
        let (cpu_before, operations_before) = (system.cpu()?, shared.operations.get());
        shared.latency.borrow_mut().reset();
        let started = Instant::now();
        tokio::time::sleep(self.duration).await;
        let elapsed = started.elapsed();
        let cpu = system.cpu()? - cpu_before;
        let operations = shared.operations.get() - operations_before;
        let latency = shared.latency.borrow().clone();

        shared.is_over.set(true);
        for task in tasks {
            task.await?;
        }
        match shared.failure.take() {
            Some(error) => Err(error),
            None => Ok(Measurement { operations, elapsed, cpu, latency }),
        }
    }
}

/// One connection: fill the pipeline, await all replies, again.
async fn drive(
    mut stream: TcpStream,
    mut requests: Requests,
    pipeline: usize,
    shared: Rc<Shared>,
) -> anyhow::Result<()> {
    let (mut out, mut input) = (BytesMut::new(), BytesMut::with_capacity(1 << 16));
    while !shared.is_over.get() {
        out.clear();
        let replies = requests.write(pipeline, &mut out);
        let sent = Instant::now();
        stream.write_all(&out).await?;
        read_replies(&mut stream, &mut input, replies).await?;
        let nanos = sent.elapsed().as_nanos() as u64;
        shared.latency.borrow_mut().record_n(nanos.max(1), pipeline as u64)?;
        shared.operations.set(shared.operations.get() + pipeline as u64);
    }
    Ok(())
}

/// Reads until `count` replies have come.
async fn read_replies(stream: &mut TcpStream, input: &mut BytesMut, mut count: usize) -> anyhow::Result<()> {
    while count > 0 {
        let read = tokio::time::timeout(REPLY_TIMEOUT, stream.read_buf(input));
        if read.await.context("a reply is missing")?? == 0 {
            bail!("the server closed the connection");
        }
        count -= take_replies(input, count)?;
    }
    Ok(())
}

/// Sets the keys 0 to `keys`, as fast as the server takes them.
pub fn fill(
    runtime: &tokio::runtime::Runtime,
    system: &System,
    keys: u64,
    connections: usize,
) -> anyhow::Result<()> {
    let next = Rc::new(Cell::new(0));
    LocalSet::new().block_on(runtime, async {
        let mut tasks = Vec::new();
        for number in 0..connections {
            let stream = connect(system).await?;
            tasks.push(tokio::task::spawn_local(fill_one(stream, number as u64, keys, next.clone())));
        }
        for task in tasks {
            task.await??;
        }
        Ok(())
    })
}

/// Takes batches of keys until none is left.
async fn fill_one(mut stream: TcpStream, number: u64, keys: u64, next: Rc<Cell<u64>>) -> anyhow::Result<()> {
    let (mut out, mut input) = (BytesMut::new(), BytesMut::new());
    let mut requests = Requests::new(Workload::Set, Acknowledgement::Reply, keys, String::new(), number, 1);
    while next.get() < keys {
        let first = next.get();
        let last = keys.min(first + LOAD_BATCH);
        next.set(last);
        out.clear();
        let replies = requests.write_load(first, last, &mut out);
        stream.write_all(&out).await?;
        read_replies(&mut stream, &mut input, replies).await?;
    }
    Ok(())
}

async fn connect(system: &System) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(("127.0.0.1", system.port)).await;
    let stream = stream.with_context(|| format!("connecting to {}", system.name))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
