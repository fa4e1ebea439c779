//! Replies as a client reads them (RESP2). The server only writes them, so the
//! reader here is a second opinion of the format.

/// One reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `+`
    Status(String),
    /// `-`
    Error(String),
    /// `:`
    Int(i64),
    /// `$`
    Bulk(Vec<u8>),
    /// `$-1` and `*-1`
    Nil,
    /// `*`
    Array(Vec<Value>),
}

/// Takes one reply off the front of `bytes`; `None` if it is not all there.
///
/// # Panics
/// The bytes are no reply.
pub fn read_value(bytes: &mut &[u8]) -> Option<Value> {
    let end = bytes.windows(2).position(|pair| pair == b"\r\n")?;
    let (line, rest) = (&bytes[1..end], &bytes[end + 2..]);
    let text = String::from_utf8_lossy(line).into_owned();
    let number = || text.parse::<i64>().expect("a length or number");
    let (kind, mut rest) = (bytes[0], rest);
    let value = match kind {
        b'+' => Value::Status(text),
        b'-' => Value::Error(text),
        b':' => Value::Int(number()),
        b'$' | b'*' if number() < 0 => Value::Nil,
        b'$' => {
            let length = number() as usize;
            let bulk = rest.get(..length)?.to_vec();
            rest = rest.get(length + 2..)?;
            Value::Bulk(bulk)
        }
        b'*' => Value::Array((0..number()).map(|_| read_value(&mut rest)).collect::<Option<_>>()?),
        other => panic!("no reply begins with {:?}", char::from(other)),
    };
    *bytes = rest;
    Some(value)
}
