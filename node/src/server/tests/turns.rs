//! What leaves in a turn: one write a client, after one batch for all of them.

use moonraft_proto::entry::NEWEST_FORMAT;

use super::*;
use crate::server::wire::sent;

/// Requests of one client at a time.
const PIPELINE: usize = 100;

fn node() -> (tempfile::TempDir, ClusterFile, RunningNode) {
    let (place, cluster) = (tempfile::tempdir().unwrap(), cluster(1, 1));
    let running = start(&cluster, 1, place.path());
    wait_until("ready", || running.is_ready());
    (place, cluster, running)
}

impl Client {
    /// How many writes have brought this client what it was sent.
    fn writes(&self) -> usize {
        sent::to(self.stream.local_addr().unwrap(), self.stream.peer_addr().unwrap())
    }

    /// Sends many requests at once.
    fn send_pipeline(&mut self, request: &str) {
        self.stream.write_all(format!("{request}\r\n").repeat(PIPELINE).as_bytes()).unwrap();
    }

    fn read_pipeline(&mut self, reply: &str) {
        (0..PIPELINE).for_each(|_| assert_eq!(self.reply(), reply));
    }

    /// A field of `INFO`.
    fn info(&mut self, field: &str) -> u64 {
        let text = self.ask("INFO");
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        value.unwrap_or_else(|| panic!("no {field} in {text}")).parse().unwrap()
    }
}

#[test]
fn a_pipeline_is_answered_by_one_write() {
    let (_place, cluster, running) = node();
    let mut client = Client::connect(cluster.nodes[0].port);
    for (request, reply) in [("SET k v", "+OK"), ("GET k", "v"), ("PING", "+PONG")] {
        let before = client.writes();
        client.send_pipeline(request);
        client.read_pipeline(reply);
        assert_eq!(client.writes() - before, 1, "{request}");
    }
    node::stop(vec![running]);
}

#[test]
fn clients_that_are_ready_in_one_turn_share_a_batch_and_get_one_write_each() {
    let (_place, cluster, running) = node();
    let connect = || Client::connect(cluster.nodes[0].port);
    let (mut admin, mut clients) = (connect(), [(); 20].map(|()| connect()));
    assert_eq!(admin.ask("CLIENT PAUSE 60000 WRITE"), "+OK");
    clients.iter_mut().for_each(|client| client.send_pipeline("SET k v"));
    let all_wait = |admin: &mut Client| admin.info("blocked_clients") == clients.len() as u64;
    let is_settled = |admin: &mut Client| {
        // A new shard's first entries come by themselves; the last one is this agreement.
        admin.info("moonraft_agreed_format") == u64::from(NEWEST_FORMAT) && all_wait(admin)
    };
    let admin_cell = RefCell::new(admin);
    wait_until("settled", || is_settled(&mut admin_cell.borrow_mut()));
    let mut admin = admin_cell.into_inner();
    let before = admin.info("moonraft_applied_index");
    let writes_before = clients.each_ref().map(Client::writes);

    assert_eq!(admin.ask("CLIENT UNPAUSE"), "+OK");
    for (client, before) in clients.iter_mut().zip(writes_before) {
        client.read_pipeline("+OK");
        assert_eq!(client.writes() - before, 1);
    }
    assert_eq!(admin.info("moonraft_applied_index") - before, 1, "one batch for all");
    node::stop(vec![running]);
}
