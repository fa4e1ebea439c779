//! The part of the library `string` that the C library cannot be trusted with:
//! what backtracks (`find`, `match`, `gmatch`, `gsub`), what multiplies (`rep`), and
//! long texts (`upper`, `lower`, `reverse`).
//!
//! Replacements by a function, or by a table with a metatable, run in the prelude:
//! a script's function called from Rust would lose the error it raises.

use std::rc::Rc;

use mlua::{Lua, MultiValue, Table, Value};

use super::arguments::{Arguments, text_of, until_zero};
use super::fault::{fault, type_name};
use super::pattern::{Capture, Failure, Matcher};
use super::state::{KillReason, RunState};

/// Characters that make a pattern more than a plain text.
const SPECIALS: &[u8] = b"^$*+?.([%-";

/// Adds the functions to the library; returns what the prelude needs for `gmatch` and `gsub`.
pub(super) fn install(lua: &Lua, state: &Rc<RunState>, library: &Table) -> mlua::Result<Table> {
    let parts = lua.create_table()?;
    let add =
        |table: &Table, name: &str, run: fn(&RunState, &Lua, MultiValue) -> mlua::Result<MultiValue>| {
            let state = Rc::clone(state);
            table.raw_set(name, lua.create_function(move |lua, values| run(&state, lua, values))?)
        };
    add(library, "find", |state, lua, values| find(state, lua, values, true))?;
    add(library, "match", |state, lua, values| find(state, lua, values, false))?;
    add(library, "rep", rep)?;
    add(&parts, "upper", |state, lua, values| {
        mapped(state, lua, values, |text| text.make_ascii_uppercase())
    })?;
    add(&parts, "lower", |state, lua, values| {
        mapped(state, lua, values, |text| text.make_ascii_lowercase())
    })?;
    add(&parts, "reverse", |state, lua, values| mapped(state, lua, values, |text| text.reverse()))?;
    add(&parts, "next_match", next_match)?;
    add(&parts, "gsub", gsub)?;
    let check = |lua: &Lua, (subject, pattern): (Value, Value)| check_two(lua, subject, pattern);
    parts.raw_set("check_two", lua.create_function(check)?)?;
    Ok(parts)
}

/// What a failed match raises.
fn raise(state: &RunState, lua: &Lua, failure: Failure) -> mlua::Error {
    match failure {
        Failure::Malformed(text) => fault(lua, text),
        Failure::Stopped => state.stop(lua, KillReason::Host),
    }
}

/// One capture as a value.
fn capture(
    state: &RunState,
    lua: &Lua,
    matcher: &Matcher<'_>,
    subject: &[u8],
    whole: (usize, usize),
    index: usize,
) -> mlua::Result<Value> {
    match piece(lua, matcher, whole, index)? {
        Capture::Text { start, end } => {
            state.charge(lua, end - start)?;
            lua.create_string(&subject[start..end]).map(Value::String)
        }
        Capture::Position(at) => Ok(Value::Integer(at as i64 + 1)),
        Capture::Open(_) => Err(fault(lua, "unfinished capture")),
    }
}

/// One capture; the whole match stands for the first if there is none.
fn piece(lua: &Lua, matcher: &Matcher<'_>, whole: (usize, usize), index: usize) -> mlua::Result<Capture> {
    match matcher.captures().get(index) {
        Some(capture) => Ok(*capture),
        None if index == 0 => Ok(Capture::Text { start: whole.0, end: whole.1 }),
        None => Err(fault(lua, "invalid capture index")),
    }
}

/// All captures after what stands in `results`; the whole match if there are none.
fn captures(
    state: &RunState,
    lua: &Lua,
    matcher: &Matcher<'_>,
    subject: &[u8],
    whole: (usize, usize),
    results: &mut MultiValue,
) -> mlua::Result<()> {
    let count = matcher.captures().len();
    // `find` gives positions instead of the whole match.
    let count = if results.is_empty() { count.max(1) } else { count };
    for index in 0..count {
        results.push_back(capture(state, lua, matcher, subject, whole, index)?);
    }
    Ok(())
}

/// Where a match may begin, for an `init` argument that may count from the end.
fn start(init: i64, length: usize) -> usize {
    let from = if init < 0 { length as i64 + init } else { init - 1 };
    usize::try_from(from).unwrap_or(0).min(length)
}

fn find(state: &RunState, lua: &Lua, values: MultiValue, positions: bool) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let (subject, pattern) = (arguments.text(1)?, arguments.text(2)?);
    state.charge(lua, pattern.len())?;
    let from = start(arguments.integer_or(3, 1)?, subject.len());
    let plain = || arguments.truth(4) || !until_zero(&pattern).iter().any(|byte| SPECIALS.contains(byte));
    let mut results = MultiValue::new();
    if positions && plain() {
        state.charge(lua, subject.len() - from)?;
        match memchr::memmem::find(&subject[from..], &pattern) {
            Some(at) => {
                results.push_back(Value::Integer((from + at) as i64 + 1));
                results.push_back(Value::Integer((from + at + pattern.len()) as i64));
            }
            None => results.push_back(Value::Nil),
        }
        return Ok(results);
    }
    let mut may_go_on = || state.may_go_on(lua);
    let mut matcher = Matcher::new(&subject, &pattern, &mut may_go_on);
    let found = matcher.search(from);
    state.charge(lua, matcher.steps())?;
    match found.map_err(|failure| raise(state, lua, failure))? {
        None => results.push_back(Value::Nil),
        Some(whole) => {
            if positions {
                results.push_back(Value::Integer(whole.0 as i64 + 1));
                results.push_back(Value::Integer(whole.1 as i64));
            }
            captures(state, lua, &matcher, &subject, whole, &mut results)?;
        }
    }
    Ok(results)
}

/// For the prelude: the next match at or after a place, as its start, its end and
/// its captures; nothing if there is none. The fourth argument says whether `^`
/// anchors, the fifth whether only the first capture is wanted.
fn next_match(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let (subject, pattern) = (arguments.text(1)?, arguments.text(2)?);
    state.charge(lua, pattern.len())?;
    let from = usize::try_from(arguments.integer(3)?).unwrap_or(0);
    let mut results = MultiValue::new();
    let mut may_go_on = || state.may_go_on(lua);
    let kind = if arguments.truth(4) { Matcher::new } else { Matcher::unanchored };
    let mut matcher = kind(&subject, &pattern, &mut may_go_on);
    if from > subject.len() || (from > 0 && matcher.anchored()) {
        return Ok(results);
    }
    let found = matcher.search(from);
    state.charge(lua, matcher.steps())?;
    if let Some(whole) = found.map_err(|failure| raise(state, lua, failure))? {
        if arguments.truth(5) {
            results.push_back(capture(state, lua, &matcher, &subject, whole, 0)?);
        } else {
            captures(state, lua, &matcher, &subject, whole, &mut results)?;
        }
        results.push_front(Value::Integer(whole.1 as i64));
        results.push_front(Value::Integer(whole.0 as i64));
    }
    Ok(results)
}

/// For the prelude: two arguments that must be strings, as strings.
fn check_two(lua: &Lua, subject: Value, pattern: Value) -> mlua::Result<(Value, Value)> {
    let text = |index, value: Value| match text_of(&value) {
        Some(_) => lua.coerce_string(value).map(|text| text.map_or(Value::Nil, Value::String)),
        None => {
            let text = format!("string expected, got {}", type_name(&value));
            Err(super::fault::bad_argument(lua, 1, index, &text))
        }
    };
    Ok((text(1, subject)?, text(2, pattern)?))
}

/// `string.gsub` with a text, or a table without a metatable, for the replacement.
fn gsub(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let (subject, pattern) = (arguments.text(1)?, arguments.text(2)?);
    let (text, table) = (text_of(arguments.value(3)), arguments.value(3).as_table());
    let most = usize::try_from(arguments.integer_or(4, subject.len() as i64 + 1)?).unwrap_or(0);
    state.charge(lua, pattern.len())?;

    let mut may_go_on = || state.may_go_on(lua);
    let mut matcher = Matcher::new(&subject, &pattern, &mut may_go_on);
    let mut out = Vec::new();
    let (mut at, mut count) = (0, 0);
    while count < most {
        let found = matcher.search(at).map_err(|failure| raise(state, lua, failure))?;
        let Some(whole) = found else { break };
        count += 1;
        let before = out.len();
        out.extend_from_slice(&subject[at..whole.0]);
        match (&text, table) {
            (Some(text), _) => expand(state, lua, &matcher, &subject, whole, text, &mut out)?,
            (None, Some(table)) => {
                let value = table.raw_get(capture(state, lua, &matcher, &subject, whole, 0)?)?;
                substitute(lua, &value, &subject[whole.0..whole.1], &mut out)?;
            }
            (None, None) => return Err(arguments.error(3, "string/function/table expected")),
        }
        if text.is_none() {
            grown(state, lua, &out, before)?;
        }
        at = whole.1;
        if whole.1 == whole.0 {
            // An empty match: the character after it stays.
            out.extend(subject.get(at));
            at += 1;
        }
        if at > subject.len() || matcher.anchored() {
            break;
        }
    }
    out.extend_from_slice(subject.get(at..).unwrap_or_default());
    state.charge(lua, matcher.steps() + out.len())?;
    Ok(MultiValue::from_vec(vec![Value::String(lua.create_string(out)?), Value::Integer(count as i64)]))
}

/// A text that is being made has grown. It may not pass what a script may hold.
fn grown(state: &RunState, lua: &Lua, out: &[u8], before: usize) -> mlua::Result<()> {
    state.charge(lua, out.len() - before)?;
    if out.len() > state.limits.memory_bytes {
        return Err(state.stop(lua, KillReason::Memory));
    }
    Ok(())
}

/// Appends a replacement text: `%1` is a capture, `%0` the match, `%%` a percent sign.
fn expand(
    state: &RunState,
    lua: &Lua,
    matcher: &Matcher<'_>,
    subject: &[u8],
    whole: (usize, usize),
    text: &[u8],
    out: &mut Vec<u8>,
) -> mlua::Result<()> {
    let mut rest = text;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let before = out.len();
        out.extend_from_slice(&rest[..at]);
        match rest.get(at + 1) {
            Some(b'0') => out.extend_from_slice(&subject[whole.0..whole.1]),
            Some(digit @ b'1'..=b'9') => match piece(lua, matcher, whole, usize::from(digit - b'1'))? {
                Capture::Text { start, end } => out.extend_from_slice(&subject[start..end]),
                Capture::Position(at) => out.extend_from_slice((at + 1).to_string().as_bytes()),
                Capture::Open(_) => return Err(fault(lua, "unfinished capture")),
            },
            // C reads the zero byte that ends the text.
            other => out.push(other.copied().unwrap_or(0)),
        }
        grown(state, lua, out, before)?;
        rest = rest.get(at + 2..).unwrap_or_default();
    }
    let before = out.len();
    out.extend_from_slice(rest);
    grown(state, lua, out, before)
}

/// Appends the value that a table holds for a match.
fn substitute(lua: &Lua, value: &Value, matched: &[u8], out: &mut Vec<u8>) -> mlua::Result<()> {
    match value {
        Value::Nil | Value::Boolean(false) => out.extend_from_slice(matched),
        other => match text_of(other) {
            Some(text) => out.extend_from_slice(&text),
            None => return Err(fault(lua, format!("invalid replacement value (a {})", type_name(other)))),
        },
    }
    Ok(())
}

/// For the prelude: a long text, changed in its place. Stock Lua takes ten times as long.
fn mapped(
    state: &RunState,
    lua: &Lua,
    values: MultiValue,
    change: fn(&mut [u8]),
) -> mlua::Result<MultiValue> {
    let mut text = Arguments::new(lua, values).text(1)?.to_vec();
    state.charge(lua, text.len())?;
    change(&mut text);
    Ok(MultiValue::from_vec(vec![Value::String(lua.create_string(text)?)]))
}

/// `string.rep(text, count)`
fn rep(state: &RunState, lua: &Lua, values: MultiValue) -> mlua::Result<MultiValue> {
    let arguments = Arguments::new(lua, values);
    let text = arguments.text(1)?;
    let count = usize::try_from(arguments.integer(2)?).unwrap_or(0);
    let length = text.len().checked_mul(count).filter(|length| *length <= state.limits.memory_bytes);
    let Some(length) = length else {
        return Err(fault(lua, "resulting string too large"));
    };
    state.charge(lua, length)?;
    let count = if text.is_empty() { 0 } else { count };
    let mut results = MultiValue::new();
    results.push_back(Value::String(lua.create_string(text.repeat(count))?));
    Ok(results)
}
