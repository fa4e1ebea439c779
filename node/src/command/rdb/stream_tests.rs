//! Streams as a real server writes them.

use moonraft_proto::{
    StreamChange, StreamId,
    stream::{Ids, Pairs},
};

use crate::keyspace::{
    Stream, Value,
    stream::{NodeLimits, Trim, TrimTo},
};

/// When the recorded groups were read, Unix milliseconds.
const RECORDED_MS: u64 = 1_795_874_943_952;

fn add(stream: &mut Stream, id: StreamId, words: &[&[u8]]) {
    let begins_node = stream.begins_node(words.iter().map(|word| word.len()).sum(), NodeLimits::default());
    let mut scratch = Vec::new();
    let fields = Pairs::write(words, &mut scratch);
    stream.apply(StreamChange::Add { id, fields, begins_node });
}

fn deliver(stream: &mut Stream, consumer: &[u8], ids: &[StreamId]) {
    let (group, seen_ms, active_ms) = (b"g".as_slice(), RECORDED_MS, Some(RECORDED_MS));
    stream.apply(StreamChange::ConsumerSet { group, consumer, seen_ms, active_ms });
    let mut scratch = Vec::new();
    let ids = Ids::write(ids.iter().copied(), &mut scratch);
    stream.apply(StreamChange::PendingSet { group, consumer, time_ms: RECORDED_MS, count: 1, ids });
}

fn small() -> Stream {
    let mut stream = Stream::default();
    add(&mut stream, StreamId::new(5, 1), &[b"f", b"v", b"n", b"12"]);
    add(&mut stream, StreamId::new(5, 2), &[b"f", b"w", b"n", b"-70000"]);
    add(&mut stream, StreamId::new(9, 0), &[b"other", &[b'x'; 70]]);
    stream
}

fn empty() -> Stream {
    let mut stream = Stream::default();
    let last_id = StreamId::new(3, 3);
    stream.apply(StreamChange::GroupSet { group: b"g", last_id, read: None });
    stream
}

/// Entries that were added, deleted and trimmed, in nodes of their own, with groups.
fn many() -> Stream {
    let mut stream = Stream::default();
    let id = |number: u64| StreamId::new(number / 3 + 1, number);
    for number in 1..=250 {
        let (value, thousands) = (format!("value:{number}"), (number * 1_000).to_string());
        add(&mut stream, id(number), &[b"field", value.as_bytes(), b"12345", thousands.as_bytes()]);
    }
    for number in [1, 2, 5, 100, 101, 250] {
        stream.apply(StreamChange::Delete { id: id(number) });
    }
    let count = stream.trimmed_by(Trim { to: TrimTo::Length(200), by_nodes: false, limit: 0 });
    stream.apply(StreamChange::Trim { count });
    let group = b"group two".as_slice();
    stream.apply(StreamChange::GroupSet { group: b"g", last_id: id(55), read: None });
    stream.apply(StreamChange::GroupSet { group, last_id: id(250), read: Some(7) });
    let (seen_ms, active_ms) = (RECORDED_MS, Some(RECORDED_MS));
    stream.apply(StreamChange::ConsumerSet { group, consumer: b"nobody", seen_ms, active_ms });
    let ids: Vec<StreamId> = stream.iter().take(8).map(|entry| entry.id).collect();
    deliver(&mut stream, b"alice", &ids[..5]);
    deliver(&mut stream, b"bob", &ids[5..]);
    assert_eq!(stream.node_count(), 3, "nodes are full when a real server's are");
    stream
}

/// What the recorded key of this name holds.
pub fn expected(name: &str) -> Option<Value> {
    let stream = match name {
        "stream_small" => small(),
        "stream_empty" => empty(),
        "stream_many" => many(),
        _ => return None,
    };
    Some(Value::Stream(Box::new(stream)))
}

/// A stream of anything; groups too.
pub fn any_stream(texts: &[Vec<u8>]) -> Value {
    let mut stream = Stream::default();
    for (at, pair) in texts.chunks_exact(2).enumerate() {
        let id = StreamId::new(at as u64 / 3 * 1_000, at as u64 + 1);
        add(&mut stream, id, &[&pair[0], &pair[1]]);
    }
    let ids: Vec<StreamId> = stream.iter().step_by(2).map(|entry| entry.id).collect();
    stream.apply(StreamChange::GroupSet { group: b"g", last_id: StreamId::new(1, 1), read: Some(1) });
    deliver(&mut stream, b"alice", &ids);
    Value::Stream(Box::new(stream))
}
