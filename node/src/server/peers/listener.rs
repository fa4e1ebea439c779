//! The port for peers: lanes, and calls of gRPC. The first byte tells which.
//!
//! Anybody may connect. Who has not said in time who it is has to go, and the oldest of those when
//! there are too many; lanes, which belong to nodes of the cluster, are as many as these open.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use moonraft_proto::peer::{Envelope, peer_server::PeerServer};
use prost::Message as _;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tokio_util::codec::FramedRead;
use tonic::transport::{Server, server::Connected};

use super::{CONNECTION_WINDOW_BYTES, Incoming, STREAM_WINDOW_BYTES, Silence, frames};
use crate::server::descriptors::Shares;

/// Connections that wait for the service of gRPC.
const WAITING_MAX: usize = 16;
/// Bytes that a lane reads at once, if so many are there.
const READ_BYTES: usize = 64 << 10;
/// After the system had no descriptor for a connection, the next is awaited so much later.
const RETRY: Duration = Duration::from_millis(100);

/// What who connects may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that have not said yet who they are; the oldest is closed for one more.
    pub strangers: usize,
    /// Connections for calls; more are closed.
    pub callers: usize,
    /// How long a peer may be silent, at the beginning too.
    pub patience: Duration,
}

impl Limits {
    /// With these shares of the process's descriptors.
    pub const fn of(shares: &Shares, patience: Duration) -> Self {
        Self { strangers: shares.strangers as usize, callers: shares.callers as usize, patience }
    }
}

/// Serves the peers that connect.
pub async fn serve(listener: TcpListener, incoming: Incoming, limits: Limits) {
    let door = Arc::new(Door {
        incoming: Arc::new(incoming),
        callers: Arc::new(Semaphore::new(limits.callers)),
        patience: limits.patience,
    });
    let (callers, called) = mpsc::channel(WAITING_MAX);
    tokio::spawn(serve_calls(Arc::clone(&door.incoming), called, limits.patience));
    let mut strangers = VecDeque::<(AbortHandle, Arc<AtomicBool>)>::new();
    loop {
        match listener.accept().await {
            Ok((socket, _)) => {
                let is_stranger = |task: &AbortHandle, is_known: &AtomicBool| {
                    !task.is_finished() && !is_known.load(Ordering::Relaxed)
                };
                strangers.retain(|(task, is_known)| is_stranger(task, is_known));
                if strangers.len() >= limits.strangers
                    && let Some((oldest, _)) = strangers.pop_front()
                {
                    oldest.abort();
                }
                let is_known = Arc::new(AtomicBool::new(false));
                let served = Arc::clone(&door).serve(socket, callers.clone(), Arc::clone(&is_known));
                strangers.push_back((tokio::spawn(served).abort_handle(), is_known));
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
    called: mpsc::Receiver<io::Result<Caller>>,
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

/// A connection for calls, counted until it ends.
struct Caller {
    socket: TcpStream,
    _counted: OwnedSemaphorePermit,
}

impl Connected for Caller {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Caller {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Caller {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

/// What is behind the port.
struct Door {
    incoming: Arc<Incoming>,
    /// How many more connections for calls there may be.
    callers: Arc<Semaphore>,
    patience: Duration,
}

impl Door {
    /// Finds out what a connection is for, and serves it.
    async fn serve(
        self: Arc<Self>,
        mut socket: TcpStream,
        callers: mpsc::Sender<io::Result<Caller>>,
        is_known: Arc<AtomicBool>,
    ) {
        let mut first = [0];
        let looked = tokio::time::timeout(self.patience, socket.peek(&mut first)).await;
        if !matches!(looked, Ok(Ok(1))) || socket.set_nodelay(true).is_err() {
            return; // it has gone, or says nothing
        }
        if first[0] != frames::PREFACE[0] {
            if let Ok(counted) = Arc::clone(&self.callers).try_acquire_owned() {
                let _ = callers.send(Ok(Caller { socket, _counted: counted })).await;
            }
            return;
        }
        let mut preface = frames::PREFACE;
        let read = tokio::time::timeout(self.patience, socket.read_exact(&mut preface)).await;
        let is_ours = matches!(read, Ok(Ok(_))) && preface == frames::PREFACE;
        let (reader, writer) = socket.into_split();
        let ended = match is_ours {
            true => hear(reader, &writer, &self.incoming, self.patience, &is_known).await,
            false => Err("this node speaks another version of the protocol between nodes".to_owned()),
        };
        if let Err(text) = ended {
            let _ = writer.try_write(&frames::refusal(&text));
        }
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
    is_known: &AtomicBool,
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
            match &sender {
                Some(_) => continue,
                None => return Err("the first frame says who speaks".to_owned()),
            }
        }
        let envelope = Envelope::decode(Bytes::from(frame)).map_err(|error| error.to_string())?;
        let known = match &sender {
            Some((known, _)) => *known,
            None => {
                let known = incoming.introduce(&envelope.cluster, envelope.node, envelope.reads)?;
                sender = Some((known, incoming.cluster.begin_stream(known)));
                is_known.store(true, Ordering::Relaxed);
                *frames.decoder_mut() = frames::envelopes();
                let _ = writer.try_write(&frames::ALIVE);
                known
            }
        };
        incoming.take(known, envelope);
    }
}
