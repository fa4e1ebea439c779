//! What another node sends: nothing in it makes a decoder panic, and what is read is what is read of it written anew.
//!
//! Envelopes are read from a lane as its listener does, chunks of snapshots as gRPC hands them over. What Raft does
//! with a message of a peer that is believed is not looked at: see `consensus::receive`.

use bytes::{Bytes, BytesMut};
use moonraft::{
    consensus::{PeerMessage, ReplicaId, snapshot_position},
    server::peers::frames::{self, Frames},
};
use moonraft_proto::peer::{Envelope, Memory, RaftMessage, RecallRequest, SnapshotChunk};
use prost::Message;
use tokio_util::codec::Decoder as _;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some(rest) = bytes.strip_prefix(&frames::PREFACE) else {
        call(bytes);
        return;
    };
    // The first frame is read before it is known who speaks.
    let mut buffer = BytesMut::from(rest);
    if let Some(hello) = next(&mut frames::words(), &mut buffer) {
        let who = again::<Envelope>(&hello);
        let mut codec = frames::envelopes();
        while who.is_some()
            && let Some(frame) = next(&mut codec, &mut buffer)
        {
            if let Some(envelope) = again::<Envelope>(&frame) {
                envelope.raft.into_iter().for_each(raft);
            }
        }
    }
}

/// The next whole frame.
fn next(frames: &mut Frames, buffer: &mut BytesMut) -> Option<Bytes> {
    frames.decode(buffer).ok().flatten().map(BytesMut::freeze)
}

/// What the bytes are; the same is read of it again.
fn again<M: Message + Default + PartialEq>(bytes: &[u8]) -> Option<M> {
    let message = M::decode(bytes).ok()?;
    let written = message.encode_to_vec();
    let read = M::decode(written.as_slice()).expect("it was just written");
    assert_eq!(read.encode_to_vec(), written);
    Some(message)
}

fn raft(message: RaftMessage) {
    let peer = PeerMessage {
        group: message.shard,
        from: ReplicaId(message.from),
        to: ReplicaId(message.to),
        stamp: message.stamp,
        echo: message.echo,
        time: message.time,
        reads: message.reads,
        data: message.data,
    };
    let _ = snapshot_position(&peer); // decodes Raft's own message
}

/// What comes by gRPC.
fn call(bytes: &[u8]) {
    again::<RecallRequest>(bytes);
    again::<Memory>(bytes);
    if let Some(chunk) = again::<SnapshotChunk>(bytes) {
        raft(RaftMessage { data: chunk.message, ..RaftMessage::default() });
    }
}
