//! Where fuzzing starts from: what the encoders write, what a real server wrote, the golden scripts, the files that
//! are shipped.

use bytes::Bytes;
use moonraft::server::peers::frames;
use moonraft_proto::{
    Effect, Protocol, Reply,
    entry::{BatchWriter, Head, NEWEST_FORMAT},
    peer::{Envelope, Joining, LeaderHint, Publication, RaftMessage, RecallRequest, SnapshotChunk},
};
use prost::Message as _;

/// The seeds of a target, by name.
type Seeds = Vec<(String, Vec<u8>)>;

/// Those of all targets.
pub fn all() -> [(&'static str, Seeds); 8] {
    [
        ("requests", numbered(requests())),
        ("replies", numbered(replies())),
        ("effects", numbered(batches())),
        ("snapshots", numbered(snapshots())),
        ("payloads", numbered(payloads())),
        ("cluster_files", numbered(cluster_files())),
        ("frames", numbered(lanes())),
        ("scripts", numbered(scripts())),
    ]
}

fn numbered(seeds: Vec<Vec<u8>>) -> Seeds {
    seeds.into_iter().enumerate().map(|(number, bytes)| (format!("{number:02}"), bytes)).collect()
}

fn owned<const N: usize>(seeds: [&[u8]; N]) -> Vec<Vec<u8>> {
    seeds.map(<[u8]>::to_vec).to_vec()
}

fn requests() -> Vec<Vec<u8>> {
    owned([
        b"*1\r\n$4\r\nPING\r\n",
        b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n",
        b"*0\r\n*-1\r\n\r\n*1\r\n$4\r\nPING\r\n",
        b"PING\r\nping\n ECHO 'it\\'s' \"a\\x00\\n\\\"b\"\r\n",
        b"*2\r\n$4\r\nECHO\r\n$10\r\n0123456789XYPING\r\n",
        b"*1\r\n:4\r\nPING\r\n",
        b"*01\r\n$4\r\nPING\r\n",
        b"*1\r\n$+4\r\nPING\r\n",
        b"*41\r\n$1\r\nx\r\n",
        b"*2\r\n$4\r\nECHO\r\n$301\r\n",
        b"ECHO 'a\"\r\n",
        b"P\0ING\r\nPING\r\n",
        b"*1\0\r\n$4\r\nPING\r\n",
        b"POST / HTTP/1.1\r\nHost: here\r\n\r\n",
        &[b'x'; 120],
        &[&b"*"[..], &[b'1'; 120]].concat(),
        &[&b"*1\r\n$"[..], &[b'1'; 99], b"\r\n"].concat(),
        &[&b"*1\r\n$4\r\nPING\r\n"[..]; 20].concat(),
        &[&b"*30\r\n"[..], &b"$1\r\nx\r\n".repeat(30)].concat(),
    ])
}

fn replies() -> Vec<Vec<u8>> {
    let pair = || vec![(Reply::text("m"), Reply::Double(0.1))];
    let replies = [
        Reply::OK,
        Reply::Error("MOVED 5 127.0.0.1:7002".into()),
        Reply::Int(i64::MIN),
        Reply::text("two\r\nlines"),
        Reply::Null,
        Reply::NullArray,
        Reply::Array(vec![Reply::Array(vec![Reply::Int(1), Reply::Null]), Reply::text("")]),
        Reply::Map(pair()),
        Reply::Set(vec![Reply::text("a"), Reply::Bool(true)]),
        Reply::Pairs(pair()),
        Reply::Double(f64::INFINITY),
        Reply::Verbatim(*b"txt", "some".into()),
        Reply::BigNumber("12345678901234567890".into()),
        Reply::Push(vec![Reply::text("message"), Reply::text("c"), Reply::text("m")]),
    ];
    let mut seeds = Vec::new();
    for protocol in [Protocol::Resp2, Protocol::Resp3] {
        for reply in &replies {
            let mut bytes = Vec::new();
            reply.encode(protocol, &mut bytes);
            seeds.push(bytes);
        }
    }
    seeds.push(b"|1\r\n+ttl\r\n:5\r\n!5\r\nERR a\r\n".to_vec());
    seeds.push(b"*2\r\n$3\r\nab".to_vec());
    seeds.push(b"*1\r\n".repeat(130));
    seeds
}

/// One of each kind; and some that share a key.
fn effects() -> Vec<Effect<'static>> {
    let (key, to) = (b"key".as_slice(), b"other".as_slice());
    vec![
        Effect::PutString { key, value: b"value", expires_at: None },
        Effect::PutString { key, value: b"", expires_at: Some(1_700_000_000_000) },
        Effect::Remove { key },
        Effect::SetExpiry { key, expires_at: Some(u64::MAX) },
        Effect::PatchString { key, offset: 300, bytes: b"patch" },
        Effect::HashPut { key, field: b"field", value: b"value" },
        Effect::HashRemove { key, field: b"field" },
        Effect::SetAdd { key, member: b"member" },
        Effect::SetRemove { key, member: b"member" },
        Effect::SortedPut { key, member: b"member", score: -0.5 },
        Effect::SortedRemove { key, member: b"member" },
        Effect::ListInsert { key, index: 0, value: b"value" },
        Effect::ListSet { key, index: 1, value: b"value" },
        Effect::ListRemove { key, index: 1, count: 2 },
        Effect::Rename { key, to },
        Effect::Copy { key, to },
        Effect::ClearSlots { first: 0, last: 16383 },
        Effect::AssignSlots { first: 5, last: 5 },
        Effect::ReleaseSlots { first: 1, last: 200 },
        Effect::ScriptLoad { text: b"return 1" },
        Effect::LibraryPut { name: b"lib", code: b"#!lua name=lib\nreturn 1" },
        Effect::FunctionPut { library: b"lib", name: b"f", flags: 3, description: Some(b"told") },
        Effect::FunctionPut { library: b"lib", name: b"g", flags: 0, description: None },
        Effect::LibraryRemove { name: b"lib" },
        Effect::ScriptFlush,
        Effect::AgreeFormat { format: NEWEST_FORMAT },
    ]
}

fn batch(effects: &[Effect<'_>], sequence: u64) -> Vec<u8> {
    let mut writer = BatchWriter::default();
    effects.iter().for_each(|effect| writer.push(effect));
    writer.seal(Head { stamp_ms: 1_700_000_000_000, sequence }, NEWEST_FORMAT).to_vec()
}

fn batches() -> Vec<Vec<u8>> {
    let mut seeds: Vec<_> = effects().iter().map(|effect| batch(&[*effect], 1)).collect();
    seeds.push(batch(&effects(), u64::MAX));
    seeds.push(batch(&[], 0));
    seeds
}

/// Four bytes of damage, then chunks: see the body.
fn snapshots() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (number, damage) in
        [[0, 0, 1, 0], [0, 17, 0x80, 0], [0, 30, 0, 1], [0, 16, 0, 1], [1, 0, 4, 0], [0, 20, 0, 0]]
            .into_iter()
            .enumerate()
    {
        let chunks: Vec<Vec<u8>> = (0..=number).map(|at| batch(&effects()[at..at + 2], 0)).collect();
        seeds.push([&damage[..], &chunks.join(&b'\n')].concat());
        seeds.push([&damage[..], b"no batch\n\x02a newer one"].concat());
    }
    seeds
}

/// What a real server wrote, and the forms of others, without their footers.
fn payloads() -> Vec<Vec<u8>> {
    const RECORDED: &str = include_str!("../../node/src/command/rdb/recorded/redis-7.0.15-dumps.txt");
    const FOOTER_BYTES: usize = moonraft::command::rdb::FOOTER_BYTES;
    /// Of the recorded ones; larger ones teach a fuzzer nothing more.
    const BYTES_MAX: usize = 300;
    let ziplist = "10000000 0d000000 0200 000161 03f6 ff";
    let listpack = "0c000000 0200 81 61 02 05 01 ff";
    let mut seeds: Vec<Vec<u8>> = Vec::new();
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let payload = unhex(line.split_once(' ').expect("a name and a payload").1);
        seeds.push(payload[..payload.len() - FOOTER_BYTES].to_vec());
    }
    seeds.retain(|content| content.len() <= BYTES_MAX);
    for content in [
        "01 02 01 61 c0 05".to_owned(),
        format!("0a 10 {ziplist}"),
        format!("0e 01 10 {ziplist}"),
        "12 02 01 01 61 02 09 09000000 0100 0501 ff".to_owned(),
        format!("0d 10 {ziplist}"),
        format!("0c 10 {ziplist}"),
        format!("10 0c {listpack}"),
        format!("11 0c {listpack}"),
        format!("14 0c {listpack}"),
        "03 02 01 61 03 312e35 01 62 fe".to_owned(),
        "00 c3 05 0a 00 61 e0 00 00".to_owned(),
        "00 c3 04 81 ffffffffffffffff 00000000".to_owned(),
        "02 81 ffffffffffffffff".to_owned(),
        "0b 0a 02000000 01000000 0100".to_owned(),
    ] {
        seeds.push(unhex(&content));
    }
    seeds
}

fn unhex(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// The files that are shipped, and what could be wrong with one.
fn cluster_files() -> Vec<Vec<u8>> {
    const THREE: &str = include_str!("../../cluster-configs/three-nodes.toml");
    const CONTAINERS: &str = include_str!("../../cluster-configs/docker-three-nodes.toml");
    let bare = "name = \"a\"\nshards = 2\nreplicas = 1\n[[node]]\nid = 1\nhost = \"a\"\nport = 1\npeer-port = 9\nhttp-port = 8\n";
    let mut seeds = owned([THREE.as_bytes(), CONTAINERS.as_bytes(), bare.as_bytes(), b""]);
    for (right, wrong) in [
        ("shards = 2", "shards = = 3"),
        ("shards = 2", "shards = 1025"),
        ("shards = 2", "shards = 1024"),
        ("port = 1\n", "port = 65535\n"),
        ("id = 1", "id = 4294967295"),
        ("id = 1", "id = -1"),
        ("host = \"a\"", "host = \"0.0.0.0\""),
        ("host = \"a\"", "host = \"::\"\nannounce = \"b\"\noutside = \"c\"\noutside-port = 100"),
        ("[[node]]", "[settings]\nreads = \"lease\"\nmaxclients = 100\n[[node]]"),
        ("[[node]]", "[settings]\nreeds = 0x7f\n[[node]]"),
        ("[[node]]", "node = [{id = 2}]\n[[node]]"),
        ("name = \"a\"", "name = '''a\u{e9}'''"),
        ("http-port = 8", "http-port = 9"),
    ] {
        seeds.push(bare.replace(right, wrong).into_bytes());
    }
    seeds
}

/// What is written to lanes, and messages of calls.
fn lanes() -> Vec<Vec<u8>> {
    let hello = frames::hello("cluster", 2).to_vec();
    // Raft's own, by hand: a heartbeat, and a snapshot's metadata.
    let raft = |data: &'static [u8]| RaftMessage {
        shard: 1,
        from: 2,
        to: 1,
        stamp: 3,
        echo: 4,
        data: Bytes::from_static(data),
        reads: true,
        time: 0,
    };
    let message = [raft(&[8, 8, 16, 1, 24, 2, 32, 5]), raft(&[8, 7, 74, 6, 18, 4, 16, 9, 24, 4])];
    let publication = Publication { channel: "c".into(), message: "m".into(), shard: Some(1) };
    let envelopes = [
        Envelope { raft: message.to_vec(), ..Envelope::default() },
        Envelope {
            publications: vec![publication.clone(), Publication { shard: None, ..publication }],
            ..Envelope::default()
        },
        Envelope { leaders: vec![LeaderHint { shard: 1, term: 5, replica: 2 }], ..Envelope::default() },
        Envelope { joining: vec![Joining { shard: 1, replica: 2 }], fit: Some(false), ..Envelope::default() },
    ];
    let mut seeds: Vec<Vec<u8>> =
        envelopes.iter().map(|one| [&hello[..], &frames::envelope(one)].concat()).collect();
    let all: Vec<u8> = envelopes.iter().flat_map(|one| frames::envelope(one).to_vec()).collect();
    seeds.push([&hello[..], &all, &frames::ALIVE, &all].concat());
    seeds.push(hello.clone());
    seeds.push(hello[..hello.len() - 1].to_vec());
    seeds.push([&hello[..], &[0, 0, 0, 9, 10]].concat());
    seeds.push([&frames::PREFACE[..], &[0xff; 8]].concat());
    seeds.push(RecallRequest { cluster: "cluster".into(), node: 2, reads: Some(1) }.encode_to_vec());
    let chunk = SnapshotChunk {
        cluster: "cluster".into(),
        total: 5,
        data: "bytes".into(),
        message: Bytes::from_static(&[8, 7, 74, 6, 18, 4, 16, 9, 24, 4]),
        ..SnapshotChunk::default()
    };
    seeds.push(chunk.encode_to_vec());
    seeds
}

/// Some of the golden scripts, and a few that do not end.
fn scripts() -> Vec<Vec<u8>> {
    const GOLDEN: &str = include_str!("../../node/src/script/golden/scripts.txt");
    /// Of the golden ones one in so many.
    const STEP: usize = 16;
    let (mut golden, mut script) = (Vec::new(), Vec::new());
    for line in GOLDEN.lines() {
        if let Some(code) = line.strip_prefix("> ") {
            script.push(code);
        } else if !script.is_empty() {
            golden.push(script.join("\n").into_bytes());
            script.clear();
        }
    }
    let mut seeds: Vec<Vec<u8>> = golden.into_iter().step_by(STEP).collect();
    seeds.extend(owned([
        b"#!lua flags=no-writes\nreturn redis.call('get', KEYS[1])",
        b"while true do pcall(error) end",
        b"local t = {} while true do t[#t + 1] = {} end",
        b"local f = coroutine.wrap(function() while true do coroutine.yield(1) end end) return f() + f()",
        b"setmetatable(_G, {__index = print}) return x",
        b"string.rep = nil rawset(_G, 'x', 1) return cjson.encode({KEYS, redis.pcall('hgetall', 'k')})",
        b"cjson.encode_sparse_array(true, 0) cjson.encode_max_depth(3) redis.setresp(3) math.randomseed(1) return {ok = 'x'}",
        b"return cmsgpack.unpack(cmsgpack.pack({1, {a = 2}})), struct.pack('>I2s', 1, 'a'), bit.tohex(-1)",
        b"return string.format('%5.1f %q %-10s', 1, 'a\\0', ('x'):gsub('(.)', '%1%0'))",
        b"return table.concat({1, 2}, ',', 1, 2) .. ('a,b'):find(',', 1, true) .. tostring(loadstring('return 1')())",
    ]));
    seeds
}
