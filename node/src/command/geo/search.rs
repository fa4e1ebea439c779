//! Searching: `GEOSEARCH`, `GEORADIUS` and their kin. They differ in what they ask for and how, which a [`Form`]
//! says; the rest is the same.

use moonraft_proto::Reply;

use super::{
    super::{
        CommandError, Outcome, Request,
        arguments::{integer, is, parse_float, room_for},
        zset::range::store,
    },
    cell::{Cell, Place, signed},
    distance_reply, place, place_of, place_reply,
    shape::Shape,
    unit,
};
use crate::keyspace::{Blob, Keyspace, SortedSet, Tx, Value};

/// Where the middle and the shape of a search are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// `longitude latitude radius unit`, then options.
    Place,
    /// `member radius unit`, then options.
    Member,
    /// In options.
    Options,
}

/// What a command leaves to its words.
#[derive(Clone, Copy)]
pub struct Form {
    told: Told,
    /// `STORE key` and `STOREDIST key` are options.
    may_store: bool,
    /// The first key is where the result goes.
    stores: bool,
}

impl Form {
    /// `GEORADIUS`
    pub const RADIUS: Form = Form { told: Told::Place, may_store: true, stores: false };
    /// `GEORADIUS_RO`
    pub const RADIUS_RO: Form = Form { may_store: false, ..Self::RADIUS };
    /// `GEORADIUSBYMEMBER`
    pub const BY_MEMBER: Form = Form { told: Told::Member, ..Self::RADIUS };
    /// `GEORADIUSBYMEMBER_RO`
    pub const BY_MEMBER_RO: Form = Form { told: Told::Member, ..Self::RADIUS_RO };
    /// `GEOSEARCH`
    pub const SEARCH: Form = Form { told: Told::Options, ..Self::RADIUS_RO };
    /// `GEOSEARCHSTORE`
    pub const SEARCH_STORE: Form = Form { stores: true, ..Self::SEARCH };

    /// The event of a result that is stored.
    const fn event(self) -> &'static str {
        if self.stores { "geosearchstore" } else { "georadiusstore" }
    }

    /// The key that is searched.
    fn source<'a>(self, words: &[&'a [u8]]) -> &'a [u8] {
        if self.stores { words[2] } else { words[1] }
    }
}

/// `GEORADIUS key longitude latitude radius unit [option …]`
pub fn georadius<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    run(tx, words, Form::RADIUS)
}

/// `GEORADIUS_RO key longitude latitude radius unit [option …]`
pub fn georadius_ro<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    look(tx, words, Form::RADIUS_RO)
}

/// `GEORADIUSBYMEMBER key member radius unit [option …]`
pub fn georadiusbymember<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    run(tx, words, Form::BY_MEMBER)
}

/// `GEORADIUSBYMEMBER_RO key member radius unit [option …]`
pub fn georadiusbymember_ro<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    look(tx, words, Form::BY_MEMBER_RO)
}

/// `GEOSEARCH key FROMMEMBER member | FROMLONLAT longitude latitude BYRADIUS radius unit | BYBOX width height unit
/// [ASC | DESC] [COUNT count [ANY]] [WITHCOORD] [WITHDIST] [WITHHASH]`
pub fn geosearch<'a>(tx: &'a Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    look(tx, words, Form::SEARCH)
}

/// `GEOSEARCHSTORE destination source FROMMEMBER … [STOREDIST]`
pub fn geosearchstore<'a>(tx: &mut Tx, words: &[&'a [u8]]) -> Outcome<'a> {
    run(tx, words, Form::SEARCH_STORE)
}

/// How many members a search looks at: those of the cells.
pub fn work(keyspace: &Keyspace, request: &Request<'_>, form: Form) -> usize {
    /// To find out costs as much as to look at some hundreds.
    const FEW: usize = 1_000;
    let Some(Value::Sorted(sorted)) = keyspace.get(form.source(request.words)).map(|object| &object.value)
    else {
        return 0;
    };
    if sorted.len() < FEW {
        return sorted.len();
    }
    let query = Query::read(form, request.words, Some(sorted)).ok();
    let cells = query.and_then(|query| query.cells()).unwrap_or_default();
    let members = |cell: Cell| {
        let scores = cell.scores();
        let [first, end] =
            [scores.start, scores.end].map(|bound| sorted.position_of_score(|score| score < bound));
        end - first
    };
    cells.into_iter().map(members).sum()
}

/// Answers what is found.
fn look<'a>(tx: &'a Tx, words: &[&'a [u8]], form: Form) -> Outcome<'a> {
    let sorted = tx.sorted(words[1])?;
    let query = Query::read(form, words, sorted)?;
    query.reply(tx, &query.find(sorted))
}

/// Answers what is found, or stores it.
fn run<'a>(tx: &mut Tx, words: &[&'a [u8]], form: Form) -> Outcome<'a> {
    tx.tell_misses([form.source(words)]);
    let sorted = tx.sorted(form.source(words))?;
    let query = Query::read(form, words, sorted)?;
    let found = query.find(sorted);
    let Some(Destination { key, distances }) = query.destination else {
        return query.reply(tx, &found).map(Reply::into_owned);
    };

    let score = |found: &Found<'_>| if distances { found.distance / query.meters } else { found.score };
    let pairs: Vec<(f64, Blob)> = found.iter().map(|found| (score(found), Blob::new(found.member))).collect();
    store(tx, key, &pairs, form.event());
    Ok(Reply::count(pairs.len()))
}

/// Where the result goes.
#[derive(Clone, Copy)]
struct Destination<'a> {
    key: &'a [u8],
    /// The scores are distances, not places.
    distances: bool,
}

/// What the middle of a search is.
#[derive(Clone, Copy)]
enum Middle {
    Place(Place),
    /// A member of a set that is not there.
    OfNothing,
}

/// See [`Query::shape`]; in the unit that the request names.
#[derive(Clone, Copy)]
enum Extent {
    Radius(f64),
    Sides(f64, f64),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Ascending,
    Descending,
}

/// A search.
struct Query<'a> {
    middle: Option<(Middle, From)>,
    extent: Option<Extent>,
    /// Meters of the unit.
    meters: f64,
    with_distance: bool,
    with_hash: bool,
    with_place: bool,
    order: Option<Order>,
    count: Option<usize>,
    /// Any so many that are inside will do.
    any: bool,
    destination: Option<Destination<'a>>,
}

/// Which option named the middle.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Member,
    Place,
}

/// Something inside.
struct Found<'t> {
    member: &'t [u8],
    place: Place,
    distance: f64,
    score: f64,
}

impl<'a> Query<'a> {
    /// Reads a request. `sorted` is where members are.
    fn read(form: Form, words: &[&'a [u8]], sorted: Option<&SortedSet>) -> Result<Self, CommandError> {
        let mut query = Query {
            middle: None,
            extent: None,
            meters: 1.0,
            with_distance: false,
            with_hash: false,
            with_place: false,
            order: None,
            count: None,
            any: false,
            destination: form.stores.then(|| Destination { key: words[1], distances: false }),
        };
        let options = match form.told {
            Told::Place => {
                query.middle = Some((Middle::Place(place(&words[2..4])?), From::Place));
                query.read_radius(&words[4..6])?;
                &words[6..]
            }
            Told::Member => {
                query.read_member(words[2], sorted)?;
                // Of a set that is not there nothing is asked, only the options are looked at.
                if sorted.is_some() {
                    query.read_radius(&words[3..5])?;
                }
                &words[5..]
            }
            Told::Options => &words[if form.stores { 3 } else { 2 }..],
        };
        query.read_options(form, options, sorted)?;
        query.check(form, words[0])?;
        Ok(query)
    }

    fn read_radius(&mut self, words: &[&[u8]]) -> Result<(), CommandError> {
        let radius = length(words[0], "ERR need numeric radius")?;
        if radius < 0.0 {
            return Err(CommandError::text("ERR radius cannot be negative"));
        }
        self.meters = unit(words[1])?;
        self.extent = Some(Extent::Radius(radius));
        Ok(())
    }

    fn read_box(&mut self, words: &[&[u8]]) -> Result<(), CommandError> {
        let width = length(words[0], "ERR need numeric width")?;
        let height = length(words[1], "ERR need numeric height")?;
        if width < 0.0 || height < 0.0 {
            return Err(CommandError::text("ERR height or width cannot be negative"));
        }
        self.meters = unit(words[2])?;
        self.extent = Some(Extent::Sides(width, height));
        Ok(())
    }

    fn read_member(&mut self, member: &[u8], sorted: Option<&SortedSet>) -> Result<(), CommandError> {
        const UNKNOWN: CommandError = CommandError::text("ERR could not decode requested zset member");
        let middle = match (sorted, place_of(sorted, member)) {
            (None, _) => Middle::OfNothing,
            (Some(_), place) => Middle::Place(place.ok_or(UNKNOWN)?),
        };
        self.middle = Some((middle, From::Member));
        Ok(())
    }

    fn read_options(
        &mut self,
        form: Form,
        options: &[&'a [u8]],
        sorted: Option<&SortedSet>,
    ) -> Result<(), CommandError> {
        let mut rest = options;
        while let [word, tail @ ..] = rest {
            let taken = match () {
                () if self.read_plain(word) => 0,
                () if is(word, "count") && !tail.is_empty() => {
                    let count = integer(tail[0])?;
                    let count = usize::try_from(count).ok().filter(|&count| count > 0);
                    self.count = Some(count.ok_or(CommandError::text("ERR COUNT must be > 0"))?);
                    1
                }
                () if form.may_store && is(word, "store") && !tail.is_empty() => {
                    self.destination = Some(Destination { key: tail[0], distances: false });
                    1
                }
                () if form.may_store && is(word, "storedist") && !tail.is_empty() => {
                    self.destination = Some(Destination { key: tail[0], distances: true });
                    1
                }
                () if form.told == Told::Options => self.read_of_search(form, word, tail, sorted)?,
                () => return Err(CommandError::Syntax),
            };
            rest = &tail[taken..];
        }
        Ok(())
    }

    /// Takes an option that is one word. Returns whether it is one.
    fn read_plain(&mut self, word: &[u8]) -> bool {
        match () {
            () if is(word, "withdist") => self.with_distance = true,
            () if is(word, "withhash") => self.with_hash = true,
            () if is(word, "withcoord") => self.with_place = true,
            () if is(word, "any") => self.any = true,
            () if is(word, "asc") => self.order = Some(Order::Ascending),
            () if is(word, "desc") => self.order = Some(Order::Descending),
            () => return false,
        }
        true
    }

    /// Takes an option that only `GEOSEARCH` has, with its words in `tail`. Returns how many it took.
    fn read_of_search(
        &mut self,
        form: Form,
        word: &[u8],
        tail: &[&[u8]],
        sorted: Option<&SortedSet>,
    ) -> Result<usize, CommandError> {
        let from = self.middle.map(|(_, from)| from);
        let count = tail.len();
        match () {
            () if is(word, "frommember") && count >= 1 && from != Some(From::Place) => {
                self.read_member(tail[0], sorted)?;
                Ok(1)
            }
            () if is(word, "fromlonlat") && count >= 2 && from != Some(From::Member) => {
                self.middle = Some((Middle::Place(place(tail)?), From::Place));
                Ok(2)
            }
            () if is(word, "byradius") && count >= 2 && !matches!(self.extent, Some(Extent::Sides(..))) => {
                self.read_radius(tail)?;
                Ok(2)
            }
            () if is(word, "bybox") && count >= 3 && !matches!(self.extent, Some(Extent::Radius(_))) => {
                self.read_box(tail)?;
                Ok(3)
            }
            () if form.stores && is(word, "storedist") => {
                self.destination = self.destination.map(|to| Destination { distances: true, ..to });
                Ok(0)
            }
            () => Err(CommandError::Syntax),
        }
    }

    /// Refuses options that do not go together.
    fn check(&self, form: Form, name: &[u8]) -> Result<(), CommandError> {
        let with = self.with_distance || self.with_hash || self.with_place;
        if self.destination.is_some() && with {
            return Err(CommandError::text(match form.stores {
                true => "ERR GEOSEARCHSTORE is not compatible with WITHDIST, WITHHASH and WITHCOORD options",
                false => {
                    "ERR STORE option in GEORADIUS is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
                }
            }));
        }
        let missing = |what: &str| {
            CommandError::about(&format!("ERR exactly one of {what} can be specified for "), name, "")
        };
        if self.middle.is_none() {
            return Err(missing("FROMMEMBER or FROMLONLAT"));
        }
        if form.told == Told::Options && self.extent.is_none() {
            return Err(missing("BYRADIUS and BYBOX"));
        }
        if self.any && self.count.is_none() {
            return Err(CommandError::text("ERR the ANY argument requires COUNT argument"));
        }
        Ok(())
    }

    /// What is searched.
    fn shape(&self) -> Option<Shape> {
        Some(match self.extent? {
            Extent::Radius(radius) => Shape::Circle { radius: radius * self.meters },
            Extent::Sides(width, height) => {
                Shape::Box { width: width * self.meters, height: height * self.meters }
            }
        })
    }

    /// The cells that cover what is searched.
    fn cells(&self) -> Option<Vec<Cell>> {
        match self.middle? {
            (Middle::Place(middle), _) => Some(self.shape()?.cells(middle)),
            (Middle::OfNothing, _) => None,
        }
    }

    /// What is inside, in order, and no more than asked for.
    fn find<'t>(&self, sorted: Option<&'t SortedSet>) -> Vec<Found<'t>> {
        let (Some(sorted), Some((Middle::Place(middle), _)), Some(shape)) =
            (sorted, self.middle, self.shape())
        else {
            return Vec::new();
        };
        let inside = shape.cells(middle).into_iter().flat_map(|cell| {
            let scores = cell.scores();
            let first = sorted.position_of_score(|score| score < scores.start);
            let members = sorted.range(first, sorted.len());
            members.take_while(move |(_, score)| *score < scores.end)
        });
        let inside = inside.filter_map(|(member, score)| {
            let place = Place::of_score(score);
            let distance = shape.distance(middle, place)?;
            Some(Found { member, place, distance, score })
        });
        let count = self.count.unwrap_or(usize::MAX);
        let mut found: Vec<Found<'t>> = inside.take(if self.any { count } else { usize::MAX }).collect();
        // The nearest are meant, unless any will do.
        let order = self.order.or((self.count.is_some() && !self.any).then_some(Order::Ascending));
        match order {
            Some(Order::Ascending) => found.sort_by(|one, other| one.distance.total_cmp(&other.distance)),
            Some(Order::Descending) => found.sort_by(|one, other| other.distance.total_cmp(&one.distance)),
            None => {}
        }
        found.truncate(count);
        found
    }

    /// What was found as a reply.
    fn reply<'t>(&self, tx: &Tx, found: &[Found<'t>]) -> Outcome<'t> {
        // A place is an array of two.
        let more = usize::from(self.with_distance) + usize::from(self.with_hash);
        let parts = 1 + more + 3 * usize::from(self.with_place);
        room_for(tx, found.len().saturating_mul(parts + usize::from(parts > 1)))?;
        let told = |found: &Found<'t>| {
            let member = Reply::bulk(found.member);
            if parts == 1 {
                return member;
            }
            let distance = self.with_distance.then(|| distance_reply(found.distance / self.meters));
            let hash = self.with_hash.then(|| Reply::Int(signed(found.score)));
            let place = self.with_place.then(|| place_reply(found.place));
            Reply::Array([Some(member), distance, hash, place].into_iter().flatten().collect())
        };
        Ok(Reply::Array(found.iter().map(told).collect()))
    }
}

/// A length, or this error.
fn length(word: &[u8], refusal: &'static str) -> Result<f64, CommandError> {
    parse_float(word).ok_or(CommandError::text(refusal))
}
