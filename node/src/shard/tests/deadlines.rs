//! When keys go.

use super::ShardHarness;

#[test]
fn a_key_is_there_for_the_whole_of_its_time() {
    let mut shard = ShardHarness::leading();
    let client = shard.connect();
    let mut ask_at = |unix_us, text: &str| {
        shard.world.unix_us.set(unix_us);
        let at_once = shard.send(client, text);
        shard.commit_all();
        at_once + &shard.read(client)
    };
    // Both ends are cut to milliseconds: the later in one it is set, the earlier it may seem over.
    for (turn, set_at_us) in [0, 1, 500, 999].into_iter().enumerate() {
        let begin = 1_900_000_000_000_000 + turn as u64 * 1_000_000 + set_at_us;
        assert_eq!(ask_at(begin, "SET lock a NX PX 400"), "+OK", "set {set_at_us} us into a millisecond");
        assert_eq!(ask_at(begin + 399_999, "GET lock ; SET lock b NX PX 400"), "\"a\" nil");
        // Not two milliseconds longer.
        assert_eq!(ask_at(begin + 401_000, "GET lock"), "nil");
    }
}
