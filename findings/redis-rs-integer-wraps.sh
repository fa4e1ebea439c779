#!/usr/bin/env bash
# redis 1.8.1 (redis-rs): an integer reply that does not fit the type asked for wraps around, without an error.
#
# `let left: u64 = con.ttl(key)` of a key without expiry (the server answers -1) gives 18446744073709551615, and a
# counter of 300 read as u8 gives 44. The same digits in a bulk string (what GET answers) give an error,
# so whether a value is checked depends on which command fetched it.
#
# Seen: 300 as u8 is 44, -1 as u64 is 18446744073709551615; as bulk strings both are errors.
set -euo pipefail
place="$(mktemp -d)"
trap 'rm -rf "$place"' EXIT
mkdir "$place/src"
cat > "$place/Cargo.toml" <<'TOML'
[package]
name = "finding"
version = "0.0.0"
edition = "2024"

[dependencies]
redis = { version = "=1.8.1", default-features = false }
TOML
cat > "$place/src/main.rs" <<'RUST'
use redis::{FromRedisValue, Value};

fn shown<T: FromRedisValue + std::fmt::Debug>(reply: Value) -> String {
    match T::from_redis_value(reply) {
        Ok(value) => format!("{value:?}"),
        Err(_) => "error".to_owned(),
    }
}

fn main() {
    println!("300 as u8: {}", shown::<u8>(Value::Int(300)));
    println!("-1 as u64: {}", shown::<u64>(Value::Int(-1)));
    println!("-1 as usize: {}", shown::<usize>(Value::Int(-1)));
    println!("\"300\" as u8: {}", shown::<u8>(Value::BulkString(b"300".to_vec())));
    println!("\"-1\" as u64: {}", shown::<u64>(Value::BulkString(b"-1".to_vec())));
}
RUST
seen="$(cd "$place" && cargo run --quiet)"
wanted='300 as u8: 44
-1 as u64: 18446744073709551615
-1 as usize: 18446744073709551615
"300" as u8: error
"-1" as u64: error'
echo "$seen"
[[ "$seen" == "$wanted" ]] || { echo "this has changed" >&2; exit 1; }
