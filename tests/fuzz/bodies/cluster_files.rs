//! Cluster files: what is taken keeps the promises of [`ClusterFile`], what is refused says where and why.

use std::collections::HashSet;

use moonraft::config::ClusterFile;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match ClusterFile::parse("fuzz.toml", text) {
        Ok(file) => check(&file),
        Err(error) => {
            let lines = 1 + text.matches('\n').count();
            assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
            assert!(!error.problem.is_empty() && !error.to_string().contains('\n'), "one line: {error}");
        }
    }
}

fn check(file: &ClusterFile) {
    assert!(!file.name.is_empty() && file.name.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!(file.shards >= 1 && file.replicas >= 1 && file.replicas as usize <= file.nodes.len());
    let ids: HashSet<u64> = file.nodes.iter().map(|node| node.id).collect();
    assert_eq!(ids.len(), file.nodes.len(), "an id twice");
    assert!(file.nodes.iter().all(|node| file.node(node.id) == Some(node)));
    let mut told = HashSet::new();
    for node in &file.nodes {
        assert!(node.id >= 1 && !node.host.is_empty() && !node.announce.is_empty());
        let last = u32::from(node.port) + file.shards - 1;
        assert!(node.port >= 1 && last <= u32::from(u16::MAX), "ports up to {last}");
        assert!(node.peer_port >= 1 && node.http_port >= 1);
        if let Some(outside) = &node.outside {
            assert!(outside.port >= 1 && u32::from(outside.port) + file.shards - 1 <= u32::from(u16::MAX));
        }
        let clients = (0..file.shards).map(|shard| u32::from(node.port) + shard);
        for port in clients.chain([node.peer_port.into(), node.http_port.into()]) {
            assert!(told.insert((&node.announce, &node.host, port)), "port {port} twice");
        }
    }
}
