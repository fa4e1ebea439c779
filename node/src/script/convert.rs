//! Replies to Lua values, and Lua values to replies.
//!
//! | reply                     | value, RESP2 | value, after `redis.setresp(3)` |
//! | ------------------------- | ------------ | ------------------------------- |
//! | integer                   | number       | number                          |
//! | bulk string               | string       | string                          |
//! | status, error             | `{ok=…}`, `{err=…}` | the same                 |
//! | null                      | `false`      | `nil`                           |
//! | map, set                  | flat array   | `{map={…}}`, `{set={x=true}}`   |
//! | double                    | string       | `{double=n}`                    |
//! | boolean                   | 1 or 0       | boolean                         |
//! | big number                | string       | `{big_number=s}`                |
//! | verbatim string           | string       | `{verbatim_string={format=, string=}}` |
//!
//! Source: `redisProtocolToLuaType*` and `luaReplyToRedisReply` of Redis 7.2 (script_lua.c).

use bstr::BStr;
use mlua::{Lua, LuaString, Table, Value};
use moonraft_proto::reply::double_text;
use moonraft_proto::{Protocol, Reply, Text};

use super::arguments::until_zero;
use super::fault;
use super::json::settings::NESTING_MAX;
use super::number::truncated;
use super::state::{KillReason, RunState};

/// What making one value is counted as, its bytes apart: 0.1 us.
const ITEM_WORK: usize = 64;

/// A command's reply as a script sees it.
pub(super) fn to_lua(state: &RunState, lua: &Lua, reply: Reply<'_>) -> mlua::Result<Value> {
    let resp3 = state.protocol.get() == Protocol::Resp3;
    let text = |bytes: &[u8]| {
        state.charge(lua, bytes.len())?;
        lua.create_string(bytes).map(Value::String)
    };
    match reply {
        Reply::Int(n) => Ok(number(n)),
        Reply::Bulk(bytes) => text(&bytes),
        Reply::Status(status) => {
            let table = lua.create_table_with_capacity(0, 1)?;
            table.raw_set("ok", BStr::new(&*status))?;
            Ok(Value::Table(table))
        }
        Reply::Error(error) => fault::reply(lua, &error, true).map(Value::Table),
        Reply::Null | Reply::NullArray if resp3 => Ok(Value::Nil),
        Reply::Null | Reply::NullArray => Ok(Value::Boolean(false)),
        Reply::Array(items) => sequence(state, lua, items),
        Reply::Map(pairs) | Reply::Keyed(pairs) if resp3 => {
            let map = lua.create_table_with_capacity(0, pairs.len())?;
            for (key, value) in pairs {
                state.charge(lua, 2 * ITEM_WORK)?;
                put(&map, to_lua(state, lua, key)?, to_lua(state, lua, value)?)?;
            }
            field(lua, "map", Value::Table(map))
        }
        Reply::Pairs(pairs) if resp3 => nested(state, lua, pairs),
        Reply::Keyed(pairs) => nested(state, lua, pairs),
        Reply::Map(pairs) | Reply::Pairs(pairs) => {
            sequence(state, lua, pairs.into_iter().flat_map(|(first, second)| [first, second]))
        }
        Reply::Set(items) if resp3 => {
            let set = lua.create_table_with_capacity(0, items.len())?;
            for item in items {
                state.charge(lua, ITEM_WORK)?;
                put(&set, to_lua(state, lua, item)?, Value::Boolean(true))?;
            }
            field(lua, "set", Value::Table(set))
        }
        Reply::Set(items) => sequence(state, lua, items),
        Reply::Double(x) if resp3 => field(lua, "double", Value::Number(x)),
        Reply::Double(x) => text(double_text(x).as_bytes()),
        Reply::Number(digits) if resp3 => {
            let number = std::str::from_utf8(&digits).ok().and_then(|digits| digits.parse().ok());
            field(lua, "double", Value::Number(number.unwrap_or(f64::NAN)))
        }
        Reply::Number(digits) => text(&digits),
        Reply::Bool(truth) if resp3 => Ok(Value::Boolean(truth)),
        Reply::Bool(truth) => Ok(Value::Integer(truth.into())),
        Reply::BigNumber(digits) if resp3 => field(lua, "big_number", text(&digits)?),
        Reply::BigNumber(digits) => text(&digits),
        Reply::Verbatim(format, words) if resp3 => {
            let table = lua.create_table_with_capacity(0, 2)?;
            table.raw_set("string", BStr::new(&*words))?;
            table.raw_set("format", BStr::new(&format))?;
            field(lua, "verbatim_string", Value::Table(table))
        }
        Reply::Verbatim(_, words) => text(&words),
        // The host promises never to answer a script with these.
        Reply::Push(_) | Reply::Several(_) | Reply::Nothing => Ok(Value::Nil),
    }
}

/// Lua 5.1 has doubles only: a large integer loses its last digits, as in Redis.
fn number(n: i64) -> Value {
    const EXACT: i64 = 1 << 53;
    if (-EXACT..=EXACT).contains(&n) { Value::Integer(n) } else { Value::Number(n as f64) }
}

fn sequence<'a>(
    state: &RunState,
    lua: &Lua,
    items: impl IntoIterator<Item = Reply<'a>>,
) -> mlua::Result<Value> {
    let items = items.into_iter();
    let table = lua.create_table_with_capacity(items.size_hint().0, 0)?;
    for (index, item) in items.enumerate() {
        state.charge(lua, ITEM_WORK)?;
        match item {
            Reply::Bulk(bytes) => {
                state.charge(lua, bytes.len())?;
                table.raw_set(index + 1, BStr::new(&bytes))?;
            }
            item => table.raw_set(index + 1, to_lua(state, lua, item)?)?,
        }
    }
    Ok(Value::Table(table))
}

/// Each pair as a sequence of two.
fn nested<'a>(state: &RunState, lua: &Lua, pairs: Vec<(Reply<'a>, Reply<'a>)>) -> mlua::Result<Value> {
    sequence(state, lua, pairs.into_iter().map(|(first, second)| Reply::Array(vec![first, second])))
}

/// A null cannot be a key: such a pair is left out.
fn put(table: &Table, key: Value, value: Value) -> mlua::Result<()> {
    match key {
        Value::Nil => Ok(()),
        Value::Number(x) if x.is_nan() => Ok(()),
        key => table.raw_set(key, value),
    }
}

fn field(lua: &Lua, name: &str, value: Value) -> mlua::Result<Value> {
    let table = lua.create_table_with_capacity(0, 1)?;
    table.raw_set(name, value)?;
    Ok(Value::Table(table))
}

/// What a script returned, as the client is answered. `Err` if the answer is
/// larger than a script may be: a few tables that hold one another can stand for
/// any number of values.
pub(super) fn to_reply(state: &RunState, lua: &Lua, fields: &Fields, value: &Value) -> Converted {
    let resp3 = state.protocol.get() == Protocol::Resp3;
    Converter { state, lua, resp3, fields, left: state.limits.memory_bytes }.value(value, 0)
}

/// The names of fields that make a table more than an array, as Lua strings: every
/// returned table is asked for each.
pub(super) struct Fields {
    err: LuaString,
    ok: LuaString,
    double: LuaString,
    big_number: LuaString,
    verbatim: LuaString,
    map: LuaString,
    set: LuaString,
}

impl Fields {
    pub fn new(lua: &Lua) -> mlua::Result<Self> {
        Ok(Self {
            err: lua.create_string("err")?,
            ok: lua.create_string("ok")?,
            double: lua.create_string("double")?,
            big_number: lua.create_string("big_number")?,
            verbatim: lua.create_string("verbatim_string")?,
            map: lua.create_string("map")?,
            set: lua.create_string("set")?,
        })
    }
}

struct Converter<'a> {
    state: &'a RunState,
    lua: &'a Lua,
    resp3: bool,
    fields: &'a Fields,
    /// Bytes the reply may still take.
    left: usize,
}

type Converted = Result<Reply<'static>, KillReason>;

impl Converter<'_> {
    fn spend(&mut self, bytes: usize) -> Result<(), KillReason> {
        let bytes = bytes + size_of::<Reply<'_>>();
        self.left = self.left.checked_sub(bytes).ok_or(KillReason::Memory)?;
        self.state.charge(self.lua, bytes).map_err(|_| KillReason::Host)
    }

    fn value(&mut self, value: &Value, nesting: usize) -> Converted {
        self.spend(0)?;
        Ok(match value {
            Value::String(text) => {
                let bytes = text.as_bytes();
                self.spend(bytes.len())?;
                Reply::Bulk(bytes.to_vec().into())
            }
            Value::Integer(n) => Reply::Int(*n),
            Value::Number(x) => Reply::Int(truncated(*x)),
            Value::Boolean(truth) if self.resp3 => Reply::Bool(*truth),
            Value::Boolean(true) => Reply::Int(1),
            Value::Table(_) if nesting == NESTING_MAX => Reply::Error("ERR reached lua stack limit".into()),
            Value::Table(table) => self.table(table, nesting + 1)?,
            _ => Reply::Null,
        })
    }

    fn table(&mut self, table: &Table, nesting: usize) -> Converted {
        let fields = self.fields;
        let get = |name: &LuaString| table.raw_get::<Value>(name).unwrap_or(Value::Nil);
        if let Value::String(text) = get(&fields.err) {
            let bytes = text.as_bytes();
            let line = until_zero(&bytes);
            let length =
                line.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
            return Ok(Reply::Error(self.line(&line[..length])?));
        }
        if let Value::String(text) = get(&fields.ok) {
            return Ok(Reply::Status(self.line(until_zero(&text.as_bytes()))?));
        }
        match get(&fields.double) {
            Value::Integer(n) => return Ok(Reply::Double(n as f64)),
            Value::Number(x) => return Ok(Reply::Double(x)),
            _ => {}
        }
        if let Value::String(digits) = get(&fields.big_number) {
            return Ok(Reply::BigNumber(self.line(&digits.as_bytes())?));
        }
        if let Value::Table(verbatim) = get(&fields.verbatim) {
            let part = |name: &str| verbatim.raw_get::<Value>(name).unwrap_or(Value::Nil);
            if let (Value::String(format), Value::String(text)) = (part("format"), part("string")) {
                self.spend(text.as_bytes().len())?;
                let mut three = *b"   ";
                let (place, format) = (three.iter_mut(), format.as_bytes());
                place.zip(until_zero(&format)).for_each(|(place, byte)| *place = *byte);
                return Ok(Reply::Verbatim(three, text.as_bytes().to_vec().into()));
            }
        }
        if let Value::Table(map) = get(&fields.map) {
            return self.map(&map, nesting);
        }
        if let Value::Table(set) = get(&fields.set) {
            let mut items = Vec::new();
            for (key, _) in set.pairs::<Value, Value>().filter_map(Result::ok) {
                items.push(self.value(&key, nesting)?);
            }
            return Ok(Reply::Set(items));
        }
        let mut items = Vec::new();
        for index in 1_i64.. {
            match table.raw_get(index).unwrap_or(Value::Nil) {
                Value::Nil => break,
                value => items.push(self.value(&value, nesting)?),
            }
        }
        Ok(Reply::Array(items))
    }

    /// A text that is a line of its own: one frame, whatever is in it.
    fn line(&mut self, bytes: &[u8]) -> Result<Text<'static>, KillReason> {
        self.spend(bytes.len())?;
        let clean = |byte: &u8| if matches!(byte, b'\r' | b'\n') { b' ' } else { *byte };
        Ok(bytes.iter().map(clean).collect::<Vec<u8>>().into())
    }

    fn map(&mut self, map: &Table, nesting: usize) -> Converted {
        let mut pairs = Vec::new();
        for (key, value) in map.pairs::<Value, Value>().filter_map(Result::ok) {
            pairs.push((self.value(&key, nesting)?, self.value(&value, nesting)?));
        }
        Ok(Reply::Map(pairs))
    }
}
