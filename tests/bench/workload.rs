//! What the generator asks for.

use std::fmt;

use bytes::{BufMut, BytesMut};

/// Bytes of a key, as the issue of this bench fixed them.
pub const KEY_BYTES: usize = 16;
/// Bytes of a value.
pub const VALUE_BYTES: usize = 64;

/// Issues a coupon to a user: at most one each, as long as the stock lasts.
pub const COUPON_SCRIPT: &str = "\
if redis.call('SISMEMBER', KEYS[2], ARGV[1]) == 1 then return 0 end
if tonumber(redis.call('GET', KEYS[1])) <= 0 then return -1 end
redis.call('DECR', KEYS[1])
local number = redis.call('INCR', KEYS[3])
redis.call('SADD', KEYS[2], ARGV[1])
return number";

/// The keys of the coupon script: stock, who has one, how many were issued.
pub const COUPON_KEYS: [&str; 3] = ["{coupon}:stock", "{coupon}:users", "{coupon}:issued"];

/// More coupons than any run can issue, so that every call writes.
pub const COUPON_STOCK: u64 = 1_000_000_000_000;

/// A kind of request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// `GET` of a random key; all keys exist.
    Get,
    /// `SET` of a random key to a random value.
    Set,
    /// `EVALSHA` of the coupon script, each call for a new user.
    Evalsha,
}

impl Workload {
    /// Whether it changes data, hence has to be durable.
    pub fn is_write(self) -> bool {
        self != Self::Get
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Get => "GET",
            Self::Set => "SET",
            Self::Evalsha => "EVALSHA coupon",
        })
    }
}

/// What makes a write durable, beside the write itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// The reply says it all.
    Reply,
    /// `WAIT 2 0` after each write.
    WaitEach,
    /// One `WAIT 2 0` after all writes of a pipeline.
    WaitBatch,
}

impl fmt::Display for Acknowledgement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Reply => "cluster master",
            Self::WaitEach => "WAIT 2 after each write",
            Self::WaitBatch => "WAIT 2 after each pipeline",
        })
    }
}

/// Writes the requests of one connection.
pub struct Requests {
    workload: Workload,
    acknowledgement: Acknowledgement,
    /// Keys to choose from.
    keys: u64,
    /// The digest of the coupon script.
    sha: String,
    dice: Dice,
    /// Values are windows of this: random bytes, so that nobody gains by compression.
    noise: Vec<u8>,
    /// The number of the next user; connections count in strides.
    user: u64,
    user_stride: u64,
}

impl Requests {
    /// The requests of connection `number` of `connections`.
    pub fn new(
        workload: Workload,
        acknowledgement: Acknowledgement,
        keys: u64,
        sha: String,
        number: u64,
        connections: u64,
    ) -> Self {
        let mut dice = Dice(number + 1);
        let noise = (0..(1 << 16)).map(|_| b'!' + (dice.below(90) as u8)).collect();
        Self { workload, acknowledgement, keys, sha, dice, noise, user: number, user_stride: connections }
    }

    /// Writes `count` requests with what makes them durable; returns the number of replies.
    pub fn write(&mut self, count: usize, out: &mut BytesMut) -> usize {
        for _ in 0..count {
            self.write_one(out);
            if self.acknowledgement == Acknowledgement::WaitEach {
                write_wait(out);
            }
        }
        match self.acknowledgement {
            Acknowledgement::Reply => count,
            Acknowledgement::WaitEach => 2 * count,
            Acknowledgement::WaitBatch => {
                write_wait(out);
                count + 1
            }
        }
    }

    fn write_one(&mut self, out: &mut BytesMut) {
        match self.workload {
            Workload::Get => {
                let key = key(self.dice.below(self.keys));
                write_words(&[b"GET", &key], out);
            }
            Workload::Set => {
                let key = key(self.dice.below(self.keys));
                let start = self.dice.below((self.noise.len() - VALUE_BYTES) as u64) as usize;
                write_words(&[b"SET", &key, &self.noise[start..start + VALUE_BYTES]], out);
            }
            Workload::Evalsha => {
                let user = key(self.user);
                self.user += self.user_stride;
                let [stock, users, issued] = COUPON_KEYS.map(str::as_bytes);
                let sha = self.sha.as_bytes();
                write_words(&[b"EVALSHA", sha, b"3", stock, users, issued, &user], out);
            }
        }
    }

    /// Writes `SET` for the keys `first..last`, which loads a keyspace.
    pub fn write_load(&mut self, first: u64, last: u64, out: &mut BytesMut) -> usize {
        for number in first..last {
            let start = self.dice.below((self.noise.len() - VALUE_BYTES) as u64) as usize;
            write_words(&[b"SET", &key(number), &self.noise[start..start + VALUE_BYTES]], out);
        }
        (last - first) as usize
    }
}

fn write_wait(out: &mut BytesMut) {
    out.put_slice(b"*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$1\r\n0\r\n");
}

/// `key:000000000042`
fn key(number: u64) -> [u8; KEY_BYTES] {
    let mut key = *b"key:000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    key
}

/// A request in RESP: an array of bulk strings.
fn write_words(words: &[&[u8]], out: &mut BytesMut) {
    // Word counts and lengths here have at most three digits.
    out.put_u8(b'*');
    write_number(words.len(), out);
    for word in words {
        out.put_u8(b'$');
        write_number(word.len(), out);
        out.put_slice(word);
        out.put_slice(b"\r\n");
    }
}

fn write_number(number: usize, out: &mut BytesMut) {
    let mut digits = [0; 20];
    let mut first = digits.len();
    let mut rest = number;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_slice(&digits[first..]);
    out.put_slice(b"\r\n");
}

/// Random numbers, the same each run (splitmix64): both sides get the same keys.
struct Dice(u64);

impl Dice {
    /// A number below `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
