//! Lists that are appended to: one operation, several in `MULTI`, several in a script.
//!
//! Strict serializability by search for cycles, as Elle does: the order of a list
//! is the order of the appends, so every read tells what came before what. The
//! search is the crate `adya`'s; its input is also what is kept. Duplicate, lost
//! and phantom elements, and reads of what failed, are anomalies to it as well.

use std::cell::{Cell, RefCell};

use adya::{History, Opts, Valid, check};
use moonraft_tests::value::Value;
use rand::RngExt as _;
use serde_json::{Value as Json, json};

use super::{Names, TOLD_MAX, Workload, numbers, settled};
use crate::client::{Client, Ended, Outcome, Words, words};

/// Groups of keys in use at a time; the keys of a group share a tag.
const GROUPS: u64 = 3;
const KEYS: u64 = 3;
/// Transactions on one group before it gives way to the next: lists stay short.
const TRANSACTIONS_MAX: u64 = 150;
/// Steps of one transaction.
const STEPS_MAX: u64 = 4;

/// The steps come as `key, element` in `ARGV`; an empty element is a read.
const STEPS: &str = "local out = {}
for i = 1, #ARGV, 2 do
  local key, element = KEYS[tonumber(ARGV[i])], ARGV[i + 1]
  if element == '' then out[#out + 1] = redis.call('lrange', key, 0, -1)
  else redis.call('rpush', key, element) out[#out + 1] = 0 end
end
return out";

/// How a transaction is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// One step, one command.
    Plain,
    /// `MULTI`.
    Multi,
    /// One script.
    Script,
}

/// One step: of this key of the group, append this, or read.
type Step = (u64, Option<u64>);

pub struct Append {
    names: Names,
    form: Form,
    begun: Cell<u64>,
    /// Operations as the checker takes them, with the time of each line.
    lines: RefCell<Vec<(u64, Json)>>,
}

impl Append {
    pub fn new(names: &Names, form: Form) -> Self {
        Self { names: names.clone(), form, begun: Cell::new(0), lines: RefCell::default() }
    }

    fn group(&self, number: u64) -> String {
        let form = match self.form {
            Form::Plain => "plain",
            Form::Multi => "multi",
            Form::Script => "script",
        };
        self.names.tag(form, number)
    }

    fn request(&self, group: &str, steps: &[Step]) -> Vec<Words> {
        let key = |number: u64| format!("{group}{number}");
        let command = |&(number, element): &Step| match element {
            Some(element) => words(["RPUSH", &key(number), &element.to_string()]),
            None => words(["LRANGE", &key(number), "0", "-1"]),
        };
        match self.form {
            Form::Plain => steps.iter().map(command).collect(),
            Form::Multi => {
                [vec![words(["MULTI"])], steps.iter().map(command).collect(), vec![words(["EXEC"])]].concat()
            }
            Form::Script => {
                let mut one = words(["EVAL", STEPS, &KEYS.to_string()]);
                one.extend((0..KEYS).map(key));
                for (number, element) in steps {
                    one.push((number + 1).to_string());
                    one.push(element.map_or_else(String::new, |element| element.to_string()));
                }
                vec![one]
            }
        }
    }

    fn note(&self, group: &str, steps: &[Step], ended: &Ended) {
        let process = self.names.unique();
        let show = |replies: Option<&[Value]>| -> Json {
            let step = |(at, (number, element)): (usize, &Step)| {
                let key = format!("{group}{number}");
                match element {
                    Some(element) => json!(["append", key, element]),
                    None => json!(["r", key, replies.and_then(|replies| numbers(replies.get(at)?))]),
                }
            };
            steps.iter().enumerate().map(step).collect()
        };
        let replies = ended.value().map(|value| match (self.form, value) {
            (Form::Plain, value) => vec![value.clone()],
            (_, Value::Array(replies)) => replies.clone(),
            _ => Vec::new(),
        });
        let kind = match ended.outcome {
            Outcome::Done(_) => "ok",
            Outcome::Failed(_) => "fail",
            Outcome::Unknown(_) => "info",
        };
        let line = |kind, value| json!({"type": kind, "process": process, "value": value});
        let mut lines = self.lines.borrow_mut();
        lines.push((ended.called, line("invoke", show(None))));
        lines.push((ended.returned, line(kind, show(replies.as_deref()))));
    }
}

impl Workload for Append {
    fn name(&self) -> &'static str {
        match self.form {
            Form::Plain => "append",
            Form::Multi => "append-multi",
            Form::Script => "append-script",
        }
    }
    fn workers(&self) -> u64 {
        if self.form == Form::Plain { 4 } else { 3 }
    }

    async fn step(&self, client: &mut Client, _: u64) {
        let begun = self.begun.replace(self.begun.get() + 1);
        let first = begun / (GROUPS * TRANSACTIONS_MAX) * GROUPS;
        let group = self.group(first + client.rng.random_range(0..GROUPS));
        let count = if self.form == Form::Plain { 1 } else { client.rng.random_range(1..=STEPS_MAX) };
        let steps: Vec<Step> = (0..count)
            .map(|_| {
                let element = client.rng.random_bool(0.5).then(|| self.names.unique());
                (client.rng.random_range(0..KEYS), element)
            })
            .collect();
        let ended = client.call(&group, &self.request(&group, &steps)).await;
        self.note(&group, &steps, &ended);
    }

    async fn finish(&self, client: &mut Client) -> Result<(), String> {
        let groups = self.begun.get().div_ceil(GROUPS * TRANSACTIONS_MAX) * GROUPS;
        for number in 0..groups {
            let group = self.group(number);
            for key in 0..KEYS {
                let steps = [(key, None)];
                let ended = settled(client, &group, &self.request(&group, &steps)).await?;
                self.note(&group, &steps, &ended);
            }
        }
        Ok(())
    }

    fn check(&self) -> Vec<String> {
        let mut lines = self.lines.take();
        // At one moment, what began goes before what ended: they overlap.
        lines.sort_by_key(|(at, line)| (*at, line["type"] != "invoke"));
        let text: Vec<String> = lines.iter().map(|(_, line)| line.to_string()).collect();
        judge(&text.join("\n"))
    }
}

fn judge(history: &str) -> Vec<String> {
    let history = match History::from_json(history) {
        Ok(history) => history,
        Err(error) => return vec![format!("the history cannot be read: {error}")],
    };
    let report = check(&history, adya::Workload::ListAppend, &Opts::default());
    if report.valid == Valid::True {
        return Vec::new();
    }
    let mut wrong = vec![format!("not strictly serializable: {:?}", report.anomaly_types)];
    let each = report.anomalies.values().flat_map(|all| all.iter().take(TOLD_MAX));
    wrong.extend(each.map(|anomaly| format!("{}: {}", anomaly.kind, anomaly.explanation)));
    wrong
}

#[cfg(test)]
mod tests {
    use super::judge;

    /// Transactions one after the other: kind, and the steps as they ended.
    fn history(transactions: &[(&str, &str)]) -> String {
        let mut lines = String::new();
        for (process, (kind, steps)) in transactions.iter().enumerate() {
            let asked = steps.split('=').map(|part| part.split_once('|').map_or(part, |(_, rest)| rest));
            let asked: Vec<&str> = asked.collect();
            let (before, after) = (asked.join("null"), steps.replace(['=', '|'], ""));
            lines += &format!("{{\"type\":\"invoke\",\"process\":{process},\"value\":{before}}}\n");
            lines += &format!("{{\"type\":\"{kind}\",\"process\":{process},\"value\":{after}}}\n");
        }
        lines
    }

    #[test]
    fn a_good_history_passes() {
        let good = history(&[
            ("ok", r#"[["append","x",1]]"#),
            ("info", r#"[["append","x",2]]"#),
            ("fail", r#"[["append","x",3]]"#),
            ("ok", r#"[["r","x",=[1,2]|]]"#),
        ]);
        assert_eq!(judge(&good), Vec::<String>::new());
    }

    #[test]
    fn a_lost_append_is_found() {
        let lost = history(&[
            ("ok", r#"[["append","x",1]]"#),
            ("ok", r#"[["append","x",2]]"#),
            ("ok", r#"[["r","x",=[1]|]]"#),
        ]);
        assert!(!judge(&lost).is_empty());
        let all = history(&[("ok", r#"[["append","x",1]]"#), ("ok", r#"[["r","x",=[]|]]"#)]);
        assert!(!judge(&all).is_empty());
    }

    #[test]
    fn a_stale_read_is_found() {
        let stale = history(&[
            ("ok", r#"[["append","x",1]]"#),
            ("ok", r#"[["append","x",2]]"#),
            ("ok", r#"[["r","x",=[1]|]]"#),
            ("ok", r#"[["r","x",=[1,2]|]]"#),
        ]);
        assert!(!judge(&stale).is_empty());
    }

    #[test]
    fn doubled_elements_and_what_failed_are_found() {
        let doubled = history(&[("ok", r#"[["append","x",1]]"#), ("ok", r#"[["r","x",=[1,1]|]]"#)]);
        assert!(!judge(&doubled).is_empty());
        let failed = history(&[("fail", r#"[["append","x",1]]"#), ("ok", r#"[["r","x",=[1]|]]"#)]);
        assert!(!judge(&failed).is_empty());
    }

    #[test]
    fn half_a_transaction_is_found() {
        let half = history(&[
            ("info", r#"[["append","x",1],["append","y",1]]"#),
            ("ok", r#"[["r","x",=[1]|],["r","y",=[]|]]"#),
            ("ok", r#"[["r","x",=[1]|],["r","y",=[1]|]]"#),
        ]);
        assert!(!judge(&half).is_empty());
    }
}
