//! What carries bytes between a client and its connection: a socket, or what is put around one.
//!
//! It reads and writes what is possible now. Who may wait does so at [`Wire::socket`] or in [`Wire::poll_read`];
//! [`super::busy`] may not, since the runtime stands still there, and so cannot say what is possible.

use std::{
    cell::RefCell,
    io,
    pin::pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};
use tokio::{
    io::AsyncReadExt,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// Bytes read at a time where nobody may wait.
const CHUNK_BYTES: usize = 16 << 10;

/// What carries a client's bytes.
pub trait Wire {
    /// Waits until bytes have come, and reads them to the end of `input`, as far as that has room. None: the client
    /// has ended.
    fn poll_read(&self, context: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>>;

    /// Reads what has come, until `input` holds `bytes_max` or a little more. An end or an error is left for
    /// [`Wire::poll_read`] to find.
    fn read_now(&self, input: &mut BytesMut, bytes_max: usize);

    /// Takes what it can of bytes to be sent.
    ///
    /// # Errors
    /// The socket's; `WouldBlock` if it takes nothing now.
    fn send(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Nothing more is sent or read: the client sees so at once.
    fn close(&self);

    /// The socket that bytes go through in the end.
    fn socket(&self) -> &TcpStream;
}

/// A socket, and nothing around it.
pub struct Plain {
    reader: RefCell<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

impl From<TcpStream> for Plain {
    fn from(stream: TcpStream) -> Self {
        let (reader, writer) = stream.into_split();
        Self { reader: RefCell::new(reader), writer }
    }
}

impl Wire for Plain {
    fn poll_read(&self, context: &mut Context<'_>, input: &mut BytesMut) -> Poll<io::Result<usize>> {
        pin!(self.reader.borrow_mut().read_buf(input)).poll(context)
    }

    fn read_now(&self, input: &mut BytesMut, bytes_max: usize) {
        let mut chunk = [0; CHUNK_BYTES];
        while input.len() < bytes_max
            && let Ok((count @ 1.., _)) = recv(self.socket(), &mut chunk, RecvFlags::DONTWAIT)
        {
            input.extend_from_slice(&chunk[..count]);
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        #[cfg(test)]
        sent::count(self.socket());
        Ok(send(self.socket(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn close(&self) {
        let _ = shutdown(self.socket(), Shutdown::Both);
    }

    fn socket(&self) -> &TcpStream {
        self.writer.as_ref()
    }
}

/// How often a socket was written to, by both its addresses, as the client's alone comes again: for tests, which see what
/// arrives and not in how many pieces it left.
#[cfg(test)]
pub mod sent {
    use std::{
        collections::BTreeMap,
        net::SocketAddr,
        sync::{Mutex, PoisonError},
    };

    static SENT: Mutex<BTreeMap<[SocketAddr; 2], usize>> = Mutex::new(BTreeMap::new());

    /// It is written to once more.
    pub fn count(socket: &super::TcpStream) {
        if let (Ok(client), Ok(server)) = (socket.peer_addr(), socket.local_addr()) {
            *SENT.lock().unwrap_or_else(PoisonError::into_inner).entry([client, server]).or_default() += 1;
        }
    }

    /// How often the socket of this client of this server was.
    pub fn to(client: SocketAddr, server: SocketAddr) -> usize {
        SENT.lock().unwrap_or_else(PoisonError::into_inner).get(&[client, server]).copied().unwrap_or(0)
    }
}
