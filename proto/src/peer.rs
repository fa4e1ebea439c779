//! Messages between nodes and the service that carries them, as prost and tonic
//! make them from `peer.proto`, which documents them.

#![allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]

tonic::include_proto!("moonraft.peer");
