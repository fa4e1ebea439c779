//! A bank: money moves by scripts, by `MULTI` and under `WATCH`; none is made or lost.
//!
//! Each transfer also leaves its number in a list, so an acknowledged transfer that
//! is not there was lost, one that is there twice was done twice.

use std::cell::RefCell;

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, TOLD_MAX, Workload, had_none, number, numbers, settled};
use crate::client::{Client, Ended, Words, words};

const BANKS: u64 = 3;
const ACCOUNTS: u64 = 4;
const EACH: i64 = 100;

const OPEN: &str = "for i, key in ipairs(KEYS) do redis.call('set', key, ARGV[1], 'NX') end return 1";
const TRANSFER: &str = "local amount = tonumber(ARGV[1])
if tonumber(redis.call('get', KEYS[1]) or '0') < amount then return 0 end
redis.call('decrby', KEYS[1], amount)
redis.call('incrby', KEYS[2], amount)
redis.call('rpush', KEYS[3], ARGV[2])
return 1";

pub struct Bank {
    names: Names,
    /// Of each bank: number, and what became of the transfer; `true` if it said it was done.
    transfers: RefCell<Vec<(u64, i64, Ended, bool)>>,
    /// Of each bank: balances that somebody saw.
    seen: RefCell<Vec<(u64, Vec<i64>)>>,
    books: RefCell<Vec<(u64, Vec<i64>)>>,
}

impl Bank {
    pub fn new(names: &Names) -> Self {
        let (transfers, seen, books) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { names: names.clone(), transfers, seen, books }
    }

    fn accounts(&self, bank: u64) -> Vec<String> {
        let tag = self.names.tag("bank", bank);
        (0..ACCOUNTS).map(|account| format!("{tag}{account}")).collect()
    }

    fn look(&self, bank: u64) -> Words {
        [words(["MGET"]), self.accounts(bank)].concat()
    }

    fn open(&self, bank: u64) -> Words {
        [words(["EVAL", OPEN, &ACCOUNTS.to_string()]), self.accounts(bank), words([&EACH.to_string()])]
            .concat()
    }

    fn note_look(&self, bank: u64, ended: &Ended) {
        // Before its opening is committed a bank has no accounts.
        if let Some(balances) = ended.value().and_then(numbers) {
            self.seen.borrow_mut().push((bank, balances));
        }
    }

    async fn transfer(&self, client: &mut Client, bank: u64) {
        let accounts = self.accounts(bank);
        let from = client.rng.random_range(0..ACCOUNTS) as usize;
        let to = (from + client.rng.random_range(1..ACCOUNTS) as usize) % ACCOUNTS as usize;
        let (from, to, book) =
            (&accounts[from], &accounts[to], format!("{}book", self.names.tag("bank", bank)));
        let (amount, id) = (client.rng.random_range(1..20).to_string(), self.names.unique());
        let ticket = id.to_string();
        let ended = if client.rng.random_bool(0.6) {
            client.one(from, ["EVAL", TRANSFER, "3", from, to, &book, &amount, &ticket]).await
        } else {
            let sum = amount.parse::<i64>().expect("it was drawn as a number");
            let then = |balance: &Value| {
                let has = match balance {
                    Value::Array(one) => one.first().and_then(number).unwrap_or(0),
                    _ => 0,
                };
                if has < sum {
                    return Vec::new();
                }
                vec![
                    words(["DECRBY", from, &amount]),
                    words(["INCRBY", to, &amount]),
                    words(["RPUSH", &book, &ticket]),
                ]
            };
            client.watch(from, then).await
        };
        let said = match ended.value() {
            Some(Value::Array(replies)) => !replies.is_empty(),
            Some(value) => number(value) == Some(1),
            None => false,
        };
        self.transfers.borrow_mut().push((bank, id as i64, ended, said));
    }
}

impl Workload for Bank {
    fn name(&self) -> &'static str {
        "bank"
    }
    fn workers(&self) -> u64 {
        4
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let bank = client.rng.random_range(0..BANKS);
        let first = self.accounts(bank).remove(0);
        match client.rng.random_range(0..10) {
            0 => drop(client.call(&first, &[self.open(bank)]).await),
            1..4 => {
                let ended = client.call(&first, &[self.look(bank)]).await;
                self.note_look(bank, &ended);
            }
            _ => self.transfer(client, bank).await,
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        for bank in 0..BANKS {
            let (first, book) =
                (self.accounts(bank).remove(0), format!("{}book", self.names.tag("bank", bank)));
            settled(client, &first, &[self.open(bank)]).await?;
            let ended = settled(client, &first, &[self.look(bank)]).await?;
            self.note_look(bank, &ended);
            let ended = settled(client, &first, &[words(["LRANGE", &book, "0", "-1"])]).await?;
            self.books.borrow_mut().push((bank, ended.value().and_then(numbers).unwrap_or_default()));
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (bank, balances) in self.seen.borrow().iter() {
            if balances.iter().sum::<i64>() != ACCOUNTS as i64 * EACH || balances.iter().any(|sum| *sum < 0) {
                wrong.push(format!("bank {bank} had {balances:?}"));
            }
        }
        for (bank, book) in self.books.borrow().iter() {
            for (_, id, ended, said) in self.transfers.borrow().iter().filter(|(of, ..)| of == bank) {
                let times = book.iter().filter(|entry| *entry == id).count();
                let none = had_none(ended) || ended.value().is_some() && !said;
                if times > 1 || *said && times == 0 || none && times > 0 {
                    wrong.push(format!("bank {bank}: transfer {id} is {times} times in the book: {ended:?}"));
                }
            }
        }
        wrong.truncate(TOLD_MAX);
        wrong
    }
}
