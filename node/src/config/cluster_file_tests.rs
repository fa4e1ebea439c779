//! Golden: each case of `scripts/cluster_file_errors.golden` is a change to a good
//! file and the one line that its user reads. `UPDATE_GOLDENFILES=1` rewrites it.

use super::*;

const GOOD: &str = r#"name = "local"
shards = 3
replicas = 3

[settings]
reads = "lease"

[[node]]
id = 1
host = "127.0.0.1"
port = 7001
peer-port = 17001
http-port = 27001

[[node]]
id = 2
host = "127.0.0.1"
port = 7101
peer-port = 17101
http-port = 27101

[[node]]
id = 3
host = "0.0.0.0"
announce = "node3.example"
port = 7201
peer-port = 17201
http-port = 27201
"#;

/// What is wrong in it, what is replaced, and by what.
const CASES: &[(&str, &str, &str)] = &[
    ("not TOML", "shards = 3", "shards = = 3"),
    ("a key twice", "shards = 3", "shards = 3\nshards = 4"),
    ("an unknown key, nearly right", "shards = 3", "shard = 3"),
    ("an unknown key", "shards = 3", "colour = 3"),
    ("no name", "name = \"local\"", ""),
    ("a name with a blank", "\"local\"", "\"my cluster\""),
    ("no shards", "shards = 3\n", ""),
    ("shards of the wrong kind", "shards = 3", "shards = \"3\""),
    ("too many shards", "shards = 3", "shards = 20000"),
    ("no replica", "replicas = 3", "replicas = 0"),
    ("more replicas than nodes", "replicas = 3", "replicas = 5"),
    ("a setting that does not exist", "reads = \"lease\"", "reeds = \"lease\""),
    ("a setting without the least likeness", "reads = \"lease\"", "frobnicate = 1"),
    ("a setting of a wrong value", "reads = \"lease\"", "reads = \"fast\""),
    ("a setting out of range", "reads = \"lease\"", "maxclients = 0"),
    ("a setting of the wrong kind", "reads = \"lease\"", "maxclients = [1]"),
    ("a setting that cannot be other", "reads = \"lease\"", "appendonly = false"),
    ("settings that are no section", "[settings]\nreads = \"lease\"", "settings = 3"),
    ("a node key misspelt", "peer-port = 17101", "peerport = 17101"),
    ("a node without a port", "port = 7101\n", ""),
    ("a port too high for its shards", "port = 7101", "port = 65534"),
    ("a port that is none", "http-port = 27201", "http-port = 0"),
    ("a node twice", "id = 2", "id = 1"),
    ("two uses of a port", "port = 7101", "port = 7003"),
    ("a peer port among client ports", "peer-port = 17101", "peer-port = 7102"),
    ("an address nobody can be told", "announce = \"node3.example\"\n", ""),
    ("a host with a port", "\"node3.example\"", "\"node3.example:7001\""),
    ("an outside address without a port", "id = 2", "id = 2\noutside = \"127.0.0.1\""),
    ("an outside port without an address", "id = 2", "id = 2\noutside-port = 8001"),
    ("an outside address nobody can be told", "id = 2", "id = 2\noutside = \"0.0.0.0\"\noutside-port = 8001"),
    (
        "an outside port that is a peer port",
        "id = 1",
        "id = 1\noutside = \"127.0.0.1\"\noutside-port = 17000",
    ),
    ("one node outside, the others not", "id = 2", "id = 2\noutside = \"127.0.0.1\"\noutside-port = 8001"),
    ("single brackets", "[[node]]\nid = 1", "[node]\nid = 1"),
];

#[test]
fn a_good_file_is_read() {
    let cluster = ClusterFile::parse("good.toml", GOOD).unwrap();
    assert_eq!((cluster.name.as_str(), cluster.shards, cluster.replicas), ("local", 3, 3));
    assert_eq!(cluster.settings, Settings::default());
    assert_eq!(cluster.nodes.len(), 3);
    assert_eq!(cluster.node(1).unwrap().announce, "127.0.0.1", "the host, unless told otherwise");
    assert_eq!(cluster.node(3).unwrap().announce, "node3.example");
    assert_eq!(cluster.node(4), None);
}

#[test]
fn the_files_that_are_shipped_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cluster-configs");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            ClusterFile::read(&path).unwrap();
            names.push(path.file_stem().unwrap().to_string_lossy().into_owned());
        }
    }
    names.sort();
    assert_eq!(names, ["docker-five-nodes", "docker-three-nodes", "one-node", "three-nodes"]);
}

/// As in containers: every node binds everywhere at the same ports, is called by
/// name inside, and from outside has ports of its own.
const CONTAINERS: &str = r#"name = "containers"
shards = 2
replicas = 2

[[node]]
id = 1
host = "0.0.0.0"
announce = "node1"
port = 6379
outside = "127.0.0.1"
outside-port = 7001
peer-port = 17001
http-port = 27001

[[node]]
id = 2
host = "0.0.0.0"
announce = "node2"
port = 6379
outside = "127.0.0.1"
outside-port = 7101
peer-port = 17001
http-port = 27001
"#;

#[test]
fn a_node_may_have_an_address_inside_and_one_outside() {
    let cluster = ClusterFile::parse("containers.toml", CONTAINERS).unwrap();
    let node = cluster.node(2).unwrap();
    assert_eq!((node.announce.as_str(), node.port), ("node2", 6379));
    assert_eq!(node.outside, Some(OutsideEntry { host: "127.0.0.1".into(), port: 7101 }));
}

#[test]
fn one_address_is_not_two_nodes() {
    let twice = CONTAINERS.replacen("outside-port = 7101", "outside-port = 7002", 1);
    let error = ClusterFile::parse("containers.toml", &twice).unwrap_err();
    assert_eq!(
        error.to_string(),
        "containers.toml:21: port 7002 on 127.0.0.1 would be both the outside port of shard 1 of node 1 and the outside port of shard 0 of node 2; move one of them"
    );
    let same = CONTAINERS.replacen("node2", "node1", 1);
    let error = ClusterFile::parse("containers.toml", &same).unwrap_err();
    assert_eq!(
        error.to_string(),
        "containers.toml:19: port 6379 on node1 would be both the client port of shard 0 of node 1 and the client port of shard 0 of node 2; move one of them"
    );
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_mend() {
    let mut told = String::new();
    for (what, old, new) in CASES {
        let text = GOOD.replacen(old, new, 1);
        assert_ne!(text, GOOD, "{what}: the case changes nothing");
        let error = ClusterFile::parse("cluster.toml", &text).expect_err(what);
        told.push_str(&format!("# {what}\n{error}\n\n"));
    }
    let missing = ClusterFile::parse("cluster.toml", "name = \"a\"\nshards = 1\nreplicas = 1\n");
    told.push_str(&format!("# no node at all\n{}\n", missing.expect_err("no node")));

    let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/src/config/scripts/cluster_file_errors.golden");
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::write(golden, &told).unwrap();
    }
    assert_eq!(told, std::fs::read_to_string(golden).unwrap());
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = ClusterFile::read(Path::new("no/such/file.toml")).unwrap_err();
    assert!(error.to_string().starts_with("no/such/file.toml: cannot read the cluster file: "), "{error}");
}

#[test]
fn a_local_cluster_has_the_documented_ports() {
    let cluster = ClusterFile::local(3, 3, 7001).unwrap();
    let ports: Vec<_> =
        cluster.nodes.iter().map(|node| (node.port, node.peer_port, node.http_port)).collect();
    assert_eq!(ports, [(7001, 17001, 27001), (7101, 17101, 27101), (7201, 17201, 27201)]);
    assert!(ClusterFile::local(3, 3, 45_400).is_err());
    assert!(ClusterFile::local(0, 3, 7001).is_err());
    assert!(ClusterFile::local(3, 101, 7001).is_err());
}
