//! An application on redis-rs' asynchronous cluster client, during a failover.
//!
//! One writer a hash tag writes numbered keys through one shared connection, as
//! applications do, and remembers what was acknowledged. Standard output says
//! how far the slowest writer came (`progress N of the slowest writer`). SIGTERM ends the
//! writing; then everything acknowledged is read back, and the exit code tells
//! whether it was all there. `test_failover.py` kills a leader meanwhile,
//! `test_rolling_restart.py` restarts all nodes.

// `Instant` and friends are banned from the core, which this is not.
#![allow(clippy::disallowed_methods)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use redis::AsyncCommands;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use tokio::signal::unix::{SignalKind, signal};

/// Acknowledged writes of the slowest writer between two lines of progress.
const PROGRESS_STEP: u64 = 20;

/// A wait that is told when it happens, if it is the longest so far.
const SLOW_US: u64 = 50_000;

/// Reads of one round trip when everything is read back.
const READ_BATCH: usize = 500;

#[derive(Parser)]
struct Arguments {
    /// One address of the cluster, `host:port`.
    #[arg(long)]
    address: String,
    /// A hash tag to write under; best one a shard.
    #[arg(long = "tag", required = true)]
    tags: Vec<String>,
    /// Milliseconds between two writes of one writer.
    #[arg(long, default_value_t = 0)]
    pace_ms: u64,
}

/// What one writer did so far.
#[derive(Default)]
struct Record {
    /// Keys 1 to this number were acknowledged.
    acknowledged: AtomicU64,
    /// How often the client handed an error to the application.
    errors: AtomicU64,
    /// Microseconds of the longest wait for one write.
    longest_us: AtomicU64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let client = ClusterClient::new(vec![format!("redis://{}", arguments.address)])?;
    let connection = client.get_async_connection().await.context("connecting")?;

    let pace = Duration::from_millis(arguments.pace_ms);
    let done = Arc::new(AtomicBool::new(false));
    let records: Vec<Arc<Record>> = arguments.tags.iter().map(|_| Arc::default()).collect();
    let writers: Vec<_> = arguments
        .tags
        .iter()
        .zip(&records)
        .map(|(tag, record)| {
            let (connection, tag) = (connection.clone(), tag.clone());
            tokio::spawn(write(connection, tag, Arc::clone(record), Arc::clone(&done), pace))
        })
        .collect();

    report_until_told_to_stop(&records).await?;
    done.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await?;
    }

    let mut lost = 0;
    let mut written = 0;
    for (tag, record) in arguments.tags.iter().zip(&records) {
        let acknowledged = record.acknowledged.load(Ordering::Relaxed);
        written += acknowledged;
        lost += count_lost(connection.clone(), tag, acknowledged).await?;
    }
    let errors: u64 = records.iter().map(|record| record.errors.load(Ordering::Relaxed)).sum();
    let longest_us =
        records.iter().map(|record| record.longest_us.load(Ordering::Relaxed)).max().unwrap_or(0);
    println!("acknowledged {written}, lost {lost}, errors {errors}, longest {} ms", longest_us / 1000);
    if lost > 0 {
        bail!("{lost} of {written} acknowledged writes are lost");
    }
    Ok(())
}

/// The key of a write.
fn key(tag: &str, number: u64) -> String {
    format!("{tag}:redis-rs:{number}")
}

/// Writes one key after the other; one whose outcome is unknown is repeated.
async fn write(
    mut connection: ClusterConnection,
    tag: String,
    record: Arc<Record>,
    done: Arc<AtomicBool>,
    pace: Duration,
) {
    while !done.load(Ordering::Relaxed) {
        let number = record.acknowledged.load(Ordering::Relaxed) + 1;
        let begin = Instant::now();
        match connection.set::<_, _, ()>(key(&tag, number), number).await {
            Ok(()) => record.acknowledged.store(number, Ordering::Relaxed),
            Err(error) => {
                record.errors.fetch_add(1, Ordering::Relaxed);
                println!("error of {tag}: {error}");
                tokio::task::yield_now().await;
            }
        }
        let waited_us = begin.elapsed().as_micros() as u64;
        if waited_us > record.longest_us.fetch_max(waited_us, Ordering::Relaxed) && waited_us > SLOW_US {
            println!("slow: {} ms of {tag}", waited_us / 1000);
        }
        tokio::time::sleep(pace).await;
    }
}

/// Prints progress until SIGTERM.
async fn report_until_told_to_stop(records: &[Arc<Record>]) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let mut reported = 0;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = look.tick() => {}
        }
        let slowest =
            records.iter().map(|record| record.acknowledged.load(Ordering::Relaxed)).min().unwrap_or(0);
        if slowest >= reported + PROGRESS_STEP {
            reported = slowest;
            println!("progress {slowest} of the slowest writer");
        }
    }
}

/// How many of the acknowledged writes cannot be read back.
async fn count_lost(mut connection: ClusterConnection, tag: &str, acknowledged: u64) -> anyhow::Result<u64> {
    let numbers: Vec<u64> = (1..=acknowledged).collect();
    let mut lost = 0;
    for batch in numbers.chunks(READ_BATCH) {
        let keys: Vec<String> = batch.iter().map(|number| key(tag, *number)).collect();
        let values: Vec<Option<u64>> = connection.mget(keys).await?;
        let missing = values.iter().zip(batch).filter(|(value, number)| **value != Some(**number));
        lost += missing.count() as u64;
    }
    Ok(lost)
}
