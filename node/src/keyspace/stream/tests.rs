//! A stream against a simple model: a list of entries.

use moonraft_proto::{StreamChange, StreamId, stream::Pairs};
use proptest::prelude::*;

use super::*;

type Row = (StreamId, Vec<(Vec<u8>, Vec<u8>)>);

#[derive(Clone, Debug)]
enum Step {
    Add(u8, Vec<(Vec<u8>, Vec<u8>)>),
    Delete(usize),
    Trim(u64, bool, u64),
    TrimTo(usize, bool),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(b'a'..b'd', 0..4),
        3 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => (-300_i64..300).prop_map(|number| number.to_string().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 100..300),
        1 => Just(b"-0".to_vec()),
        1 => Just(b"007".to_vec()),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let same = text().prop_map(|value| vec![(b"field".to_vec(), value), (b"12345".to_vec(), b"x".to_vec())]);
    let other = prop::collection::vec((text(), text()), 1..4);
    let fields = prop_oneof![4 => same, 1 => other];
    let step = prop_oneof![
        12 => (any::<u8>(), fields).prop_map(|(by, fields)| Step::Add(by, fields)),
        3 => any::<usize>().prop_map(Step::Delete),
        1 => (any::<u64>(), any::<bool>(), 0_u64..9).prop_map(|(at, nodes, limit)| Step::Trim(at, nodes, limit)),
        1 => (any::<usize>(), any::<bool>()).prop_map(|(at, nodes)| Step::TrimTo(at, nodes)),
    ];
    prop::collection::vec(step, 0..120)
}

const LIMITS: NodeLimits = NodeLimits { bytes: 700, entries: 7 };

fn row(entry: Entry<'_>) -> Row {
    (entry.id, entry.pairs().map(|(field, value)| (field.to_vec(), value.to_vec())).collect())
}

fn rows(stream: &Stream) -> Vec<Row> {
    stream.iter().map(row).collect()
}

/// Takes a step on both. Returns what takes it back.
fn take(stream: &mut Stream, model: &mut Vec<Row>, step: Step) -> Option<StreamUndo> {
    match step {
        Step::Add(by, fields) => {
            let last = stream.last_id();
            let id = match by % 3 {
                0 => StreamId::new(last.ms, last.seq + 1),
                1 => StreamId::new(last.ms + u64::from(by) * 1_000, u64::from(by)),
                _ => StreamId::new(last.ms + 1, 0),
            };
            let words: Vec<&[u8]> = fields.iter().flat_map(|(a, b)| [&**a, &**b]).collect();
            let begins_node = stream.begins_node(words.iter().map(|word| word.len()).sum(), LIMITS);
            let mut scratch = Vec::new();
            let fields_of = Pairs::write(&words, &mut scratch);
            model.push((id, fields));
            Some(stream.apply(StreamChange::Add { id, fields: fields_of, begins_node }))
        }
        Step::Delete(at) if !model.is_empty() => {
            let (id, _) = model.remove(at % model.len());
            Some(stream.apply(StreamChange::Delete { id }))
        }
        Step::Trim(at, by_nodes, limit) => {
            let length = at % (model.len() as u64 + 2);
            let limit = if by_nodes { limit } else { 0 };
            let trim = Trim { to: TrimTo::Length(length), by_nodes, limit };
            let over = (model.len() as u64).saturating_sub(length);
            Some(trimmed(stream, model, trim, over))
        }
        Step::TrimTo(at, by_nodes) if !model.is_empty() => {
            let at = at % model.len();
            let trim = Trim { to: TrimTo::Id(model[at].0), by_nodes, limit: 0 };
            Some(trimmed(stream, model, trim, at as u64))
        }
        Step::Delete(_) | Step::TrimTo(..) => None,
    }
}

fn trimmed(stream: &mut Stream, model: &mut Vec<Row>, trim: Trim, over: u64) -> StreamUndo {
    let count = stream.trimmed_by(trim);
    match trim.by_nodes {
        false => assert_eq!(count, over),
        true => assert!(count <= over && (trim.limit == 0 || count <= trim.limit)),
    }
    model.drain(..count as usize);
    stream.apply(StreamChange::Trim { count })
}

fn check(stream: &Stream, model: &[Row], from: usize, to: usize) {
    assert_eq!(stream.len(), model.len());
    assert_eq!(rows(stream), model);
    assert_eq!(stream.node_count(), stream.nodes().count());
    assert!(
        stream.nodes().all(|(base, entries)| entries.clone().next().is_some_and(|first| first.id >= base))
    );
    assert!(model.iter().all(|(id, _)| stream.get(*id).is_some_and(|entry| entry.id == *id)));
    let (Some((from, _)), Some((to, _))) =
        (model.get(from % model.len().max(1)), model.get(to % model.len().max(1)))
    else {
        return;
    };
    // Also ends that are no ids.
    for (from, to) in [(*from, *to), (from.next().unwrap(), to.previous().unwrap_or_default())] {
        let within: Vec<&Row> = model.iter().filter(|(id, _)| *id >= from && *id <= to).collect();
        assert!(stream.range(from, to).map(row).eq(within.iter().map(|row| (*row).clone())));
        assert!(stream.range_back(from, to).map(row).eq(within.iter().rev().map(|row| (*row).clone())));
        let behind = model.iter().filter(|(id, _)| *id >= from);
        assert!(stream.entries_from(from).map(|(_, entry)| row(entry)).eq(behind.cloned()));
    }
}

proptest! {
    #[test]
    fn it_holds_what_a_list_holds_and_changes_are_taken_back(
        steps in steps(), from: usize, to: usize, back in 0_usize..60,
    ) {
        let (mut stream, mut model) = (Stream::default(), Vec::new());
        let mut history = Vec::new();
        for step in steps {
            let before = (stream.clone(), model.clone());
            if let Some(undo) = take(&mut stream, &mut model, step) {
                history.push((before, undo));
            }
            check(&stream, &model, from, to);
        }
        for ((stream_before, model_before), undo) in history.into_iter().rev().take(back) {
            stream.undo(undo);
            check(&stream, &model_before, from, to);
            prop_assert_eq!(&stream, &stream_before);
            prop_assert!(stream.nodes().map(|(base, _)| base).eq(stream_before.nodes().map(|(base, _)| base)));
            // What is added next begins a node where it would have.
            prop_assert_eq!(stream.begins_node(9, LIMITS), stream_before.begins_node(9, LIMITS));
        }
    }
}

#[test]
fn an_entry_costs_little_more_than_its_values() {
    let mut stream = Stream::default();
    let mut scratch = Vec::new();
    for number in 0..10_000_u64 {
        let value = format!("value:{number:06}");
        let fields = Pairs::write(&[b"sensor", value.as_bytes(), b"temperature", b"19"], &mut scratch);
        let id = StreamId::new(1_700_000_000_000 + number * 10, 0);
        let begins_node = stream.begins_node(30, NodeLimits::default());
        stream.apply(StreamChange::Add { id, fields, begins_node });
    }
    // 12 + 2 bytes of values.
    assert!(stream.heap_bytes(usize::MAX) < 10_000 * 25, "{}", stream.heap_bytes(usize::MAX));
}
