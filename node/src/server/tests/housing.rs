//! Replicas are opened and closed on a node that serves.

use std::{
    collections::BTreeSet,
    fs,
    hint::black_box,
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

/// What a process has taken of the system.
#[derive(Debug, PartialEq)]
struct Taken {
    /// By name.
    threads: Vec<String>,
    /// Files that are open, connections, ports.
    descriptors: usize,
    /// Of the node's directory: see [`files`].
    files: BTreeSet<String>,
}

impl Taken {
    fn now(directory: &Path) -> Self {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        // One that is about to end may have no name any more.
        let name = |task: fs::DirEntry| fs::read_to_string(task.path().join("comm")).ok();
        let mut threads: Vec<String> = tasks.filter_map(name).collect();
        threads.sort_unstable();
        let descriptors = fs::read_dir("/proc/self/fd").unwrap().count();
        Self { threads, descriptors, files: files(directory) }
    }

    fn counts(&self) -> [usize; 3] {
        [self.threads.len(), self.descriptors, self.files.len()]
    }
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
/// What a thread frees after it has settled, its marks and its begin, is not counted: some 500 bytes.
const BYTES_EACH: u64 = 768;
/// A replica comes and goes so often while bytes are counted.
const TIMES: u32 = 1000;
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

    /// Opens and closes it `times` times; every so often it lives in between. Each time `leak` may leave something.
    fn come_and_go(&self, times: u32, data: &Path, leak: Leak) {
        for time in 0..times {
            self.open();
            if time % 100 == 0 {
                self.live(data);
            }
            self.close(Data::Removed);
            leak(data);
        }
    }

    /// How many bytes more than allowed are taken after the replica came and went.
    fn bytes_left(&self, data: &Path, leak: Leak) -> u64 {
        let before = moonraft_allocator::taken();
        self.come_and_go(TIMES, data, leak);
        let taken = moonraft_allocator::taken().saturating_sub(before);
        eprintln!("{} bytes a time", taken / u64::from(TIMES));
        taken.saturating_sub(u64::from(TIMES) * BYTES_EACH + UNSETTLED_BYTES)
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

/// Leaves something, with the node's directory at hand.
type Leak = fn(&Path);

/// Leaves nothing.
const NOTHING: Leak = |_| {};

/// A node whose second shard has gone, and what is made once is there; and its directory.
fn settled_node(place: &Path) -> (Node, std::path::PathBuf) {
    let (node, data) = (Node::start(place), place.join("1"));
    node.close(Data::Removed);
    node.come_and_go(10, &data, NOTHING);
    (node, data)
}

#[test]
fn a_replica_that_comes_and_goes_a_thousand_times_leaves_nothing() {
    if !is_alone("a_replica_that_comes_and_goes_a_thousand_times_leaves_nothing") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (node, data) = settled_node(place.path());
    assert!(!page(&node.cluster, "/metrics").contains("{shard=\"1\"}"), "its figures went with it");
    let before = Taken::now(&data);
    assert_eq!(node.bytes_left(&data, NOTHING), 0);

    let writes = node.begin_writes();
    for _ in 0..3 {
        let before = writes.count.load(Ordering::Relaxed);
        node.come_and_go(100, &data, NOTHING);
        wait_until("the other shard serves", || writes.count.load(Ordering::Relaxed) > before);
    }
    writes.ends.store(true, Ordering::Relaxed);
    wait_until("no thread, no descriptor and no file is left", || Taken::now(&data) == before);
    node::stop(vec![node.running]);
}

#[test]
fn a_thread_a_file_a_port_or_bytes_that_are_left_would_be_seen() {
    if !is_alone("a_thread_a_file_a_port_or_bytes_that_are_left_would_be_seen") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let (node, data) = settled_node(place.path());
    let leaks: [(Leak, [usize; 3]); 3] = [
        (|_| drop(std::thread::spawn(std::thread::park)), [1, 0, 0]),
        (|_| std::mem::forget(TcpListener::bind(("127.0.0.1", 0)).unwrap()), [0, 1, 0]),
        (|data| fs::write(data.join("left"), "").unwrap(), [0, 0, 1]),
    ];
    let mut left = Taken::now(&data).counts();
    for (leak, leaves) in leaks {
        node.come_and_go(1, &data, leak);
        left = std::array::from_fn(|kind| left[kind] + leaves[kind]);
        wait_until("just that is left", || Taken::now(&data).counts() == left);
    }
    assert!(node.bytes_left(&data, |_| std::mem::forget(black_box(vec![0_u8; 1024]))) > 0, "a KiB a time");
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
