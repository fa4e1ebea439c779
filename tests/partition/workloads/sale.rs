//! A flash sale: as many orders as there was stock, one a buyer, none acknowledged and lost.
//!
//! A buyer who does not know what became of the order asks again, as a user would.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use moonraft_tests::value::Value;
use rand::RngExt as _;

use super::{Names, TOLD_MAX, Workload, number, numbers, settled};
use crate::client::{Client, words};

/// Things on sale, and buyers who want one: not all get one.
const STOCK: u64 = 40;
const BUYERS: u64 = 60;

/// 1: bought; 2: had bought before; 0: sold out.
const BUY: &str = "if redis.call('sismember', KEYS[2], ARGV[1]) == 1 then return 2 end
local left = tonumber(redis.call('get', KEYS[1]) or ARGV[2])
if left <= 0 then return 0 end
redis.call('set', KEYS[1], left - 1)
redis.call('sadd', KEYS[2], ARGV[1])
return 1";

#[derive(Default)]
struct Sold {
    bought: Vec<u64>,
    refused: BTreeSet<u64>,
    left: i64,
    orders: BTreeSet<i64>,
}

pub struct Sale {
    names: Names,
    begun: Cell<u64>,
    sales: RefCell<BTreeMap<u64, Sold>>,
}

impl Sale {
    pub fn new(names: &Names) -> Self {
        Self { names: names.clone(), begun: Cell::new(0), sales: RefCell::default() }
    }

    fn keys(&self, sale: u64) -> (String, String) {
        let tag = self.names.tag("sale", sale);
        (format!("{tag}stock"), format!("{tag}orders"))
    }
}

impl Workload for Sale {
    fn name(&self) -> &'static str {
        "flash-sale"
    }
    fn workers(&self) -> u64 {
        3
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let sale = self.begun.replace(self.begun.get() + 1) / (2 * BUYERS);
        let buyer = client.rng.random_range(0..BUYERS);
        let (stock, orders) = self.keys(sale);
        let request = ["EVAL", BUY, "2", &stock, &orders, &buyer.to_string(), &STOCK.to_string()];
        let told = client.one(&stock, request).await;
        let mut sales = self.sales.borrow_mut();
        let sold = sales.entry(sale).or_default();
        match told.value().and_then(number) {
            Some(1) => sold.bought.push(buyer),
            Some(0) => drop(sold.refused.insert(buyer)),
            _ => {}
        }
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let sales: Vec<u64> = self.sales.borrow().keys().copied().collect();
        for sale in sales {
            let (stock, orders) = self.keys(sale);
            let left = settled(client, &stock, &[words(["GET", &stock])]).await?;
            let members = settled(client, &stock, &[words(["SMEMBERS", &orders])]).await?;
            let mut sales = self.sales.borrow_mut();
            let sold = sales.entry(sale).or_default();
            sold.left = match left.value() {
                Some(Value::Nil) => STOCK as i64,
                other => other.and_then(number).unwrap_or(-1),
            };
            sold.orders = members.value().and_then(numbers).unwrap_or_default().into_iter().collect();
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (sale, sold) in self.sales.borrow().iter() {
            if sold.left < 0 || sold.left + sold.orders.len() as i64 != STOCK as i64 {
                wrong.push(format!(
                    "sale {sale}: {} left, {} orders, {STOCK} there were",
                    sold.left,
                    sold.orders.len()
                ));
            }
            let mut bought = sold.bought.clone();
            bought.sort_unstable();
            if bought.windows(2).any(|pair| pair[0] == pair[1]) {
                wrong.push(format!("sale {sale}: somebody bought twice: {bought:?}"));
            }
            let lost: Vec<_> =
                bought.iter().filter(|buyer| !sold.orders.contains(&(**buyer as i64))).collect();
            if !lost.is_empty() {
                wrong.push(format!("sale {sale}: acknowledged orders are lost: {lost:?}"));
            }
            if sold.left > 0 && !sold.refused.is_empty() {
                wrong.push(format!("sale {sale}: {:?} were refused, {} are left", sold.refused, sold.left));
            }
        }
        wrong.truncate(TOLD_MAX);
        wrong
    }
}
