//! Where a request is executed: here, elsewhere, or nobody knows yet.

use moonraft_proto::Reply;
use moonraft_router::{Network, Redirect, ReplicaPlace, SlotMap};

use super::{Core, SessionId, Standing, slots::Ownership};
use crate::command::{Command, Flag, Request, Run};

/// Where a request is executed.
pub(super) enum Place {
    Here,
    Elsewhere(Redirect),
    /// Nobody knows yet.
    Wait,
}

impl Core {
    /// Whether a request looks at data: that asks for leadership, or for leave to
    /// read what a follower has.
    pub(super) fn is_on_data(&self, id: SessionId, request: &Request<'_>) -> bool {
        let (command, has_keys) = (request.command, request.slot().is_some());
        match command.run {
            // `TIME` and its like are answered from the request alone.
            Run::Read(_) => has_keys || command.reads_data(),
            Run::Write(_) | Run::Eval(_) => true,
            Run::Exec => self.sessions[id].queue.as_ref().is_some_and(|queue| !queue.requests.is_empty()),
            Run::Session(_) => has_keys || command.has(Flag::OnData),
            Run::Container => false,
        }
    }

    /// Where a client's request is executed.
    pub(super) fn place_of(&self, id: SessionId, request: &Request<'_>) -> Place {
        let slot = request.slot();
        let ownership = slot.map_or(Ownership::Own, |slot| self.ownership(slot));
        let owned = ownership == Ownership::Own;
        if !self.is_on_data(id, request) || self.is_serving() && owned {
            return Place::Here;
        }
        let Some(slot) = slot else { return self.place_of_keyless(request.command) };
        if ownership == Ownership::Foreign {
            return Place::Elsewhere(self.redirect(self.sessions[id].network, Some(slot)));
        }
        if owned && request.command.has(Flag::PubSub) {
            // Messages of a shard are heard at each of its replicas.
            return Place::Here;
        }
        match self.standing {
            Standing::Following { leader: Some(_) }
                if owned && self.is_caught_up() && self.reads_here(id, request) =>
            {
                Place::Here
            }
            Standing::Following { leader: Some(_) } if self.leader_answers() => {
                Place::Elsewhere(self.redirect(self.sessions[id].network, Some(slot)))
            }
            _ => Place::Wait,
        }
    }

    /// Whether the leader that is followed can be sent clients: its node answers.
    /// If it does not, an election is due, and its port would refuse them.
    pub(super) fn leader_answers(&self) -> bool {
        let Standing::Following { leader: Some(leader) } = self.standing else { return false };
        let map = self.surroundings.map(Network::Inside);
        let Some(place) = map.shards.get(&self.settings.shard) else { return true };
        let leader = place.replicas.iter().find(|it| it.replica == leader);
        leader.is_none_or(|leader| place.answers(leader))
    }

    /// Commands without keys are for the replica that was asked.
    fn place_of_keyless(&self, command: &Command) -> Place {
        match self.standing {
            _ if command.has(Flag::Stale) => Place::Here,
            Standing::Following { leader: Some(_) } if self.is_caught_up() => Place::Here,
            _ => Place::Wait,
        }
    }

    /// Whether a follower serves this request: the client asked for stale reads.
    fn reads_here(&self, id: SessionId, request: &Request<'_>) -> bool {
        self.sessions[id].read_only && !self.may_change(id, request)
    }

    /// What a client from `network` is told whose request is not for here. One
    /// without keys belongs where all the shard's slots do.
    pub(super) fn redirect(&self, network: Network, slot: Option<u16>) -> Redirect {
        let map = self.surroundings.map(network);
        let owned = || self.keyspace().owned().first();
        let born_with = || self.settings.born_with.first().map(|&(first, _)| first);
        let Some(slot) = slot.or_else(owned).or_else(born_with) else { return Redirect::Down };
        let shard = match map.shard_of(slot) {
            Some(shard) => &map.shards[&shard],
            None => return Redirect::NotServed,
        };
        let here = self.ownership(slot) != Ownership::Foreign;
        let leader = match self.standing {
            Standing::Following { leader: Some(leader) } if here && self.leader_answers() => {
                shard.replicas.iter().find(|place| place.replica == leader)
            }
            Standing::Following { leader: None } if here => None,
            Standing::Leading { .. } if here => {
                shard.replicas.iter().find(|place| place.replica == self.settings.replica)
            }
            _ => shard.master_place(),
        };
        match leader {
            Some(place) => Redirect::Moved { slot, address: place.address.clone() },
            None => Redirect::Down,
        }
    }

    pub(super) fn redirect_reply(&self, network: Network, slot: Option<u16>) -> Reply<'static> {
        Reply::Error(self.redirect(network, slot).to_string().into())
    }

    /// The place of this replica in the map.
    pub(super) fn place(&self, map: &SlotMap) -> Option<ReplicaPlace> {
        let shard = map.shards.get(&self.settings.shard)?;
        shard.replicas.iter().find(|place| place.replica == self.settings.replica).cloned()
    }
}
