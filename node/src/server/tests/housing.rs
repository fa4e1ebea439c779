//! Replicas are opened and closed on a node that serves.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::*;
use crate::server::{housing::HousingError, replicas::Data};

/// It counts, for the test of what is left.
#[global_allocator]
static ALLOCATOR: moonraft_allocator::Counting = moonraft_allocator::Counting;

/// Says to a test that it is alone in its process.
const ALONE: &str = "MOONRAFT_TEST_ALONE";

/// Whether the test `name` of this module is alone in its process; if not, runs it in one of its own.
fn is_alone(name: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let mut process = Command::new(std::env::current_exe().unwrap());
    process.args(["--exact", &name, "--test-threads=1", "--nocapture"]).env(ALONE, "1");
    let output = process.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    false
}

/// What a process has taken of the system: threads by name, descriptors.
fn taken_of_the_system() -> (Vec<String>, usize) {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    // One that is about to end may have no name any more.
    let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
    let mut threads: Vec<String> = tasks.filter_map(name).collect();
    threads.sort_unstable();
    (threads, fs::read_dir("/proc/self/fd").unwrap().count())
}

/// The files of a node but for its log's and the first shard's snapshots, which tell of how much was written.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir(directory).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if path.is_dir() && name != "log" {
            found.extend(files(&path));
        }
        if !name.starts_with("00000-") {
            found.insert(path.display().to_string());
        }
    }
    found
}

/// The snapshots of the shard that comes and goes.
fn snapshots(directory: &Path) -> usize {
    files(directory).iter().filter(|path| path.contains("/00001-")).count()
}

/// Writes that the first shard serves meanwhile.
#[derive(Clone, Default)]
struct Writes {
    count: Arc<AtomicU64>,
    ends: Arc<AtomicBool>,
}

/// A node of two shards.
struct Node {
    cluster: ClusterFile,
    running: RunningNode,
}

/// What the threads that stay may have counted on their own.
const UNSETTLED_BYTES: u64 = 256 << 10;
/// The shard that comes and goes.
const SHARD: u32 = 1;
/// A key of it.
const KEY: &str = "x";

impl Node {
    fn start(place: &Path) -> Self {
        let mut cluster = cluster(1, 2);
        cluster.settings.set_at_start("log-bytes-max", "1mb").unwrap(); // snapshots come often
        let running = start(&cluster, 1, place);
        wait_until("ready", || running.is_ready());
        Self { cluster, running }
    }

    fn port(&self) -> u16 {
        self.cluster.nodes[0].port + SHARD as u16
    }

    fn open(&self) {
        self.running.open_replica(SHARD).unwrap();
        drop(TcpStream::connect(("127.0.0.1", self.port())).expect("it listens"));
    }

    fn close(&self, data: Data) {
        self.running.close_replica(SHARD, data).unwrap();
        TcpListener::bind(("127.0.0.1", self.port())).expect("the port is free");
    }

    /// The replica is served from, keeps what it was told with its log and its snapshot, and forgets it with its data.
    fn live(&self, data: &Path) {
        let mut client = Client::connect(self.port());
        assert_eq!(client.ask(&format!("GET {KEY}")), "$-1", "it began with nothing");
        client.send(&[b"SET", KEY.as_bytes(), &vec![b'x'; 3 << 20]]);
        assert_eq!(client.reply(), "+OK");
        wait_until("a snapshot", || snapshots(data) > 0);
        self.close(Data::Kept);
        assert_eq!(client.reply(), "", "the connection is closed");
        self.open();
        let mut client = Client::connect(self.port());
        client.send(&[b"GET", KEY.as_bytes()]);
        assert_eq!(client.reply().len(), 3 << 20);
        assert!(page(&self.cluster, "/metrics").contains("moonraft_raft_serving{shard=\"1\"}"));
    }

    /// Opens and closes it `times` times; every so often it lives in between.
    fn come_and_go(&self, times: u32, data: &Path) {
        for time in 0..times {
            self.open();
            if time % 100 == 0 {
                self.live(data);
            }
            self.close(Data::Removed);
        }
    }

    /// The first shard serves writes, one after the other, from now on until it is told to end.
    fn begin_writes(&self) -> Writes {
        let writes = Writes::default();
        let (mut client, shared) = (Client::connect(self.cluster.nodes[0].port), writes.clone());
        std::thread::spawn(move || {
            while !shared.ends.load(Ordering::Relaxed) {
                assert_eq!(client.ask("SET {b}k v"), "+OK");
                shared.count.fetch_add(1, Ordering::Relaxed);
            }
        });
        writes
    }
}

#[test]
fn a_replica_that_comes_and_goes_a_thousand_times_leaves_nothing() {
    if !is_alone("a_replica_that_comes_and_goes_a_thousand_times_leaves_nothing") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let data = place.path().join("1");
    let node = Node::start(place.path());
    node.close(Data::Removed);
    assert!(!page(&node.cluster, "/metrics").contains("{shard=\"1\"}"), "its figures went with it");
    node.come_and_go(10, &data); // what is made once is there
    let (system, kept) = (taken_of_the_system(), files(&data));

    let before = moonraft_allocator::taken();
    node.come_and_go(300, &data);
    let after = moonraft_allocator::taken();
    // What a thread frees after it has settled, its marks and its begin, is not counted: some 500 bytes.
    assert!(after < before + 300 * 1024 + UNSETTLED_BYTES, "{} bytes more", after - before);

    let writes = node.begin_writes();
    for _ in 0..7 {
        let before = writes.count.load(Ordering::Relaxed);
        node.come_and_go(100, &data);
        wait_until("the other shard serves", || writes.count.load(Ordering::Relaxed) > before);
    }
    writes.ends.store(true, Ordering::Relaxed);
    wait_until("no thread and no descriptor is left", || taken_of_the_system() == system);
    assert_eq!(files(&data), kept);
    node::stop(vec![node.running]);
}

#[test]
fn what_cannot_be_opened_or_closed_says_so_and_changes_nothing() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(1, 2));
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    assert!(matches!(running.open_replica(1), Err(HousingError::IsOpen { node: 1, shard: 1 })));
    assert!(matches!(running.open_replica(2), Err(HousingError::NoPlace { node: 1, shard: 2 })));
    running.close_replica(1, Data::Kept).unwrap();
    assert!(matches!(running.close_replica(1, Data::Kept), Err(HousingError::NotOpen { node: 1, shard: 1 })));
    let taken = TcpListener::bind(("127.0.0.1", cluster.nodes[0].port + 1)).unwrap();
    let refused = running.open_replica(1).unwrap_err().to_string();
    assert!(refused.contains("(clients of shard 1 of node 1): the port is in use"), "{refused}");
    drop(taken);
    running.open_replica(1).unwrap();
    wait_until("ready again", || running.is_ready());
    node::stop(vec![running]);
}
