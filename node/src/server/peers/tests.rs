//! Two nodes on loopback: what one sends, the other hears.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use moonraft_proto::{
    Effect,
    entry::{BatchWriter, FIRST_FORMAT, Head, NEWEST_FORMAT},
    peer::{Envelope, LeaderHint},
};
use moonraft_router::Network;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
};

use super::{
    Incoming, frames, listener,
    outgoing::{Carriers, Outgoing, outgoing},
};
use crate::{
    config::ClusterFile,
    consensus::{Input, PeerMessage, ReplicaId, Settings},
    control::{Directory, Topology},
    keyspace::tx::{Audience, Publication},
    replica::Message,
    replica::Progress,
    server::{
        known_cluster::KnownCluster,
        mailbox::{DriverInbox, DriverMessage, ShardInbox, ShardMessage, driver_mailbox, shard_mailbox},
        replicas::{ReplicaHandle, Replicas},
        snapshots::{SnapshotFiles, SnapshotName},
    },
    shard::Event,
};

/// A test that hears nothing for so long has failed.
const PATIENCE: Duration = Duration::from_secs(20);
const SILENCE: Duration = Duration::from_millis(500);

/// The receiving side of a node, on its own.
struct Ear {
    driver: Told,
    shards: Vec<ShardInbox>,
    cluster: Arc<KnownCluster>,
    agreed: Arc<AtomicU8>,
    files: SnapshotFiles,
    _place: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

async fn listen(topology: &Arc<Topology>, me: u64, listener: TcpListener) -> Ear {
    let (driver, driver_inbox) = driver_mailbox();
    let replicas = Arc::<Replicas>::default();
    let mut shards = Vec::new();
    for shard in topology.shards_of(me) {
        let (mailbox, inbox) = shard_mailbox();
        replicas.insert(Arc::new(ReplicaHandle::new(shard, mailbox, Progress::new(0, &Settings::default()))));
        shards.push(inbox);
    }
    let cluster = Arc::new(KnownCluster::new(Directory::new(topology, me, 1_000_000_000, 0), Arc::default()));
    let place = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(place.path()).unwrap();
    let (stop, stopping) = watch::channel(false);
    let agreed = Arc::new(AtomicU8::new(FIRST_FORMAT));
    let incoming = Incoming {
        topology: Arc::clone(topology),
        me,
        driver,
        replicas,
        cluster: Arc::clone(&cluster),
        agreed: Arc::clone(&agreed),
        files: files.clone(),
        stopping,
    };
    tokio::spawn(listener::serve(
        listener,
        incoming,
        listener::Limits { strangers: 8, callers: 8, patience: SILENCE },
    ));
    Ear { driver: Told::new(driver_inbox), shards, cluster, agreed, files, _place: place, _stop: stop }
}

/// A cluster of two whose second node listens at a port of the system's choice.
async fn pair() -> (Arc<Topology>, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut cluster = ClusterFile::local(2, 2, 7001).unwrap();
    cluster.nodes[1].peer_port = listener.local_addr().unwrap().port();
    (Arc::new(Topology::new(cluster)), listener)
}

/// The sending side of node 1, with files of its own.
struct Mouth {
    outgoing: Outgoing,
    driver: Told,
    files: SnapshotFiles,
    _place: tempfile::TempDir,
    _stop: watch::Sender<bool>,
}

fn speak((outgoing, carriers): (Outgoing, Carriers)) -> Mouth {
    let (driver, inbox) = driver_mailbox();
    let place = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(place.path()).unwrap();
    let (stop, stopping) = watch::channel(false);
    carriers.spawn(&driver, &files, &stopping);
    Mouth { outgoing, driver: Told::new(inbox), files, _place: place, _stop: stop }
}

fn message(number: u64, bytes: usize) -> PeerMessage {
    let mut data = number.to_le_bytes().to_vec();
    data.resize(bytes.max(8), 7);
    PeerMessage {
        group: 1,
        from: ReplicaId(1),
        to: ReplicaId(2),
        stamp: number,
        echo: 5,
        time: 6,
        reads: number % 2 == 1,
        data: data.into(),
    }
}

/// What consensus would be told, one message at a time.
struct Told {
    inbox: DriverInbox,
    messages: Mutex<VecDeque<DriverMessage>>,
}

impl Told {
    fn new(inbox: DriverInbox) -> Self {
        Self { inbox, messages: Mutex::default() }
    }

    async fn receive(&self, patience: Duration) {
        let mut messages = Vec::new();
        self.inbox.receive(&mut messages, Some(patience)).await;
        self.messages.lock().unwrap().extend(messages);
    }

    async fn is_empty(&self) -> bool {
        self.receive(Duration::ZERO).await;
        self.messages.lock().unwrap().is_empty()
    }
}

async fn next(told: &Told) -> DriverMessage {
    if told.messages.lock().unwrap().is_empty() {
        told.receive(PATIENCE).await;
    }
    let message = told.messages.lock().unwrap().pop_front();
    message.expect("a message before the test loses its patience")
}

async fn heard(ear: &Ear, count: usize) -> Vec<PeerMessage> {
    let mut heard = Vec::new();
    while heard.len() < count {
        if let DriverMessage::Peer(messages) = next(&ear.driver).await {
            heard.extend(messages);
        }
    }
    heard
}

#[tokio::test]
async fn messages_arrive_whole_and_in_the_order_of_their_lane() {
    let (topology, listener) = pair().await;
    let ear = listen(&topology, 2, listener).await;
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    for number in 0..100 {
        mouth.outgoing.send_raft(vec![message(number, 100)]);
    }
    let small = heard(&ear, 100).await;
    assert_eq!(small, (0..100).map(|number| message(number, 100)).collect::<Vec<_>>());
    // Larger than the usual limit of gRPC.
    mouth.outgoing.send_raft(vec![message(7, 20 << 20)]);
    assert_eq!(heard(&ear, 1).await, [message(7, 20 << 20)]);
}

#[tokio::test]
async fn a_node_whose_streams_have_ended_counts_as_failed_until_it_is_heard_again() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    let ear = listen(&topology, 2, listener).await;
    let failed = || ear.cluster.map(Network::Inside).shards[&0].failed.clone();
    let mut lanes = Vec::new();
    for term in 1..=2 {
        let leaders = vec![LeaderHint { shard: 0, term, replica: 1 }];
        let hint = frames::envelope(&Envelope { leaders, ..Envelope::default() });
        lanes.push(say(address, &[frames::hello(topology.name(), 1), hint]).await);
        until(|| ear.cluster.map(Network::Inside).shards[&0].leader == Some((1, term))).await;
    }
    let mut last = lanes.pop().unwrap();
    last.shutdown().await.unwrap();
    answer(last).await; // closed at the other end, too
    assert!(failed().is_empty(), "there is another lane");
    drop(lanes);
    until(|| failed() == [1]).await;
    let _mouth = speak(outgoing(&topology, 1, SILENCE));
    until(|| failed().is_empty()).await;
}

/// A lane to this address, on which this was said.
async fn say(address: std::net::SocketAddr, parts: &[Bytes]) -> TcpStream {
    let mut lane = TcpStream::connect(address).await.unwrap();
    lane.write_all(&parts.concat()).await.unwrap();
    lane
}

/// What is answered on a lane, until it is closed, without the frames that say only that the other end lives.
async fn answer(mut lane: TcpStream) -> String {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, lane.read_to_end(&mut answer)).await;
    read.expect("it is closed before the test loses its patience").unwrap();
    let (mut rest, mut text) = (&answer[..], String::new());
    while let Some((length, more)) = rest.split_first_chunk() {
        let (frame, more) = more.split_at(u32::from_be_bytes(*length) as usize);
        text.push_str(std::str::from_utf8(frame).unwrap());
        rest = more;
    }
    text
}

/// A frame of so many bytes that are no envelope.
fn noise(length: u32, bytes: usize) -> Bytes {
    [&length.to_be_bytes()[..], &vec![0xff; bytes]].concat().into()
}

#[tokio::test]
async fn a_lane_that_says_what_it_must_not_is_closed_and_told_why() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    let ear = listen(&topology, 2, listener).await;
    let hello = frames::hello(topology.name(), 1);
    let cases = [
        (vec![Bytes::from_static(b"MRL2")], "another version"),
        (vec![frames::hello("another", 1)], "this is cluster"),
        (vec![frames::hello(topology.name(), 2)], "is no peer of"),
        (vec![frames::hello(topology.name(), 77)], "is no peer of"),
        (vec![Bytes::from(frames::PREFACE.to_vec()), noise(1 << 20, 0)], "a frame is too large"),
        (vec![hello.clone(), noise(u32::MAX, 0)], "a frame is too large"),
        (vec![hello.clone(), noise(64, 64)], "decode"),
        (vec![hello], "nothing was heard"),
    ];
    for (said, expected) in cases {
        let text = answer(say(address, &said).await).await;
        assert!(text.contains(expected), "{said:?}: {text}");
    }
    assert!(ear.driver.is_empty().await);
}

#[tokio::test]
async fn a_lane_whose_other_end_says_nothing_is_given_up() {
    let (topology, listener) = pair().await;
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    let (mut silent, _) = listener.accept().await.unwrap();
    let told = next(&mouth.driver).await;
    assert!(matches!(told, DriverMessage::Input(Input::Unreachable { node: 2 })), "{told:?}");
    let mut said = Vec::new();
    silent.read_to_end(&mut said).await.unwrap();
    assert_eq!(said[..frames::PREFACE.len()], frames::PREFACE);
}

#[tokio::test]
async fn what_the_socket_does_not_take_leaves_later_whole_and_in_order() {
    let (topology, listener) = pair().await;
    let mouth = speak(outgoing(&topology, 1, Duration::from_secs(60)));
    // Nobody reads yet: most of it has to wait.
    let (first, second) = (listener.accept().await.unwrap().0, listener.accept().await.unwrap().0);
    for number in 0..1000 {
        mouth.outgoing.send_raft(vec![message(number, 100_000)]);
    }
    // One of the two is the bulk lane, on which nothing comes.
    let heard = tokio::select! {
        heard = prompt_numbers(first, 1000) => heard,
        heard = prompt_numbers(second, 1000) => heard,
    };
    assert_eq!(heard, (0..1000).collect::<Vec<u64>>());
}

/// The numbers of the messages on a lane, so many. One without any never ends.
async fn prompt_numbers(mut lane: TcpStream, count: usize) -> Vec<u64> {
    use prost::Message as _;
    use tokio_stream::StreamExt as _;
    lane.read_exact(&mut [0; frames::PREFACE.len()]).await.unwrap();
    let mut frames = tokio_util::codec::FramedRead::new(lane, frames::envelopes());
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let frame = frames.next().await.expect("the lane goes on").unwrap();
        for message in Envelope::decode(Bytes::from(frame)).unwrap().raft {
            numbers.push(u64::from_le_bytes(message.data[..8].try_into().unwrap()));
        }
    }
    numbers
}

/// Waits until something is so; each look comes after everybody else's turn.
async fn until(is_so: impl Fn() -> bool) {
    let looks = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looks).await.expect("it is so before the test loses its patience");
}

#[tokio::test]
async fn published_messages_reach_the_shards_they_are_for_and_hints_the_view() {
    let (topology, listener) = pair().await;
    let mut ear = listen(&topology, 2, listener).await;
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    let publication = |text: &'static str, audience| Publication {
        channel: Bytes::from("c"),
        message: Bytes::from(text),
        audience,
    };
    mouth.outgoing.send_publications(
        1,
        &[
            publication("all", Audience::Cluster),
            publication("one", Audience::Shard),
            publication("none", Audience::Replica),
        ],
    );
    let mut texts = Vec::new();
    for inbox in &mut ear.shards {
        let mut messages = Vec::new();
        inbox.receive(&mut messages, 10).await;
        let ShardMessage::Replica(Message::Event(Event::Deliver(heard))) = &messages[0] else {
            panic!("{messages:?}")
        };
        texts.push(heard.iter().map(|message| message.message.clone()).collect::<Vec<_>>());
    }
    assert_eq!(texts, [vec!["all"], vec!["all", "one"]]);

    assert!(!ear.cluster.all_served([0].into_iter()));
    mouth.outgoing.send_hints(&[LeaderHint { shard: 0, term: 3, replica: 1 }], &[], true, FIRST_FORMAT);
    mouth.outgoing.send_raft(vec![message(1, 8)]); // in the same lane, so heard after it
    heard(&ear, 1).await;
    assert!(ear.cluster.all_served([0].into_iter()));
    assert_eq!(ear.cluster.map(Network::Inside).shards[&0].leader, Some((1, 3)));
}

/// What a build from before there were formats says first.
fn old_hello(topology: &Topology, node: u64) -> Bytes {
    let cluster = topology.name().to_owned();
    let who = frames::envelope(&Envelope { cluster, node, ..Envelope::default() });
    [&frames::PREFACE, &*who].concat().into()
}

#[tokio::test]
async fn what_a_node_would_agree_on_is_heard_and_an_old_build_agrees_on_the_first_format() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    let ear = listen(&topology, 2, listener).await;
    let agreed = async || loop {
        if let DriverMessage::Input(Input::Agrees { node: 1, format }) = next(&ear.driver).await {
            return format;
        }
    };
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    mouth.outgoing.send_hints(&[], &[], true, NEWEST_FORMAT);
    assert_eq!(agreed().await, NEWEST_FORMAT);
    let hint = frames::envelope(&Envelope { fit: Some(true), ..Envelope::default() });
    let _lane = say(address, &[old_hello(&topology, 1), hint]).await;
    assert_eq!(agreed().await, FIRST_FORMAT);
}

#[tokio::test]
async fn an_old_build_is_not_heard_once_a_newer_format_is_agreed_on_and_told_why() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    let ear = listen(&topology, 2, listener).await;
    ear.agreed.store(NEWEST_FORMAT, Ordering::Relaxed);
    let text = answer(say(address, &[old_hello(&topology, 1)]).await).await;
    let expected = format!(
        "the cluster has agreed on format {NEWEST_FORMAT}, and node 1 reads up to format 1. Start a newer build there"
    );
    assert_eq!(text, expected);
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    mouth.outgoing.send_raft(vec![message(1, 8)]);
    assert_eq!(heard(&ear, 1).await, [message(1, 8)], "a build that reads it is");
}

#[tokio::test]
async fn a_node_of_another_cluster_is_not_heard() {
    let (topology, listener) = pair().await;
    let ear = listen(&topology, 2, listener).await;
    let mut stranger = ClusterFile::local(2, 2, 7001).unwrap();
    stranger.name = "another".to_owned();
    stranger.nodes[1].peer_port = topology.nodes()[1].peer_port;
    let mouth = speak(outgoing(&Arc::new(Topology::new(stranger)), 1, SILENCE));
    mouth.outgoing.send_raft(vec![message(1, 8)]);
    // The stranger is told, again and again, that it cannot reach the node.
    for _ in 0..2 {
        let told = next(&mouth.driver).await;
        assert!(matches!(told, DriverMessage::Input(Input::Unreachable { node: 2 })), "{told:?}");
    }
    assert!(ear.driver.is_empty().await);
}

#[tokio::test]
async fn a_peer_that_is_away_costs_nothing_and_is_reached_when_it_comes() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    for _ in 0..1000 {
        mouth.outgoing.send_raft(vec![message(0, 1 << 20)]); // a gigabyte in all: most must be dropped
    }
    let told = next(&mouth.driver).await;
    assert!(matches!(told, DriverMessage::Input(Input::Unreachable { node: 2 })), "{told:?}");
    let listener = TcpListener::bind(address).await.unwrap();
    let ear = listen(&topology, 2, listener).await;
    let resend = async {
        loop {
            mouth.outgoing.send_raft(vec![message(9, 8)]); // as Raft would
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        messages = heard(&ear, 1) => assert_eq!(messages[0], message(9, 8)),
        () = resend => {}
    }
}

/// What consensus makes of a snapshot that it wants sent.
fn snapshot_message(name: SnapshotName) -> PeerMessage {
    use protobuf::Message as _;
    use raft::eraftpb::{Message, MessageType};
    let mut raft_message = Message::default();
    raft_message.set_msg_type(MessageType::MsgSnapshot);
    raft_message.mut_snapshot().mut_metadata().index = name.index;
    raft_message.mut_snapshot().mut_metadata().term = name.term;
    PeerMessage {
        group: name.shard,
        from: ReplicaId(1),
        to: ReplicaId(2),
        stamp: 0,
        echo: 0,
        time: 0,
        reads: false,
        data: raft_message.write_to_bytes().unwrap().into(),
    }
}

/// Writes a snapshot with a key of this value, in chunks.
fn write_snapshot(files: &SnapshotFiles, name: SnapshotName, value: &[u8]) {
    let mut writer = files.create(name.shard, 1).unwrap();
    for (at, bytes) in value.chunks(100_000).enumerate() {
        let mut batch = BatchWriter::default();
        batch.push(&Effect::PatchString { key: b"k", offset: at as u64 * 100_000, bytes });
        writer.push(&batch.seal(Head { stamp_ms: 7, sequence: 0 }, NEWEST_FORMAT)).unwrap();
    }
    files.publish(writer, 1, name).unwrap();
}

#[tokio::test]
async fn a_snapshot_arrives_whole_and_goes_on_where_it_broke_off() {
    let (topology, listener) = pair().await;
    let ear = listen(&topology, 2, listener).await;
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    let name = SnapshotName { shard: 1, index: 70, term: 3 };
    let state: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    write_snapshot(&mouth.files, name, &state);
    // A first part came in an earlier attempt.
    let whole = std::fs::read(mouth.files.path(name)).unwrap();
    std::fs::write(ear.files.part(name), &whole[..1_000_001]).unwrap();

    mouth.outgoing.send_snapshot(1, ReplicaId(2), (70, 3), snapshot_message(name));
    let told = next(&ear.driver).await;
    assert!(
        matches!(&told, DriverMessage::Input(Input::SnapshotReceived(it)) if *it == snapshot_message(name)),
        "{told:?}"
    );
    assert_eq!(std::fs::read(ear.files.path(name)).unwrap(), whole);
    let told = next(&mouth.driver).await;
    let sent = matches!(
        told,
        DriverMessage::Input(Input::SnapshotSent { group: 1, to: ReplicaId(2), success: true })
    );
    assert!(sent, "{told:?}");

    // Once more: the file is there, and Raft hears of it again.
    mouth.outgoing.send_snapshot(1, ReplicaId(2), (70, 3), snapshot_message(name));
    let told = next(&ear.driver).await;
    assert!(matches!(told, DriverMessage::Input(Input::SnapshotReceived(_))), "{told:?}");
}

#[tokio::test]
async fn a_part_of_other_bytes_does_not_become_a_snapshot() {
    let (topology, listener) = pair().await;
    let ear = listen(&topology, 2, listener).await;
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    let name = SnapshotName { shard: 1, index: 70, term: 3 };
    write_snapshot(&mouth.files, name, &[1; 1000]);
    std::fs::write(ear.files.part(name), [0; 500]).unwrap();
    mouth.outgoing.send_snapshot(1, ReplicaId(2), (70, 3), snapshot_message(name));
    // The first attempt fails at the checksum and lets the part go; the next begins anew.
    let told = next(&ear.driver).await;
    assert!(matches!(told, DriverMessage::Input(Input::SnapshotReceived(_))), "{told:?}");
    let arrived = std::fs::read(ear.files.path(name)).unwrap();
    assert_eq!(arrived, std::fs::read(mouth.files.path(name)).unwrap());
}

#[tokio::test]
async fn strangers_are_few_and_the_oldest_gives_way() {
    let (topology, listener) = pair().await;
    let address = listener.local_addr().unwrap();
    let ear = listen(&topology, 2, listener).await;
    // They say nothing, half a greeting, a greeting without a name, and what is no greeting at all.
    let words: [&[u8]; 4] = [b"", b"MR", b"MRL1", b"GET / HTTP/1.1\r\nx: "];
    let mut strangers = Vec::new();
    for number in 0..40 {
        let mut stranger = TcpStream::connect(address).await.unwrap();
        stranger.write_all(words[number % words.len()]).await.unwrap();
        strangers.push(stranger);
    }
    // A node of the cluster is heard all the same.
    let mouth = speak(outgoing(&topology, 1, SILENCE));
    mouth.outgoing.send_raft(vec![message(1, 10)]);
    assert_eq!(heard(&ear, 1).await, [message(1, 10)]);
    // And none of the strangers is there for ever.
    for mut stranger in strangers {
        let _ = stranger.read_to_end(&mut Vec::new()).await;
    }
}
