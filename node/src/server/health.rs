//! Asks a node of this machine whether it is ready: for images and units that have
//! no HTTP client at hand.

use std::fmt;

use super::node::StartError;
use crate::config::ClusterFile;

/// How long the answer may take: it is made from memory.
const SECONDS_MAX: u64 = 2;

/// What a node says of itself, or what its silence says.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Every replica of it knows a leader that serves.
    Ready,
    /// It is there, and says why it is not ready.
    NotReady(String),
    /// It does not answer.
    Silent(String),
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Answer::Ready => f.write_str("ready"),
            Answer::NotReady(reason) => write!(f, "not ready: {reason}"),
            Answer::Silent(reason) => write!(f, "no answer: {reason}"),
        }
    }
}

/// Asks node `id`, at the address where it binds.
///
/// # Errors
/// The file has no such node.
pub fn ask(cluster: &ClusterFile, id: u64) -> Result<Answer, StartError> {
    let entry = cluster.node(id).ok_or_else(|| StartError::no_such_node(cluster, id))?;
    let host = match entry.host.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        "::" => "[::1]".to_owned(),
        host if host.contains(':') => format!("[{host}]"),
        host => host.to_owned(),
    };
    let request = minreq::get(format!("http://{host}:{}/ready", entry.http_port));
    Ok(match request.with_timeout(SECONDS_MAX).send() {
        Ok(response) if response.status_code == 200 => Answer::Ready,
        Ok(response) => Answer::NotReady(response.as_str().unwrap_or_default().trim().to_owned()),
        Err(error) => Answer::Silent(error.to_string()),
    })
}
