//! The port for peers: lanes, and calls of gRPC. The first byte tells which.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use moonraft_proto::peer::{Envelope, peer_server::PeerServer};
use prost::Message as _;
use tokio::{
    io::AsyncReadExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::codec::FramedRead;
use tonic::transport::Server;

use super::{CONNECTION_WINDOW_BYTES, Incoming, STREAM_WINDOW_BYTES, Silence, frames};

/// Connections that wait for the service of gRPC.
const CALLERS_MAX: usize = 64;
/// Bytes that a lane reads at once, if so many are there.
const READ_BYTES: usize = 64 << 10;
/// After the system had no descriptor for a connection, the next is awaited so much later.
const RETRY: Duration = Duration::from_millis(100);

/// Serves the peers that connect. They may be silent for `patience`.
pub async fn serve(listener: TcpListener, incoming: Incoming, patience: Duration) {
    let incoming = Arc::new(incoming);
    let (callers, called) = mpsc::channel(CALLERS_MAX);
    tokio::spawn(serve_calls(Arc::clone(&incoming), called, patience));
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                tokio::spawn(receive(socket, Arc::clone(&incoming), callers.clone(), patience));
            }
            Err(error) => {
                tracing::warn!("a peer's connection could not be accepted: {error}");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn serve_calls(
    incoming: Arc<Incoming>,
    called: mpsc::Receiver<io::Result<TcpStream>>,
    patience: Duration,
) {
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keepalive_interval(Some(patience))
        .http2_keepalive_timeout(Some(patience))
        .add_service(PeerServer::from_arc(incoming));
    if let Err(error) = server.serve_with_incoming(ReceiverStream::new(called)).await {
        panic!("the service for peers ended: {error}");
    }
}

/// Finds out what a connection is for, and serves it.
async fn receive(
    mut socket: TcpStream,
    incoming: Arc<Incoming>,
    callers: mpsc::Sender<io::Result<TcpStream>>,
    patience: Duration,
) {
    let mut first = [0];
    let looked = tokio::time::timeout(patience, socket.peek(&mut first)).await;
    if !matches!(looked, Ok(Ok(1))) || socket.set_nodelay(true).is_err() {
        return; // it has gone, or says nothing
    }
    if first[0] != frames::PREFACE[0] {
        let _ = callers.send(Ok(socket)).await;
        return;
    }
    let mut preface = frames::PREFACE;
    let read = tokio::time::timeout(patience, socket.read_exact(&mut preface)).await;
    let is_ours = matches!(read, Ok(Ok(_))) && preface == frames::PREFACE;
    let (reader, writer) = socket.into_split();
    let ended = match is_ours {
        true => hear(reader, &writer, &incoming, patience).await,
        false => Err("this node speaks another version of the protocol between nodes".to_owned()),
    };
    if let Err(text) = ended {
        let _ = writer.try_write(&frames::refusal(&text));
    }
}

/// Takes what comes on a lane, until it ends or its peer is silent.
///
/// # Errors
/// Why the peer is not heard any more, for the peer.
async fn hear(
    reader: OwnedReadHalf,
    writer: &OwnedWriteHalf,
    incoming: &Incoming,
    patience: Duration,
) -> Result<(), String> {
    let mut stopping = incoming.stopping.clone();
    let mut frames = FramedRead::with_capacity(reader, frames::words(), READ_BYTES);
    let mut silence = Silence::new(patience);
    let mut sender = None;
    loop {
        let frame = tokio::select! {
            frame = frames.next() => frame,
            () = silence.look() => {
                if silence.lasts(frames.read_buffer().len()) {
                    return Err("nothing was heard for too long".to_owned());
                }
                // If the socket takes nothing, what it has taken before says the same.
                let _ = writer.try_write(&frames::ALIVE);
                continue;
            }
            _ = stopping.wait_for(|stopping| *stopping) => return Err("the node stops".to_owned()),
        };
        let Some(frame) = frame else { return Ok(()) };
        let frame = frame.map_err(|error| error.to_string())?;
        silence.broken();
        if frame.is_empty() {
            continue;
        }
        let envelope = Envelope::decode(Bytes::from(frame)).map_err(|error| error.to_string())?;
        let known = match &sender {
            Some((known, _)) => *known,
            None => {
                let known = incoming.introduce(&envelope.cluster, envelope.node)?;
                sender = Some((known, incoming.view.begin_stream(known)));
                *frames.decoder_mut() = frames::envelopes();
                let _ = writer.try_write(&frames::ALIVE);
                known
            }
        };
        incoming.take(known, envelope);
    }
}
