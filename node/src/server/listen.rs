//! The ports of a node: bound all together, before anything else is touched.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use moonraft_router::Network;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::NodeEntry;

/// A port that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({purpose}): {}", reason(.source))]
pub struct ListenError {
    address: String,
    purpose: String,
    source: io::Error,
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "the port is in use; stop the process that has it, or choose another port".to_owned()
        }
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address; 'host' is where the node binds, 'announce' what others are told"
                .to_owned()
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; choose a higher one".to_owned(),
        _ => error.to_string(),
    }
}

/// Where clients of one replica come in: one listener a network.
pub type Doors<L> = Vec<(Network, L)>;

/// The listeners of a node.
pub struct Listeners {
    /// For clients, by shard.
    pub clients: Vec<(u32, Doors<TcpListener>)>,
    /// For other nodes.
    pub peers: TcpListener,
    /// For health and metrics.
    pub http: TcpListener,
}

/// Binds every port of a node, for the shards it holds.
///
/// # Errors
/// One of them cannot be had; none is kept then.
pub fn bind(
    node: &NodeEntry,
    shards: impl Iterator<Item = u32>,
    backlog: u64,
) -> Result<Listeners, ListenError> {
    let open = |port: u16, purpose: String| {
        listen(&node.host, port, backlog).map_err(|source| ListenError {
            address: format!("{}:{port}", node.host),
            purpose,
            source,
        })
    };
    let client = |shard: u32| {
        let purpose = format!("clients of shard {shard} of node {}", node.id);
        let mut doors = vec![(Network::Inside, open(node.port + shard as u16, purpose)?)];
        if let Some(outside) = &node.outside {
            let purpose = format!("clients from outside of shard {shard} of node {}", node.id);
            doors.push((Network::Outside, open(outside.port + shard as u16, purpose)?));
        }
        Ok((shard, doors))
    };
    Ok(Listeners {
        clients: shards.map(client).collect::<Result<_, _>>()?,
        peers: open(node.peer_port, format!("peers of node {}", node.id))?,
        http: open(node.http_port, format!("HTTP of node {}", node.id))?,
    })
}

fn listen(host: &str, port: u16, backlog: u64) -> io::Result<TcpListener> {
    let address = resolve(host, port)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A node that comes back must not wait for the connections of its former life.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let mut addresses = (host, port).to_socket_addrs()?;
    addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_in_one_line() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let node = NodeEntry {
            id: 4,
            host: "127.0.0.1".into(),
            announce: "127.0.0.1".into(),
            port,
            outside: None,
            peer_port: 0,
            http_port: 0,
        };
        let error = bind(&node, 0..1, 16).err().expect("the port is taken");
        let expected = format!(
            "cannot listen on 127.0.0.1:{port} (clients of shard 0 of node 4): the port is in use; stop the process that has it, or choose another port"
        );
        assert_eq!(error.to_string(), expected);
    }
}
