use std::num::NonZeroU64;

use proptest::prelude::*;

use super::{stream_tests, *};
use crate::keyspace::{Hash, List, Set, SortedSet};

/// Payloads that a real server wrote, by name.
fn recorded() -> Vec<(&'static str, Vec<u8>)> {
    let lines = include_str!("recorded/redis-7.0.15-dumps.txt").lines();
    let named = lines.filter(|line| !line.starts_with('#')).map(|line| line.split_once(' '));
    named
        .map(|line| line.expect("a name and a payload"))
        .map(|(name, digits)| (name, bytes(digits)))
        .collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let digits: String = digits.split_whitespace().collect();
    let byte = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits");
    (0..digits.len()).step_by(2).map(byte).collect()
}

/// A payload with this content.
fn payload(content: &[u8]) -> Vec<u8> {
    let mut payload = content.to_vec();
    seal(&mut payload);
    payload
}

fn list(elements: &[&[u8]]) -> Value {
    let mut list = List::default();
    elements.iter().for_each(|element| list.insert(list.len(), element));
    Value::List(Box::new(list))
}

fn set(members: &[&[u8]]) -> Value {
    let mut set = Set::default();
    assert!(members.iter().all(|member| set.add(member)));
    Value::Set(Box::new(set))
}

fn hash(fields: &[(&[u8], &[u8])]) -> Value {
    let mut hash = Hash::default();
    assert!(fields.iter().all(|(field, value)| hash.put(field, value).is_none()));
    Value::Hash(Box::new(hash))
}

fn sorted(members: &[(&[u8], f64)]) -> Value {
    let mut sorted = SortedSet::default();
    assert!(members.iter().all(|(member, score)| sorted.put(member, *score).is_none()));
    Value::Sorted(Box::new(sorted))
}

/// What the recorded keys hold.
fn expected(name: &str) -> Value {
    let numbered =
        |count: usize, text: &dyn Fn(usize) -> String| -> Vec<String> { (0..count).map(text).collect() };
    fn all(texts: &[String]) -> Vec<&[u8]> {
        texts.iter().map(|text| text.as_bytes()).collect()
    }
    match name {
        "str_int8" => Value::Str(b"12".to_vec()),
        "str_int16" => Value::Str(b"-1234".to_vec()),
        "str_int32" => Value::Str(b"123456789".to_vec()),
        "str_int64" => Value::Str(b"123456789012345".to_vec()),
        "str_raw" => Value::Str(b"hello \x00 world".to_vec()),
        "str_empty" => Value::Str(Vec::new()),
        "str_lzf" => Value::Str(b"abcabcabc".repeat(40)),
        "list_small" => list(&[
            b"a",
            b"1",
            b"-5",
            b"70000",
            b"5000",
            b"-3000000",
            b"9999999999",
            &[b'x'; 70],
            b"",
            &[b'y'; 5000],
        ]),
        "list_many" => list(&all(&numbered(150, &|at| at.to_string().repeat(at % 90 + 1)))),
        "list_lzf" => list(&[b"same element of a list".as_slice(); 300]),
        "set_int16" => set(&[b"1", b"-2", b"300"]),
        "set_int32" => set(&[b"1", b"70000", b"-70000"]),
        "set_int64" => set(&[b"1", b"9999999999"]),
        "set_table" => set(&[b"a", b"b", b"7", b""]),
        "set_large" => set(&all(&numbered(130, &|at| format!("member:{at}")))),
        "hash_small" => hash(&[(b"f", b"v"), (b"g", b"12"), (b"h", b"-1")]),
        "hash_table" => hash(&[(b"f", b"v"), (b"long", &[b'x'; 65]), (b"n", b"123456")]),
        "hash_large" => {
            let names = numbered(150, &|at| format!("field{at}"));
            let values = numbered(150, &|at| format!("value{at}").repeat(5));
            hash(&all(&names).into_iter().zip(all(&values)).collect::<Vec<_>>())
        }
        "zset_small" => sorted(&[
            (b"a", 1.0),
            (b"b", -2.5),
            (b"c", f64::INFINITY),
            (b"d", f64::NEG_INFINITY),
            (b"e", 3.0),
        ]),
        "zset_large" => {
            let names = numbered(130, &|at| format!("m{at}"));
            let mut members: Vec<(&[u8], f64)> =
                all(&names).into_iter().enumerate().map(|(at, name)| (name, at as f64 / 8.0)).collect();
            members.extend([(b"pi".as_slice(), f64::INFINITY), (b"mi".as_slice(), f64::NEG_INFINITY)]);
            sorted(&members)
        }
        other => stream_tests::expected(other).unwrap_or_else(|| panic!("what does {other} hold?")),
    }
}

#[test]
fn what_a_real_server_dumped_is_restored() {
    for (name, payload) in recorded() {
        let value = restore(&payload).unwrap_or_else(|refusal| panic!("{name}: {refusal:?}"));
        // Random bytes, recorded to have a string that does not compress.
        if name != "str_long" {
            assert!(value == expected(name), "{name}: {value:?}");
        }
        assert!(restore(&dump(&value)).as_ref() == Ok(&value), "{name}, dumped here");
    }
}

#[test]
fn a_small_value_is_dumped_to_the_bytes_that_a_real_server_writes() {
    let same = ["str_int8", "str_int16", "str_int32", "str_int64", "str_raw", "str_empty", "set_int16"];
    let same = same.iter().chain(&["set_int32", "set_int64", "hash_small", "zset_small", "stream_empty"]);
    let recorded = recorded();
    for name in same {
        let (_, payload) = recorded.iter().find(|(other, _)| other == name).expect("it was recorded");
        assert_eq!(&dump(&expected(name)), payload, "{name}");
    }
}

#[test]
fn forms_of_older_and_newer_servers_are_restored() {
    // `a` and 5: total, (tail,) count, elements, end.
    let ziplist = "10000000 0d000000 0200 000161 03f6 ff";
    let listpack = "0c000000 0200 81 61 02 05 01 ff";
    let pair = list(&[b"a", b"5"]);
    for (content, value) in [
        ("01 02 01 61 c0 05".to_owned(), pair.clone()),
        (format!("0a 10 {ziplist}"), pair.clone()),
        (format!("0e 01 10 {ziplist}"), pair.clone()),
        ("12 02 01 01 61 02 09 09000000 0100 0501 ff".to_owned(), pair.clone()),
        (format!("0d 10 {ziplist}"), hash(&[(b"a", b"5")])),
        (format!("0c 10 {ziplist}"), sorted(&[(b"a", 5.0)])),
        (format!("10 0c {listpack}"), hash(&[(b"a", b"5")])),
        (format!("11 0c {listpack}"), sorted(&[(b"a", 5.0)])),
        (format!("14 0c {listpack}"), set(&[b"a", b"5"])),
        ("03 02 01 61 03 312e35 01 62 fe".to_owned(), sorted(&[(b"a", 1.5), (b"b", f64::INFINITY)])),
    ] {
        assert_eq!(restore(&payload(&bytes(&content))), Ok(value), "{content}");
    }
}

#[test]
fn the_form_of_streams_that_tells_when_consumers_were_active_is_restored() {
    // Written by Valkey 9.1.2: eight consumers, of which two were given something.
    let content = "\
        150110000000000000000100000000000000001c1c0000000a00010100010101816102000102010001000101010401ff \
        01010001000000010101670100010100000000000000010000000000000000da189222a20100000208026330d9189222 \
        a2010000ffffffffffffffff00026331da189222a2010000d9189222a201000000026332d9189222a2010000ffffffff \
        ffffffff00026333d9189222a2010000ffffffffffffffff00026334d9189222a2010000ffffffffffffffff00026335 \
        d9189222a2010000ffffffffffffffff00026336da189222a2010000d9189222a2010000010000000000000001000000 \
        0000000000026337d9189222a2010000ffffffffffffffff00";
    let Ok(Value::Stream(stream)) = restore(&payload(&bytes(content))) else { panic!("it is a stream") };
    let group = stream.group(b"g").expect("it has a group");
    let active = group.consumers_from(0).map(|consumer| (&*consumer.name, consumer.active_ms.is_some()));
    let active: Vec<(&[u8], bool)> = active.collect();
    let names: [&[u8]; 8] = [b"c0", b"c1", b"c2", b"c3", b"c4", b"c5", b"c6", b"c7"];
    assert_eq!(active, names.map(|name| (name, name == b"c1" || name == b"c6")));
    assert_eq!((stream.len(), group.pending().len()), (1, 1));
}

#[test]
fn what_no_command_could_make_is_refused() {
    for (content, why) in [
        ("", "nothing"),
        ("07 00", "an unknown form"),
        ("02 00", "an empty set"),
        ("04 00", "an empty hash"),
        ("12 00", "an empty list"),
        ("02 02 01 61 01 61", "a member twice"),
        ("04 02 01 61 01 62 01 61 01 63", "a field twice"),
        ("05 02 01 61 0000000000000000 01 61 0000000000000000", "a scored member twice"),
        ("05 01 01 61 000000000000f87f", "a score that is no number"),
        ("03 01 01 61 fd", "a score that is no number, as text"),
        ("00 01 61 00", "a byte too many"),
        ("00 02 61", "a byte too few"),
        ("02 81 ffffffffffffffff", "a count of members that are not there"),
        ("00 c3 04 81 ffffffffffffffff 00000000", "a string that claims to unpack to more than fits"),
        ("10 0a 0a000000 0100 81 61 02 ff", "a field without a value"),
        ("0b 08 03000000 00000000", "integers of three bytes"),
        ("0b 0a 02000000 01000000 0100 00", "a byte behind the integers"),
    ] {
        assert_eq!(restore(&payload(&bytes(content))), Err(Refusal::Content), "{why}");
    }
}

#[test]
fn a_payload_that_was_damaged_is_refused() {
    let whole = dump(&Value::Str(b"value".to_vec()));
    assert!(restore(&whole).is_ok());
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        assert_eq!(restore(&damaged), Err(Refusal::Footer), "byte {at}");
        assert_eq!(restore(&whole[..at]), Err(Refusal::Footer), "cut at {at}");
    }
    let mut newer = whole[..whole.len() - FOOTER_BYTES].to_vec();
    newer.extend_from_slice(&(VERSION_READ_MAX + 1).to_le_bytes());
    let sum = checksum::crc64(&newer);
    newer.extend_from_slice(&sum.to_le_bytes());
    assert_eq!(restore(&newer), Err(Refusal::Footer));
}

fn any_string() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..12),
        2 => any::<i64>().prop_map(|number| number.to_string().into_bytes()),
        2 => (-200_i64..200).prop_map(|number| number.to_string().into_bytes()),
        1 => (0_usize..10_000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
    ]
}

/// What Redis 8.2 wrote of hashes whose fields have deadlines.
#[test]
fn deadlines_of_fields_are_read_and_written_as_redis_does() {
    let with_deadlines = |fields: &[(&[u8], &[u8], u64)]| {
        let mut hash = Hash::default();
        for (field, value, at) in fields {
            hash.put(field, value);
            hash.set_deadline(field, NonZeroU64::new(*at));
        }
        Value::Hash(Box::new(hash))
    };
    let table = "18 d46b4ca62c1e0000 03 01 0178 c001 40c9 017a c003 00 0179 c002 0c00 95f6c3153df79643";
    let fields: [(&[u8], &[u8], u64); 4] = [
        (b"z", b"33", 33_177_117_420_400),
        (b"x", b"1", 33_177_117_420_500),
        (b"y", b"2", 0),
        (b"w", b"abc", 0),
    ];
    let expected = with_deadlines(&[fields[1], (b"y", b"2", 0), (b"z", b"3", 33_177_117_420_700)]);
    assert_eq!(restore(&bytes(table)), Ok(expected));
    let pack = "19 d46b4ca62c1e0000 36 36000000 0c00 817a02 2101 f4 706b4ca62c1e0000 09 817802 0101 f4 d46b4ca62c1e0000 \
                09 817902 0201 0001 817702 83616263 04 0001 ff 0c00 ba5e5eecce794f78";
    // Redis leaves there what it knew of the soonest before a sooner one came.
    let written = dump(&with_deadlines(&fields));
    assert_eq!(restore(&bytes(pack)), Ok(with_deadlines(&fields)));
    assert_eq!(written[9..written.len() - 8], bytes(pack)[9..written.len() - 8]);
    assert_eq!(written[1..9], 33_177_117_420_400_u64.to_le_bytes());

    // A deadline that no command sets, and a field twice.
    let at = |at: u64| payload(&[&[24][..], &at.to_le_bytes(), &[1, 1, 1, b'f', 1, b'v']].concat());
    assert!(restore(&at((1 << 46) - 1)).is_ok());
    assert_eq!(restore(&at(1 << 46)), Err(Refusal::Content));
    assert_eq!(restore(&at(u64::MAX)), Err(Refusal::Content));
    let twice = payload(&[&[24][..], &[1; 8], &[2, 1, 1, b'f', 1, b'v', 0, 1, b'f', 1, b'v']].concat());
    assert_eq!(restore(&twice), Err(Refusal::Content));
}

fn any_value() -> impl Strategy<Value = Value> {
    let strings = || prop::collection::vec(any_string(), 1..200);
    let pairs = prop::collection::vec((any_string(), any_string()), 1..200);
    let scored =
        prop::collection::vec((any_string(), any::<f64>().prop_filter("a score", |x| !x.is_nan())), 1..200);
    let by_name = |strings: Vec<Vec<u8>>| strings.into_iter().collect::<std::collections::BTreeSet<_>>();
    prop_oneof![
        any_string().prop_map(Value::Str),
        strings().prop_map(|all| list(&all.iter().map(Vec::as_slice).collect::<Vec<_>>())),
        strings().prop_map(|all| stream_tests::any_stream(&all)),
        strings().prop_map(move |all| set(&by_name(all).iter().map(Vec::as_slice).collect::<Vec<_>>())),
        pairs.prop_map(|all| {
            let mut hash = Hash::default();
            all.iter().for_each(|(field, value)| drop(hash.put(field, value)));
            // Some have deadlines, where the first value says so.
            for (field, value) in all.iter().filter(|_| all[0].1.len().is_multiple_of(2)) {
                hash.set_deadline(field, NonZeroU64::new(value.len() as u64 * 1_000_003));
            }
            Value::Hash(Box::new(hash))
        }),
        scored.prop_map(|all| {
            let mut sorted = SortedSet::default();
            for (member, score) in &all {
                sorted.put(member, *score);
            }
            Value::Sorted(Box::new(sorted))
        }),
    ]
}

proptest! {
    #[test]
    fn restoring_gives_what_was_dumped(value in any_value()) {
        prop_assert_eq!(restore(&dump(&value)), Ok(value));
    }

    #[test]
    fn no_content_makes_it_panic(content: Vec<u8>) {
        let _ = restore(&payload(&content));
        let _ = restore(&content);
    }

    #[test]
    fn no_damage_to_a_real_payload_makes_it_panic(
        which: prop::sample::Index,
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut: prop::sample::Index,
        cuts: bool,
    ) {
        let mut all = recorded();
        let (_, mut content) = all.swap_remove(which.index(all.len()));
        content.truncate(content.len() - FOOTER_BYTES);
        for (at, byte) in damage {
            let at = at.index(content.len().min(64));
            content[at] = byte;
        }
        if cuts {
            content.truncate(cut.index(content.len()));
        }
        if let Ok(value) = restore(&payload(&content)) {
            prop_assert_eq!(restore(&dump(&value)), Ok(value));
        }
    }
}
