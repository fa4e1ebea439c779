//! `CLIENT TRACKING`: a client keeps copies of what it reads, and is told to forget them.
//!
//! Here is what it asks for; who is told what is the shard's (`shard::tracking`).

use std::collections::BTreeSet;

use bytes::Bytes;
use moonraft_proto::Reply;

use super::{
    super::{
        Client, CommandError, Outcome,
        arguments::{integer, is},
        session::{Copies, Session, Tracking},
    },
    switch,
};
use crate::subscriptions::SessionId;

/// Prefixes of one client: each is compared with all others.
const PREFIXES_MAX: usize = 1_000;

/// What is asked for.
#[derive(Default)]
struct Options {
    redirect: Option<(SessionId, u64)>,
    broadcast: bool,
    opt_in: bool,
    opt_out: bool,
    no_loop: bool,
    prefixes: Vec<Bytes>,
}

impl Options {
    fn read(client: &dyn Client, words: &[&[u8]]) -> Result<Self, CommandError> {
        let mut options = Self::default();
        let mut rest = words;
        loop {
            rest = match rest {
                [] => return Ok(options),
                [option, number, rest @ ..] if is(option, "redirect") => {
                    options.set_redirect(client, number)?;
                    rest
                }
                [option, prefix, rest @ ..] if is(option, "prefix") => {
                    options.prefixes.push(Bytes::copy_from_slice(prefix));
                    rest
                }
                [option, rest @ ..] => {
                    let field = match () {
                        () if is(option, "bcast") => &mut options.broadcast,
                        () if is(option, "optin") => &mut options.opt_in,
                        () if is(option, "optout") => &mut options.opt_out,
                        () if is(option, "noloop") => &mut options.no_loop,
                        () => return Err(CommandError::Syntax),
                    };
                    *field = true;
                    rest
                }
            };
        }
    }

    /// Who hears of changes in the client's place: it must be there now.
    fn set_redirect(&mut self, client: &dyn Client, number: &[u8]) -> Result<(), CommandError> {
        const TWO: CommandError =
            CommandError::text("ERR A client can only redirect to a single other client");
        const GONE: CommandError =
            CommandError::text("ERR The client ID you want redirect to does not exist");
        if self.redirect.is_some() {
            return Err(TWO);
        }
        let number = u64::try_from(integer(number)?).map_err(|_| GONE)?;
        let id = client.sessions().find(|(_, session)| session.number == number).map(|(id, _)| id);
        self.redirect = Some((id.ok_or(GONE)?, number));
        Ok(())
    }

    /// Checks what goes together, and with what there is, in Redis's order.
    fn check(&self, before: Option<&Tracking>) -> Result<(), CommandError> {
        let was = |copies: Copies| before.is_some_and(|before| before.copies == copies);
        let error = match () {
            () if !self.broadcast && !self.prefixes.is_empty() => {
                "ERR PREFIX option requires BCAST mode to be enabled"
            }
            () if before.is_some() && was(Copies::Broadcast) != self.broadcast => {
                "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode."
            }
            () if self.broadcast && (self.opt_in || self.opt_out) => {
                "ERR OPTIN and OPTOUT are not compatible with BCAST"
            }
            () if self.opt_in && self.opt_out => "ERR You can't specify both OPTIN mode and OPTOUT mode",
            () if self.opt_in && was(Copies::OptOut) || self.opt_out && was(Copies::OptIn) => {
                "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode."
            }
            () => return self.check_prefixes(before),
        };
        Err(CommandError::text(error))
    }

    /// No key may begin in two of the ways: its client would be told twice.
    fn check_prefixes(&self, before: Option<&Tracking>) -> Result<(), CommandError> {
        if self.prefixes.len() + before.map_or(0, |before| before.prefixes.len()) > PREFIXES_MAX {
            return Err(CommandError::text("ERR too many prefixes"));
        }
        let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
        for (at, prefix) in self.prefixes.iter().enumerate() {
            let mut known = before.into_iter().flat_map(|before| &before.prefixes);
            let existing = known.find(|other| overlap(other, prefix));
            let provided = self.prefixes[at + 1..].iter().find(|other| overlap(prefix, other));
            let (kind, other) = match (existing, provided) {
                (Some(other), _) => ("an existing", other),
                (None, Some(other)) => ("another provided", other),
                (None, None) => continue,
            };
            let shown = String::from_utf8_lossy;
            let text = format!(
                "ERR Prefix '{}' overlaps with {kind} prefix '{}'. Prefixes for a single client must not overlap.",
                shown(prefix),
                shown(other)
            );
            return Err(CommandError::Text(text.into()));
        }
        Ok(())
    }

    fn tracking(self, before: Option<&Tracking>) -> Tracking {
        let copies = match () {
            () if self.broadcast => Copies::Broadcast,
            () if self.opt_in => Copies::OptIn,
            () if self.opt_out => Copies::OptOut,
            () => Copies::All,
        };
        let mut prefixes: BTreeSet<Bytes> = before.map_or(BTreeSet::new(), |before| before.prefixes.clone());
        if self.broadcast && self.prefixes.is_empty() {
            prefixes.insert(Bytes::new());
        }
        prefixes.extend(self.prefixes);
        let caching = before.is_some_and(|before| before.caching);
        let Self { redirect, no_loop, .. } = self;
        Tracking { copies, no_loop, redirect, prefixes, caching, is_broken: false }
    }
}

/// `CLIENT TRACKING ON | OFF [REDIRECT id] [PREFIX prefix …] [BCAST] [OPTIN] [OPTOUT] [NOLOOP]`
pub(super) fn tracking(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    let options = Options::read(client, &words[3..])?;
    let tracking = match switch(words[2])? {
        false => None,
        true => {
            let before = client.session().tracking.as_deref();
            options.check(before)?;
            Some(options.tracking(before))
        }
    };

    client.track(tracking);
    Ok(Reply::OK)
}

/// `CLIENT CACHING YES | NO`
pub(super) fn caching(client: &mut dyn Client, words: &[&[u8]]) -> Outcome<'static> {
    const OFF: CommandError = CommandError::text(
        "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
    );
    let tracking = client.session_mut().tracking.as_deref_mut().ok_or(OFF)?;
    let (copies, refusal) = match () {
        () if is(words[2], "yes") => {
            (Copies::OptIn, "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.")
        }
        () if is(words[2], "no") => {
            (Copies::OptOut, "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.")
        }
        () => return Err(CommandError::Syntax),
    };
    if tracking.copies != copies {
        return Err(CommandError::text(refusal));
    }

    tracking.caching = true;
    Ok(Reply::OK)
}

/// Who hears of changes in a client's place: 0 for nobody, -1 if it keeps no copies.
pub(super) fn redirect_of(session: &Session) -> i64 {
    let redirect = |tracking: &Tracking| tracking.redirect.map_or(0, |(_, number)| number as i64);
    session.tracking.as_deref().map_or(-1, redirect)
}

/// `CLIENT GETREDIR`
pub(super) fn getredir(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    Ok(Reply::Int(redirect_of(client.session())))
}

/// `CLIENT TRACKINGINFO`
pub(super) fn trackinginfo(client: &mut dyn Client, _: &[&[u8]]) -> Outcome<'static> {
    let session = client.session();
    let tracking = session.tracking.as_deref();
    let flags = match tracking {
        None => vec!["off"],
        Some(tracking) => flags(tracking),
    };
    let prefixes = tracking.into_iter().flat_map(|tracking| &tracking.prefixes);
    Ok(Reply::Map(vec![
        (Reply::text("flags"), Reply::Set(flags.into_iter().map(Reply::text).collect())),
        (Reply::text("redirect"), Reply::Int(redirect_of(session))),
        (
            Reply::text("prefixes"),
            Reply::Array(prefixes.map(|prefix| Reply::bulk(prefix.to_vec())).collect()),
        ),
    ]))
}

fn flags(tracking: &Tracking) -> Vec<&'static str> {
    let (opts_in, opts_out) = (tracking.copies == Copies::OptIn, tracking.copies == Copies::OptOut);
    let all = [
        ("on", true),
        ("bcast", tracking.copies == Copies::Broadcast),
        ("optin", opts_in),
        ("caching-yes", opts_in && tracking.caching),
        ("optout", opts_out),
        ("caching-no", opts_out && tracking.caching),
        ("noloop", tracking.no_loop),
        ("broken_redirect", tracking.is_broken),
    ];
    all.into_iter().filter(|(_, is_so)| *is_so).map(|(flag, _)| flag).collect()
}
