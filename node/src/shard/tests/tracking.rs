//! Clients that keep copies of what they read: what they are told to forget, and when.

use moonraft_proto::entry::NEWEST_FORMAT;

use super::{ShardHarness, batch, errands::finish, of_many, put};
use crate::{
    keyspace::tx::{Eviction, Policy},
    shard::{Event, SessionId, ShardSettings},
};

const FORGET_K: &str = ">[\"invalidate\", [\"k\"]]";
const FORGET_ALL: &str = ">[\"invalidate\", nil]";

/// A client of RESP3 that keeps copies in this way.
fn tracker(shard: &mut ShardHarness, options: &str) -> SessionId {
    let id = shard.connect();
    shard.send(id, "HELLO 3");
    assert_eq!(shard.send(id, &format!("CLIENT TRACKING ON{options}")), "+OK");
    id
}

/// A leader, a client that keeps copies in this way, and another client.
fn leader(options: &str) -> (ShardHarness, SessionId, SessionId) {
    leader_with(ShardSettings::default(), options)
}

fn leader_with(settings: ShardSettings, options: &str) -> (ShardHarness, SessionId, SessionId) {
    let mut shard = ShardHarness::leading_with(settings);
    let client = shard.connect();
    let tracker = tracker(&mut shard, options);
    (shard, tracker, client)
}

/// Executes requests whose batches are committed. What the client is told in all.
fn done(shard: &mut ShardHarness, id: SessionId, requests: &str) -> String {
    let before = shard.send(id, requests);
    shard.commit_all();
    [before, shard.read(id)].join(" ").trim().to_owned()
}

#[test]
fn who_has_read_a_key_is_told_once_it_has_changed_and_not_before() {
    let (mut shard, tracker, client) = leader("");
    done(&mut shard, client, "SET k 1");
    assert_eq!(shard.send(tracker, "GET k"), "\"1\"");
    shard.send(client, "SET k 2");
    assert_eq!(shard.read(tracker), "");
    shard.commit_all();
    assert_eq!(shard.read(tracker), FORGET_K);
    // It has forgotten it, and is told no more until it reads it again; other keys are not its.
    done(&mut shard, client, "SET k 3 ; SET other 1");
    assert_eq!(shard.read(tracker), "");
    assert_eq!(done(&mut shard, tracker, "GET k"), "\"3\"");
    assert_eq!(done(&mut shard, tracker, "SET k 4"), format!("+OK {FORGET_K}"));
    assert!(shard.send(client, "INFO stats").contains("tracking_total_keys:0"));
}

#[test]
fn who_read_a_change_before_it_was_committed_is_not_told_of_it() {
    let (mut shard, tracker, client) = leader("");
    shard.send(client, "SET k 1");
    assert_eq!(shard.send(tracker, "GET k"), "");
    shard.commit_all();
    assert_eq!(shard.read(tracker), "\"1\"");
    done(&mut shard, client, "SET k 2");
    assert_eq!(shard.read(tracker), FORGET_K);
}

#[test]
fn what_a_unit_takes_back_nobody_forgets() {
    let (mut shard, tracker, client) = leader("");
    done(&mut shard, client, "SET {t}k 1");
    shard.send(tracker, "GET {t}k");
    shard.shard.reconfigure(|settings| settings.unit_bytes_max = 1000);
    let large = format!("MULTI ; SET {{t}}k 2 ; SET {{t}}l {} ; EXEC", "x".repeat(2000));
    assert!(done(&mut shard, client, &large).contains("-ERR"));
    assert_eq!(shard.read(tracker), "");
    done(&mut shard, client, "SET {t}k 3");
    assert_eq!(shard.read(tracker), ">[\"invalidate\", [\"{t}k\"]]");
}

#[test]
fn a_leader_that_steps_down_has_all_forget_everything() {
    let (mut shard, tracker, client) = leader("");
    let broadcast = self::tracker(&mut shard, " BCAST PREFIX other");
    done(&mut shard, client, "SET k 1");
    shard.send(tracker, "GET k");
    shard.send(client, "SET k 2");
    assert_eq!(shard.send(tracker, "GET k"), "");
    shard.lose_leadership(2);
    // It comes behind the reply that is held, whatever that will be.
    assert_eq!(shard.read(tracker), "");
    assert_eq!(shard.read(broadcast), FORGET_ALL);
    shard.commit(2, batch(&[put(b"unrelated", b"v")]));
    let told = shard.read(tracker);
    assert!(told.starts_with("-MOVED") && told.ends_with(FORGET_ALL), "{told}");
    // Nor is it told of what was lost.
    assert_eq!(shard.read(broadcast), "");
}

#[test]
fn a_follower_tells_its_readers_what_it_applies() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.handle(Event::Follow { leader: Some(2) });
    shard.commit(1, batch(&[put(b"k", b"1")]));
    let tracker = tracker(&mut shard, "");
    assert_eq!(shard.send(tracker, "READONLY ; GET k"), "+OK \"1\"");
    shard.commit(1, batch(&[put(b"other", b"1")]));
    assert_eq!(shard.read(tracker), "");
    shard.commit(1, batch(&[put(b"k", b"2")]));
    assert_eq!(shard.read(tracker), FORGET_K);
    // A leader that begins changes nothing of what was read.
    shard.send(tracker, "GET k");
    shard.lead(2);
    assert_eq!(shard.read(tracker), "");
    assert_eq!(done(&mut shard, tracker, "SET k 3"), format!("+OK {FORGET_K}"));
}

#[test]
fn a_state_that_is_replaced_by_a_snapshot_is_forgotten() {
    let mut shard = ShardHarness::following_with(ShardSettings::default());
    shard.handle(Event::Follow { leader: Some(2) });
    shard.commit(1, batch(&[put(b"k", b"1")]));
    let tracker = tracker(&mut shard, "");
    shard.send(tracker, "READONLY ; GET k");
    let chunks = vec![batch(&[put(b"k", b"2")])];
    shard.handle(Event::InstallSnapshot { index: 9, term: 1, chunks });
    let told = shard.read(tracker);
    assert!(told.starts_with(FORGET_ALL) && told.ends_with(FORGET_ALL), "{told}");
}

#[test]
fn who_hears_of_all_keys_that_begin_so_is_told_of_a_batch_together() {
    let (mut shard, tracker, client) = leader(" BCAST PREFIX {t}a PREFIX {t}b");
    done(
        &mut shard,
        client,
        "MULTI ; SET {t}b1 1 ; SET {t}a2 1 ; SET {t}c 1 ; SET {t}a1 1 ; SET {t}a2 2 ; EXEC",
    );
    assert_eq!(
        shard.read(tracker),
        ">[\"invalidate\", [\"{t}a1\", \"{t}a2\"]] >[\"invalidate\", [\"{t}b1\"]]"
    );
    assert_eq!(done(&mut shard, tracker, "SET {t}a1 2"), "+OK >[\"invalidate\", [\"{t}a1\"]]");
    assert_eq!(done(&mut shard, tracker, "SET {t}c 2"), "+OK");
}

#[test]
fn who_wants_to_hear_nothing_of_itself_does_not() {
    for options in [" NOLOOP", " BCAST NOLOOP"] {
        let (mut shard, tracker, client) = leader(options);
        done(&mut shard, tracker, "SET k 1 ; GET k");
        assert_eq!(done(&mut shard, tracker, "SET k 2 ; GET k"), "+OK \"2\"", "{options}");
        done(&mut shard, client, "SET k 3");
        assert_eq!(shard.read(tracker), FORGET_K, "{options}");
        // Of a deadline everybody hears.
        done(&mut shard, tracker, "PEXPIRE k 10 ; GET k");
        shard.world.elapse_us(50_000);
        shard.handle(Event::Tick);
        shard.end_turn();
        shard.commit_all();
        assert_eq!(shard.read(tracker), FORGET_K, "{options}");
    }
}

#[test]
fn copies_are_kept_of_what_caching_says() {
    let (mut shard, tracker, client) = leader(" OPTIN");
    let change = |shard: &mut ShardHarness| done(shard, client, "SET k 1");
    shard.send(tracker, "GET k");
    change(&mut shard);
    assert_eq!(shard.read(tracker), "");
    // It is about the next request, and a request about the client is none.
    shard.send(tracker, "CLIENT CACHING YES ; CLIENT ID ; GET other ; GET k");
    change(&mut shard);
    assert_eq!(shard.read(tracker), "");
    shard.send(tracker, "CLIENT CACHING YES ; MULTI ; GET k ; EXEC");
    change(&mut shard);
    assert_eq!(shard.read(tracker), FORGET_K);
    shard.send(tracker, "CLIENT TRACKING OFF ; CLIENT TRACKING ON OPTOUT ; CLIENT CACHING NO ; GET k");
    change(&mut shard);
    assert_eq!(shard.read(tracker), "");
    shard.send(tracker, "GET k");
    change(&mut shard);
    assert_eq!(shard.read(tracker), FORGET_K);
}

#[test]
fn another_connection_is_told_in_its_place_and_its_end_is_noticed() {
    let mut shard = ShardHarness::leading();
    let (client, listener, tracker) = (shard.connect(), shard.connect(), shard.connect());
    let number = shard.send(listener, "CLIENT ID").trim_start_matches(':').to_owned();
    shard.send(listener, "SUBSCRIBE __redis__:invalidate");
    shard.send(tracker, &format!("CLIENT TRACKING ON REDIRECT {number} ; GET k"));
    done(&mut shard, client, "SET k 1");
    assert_eq!(shard.read(listener), "[\"message\", \"__redis__:invalidate\", [\"k\"]]");
    assert_eq!(shard.send(tracker, "CLIENT GETREDIR"), format!(":{number}"));
    shard.shard.disconnect(listener);
    // Its place is another's now.
    let stranger = shard.connect();
    shard.send(stranger, "SUBSCRIBE __redis__:invalidate");
    shard.send(tracker, "HELLO 3");
    shard.send(tracker, "GET k");
    done(&mut shard, client, "SET k 2");
    assert_eq!(shard.read(tracker), format!(">[\"tracking-redir-broken\", :{number}]"));
    assert_eq!(shard.read(stranger), "");
    assert!(shard.send(tracker, "CLIENT TRACKINGINFO").contains("broken_redirect"));
}

#[test]
fn what_expires_is_evicted_or_flushed_is_forgotten() {
    let eviction = Eviction { policy: Policy::AllKeysRandom, ..Eviction::default() };
    let limit = 1 << 30;
    let settings = ShardSettings { memory_bytes_max: limit, eviction, ..ShardSettings::default() };
    let (mut shard, tracker, client) = leader_with(settings, "");
    shard.world.used_bytes.set(0);
    done(&mut shard, client, "SET k v PX 10");
    shard.send(tracker, "GET k");
    shard.world.elapse_us(50_000);
    done(&mut shard, client, "GET k");
    assert_eq!(shard.read(tracker), FORGET_K);
    done(&mut shard, client, "SET k v");
    shard.send(tracker, "GET k");
    let passing = shard.shard.passing_bytes() as u64;
    shard.world.used_bytes.set(limit + 1 + passing);
    done(&mut shard, client, "SET other v");
    assert_eq!(shard.read(tracker), FORGET_K);
    shard.world.used_bytes.set(0);
    done(&mut shard, client, "FLUSHALL");
    assert_eq!(shard.read(tracker), FORGET_ALL);
}

#[test]
fn scripts_read_and_change_for_who_called_them() {
    let (mut shard, tracker, client) = leader("");
    let read = b"return redis.call('get', KEYS[1])";
    shard.send_words(tracker, &[b"EVAL", read, b"1", b"k"]);
    let write = b"redis.call('set', KEYS[1], 1) return redis.call('incr', KEYS[1])";
    shard.send_words(client, &[b"EVAL", write, b"1", b"k"]);
    shard.commit_all();
    assert_eq!(shard.read(tracker), FORGET_K);
}

#[test]
fn what_is_read_and_changed_elsewhere_is_heard_here() {
    let settings = ShardSettings { large_elements: 10, ..ShardSettings::default() };
    let (mut shard, tracker, client) = leader_with(settings, "");
    done(&mut shard, client, &of_many("SADD", "k", 30));
    shard.world.holds_errands.set(true);
    shard.send(tracker, "SMEMBERS k");
    finish(&mut shard);
    shard.read(tracker);
    shard.send(client, "SUNIONSTORE k k");
    finish(&mut shard);
    assert_eq!(shard.read(tracker), "");
    shard.commit_all();
    assert_eq!(shard.read(tracker), FORGET_K);
}

#[test]
fn of_more_keys_than_are_remembered_some_are_forgotten() {
    let settings = ShardSettings { tracked_keys_max: 3, ..ShardSettings::default() };
    let (mut shard, tracker, client) = leader_with(settings, "");
    let told = shard.send(tracker, "GET a ; GET b ; GET c ; GET d ; GET e");
    assert_eq!(told.matches("invalidate").count(), 2);
    let figures = shard.send(client, "INFO stats");
    assert!(figures.contains("tracking_total_keys:3") && figures.contains("tracking_total_items:3"));
    // Each key is told of once, whether it was forgotten before or changes now.
    done(&mut shard, client, "SET a 1 ; SET b 1 ; SET c 1 ; SET d 1 ; SET e 1");
    let all = told + &shard.read(tracker);
    for key in ["a", "b", "c", "d", "e"] {
        assert_eq!(all.matches(&format!("[\"invalidate\", [\"{key}\"]]")).count(), 1, "{key} in {all}");
    }
}

#[test]
fn who_keeps_no_copies_any_more_is_not_told() {
    let (mut shard, tracker, client) = leader("");
    shard.send(tracker, "GET k ; CLIENT TRACKING OFF");
    done(&mut shard, client, "SET k 1");
    assert_eq!(shard.read(tracker), "");
    shard.send(tracker, "CLIENT TRACKING ON BCAST");
    assert!(shard.send(client, "INFO everything").contains("tracking_total_prefixes:1"));
    shard.send(tracker, "RESET ; HELLO 3");
    done(&mut shard, client, "SET k 2");
    assert_eq!(shard.read(tracker), "");
    let other = self::tracker(&mut shard, " BCAST");
    shard.shard.disconnect(other);
    let told = shard.send(client, "INFO everything");
    assert!(told.contains("tracking_clients:0") && told.contains("tracking_total_prefixes:0"));
    assert!(!shard.shard.keyspace().watched.hears_all_changes());
}

#[test]
fn what_commits_after_its_leader_stepped_down_is_told_once_to_who_has_read_since() {
    let (mut shard, tracker, client) = leader("");
    done(&mut shard, client, "SET k 1");
    shard.send(tracker, "READONLY ; GET k");
    shard.send(client, "SET k 2");
    let (term, data) = shard.proposals.pop_front().expect("a batch is proposed");
    shard.lose_leadership(2);
    assert_eq!(shard.read(tracker), FORGET_ALL);
    assert_eq!(shard.send(tracker, "GET k"), "\"1\"");
    shard.commit(term, data);
    assert_eq!(shard.read(tracker), FORGET_K);
    assert_eq!(shard.send(tracker, "GET k"), "\"2\"");
}

#[test]
fn what_is_read_after_a_wait_is_what_caching_was_about() {
    let (mut shard, tracker, client) = leader(" OPTIN");
    shard.handle(Event::Readable { term: 1, format: NEWEST_FORMAT });
    shard.pass_ms(100);
    shard.commit_all();
    done(&mut shard, tracker, "CLIENT CACHING YES ; XREAD BLOCK 0 STREAMS k 0");
    done(&mut shard, client, "XADD k 1-0 f v");
    // What it read first is told of, too: that there was nothing.
    let told = shard.read(tracker);
    assert!(told.contains(FORGET_K) && told.contains("1-0"), "{told}");
    done(&mut shard, tracker, "GET other");
    done(&mut shard, client, "XADD k 2-0 f v ; SET other 1");
    assert_eq!(shard.read(tracker), FORGET_K);
}

#[test]
fn what_a_large_block_reads_before_it_changes_it_is_to_be_forgotten() {
    let settings = ShardSettings { large_elements: 10, ..ShardSettings::default() };
    let (mut shard, tracker, client) = leader_with(settings, "");
    done(&mut shard, client, &of_many("SADD", "k", 30));
    shard.read(tracker);
    let told = done(&mut shard, tracker, "MULTI ; SMEMBERS k ; SADD k more ; EXEC");
    assert!(told.ends_with(FORGET_K), "{told}");
}

#[test]
fn who_hears_nothing_of_its_own_changes_hears_of_anothers_in_the_same_batch() {
    let (mut shard, tracker, client) = leader(" BCAST NOLOOP");
    for (first, second) in [(tracker, client), (client, tracker)] {
        shard.receive_only(first, "SET k 1");
        shard.receive_only(second, "SET k 2");
        shard.end_turn();
        assert_eq!(shard.proposals.len(), 1);
        shard.commit_all();
        assert_eq!(shard.read(tracker), format!("+OK {FORGET_K}"));
    }
}

#[test]
fn a_client_has_no_more_prefixes_than_it_may() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let on = |count: usize| {
        (0..count).fold("CLIENT TRACKING ON BCAST".to_owned(), |all, at| format!("{all} PREFIX {at:05}"))
    };
    assert_eq!(shard.send(client, &on(1001)), "-ERR too many prefixes");
    assert_eq!(shard.send(client, &on(1000)), "+OK");
    assert_eq!(shard.send(client, "CLIENT TRACKING ON BCAST PREFIX more"), "-ERR too many prefixes");
}
