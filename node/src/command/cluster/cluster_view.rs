//! The slot map as one replica shows it: its own standing is fresher than what
//! nodes have told each other.

use std::sync::Arc;

use moonraft_router::{ReplicaPlace, ShardId, ShardPlace, SlotMap};

use super::super::{Client, client::Standing};

/// The cluster, seen from one replica.
pub(in crate::command) struct ClusterView {
    map: Arc<SlotMap>,
    /// Shard and replica id of the one who looks.
    me: (ShardId, u64),
    /// The term it leads, if it does.
    leading: Option<u64>,
    /// The last entry it has applied.
    applied: u64,
    /// Requests for its shard are told that nobody leads it.
    leaderless: bool,
}

/// A shard, as it is seen.
#[derive(Clone, Copy)]
pub(in crate::command) struct Shard<'a> {
    /// Its name.
    pub id: ShardId,
    /// Its slots and replicas.
    pub place: &'a ShardPlace,
    /// Id of the replica that is shown as master.
    pub master: u64,
    /// The term it leads; 0 if none ever was known to lead.
    pub term: u64,
}

/// A replica, as it is seen.
#[derive(Clone, Copy)]
pub(in crate::command) struct Member<'a> {
    /// Its shard.
    pub shard: Shard<'a>,
    /// Its name and address.
    pub place: &'a ReplicaPlace,
}

/// Whether a replica's node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::command) enum Health {
    Online,
    Failed,
}

impl Health {
    /// As `CLUSTER SHARDS` says it.
    pub const fn text(self) -> &'static str {
        match self {
            Health::Online => "online",
            Health::Failed => "fail",
        }
    }
}

impl ClusterView {
    /// What a client's replica sees.
    pub fn of(client: &dyn Client) -> Self {
        let replica = client.replica();
        let leading = match client.standing() {
            Standing::Leading { term, .. } => Some(term),
            Standing::Following { .. } => None,
        };
        let me = (replica.shard, replica.replica);
        Self {
            map: client.map(),
            me,
            leading,
            applied: client.applied().0,
            leaderless: client.is_leaderless(),
        }
    }

    fn shard<'a>(&self, id: ShardId, place: &'a ShardPlace) -> Shard<'a> {
        let known = place.leader.map_or(0, |(_, term)| term);
        let (master, term) = match self.leading {
            Some(term) if id == self.me.0 && (known <= term || place.leader_place().is_none()) => {
                (self.me.1, term)
            }
            _ => (place.master_place().map_or(0, |master| master.replica), known),
        };
        Shard { id, place, master, term }
    }

    /// All shards, by name.
    pub fn shards(&self) -> impl Iterator<Item = Shard<'_>> {
        self.map.shards.iter().map(|(&id, place)| self.shard(id, place))
    }

    /// Whether, as far as is known here, a shard can serve: a majority of its replicas lives on nodes that
    /// answer, and nobody is told that it has no leader.
    pub fn is_served(&self, shard: &Shard<'_>) -> bool {
        shard.place.has_quorum() && !(self.leaderless && shard.id == self.me.0)
    }

    /// All replicas, shard by shard.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.shards().flat_map(Shard::into_members)
    }

    /// The shard of the one who looks.
    pub fn my_shard(&self) -> Option<Shard<'_>> {
        self.map.shards.get(&self.me.0).map(|place| self.shard(self.me.0, place))
    }

    /// The term of its shard's leader.
    pub fn my_term(&self) -> u64 {
        self.my_shard().map_or(0, |shard| shard.term)
    }

    /// Whether this is the one who looks.
    pub fn is_me(&self, member: &Member<'_>) -> bool {
        (member.shard.id, member.place.replica) == self.me
    }

    /// How far a replica's log goes, as far as is known here: of its own shard a
    /// replica knows what is committed, of others nothing.
    pub fn offset(&self, member: &Member<'_>) -> u64 {
        if member.shard.id == self.me.0 { self.applied } else { 0 }
    }
}

impl<'a> Shard<'a> {
    /// Its replicas, as the map lists them.
    pub fn into_members(self) -> impl Iterator<Item = Member<'a>> {
        self.place.replicas.iter().map(move |place| Member { shard: self, place })
    }

    /// Its replicas, as the map lists them.
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> {
        self.into_members()
    }

    /// The one that is shown as master.
    pub fn master_place(&self) -> Option<&'a ReplicaPlace> {
        self.place.replicas.iter().find(|place| place.replica == self.master)
    }
}

impl<'a> Member<'a> {
    /// Whether it is shown as its shard's master.
    pub fn is_master(&self) -> bool {
        self.place.replica == self.shard.master
    }

    /// A slave's master.
    pub fn master(&self) -> Option<&'a ReplicaPlace> {
        if self.is_master() { None } else { self.shard.master_place() }
    }

    /// Whether its node answers.
    pub fn health(&self) -> Health {
        if self.shard.place.answers(self.place) { Health::Online } else { Health::Failed }
    }
}

/// Whether a host is announced by address rather than by name.
pub(in crate::command) fn is_ip(host: &str) -> bool {
    host.parse::<core::net::IpAddr>().is_ok()
}

/// The 40 hexadecimal digits by which tools know a shard: the same on all nodes.
pub(in crate::command) fn shard_id(shard: ShardId) -> String {
    hexadecimal_id(&format!("shard {shard}"))
}

/// 40 hexadecimal digits that follow from `text`.
pub(in crate::command) fn hexadecimal_id(text: &str) -> String {
    sha1_smol::Sha1::from(text).digest().to_string()
}
