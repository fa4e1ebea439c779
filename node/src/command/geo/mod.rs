//! Places on earth: members of a sorted set whose score says where they are ([`cell`]), so all that is true of
//! sorted sets is true of these.
//!
//! A search ([`search`]) looks at the few cells that cover what is searched ([`shape`]), each an interval of scores.
//!
//! Source: `geo.c`, `geohash.c` and `geohash_helper.c` of Redis 7.0, for the scores, the digits of distances, the
//! order of what is found, and error texts.

mod cell;
mod search;
mod shape;
#[cfg(test)]
mod tests;

use moonraft_proto::Reply;
use moonraft_router::Keys;

use self::{
    cell::{LATITUDE, LATITUDE_WHOLE, LONGITUDE, Place, STEPS_MAX},
    search::Form,
    shape::distance,
};
use super::{
    Arity, Command, CommandError, Family, Flag, Outcome, Run,
    arguments::{float, is},
    key_specs::{KeyFlag, uses},
    zset::put::{AddOptions, add},
};
use crate::keyspace::{SortedSet, Tx};

/// A row of this family.
const ROW: Command = Command { family: Family::Geo, keys: Keys::ONE, ..Command::BASE };

/// The keys of what may store: read one, and replaced another.
const STORED: &[&[KeyFlag]] = &[uses::READ, uses::STORE, uses::STORE];

const STORE_TOKENS: &[&str] = &["store", "storedist"];

/// The commands of this folder.
pub const COMMANDS: &[Command] = &[
    Command {
        name: "geoadd",
        arity: Arity::AtLeast(5),
        flags: &[Flag::DenyOom],
        key_flags: &[uses::UPDATE],
        run: Run::Write(geoadd),
        ..ROW
    },
    Command { name: "geodist", arity: Arity::AtLeast(4), run: Run::Read(geodist), ..ROW },
    Command { name: "geohash", arity: Arity::AtLeast(2), run: Run::Read(geohash), ..ROW },
    Command { name: "geopos", arity: Arity::AtLeast(2), run: Run::Read(geopos), ..ROW },
    Command {
        name: "georadius",
        arity: Arity::AtLeast(6),
        keys: Keys::Behind { first: 1, from: 6, tokens: STORE_TOKENS },
        flags: &[Flag::DenyOom],
        key_flags: STORED,
        run: Run::Write(search::georadius),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::RADIUS)),
        ..ROW
    },
    Command {
        name: "georadius_ro",
        arity: Arity::AtLeast(6),
        run: Run::Read(search::georadius_ro),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::RADIUS_RO)),
        ..ROW
    },
    Command {
        name: "georadiusbymember",
        arity: Arity::AtLeast(5),
        keys: Keys::Behind { first: 1, from: 5, tokens: STORE_TOKENS },
        flags: &[Flag::DenyOom],
        key_flags: STORED,
        run: Run::Write(search::georadiusbymember),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::BY_MEMBER)),
        ..ROW
    },
    Command {
        name: "georadiusbymember_ro",
        arity: Arity::AtLeast(5),
        run: Run::Read(search::georadiusbymember_ro),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::BY_MEMBER_RO)),
        ..ROW
    },
    Command {
        name: "geosearch",
        arity: Arity::AtLeast(7),
        run: Run::Read(search::geosearch),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::SEARCH)),
        ..ROW
    },
    Command {
        name: "geosearchstore",
        arity: Arity::AtLeast(8),
        keys: Keys::TWO,
        flags: &[Flag::DenyOom],
        key_flags: &[uses::STORE, uses::READ],
        run: Run::Write(search::geosearchstore),
        work: Some(|keyspace, it| search::work(keyspace, it, Form::SEARCH_STORE)),
        ..ROW
    },
];

/// The place that two words say: longitude, then latitude.
fn place(words: &[&[u8]]) -> Result<Place, CommandError> {
    let (longitude, latitude) = (float(words[0])?, float(words[1])?);
    if LONGITUDE.contains(longitude) && LATITUDE.contains(latitude) {
        return Ok(Place { longitude, latitude });
    }
    let text = format!("ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}");
    Err(CommandError::Text(text.into()))
}

/// How many meters a unit has.
fn unit(word: &[u8]) -> Result<f64, CommandError> {
    const UNKNOWN: CommandError =
        CommandError::text("ERR unsupported unit provided. please use M, KM, FT, MI");
    match () {
        () if is(word, "m") => Ok(1.0),
        () if is(word, "km") => Ok(1000.0),
        () if is(word, "ft") => Ok(0.3048),
        () if is(word, "mi") => Ok(1609.34),
        () => Err(UNKNOWN),
    }
}

/// A distance as Redis tells it: with four digits behind the point, and as a text whatever the protocol.
fn distance_reply(distance: f64) -> Reply<'static> {
    Reply::text(format!("{distance:.4}"))
}

/// Longitude and latitude with all digits that Redis tells.
fn place_reply(place: Place) -> Reply<'static> {
    let number = |x: f64| {
        let text = format!("{x:.17}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        Reply::Number(if text == "-0" { "0" } else { text }.to_owned().into())
    };
    Reply::Array(vec![number(place.longitude), number(place.latitude)])
}

/// Where a member is.
fn place_of(sorted: Option<&SortedSet>, member: &[u8]) -> Option<Place> {
    sorted.and_then(|sorted| sorted.score(member)).map(Place::of_score)
}

/// `GEOADD key [NX | XX] [CH] longitude latitude member …`
fn geoadd<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let mut options = AddOptions::default();
    let mut rest = &words[2..];
    while let [word, tail @ ..] = rest {
        let option = match () {
            () if is(word, "nx") => &mut options.only_new,
            () if is(word, "xx") => &mut options.only_known,
            () if is(word, "ch") => &mut options.count_changed,
            () => break,
        };
        *option = true;
        rest = tail;
    }
    if rest.is_empty() || !rest.len().is_multiple_of(3) || options.only_new && options.only_known {
        return Err(CommandError::Syntax);
    }
    let members = rest.chunks_exact(3).map(|words| Ok((place(words)?.score(), words[2])));
    let members: Vec<(f64, &[u8])> = members.collect::<Result<_, CommandError>>()?;
    add(tx, words[1], options, &members)
}

/// `GEODIST key member1 member2 [unit]`
fn geodist<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let meters = match words[4..] {
        [] => 1.0,
        [word] => unit(word)?,
        _ => return Err(CommandError::Syntax),
    };
    let sorted = tx.sorted(words[1])?;
    let places = (place_of(sorted, words[2]), place_of(sorted, words[3]));
    let (Some(from), Some(to)) = places else { return Ok(Reply::Null) };
    Ok(distance_reply(distance(from, to) / meters))
}

/// `GEOHASH key [member …]`
fn geohash<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let sorted = tx.sorted(words[1])?;
    let texts = words[2..].iter().map(|member| place_of(sorted, member).map_or(Reply::Null, geohash_reply));
    Ok(Reply::Array(texts.collect()))
}

/// A place as geohash.org writes it. There latitudes go to the poles.
fn geohash_reply(place: Place) -> Reply<'static> {
    const LETTERS: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    /// Ten letters of five bits, of which 52 are known; the eleventh has always been there.
    const LETTER_BITS: u32 = 5;
    let bits = place.cell_of(LATITUDE_WHOLE, STEPS_MAX).bits();
    let letter = |nth: u32| LETTERS[(bits >> (2 * STEPS_MAX - nth * LETTER_BITS)) as usize % LETTERS.len()];
    let text: Vec<u8> = (1..=10).map(letter).chain(*b"0").collect();
    Reply::bulk(text)
}

/// `GEOPOS key [member …]`
fn geopos<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    let sorted = tx.sorted(words[1])?;
    let places =
        words[2..].iter().map(|member| place_of(sorted, member).map_or(Reply::NullArray, place_reply));
    Ok(Reply::Array(places.collect()))
}
