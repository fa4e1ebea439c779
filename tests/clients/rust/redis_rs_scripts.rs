//! Scripts of redis-rs on a cluster, by its blocking and by its asynchronous client: `redis-rs-scripts ADDRESS KEY…`.
//! Ends with 0 if each gave its value.

use anyhow::ensure;
use redis::{Script, cluster::ClusterClient};

const COUNT: &str = "return {redis.call('INCRBY', KEYS[1], ARGV[1]), KEYS[1]}";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let address = words.next().unwrap_or_default();
    let keys: Vec<String> = words.collect();
    ensure!(!keys.is_empty(), "usage: redis-rs-scripts ADDRESS KEY…");
    let client = ClusterClient::new(vec![format!("redis://{address}")])?;
    let script = Script::new(COUNT);

    let mut connection = client.get_connection()?;
    for total in [2, 4] {
        for key in &keys {
            let found: (i64, String) = script.key(key).arg(2).invoke(&mut connection)?;
            ensure!(found == (total, key.clone()), "{found:?}");
        }
    }
    // Somebody else has taken it away.
    redis::cmd("SCRIPT").arg("FLUSH").query::<()>(&mut connection)?;

    let mut connection = client.get_async_connection().await?;
    for total in [7, 10] {
        for key in &keys {
            let found: (i64, String) = script.key(key).arg(3).invoke_async(&mut connection).await?;
            ensure!(found == (total, key.clone()), "{found:?}");
        }
    }
    Ok(())
}
