//! The ports of a node: taken all together, before anything else is touched; listened on once the node has its data.

use std::{
    io,
    net::{SocketAddr, TcpListener, ToSocketAddrs},
};

use moonraft_router::Network;
use socket2::{Domain, Protocol, Socket, Type};

use super::descriptors;
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
        _ => descriptors::explain(error),
    }
}

/// Where clients of one replica come in: one listener a network.
pub type Doors<L> = Vec<(Network, L)>;

/// The ports of a node.
pub struct Listeners<L = TcpListener> {
    /// For clients, by shard.
    pub clients: Vec<(u32, Doors<L>)>,
    /// For other nodes.
    pub peers: L,
    /// For health and metrics.
    pub http: L,
}

/// Ports that are this process's, and on which nobody is let in yet.
pub type Ports = Listeners<Port>;

/// One of them.
pub struct Port {
    socket: Socket,
    address: String,
    purpose: String,
}

/// Takes every port of a node, for the shards it holds.
///
/// # Errors
/// One of them cannot be had; none is kept then.
pub fn bind(node: &NodeEntry, shards: impl Iterator<Item = u32>) -> Result<Ports, ListenError> {
    let clients = shards.map(|shard| Ok((shard, bind_doors(node, shard)?)));
    Ok(Listeners {
        clients: clients.collect::<Result<_, _>>()?,
        peers: open(node, node.peer_port, format!("peers of node {}", node.id))?,
        http: open(node, node.http_port, format!("HTTP of node {}", node.id))?,
    })
}

/// Takes the ports of one replica of a node.
///
/// # Errors
/// One of them cannot be had; none is kept then.
pub fn bind_doors(node: &NodeEntry, shard: u32) -> Result<Doors<Port>, ListenError> {
    let purpose = format!("clients of shard {shard} of node {}", node.id);
    let mut doors = vec![(Network::Inside, open(node, node.port + shard as u16, purpose)?)];
    if let Some(outside) = &node.outside {
        let purpose = format!("clients from outside of shard {shard} of node {}", node.id);
        doors.push((Network::Outside, open(node, outside.port + shard as u16, purpose)?));
    }
    Ok(doors)
}

fn open(node: &NodeEntry, port: u16, purpose: String) -> Result<Port, ListenError> {
    let address = format!("{}:{port}", node.host);
    match take(&node.host, port) {
        Ok(socket) => Ok(Port { socket, address, purpose }),
        Err(source) => Err(ListenError { address, purpose, source }),
    }
}

/// Lets clients of one replica connect.
///
/// # Errors
/// Another process has taken one of the ports at the same time, and was faster.
pub fn listen(doors: Doors<Port>, backlog: u64) -> Result<Doors<TcpListener>, ListenError> {
    let doors = doors.into_iter().map(|(network, port)| Ok((network, port.listen(backlog)?)));
    doors.collect()
}

impl Port {
    fn listen(self, backlog: u64) -> Result<TcpListener, ListenError> {
        let Port { socket, address, purpose } = self;
        let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
        match socket.listen(backlog) {
            Ok(()) => Ok(socket.into()),
            Err(source) => Err(ListenError { address, purpose, source }),
        }
    }
}

impl Ports {
    /// Lets others connect.
    ///
    /// # Errors
    /// Another process has taken one of the ports at the same time, and was faster.
    pub fn listen(self, backlog: u64) -> Result<Listeners, ListenError> {
        let clients = self.clients.into_iter().map(|(shard, doors)| Ok((shard, listen(doors, backlog)?)));
        Ok(Listeners {
            clients: clients.collect::<Result<_, _>>()?,
            peers: self.peers.listen(backlog)?,
            http: self.http.listen(backlog)?,
        })
    }
}

fn take(host: &str, port: u16) -> io::Result<Socket> {
    let address = resolve(host, port)?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A node that comes back must not wait for the connections of its former life.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn resolve(host: &str, port: u16) -> io::Result<SocketAddr> {
    let unknown = |error| {
        io::Error::other(format!("{error}; 'host' is where the node binds, 'announce' what others are told"))
    };
    let mut addresses = (host, port).to_socket_addrs().map_err(unknown)?;
    addresses.next().ok_or_else(|| io::Error::new(io::ErrorKind::AddrNotAvailable, "it has no address"))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    /// A node of one shard whose other ports are any.
    fn node(port: u16) -> NodeEntry {
        let host = "127.0.0.1".to_owned();
        NodeEntry { id: 4, announce: host.clone(), host, port, outside: None, peer_port: 0, http_port: 0 }
    }

    #[test]
    fn a_port_in_use_is_told_in_one_line() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = bind(&node(port), 0..1).err().expect("the port is taken");
        let expected = format!(
            "cannot listen on 127.0.0.1:{port} (clients of shard 0 of node 4): the port is in use; stop the process that has it, or choose another port"
        );
        assert_eq!(error.to_string(), expected);
    }

    #[test]
    fn nobody_is_let_in_before_the_node_listens() {
        let ports = bind(&node(0), 0..1).unwrap();
        let address = ports.clients[0].1[0].1.socket.local_addr().unwrap().as_socket().unwrap();
        let refused = TcpStream::connect(address).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let _listeners = ports.listen(16).unwrap();
        TcpStream::connect(address).unwrap();
    }
}
