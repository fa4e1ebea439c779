//! Whole nodes in this process, and clients with real sockets.

use std::{
    cell::RefCell,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

mod housing;
mod turns;

use super::{
    health,
    node::{self, RunningNode},
};
use crate::config::{
    ClusterFile, OutputLimit, OutsideEntry, Settings,
    rows::{Change, Kind, SECONDS_MAX, rows},
};

/// A test that waits for so long has failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster on ports that are free.
fn cluster(nodes: u32, shards: u32) -> ClusterFile {
    let mut cluster = ClusterFile::local(nodes, shards, 7001).unwrap();
    for node in &mut cluster.nodes {
        node.port = free_ports(shards as u16);
        [node.peer_port, node.http_port] = [(); 2].map(|()| free_ports(1));
    }
    cluster
}

/// The first of `count` free ports in a row, given out once. Below the ports that
/// the system gives to outgoing connections: those come and go at any time.
fn free_ports(count: u16) -> u16 {
    const FIRST: u16 = 15_000;
    const LAST: u16 = 32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Where to begin differs between processes that test at the same time.
    let begin = (std::process::id() % 40) as u16 * 400;
    loop {
        let first = FIRST + (begin + NEXT.fetch_add(count, Ordering::Relaxed)) % (LAST - FIRST - count);
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// Ports of their own for clients that come from outside.
fn outside(shards: u16) -> OutsideEntry {
    OutsideEntry { host: "outside.example".into(), port: free_ports(shards) }
}

fn start(cluster: &ClusterFile, id: u64, place: &Path) -> RunningNode {
    let path = place.join(id.to_string());
    node::bind(cluster, id).unwrap().open(&path).unwrap().start().unwrap()
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < PATIENCE, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(5));
    }
}

struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(port: u16) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = BufReader::new(stream.try_clone().unwrap());
        Self { stream, reader }
    }

    fn send(&mut self, words: &[&[u8]]) {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            request.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            request.extend_from_slice(word);
            request.extend_from_slice(b"\r\n");
        }
        self.stream.write_all(&request).unwrap();
    }

    /// A reply of one line, or the bytes of a bulk reply.
    fn reply(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let line = line.trim_end();
        match line.strip_prefix('$').map(|length| length.parse::<usize>()) {
            Some(Ok(length)) => {
                let mut bytes = vec![0; length + 2];
                self.reader.read_exact(&mut bytes).unwrap();
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            }
            _ => line.to_owned(),
        }
    }

    fn ask(&mut self, request: &str) -> String {
        self.send(&request.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        self.reply()
    }
}

/// One page of the HTTP port.
fn page(cluster: &ClusterFile, path: &str) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.nodes[0].http_port)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_node_serves_tells_that_it_is_ready_and_keeps_its_data() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    assert!(page(&cluster, "/ready").starts_with("HTTP/1.1 200"));
    assert!(page(&cluster, "/health").ends_with("ok\n"));
    wait_until("the figures tell so", || {
        page(&cluster, "/metrics").contains("\nmoonraft_raft_serving{shard=\"0\"} 1\n")
    });

    let mut client = Client::connect(cluster.nodes[0].port);
    assert_eq!(client.ask("SET k v"), "+OK");
    // More than any buffer holds at once, both ways.
    let large = vec![b'x'; 20 << 20];
    client.send(&[b"SET", b"large", &large]);
    assert_eq!(client.reply(), "+OK");
    client.send(&[b"GET", b"large"]);
    assert_eq!(client.reply().len(), large.len());
    // Many requests in one packet are answered in order.
    client.stream.write_all(&b"INCR n\r\n".repeat(10_000)).unwrap();
    for number in 1..=10_000 {
        assert_eq!(client.reply(), format!(":{number}"));
    }
    node::stop(vec![running]);
    assert_eq!(client.reply(), "", "the connection is closed");

    let running = start(&cluster, 1, place.path());
    wait_until("ready again", || running.is_ready());
    let mut client = Client::connect(cluster.nodes[0].port);
    assert_eq!(client.ask("GET k"), "v");
    assert_eq!(client.ask("GET n"), "10000");
    node::stop(vec![running]);
}

/// Whatever a setting is set to, its owner gets in again and can set it back.
#[test]
fn no_setting_locks_its_owner_out() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    let port = cluster.nodes[0].port;
    // Others are there, too.
    let others: Vec<Client> = (0..4).map(|_| Client::connect(port)).collect();
    for row in rows().filter(|row| row.change == Change::Anytime) {
        let numbers = |bounds: &[u64]| bounds.iter().map(u64::to_string).collect::<Vec<_>>();
        let least = OutputLimit::BYTES_MIN;
        let extremes = match row.kind {
            Kind::Number((least, most), _) | Kind::Bytes((least, most), _) => numbers(&[least, most]),
            Kind::Share((least, most), ..) => {
                vec!["0".into(), "1%".into(), least.to_string(), most.to_string()]
            }
            Kind::BytesOrOff((least, most), ..) => numbers(&[0, least, most]),
            Kind::Signed(least, most, _) => [least, most].map(|number| number.to_string()).to_vec(),
            Kind::Choice(choices, ..) => choices.iter().map(|&choice| choice.to_owned()).collect(),
            Kind::OutputLimits => vec![
                format!("normal {least} {least} 0 pubsub {least} {least} 0"),
                format!("normal 0 0 0 pubsub {0} {0} {1}", u64::MAX, SECONDS_MAX),
            ],
            Kind::Events => vec!["AKEnm".to_owned(), "xK".to_owned()],
            Kind::Kept(..) | Kind::Only(..) | Kind::OfNode(_) => continue,
        };
        let default = Settings::default().value(row);
        for value in extremes.iter().chain([&default]) {
            let mut owner = Client::connect(port);
            owner.send(&[b"CONFIG", b"SET", row.name.as_bytes(), value.as_bytes()]);
            assert_eq!(owner.reply(), "+OK", "{} {value}", row.name);
            // The next connection is greeted, and hears the longest replies that tools ask for.
            let mut next = Client::connect(port);
            assert_eq!(next.ask("PING"), "+PONG", "{} {value}", row.name);
            assert!(next.ask("INFO everything").contains("redis_version"), "{} {value}", row.name);
            assert!(next.ask("COMMAND DOCS").starts_with('*'), "{} {value}", row.name);
        }
    }
    drop(others);
    node::stop(vec![running]);
}

#[test]
fn while_a_script_runs_too_long_others_are_told_and_may_kill_it() {
    let (place, mut cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    cluster.nodes[0].outside = Some(outside(1));
    cluster.settings.set_at_start("busy-reply-threshold", "50").unwrap();
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    let port = cluster.nodes[0].port;
    let (mut runner, mut other, mut third) =
        (Client::connect(port), Client::connect(port), Client::connect(port));
    assert_eq!(other.ask("PING"), "+PONG");
    assert_eq!(third.ask("PING"), "+PONG");
    // Half of a long request before, its other half meanwhile.
    let mut long = Client::connect(port);
    long.stream.write_all(b"*2\r\n$4\r\nECHO\r\n$500\r\nxxx").unwrap();
    assert_eq!(other.ask("PING"), "+PONG");
    runner.send(&[b"EVAL", b"redis.call('set', KEYS[1], 'x') while true do end", b"1", b"k"]);
    // Requests that reach the shard before the script is over its time wait until it is.
    const BUSY: &str =
        "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.";
    let begin = Instant::now();
    loop {
        let reply = other.ask("GET k");
        if reply == BUSY {
            break;
        }
        assert!(begin.elapsed() < PATIENCE, "{reply}");
    }
    // Who comes only now can greet, is told, and is a client like any other afterwards.
    let mut late = Client::connect(port);
    late.send(&[b"HELLO", b"3"]);
    assert_eq!(late.reply(), "%7");
    let greeting: Vec<String> = (0..14).map(|_| late.reply()).collect();
    assert_eq!(greeting[4..6], ["proto", ":3"]);
    assert_eq!(late.ask("GET k"), BUSY);
    long.stream.write_all(&[b'x'; 497]).unwrap();
    long.stream.write_all(b"\r\n").unwrap();
    assert_eq!(long.reply(), BUSY);
    // Half a request waits for its other half.
    third.stream.write_all(b"*2\r\n$3\r\nGET\r\n").unwrap();
    assert_eq!(other.ask("PING"), BUSY);
    // The other door is open, too.
    let mut far = Client::connect(cluster.nodes[0].outside.as_ref().unwrap().port);
    assert_eq!(far.ask("GET k"), BUSY);
    // A client that is told good-bye sees its connection end at once.
    let mut leaving = Client::connect(port);
    assert_eq!(leaving.ask("QUIT"), "+OK");
    assert_eq!(leaving.reply(), "", "the connection is closed");
    let mut killer = Client::connect(port);
    assert_eq!(killer.ask("SCRIPT KILL"), "+OK");
    let killed = runner.reply();
    assert!(killed.starts_with('-') && killed.contains("killed by user"), "{killed}");
    third.stream.write_all(b"$1\r\nk\r\n").unwrap();
    assert_eq!(third.reply(), "$-1", "what the script wrote is undone");
    assert_eq!(long.ask("PING"), "+PONG", "a short request after a long one");
    assert_eq!(late.ask("GET k"), "_", "it speaks RESP3");
    assert_eq!(late.ask("CLIENT ID"), greeting[7]);
    assert_eq!(killer.ask("GET k"), "$-1");
    assert!(far.ask("CLUSTER NODES").contains("outside.example"), "it still comes from outside");
    assert!(!late.ask("CLUSTER NODES").contains("outside.example"));
    node::stop(vec![running]);
}

#[test]
fn the_port_a_client_comes_in_at_decides_what_addresses_it_is_told() {
    let (place, mut cluster) = (tempfile::tempdir().unwrap(), cluster(3, 2));
    cluster.nodes.iter_mut().for_each(|node| node.outside = Some(outside(2)));
    let running: Vec<RunningNode> = (1..=3).map(|id| start(&cluster, id, place.path())).collect();
    wait_until("ready", || running.iter().all(RunningNode::is_ready));
    let ask = |port: u16| Client::connect(port).ask("GET x"); // of shard 1
    for node in &cluster.nodes {
        let (inside, outside) = (node.port, node.outside.as_ref().unwrap().port);
        let leader = |host: &str, ports: [u16; 3]| {
            let moved = ports.map(|port| format!("-MOVED 16287 {host}:{}", port + 1));
            move |reply: &String| moved.contains(reply)
        };
        let ports = [0, 1, 2].map(|number| cluster.nodes[number].port);
        assert!(leader("127.0.0.1", ports)(&ask(inside)), "{}", ask(inside));
        let ports = [0, 1, 2].map(|number| cluster.nodes[number].outside.as_ref().unwrap().port);
        assert!(leader("outside.example", ports)(&ask(outside)), "{}", ask(outside));
    }
    node::stop(running);
}

#[test]
fn health_is_asked_where_the_node_binds() {
    let (place, mut cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    assert!(matches!(health::ask(&cluster, 1).unwrap(), health::Answer::Silent(_)), "nobody is there");
    assert_eq!(health::ask(&cluster, 2).unwrap_err().to_string(), "the cluster file has no node 2; it has 1");
    cluster.nodes[0].host = "0.0.0.0".into();
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || health::ask(&cluster, 1).unwrap() == health::Answer::Ready);
    node::stop(vec![running]);
    // Two of three are not there: nobody can lead.
    let (place, cluster) = (tempfile::tempdir().unwrap(), self::cluster(3, 1));
    let running = start(&cluster, 1, place.path());
    let is_told = |answer| matches!(answer, health::Answer::NotReady(reason) if reason.contains("node 2, 3"));
    wait_until("whom it awaits", || is_told(health::ask(&cluster, 1).unwrap()));
    node::stop(vec![running]);
}

#[test]
fn a_message_reaches_subscribers_on_every_node() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(3, 1));
    let running: Vec<RunningNode> = (1..=3).map(|id| start(&cluster, id, place.path())).collect();
    wait_until("ready", || running.iter().all(RunningNode::is_ready));
    let mut clients: Vec<Client> = cluster.nodes.iter().map(|node| Client::connect(node.port)).collect();
    for client in &mut clients {
        assert_eq!(client.ask("SUBSCRIBE news"), "*3");
        let confirmation = [client.reply(), client.reply(), client.reply()];
        assert_eq!(confirmation, ["subscribe", "news", ":1"]);
    }
    let mut publisher = Client::connect(cluster.nodes[1].port);
    publisher.ask("PUBLISH news hello");
    for client in &mut clients {
        let message = [client.reply(), client.reply(), client.reply(), client.reply()];
        assert_eq!(message, ["*3", "message", "news", "hello"]);
    }
    node::stop(running);
}

#[test]
fn a_stopping_node_hands_over_and_a_follower_redirects() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(3, 1));
    let mut running: Vec<RunningNode> = (1..=3).map(|id| start(&cluster, id, place.path())).collect();
    wait_until("ready", || running.iter().all(RunningNode::is_ready));
    let mut client = Client::connect(cluster.nodes[0].port); // the home of shard 0
    wait_until("the home leads", || Client::connect(cluster.nodes[0].port).ask("SET k v") == "+OK");
    running[0].hand_over(PATIENCE);
    let moved = client.ask("GET k");
    let port: u16 = moved.strip_prefix("-MOVED 7629 127.0.0.1:").expect(&moved).parse().unwrap();
    assert_ne!(port, cluster.nodes[0].port);
    node::stop(vec![running.remove(0)]);
    assert_eq!(Client::connect(port).ask("GET k"), "v");
    node::stop(running);
}

#[test]
fn a_client_that_goes_while_it_is_blocked_is_noticed() {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    let port = cluster.nodes[0].port;
    let watcher = RefCell::new(Client::connect(port));
    let info = |field: &str| watcher.borrow_mut().ask("INFO clients").contains(field);
    // One is alone with its request; the other has sent more, which nobody has read.
    let [mut one, mut other] = [(); 2].map(|()| Client::connect(port));
    one.send(&[b"WAIT", b"9", b"0"]);
    other.send(&[b"WAIT", b"9", b"0"]);
    wait_until("blocked", || info("blocked_clients:2"));
    other.stream.write_all(&b"PING\r\n".repeat(10)).unwrap();
    assert!(info("connected_clients:3"));
    drop((one, other));
    wait_until("gone", || info("connected_clients:1") && info("blocked_clients:0"));
    node::stop(vec![running]);
}
