//! The first line of a script: `#!lua flags=no-writes,allow-stale`.
//!
//! Source: `evalExtractShebangFlags` of Redis 7.0 (eval.c), whose error texts these are.

use moonraft_proto::Text;

use super::arguments::until_zero;

/// What a script says of itself. Who runs it enforces it; the engine does not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The script has no such line: Redis then guesses its rights from what it calls.
    pub undeclared: bool,
    /// `no-writes`
    pub no_writes: bool,
    /// `allow-oom`
    pub allow_oom: bool,
    /// `allow-stale`
    pub allow_stale: bool,
    /// `no-cluster`
    pub no_cluster: bool,
    /// `allow-cross-slot-keys`
    pub allow_cross_slot_keys: bool,
}

/// A script's flags and where its code begins: at the line end of the first
/// line, so that line numbers stay those of the text.
pub(super) fn parse(text: &[u8]) -> Result<(Flags, usize), Text<'static>> {
    if !text.starts_with(b"#!") {
        return Ok((Flags { undeclared: true, ..Flags::default() }, 0));
    }
    let end = memchr::memchr(b'\n', text).ok_or("ERR Invalid script shebang")?;
    let mut words = text[..end].split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let refused = |why: &str, word| Text::joined(&[b"ERR ", why.as_bytes(), b": ", until_zero(word)]);
    let engine = words.next().unwrap_or_default();
    if engine != b"#!lua" {
        return Err(refused("Unexpected engine in script shebang", engine));
    }
    let mut flags = Flags::default();
    for word in words {
        let list = word.strip_prefix(b"flags=");
        let list = list.ok_or_else(|| refused("Unknown lua shebang option", word))?;
        for name in list.split(|&byte| byte == b',').filter(|_| !list.is_empty()) {
            let flag = flag(&mut flags, name);
            *flag.ok_or_else(|| refused("Unexpected flag in script shebang", name))? = true;
        }
    }
    Ok((flags, end))
}

impl Flags {
    /// Names, in the order in which Redis tells them.
    const NAMES: [&'static str; 5] =
        ["no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys"];

    const fn all(&self) -> [bool; 5] {
        [self.no_writes, self.allow_oom, self.allow_stale, self.no_cluster, self.allow_cross_slot_keys]
    }

    /// What is declared, as bits.
    pub fn bits(&self) -> u8 {
        self.all().iter().rev().fold(0, |bits, &is_set| bits << 1 | u8::from(is_set))
    }

    /// The flags that [`Flags::bits`] gave.
    pub const fn from_bits(bits: u8) -> Self {
        Self {
            undeclared: false,
            no_writes: bits & 1 != 0,
            allow_oom: bits & 2 != 0,
            allow_stale: bits & 4 != 0,
            no_cluster: bits & 8 != 0,
            allow_cross_slot_keys: bits & 16 != 0,
        }
    }

    /// The names of what is declared.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.into_iter().zip(self.all()).filter(|(_, is_set)| *is_set).map(|(name, _)| name)
    }

    /// Declares what has this name, in any case. Returns whether there is one.
    pub(super) fn declare(&mut self, name: &[u8]) -> bool {
        flag(self, &name.to_ascii_lowercase()).map(|flag| *flag = true).is_some()
    }
}

fn flag<'a>(flags: &'a mut Flags, name: &[u8]) -> Option<&'a mut bool> {
    match name {
        b"no-writes" => Some(&mut flags.no_writes),
        b"allow-oom" => Some(&mut flags.allow_oom),
        b"allow-stale" => Some(&mut flags.allow_stale),
        b"no-cluster" => Some(&mut flags.no_cluster),
        b"allow-cross-slot-keys" => Some(&mut flags.allow_cross_slot_keys),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_say_what_was_declared() {
        for bits in 0..32 {
            assert_eq!(Flags::from_bits(bits).bits(), bits);
        }
        let mut flags = Flags::default();
        assert!(flags.declare(b"Allow-OOM") && flags.declare(b"no-cluster") && !flags.declare(b"else"));
        assert_eq!(flags.names().collect::<Vec<_>>(), ["allow-oom", "no-cluster"]);
        assert_eq!(Flags::from_bits(flags.bits()), flags);
    }

    #[test]
    fn flags_are_read_and_the_line_end_stays() {
        let (flags, start) = parse(b"#!lua flags=no-writes,allow-oom\nreturn 1").unwrap();
        assert!(flags.no_writes && flags.allow_oom && !flags.undeclared && !flags.no_cluster);
        assert_eq!(start, 31);
        assert!(parse(b"return 1").unwrap().0.undeclared);
        let refused = parse(b"#!lua flags=\xff\n").unwrap_err();
        assert_eq!(*refused, *b"ERR Unexpected flag in script shebang: \xff");
    }
}
