//! Rare paths that a simulation must have taken to be worth something.
//!
//! The product says [`moonraft::marks::reached`] where they are, or the simulator where it
//! sees them happen. A test fails if one of them is not reached by its seeds, so that no
//! change, of the product or of the simulator, makes a fault harmless unnoticed.

/// All of them.
pub const ALL: &[&str] = &[
    // Leadership.
    "vote refused by the guard of a start",
    "vote refused by the guard of a leader",
    "leadership handed over",
    "leadership not handed over: resigned",
    "leadership sent home",
    "votes asked for when the connection to the leader broke",
    "leader heard though the connection to it broke",
    "node known not to answer",
    // The log.
    "conflicting entries replaced",
    "entries read back from the disk",
    "proposal in parts",
    "proposal waited for the next turn",
    "follower waited for the next turn",
    "message waited for the next turn",
    "parts of a lost leader given up",
    "parts given up by a shard",
    "follower told of several entries at once",
    "entries kept back left before what came after them",
    "change of members between two parts",
    // Speculation.
    "several batches undone at once",
    "batch of several effects undone",
    "redirect in place of a reply whose batch was overwritten",
    "block redirected after it was executed",
    "script redirected after it was executed",
    "reply of a batch that a later leader committed",
    "connection closed: outcome unknown",
    // Reads.
    "read answered under a lease",
    "read waited for a round",
    "round confirmed a read",
    "lease lapsed while a read was executed",
    // Waiting.
    "parked, then answered",
    "parked, then told there is no leader",
    "blocked request served",
    "blocked request sent away",
    "blocked request outlived an election",
    // Snapshots.
    "snapshot taken",
    "snapshot without space",
    "snapshot not written",
    "snapshot failed after its walk had ended",
    "snapshot not published",
    "snapshot transfer broken off",
    "snapshot transfer resumed",
    "snapshot received",
    "received snapshot not kept",
    "snapshot installed",
    "snapshot superseded while it was installed",
    "crash while a snapshot was installed",
    "log waited for an install",
    "log waited for a writer",
    "request waited for a large value of a snapshot",
    "log waited for a large value of a snapshot",
    "snapshot installed by one that led before",
    "snapshot installed with replies held",
    // Large requests.
    "request sent on an errand",
    "call executed elsewhere",
    "keys lent some at a time",
    "keys came back some at a time",
    "gathered keys called back",
    "returning keys called back",
    "gathering waited for a key",
    "errand called back",
    "batch applied in steps",
    "batch taken back in steps",
    "lent value called back by a block or a script",
    "block executed elsewhere",
    // Disks.
    "unsynced write lost",
    "unsynced write kept",
    "torn tail cut",
    "disk error stopped a node",
    "full disk stopped a node",
    "disk hung",
    "disk short of room",
    "disk with next to no room",
    "disk had room again",
    "node not fit to lead",
    "leadership left a node that is not fit",
    "request refused in a shortage",
    "script that had written went on in a shortage",
    "lost file of a log noticed",
    "emptied file of a log noticed",
    "older file of a log noticed",
    "lost snapshot noticed",
    // Time.
    "wall clock far ahead of the shard's time",
    "wall clock far behind the shard's time",
    "new leader waited for its time to be shown",
    "time without a leader was told by the wall clock",
    "key found expired and not removed",
    "expired key removed by a tick",
    "expired key removed by a request",
    "expired field removed by a tick",
    // Clients.
    "watch broken",
    "watch broken by a change of leader",
    "script killed after it wrote",
    "message heard at the node of its publisher",
    "message heard at another node",
    "replicas compared at one index",
    // Members.
    "crash before the groups began",
    "crash before the incarnation was durable",
    "disk lost",
    "disk lost again before its node was back",
    "disk lost while nobody led",
    "leader elected while a node was joining",
    "crash of a joiner",
    "joiner became a learner",
    "learner became a voter",
    "crash in a joint configuration",
    // Builds.
    "newer build led an older one",
    "node taken back to the older build",
    "shard born",
    "newer format agreed on",
    "newer format agreed on after an upgrade",
];

/// The run took this path.
pub fn mark(name: &'static str) {
    debug_assert!(ALL.contains(&name), "{name} is not listed");
    moonraft::marks::reached(name);
}
