//! The libraries of functions that a shard knows. They are replicated state, as scripts are: a library that was
//! loaded is known on every leader to come.
//!
//! A library is kept as its text, with what its text registered when it was loaded: so nothing of it has to be run to
//! know its functions, at followers not at all.
//!
//! INVARIANT: no two libraries have a function of the same name, in whatever case; who loads one sees to it.

use std::{collections::BTreeMap, sync::Arc};

use super::scripts::{Sha1, sha1};
use crate::script::Flags;

/// What is known of a function beside its name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Function {
    /// What it declares of itself, as [`Flags::bits`].
    pub flags: u8,
    /// What is told of it.
    pub description: Option<Box<[u8]>>,
}

impl Function {
    /// What it declares of itself.
    pub const fn flags(&self) -> Flags {
        Flags::from_bits(self.flags)
    }
}

/// A library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Library {
    code: Arc<[u8]>,
    sha: Sha1,
    functions: BTreeMap<Box<[u8]>, Function>,
}

impl Library {
    fn new(code: &[u8]) -> Self {
        Self { code: code.into(), sha: sha1(code), functions: BTreeMap::new() }
    }

    /// Its text, first line included.
    pub const fn code(&self) -> &Arc<[u8]> {
        &self.code
    }

    /// The SHA-1 of its text.
    pub const fn sha(&self) -> &Sha1 {
        &self.sha
    }

    /// Its functions by name.
    pub fn functions(&self) -> impl ExactSizeIterator<Item = (&[u8], &Function)> {
        self.functions.iter().map(|(name, function)| (&**name, function))
    }

    /// A function by its name, which may be in another case if none has it in this one.
    fn find(&self, name: &[u8]) -> Option<(&[u8], &Function)> {
        let exact = self.functions.get_key_value(name);
        let any = || self.functions.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        exact.or_else(any).map(|(name, function)| (&**name, function))
    }
}

/// A function that was looked for.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// The library that it is in.
    pub library: &'a Library,
    /// Its name as it was registered.
    pub name: &'a [u8],
    /// The rest of what is known of it.
    pub function: &'a Function,
}

/// The known libraries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Libraries {
    by_name: BTreeMap<Box<[u8]>, Library>,
    /// The library that each function is in, by the function's name in lower case.
    homes: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// Bytes of all texts.
    bytes: usize,
}

impl Libraries {
    /// A library by its name.
    pub fn get(&self, name: &[u8]) -> Option<&Library> {
        self.by_name.get(name)
    }

    /// A function by its name, in any case.
    pub fn function(&self, name: &[u8]) -> Option<Found<'_>> {
        let home = self.homes.get(&*name.to_ascii_lowercase())?;
        let library = self.by_name.get(home)?;
        library.find(name).map(|(name, function)| Found { library, name, function })
    }

    /// The library that has a function of this name, in any case.
    pub fn home(&self, function: &[u8]) -> Option<&[u8]> {
        self.homes.get(&*function.to_ascii_lowercase()).map(|home| &**home)
    }

    /// All libraries by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Library)> {
        self.by_name.iter().map(|(name, library)| (&**name, library))
    }

    /// How many libraries.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// How many functions are in all of them.
    pub fn function_count(&self) -> usize {
        self.by_name.values().map(|library| library.functions.len()).sum()
    }

    /// Bytes of all texts.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes a library known that has no functions yet. Returns the one that had its name.
    pub fn put(&mut self, name: &[u8], code: &[u8]) -> Option<Library> {
        self.replace(name, Some(Library::new(code)))
    }

    /// Makes `name` the name of this library, or of none. Returns the one that had it.
    pub fn replace(&mut self, name: &[u8], library: Option<Library>) -> Option<Library> {
        let before = self.by_name.remove(name);
        if let Some(before) = &before {
            self.bytes -= before.code.len();
            self.homes.retain(|_, home| **home != *name);
        }
        if let Some(library) = library {
            self.bytes += library.code.len();
            for function in library.functions.keys() {
                self.homes.insert(function.to_ascii_lowercase().into(), name.into());
            }
            self.by_name.insert(name.into(), library);
        }
        before
    }

    /// Makes a library, which is known, have this function, or not. Returns what it had of that name.
    pub fn replace_function(
        &mut self,
        library: &[u8],
        name: &[u8],
        function: Option<Function>,
    ) -> Option<Function> {
        let lower: Box<[u8]> = name.to_ascii_lowercase().into();
        let known = self.by_name.get_mut(library).expect("a function's library is known");
        let before = match function {
            Some(function) => known.functions.insert(name.into(), function),
            None => known.functions.remove(name),
        };
        match known.find(name) {
            Some(_) => drop(self.homes.insert(lower, library.into())),
            // It may have moved to another library by now.
            None if self.homes.get(&lower).is_some_and(|home| **home == *library) => {
                self.homes.remove(&lower);
            }
            None => {}
        }
        before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_is_found_in_any_case_as_long_as_its_library_has_it() {
        let mut libraries = Libraries::default();
        let function = |flags| Some(Function { flags, description: None });
        libraries.put(b"a", b"code");
        libraries.replace_function(b"a", b"F", function(1));
        libraries.replace_function(b"a", b"f", function(2));
        let flags = |libraries: &Libraries, name: &[u8]| libraries.function(name).map(|it| it.function.flags);
        assert_eq!(flags(&libraries, b"F"), Some(1));
        assert_eq!(flags(&libraries, b"f"), Some(2));
        assert_eq!(
            (libraries.bytes(), libraries.function_count(), libraries.home(b"F")),
            (4, 2, Some(&b"a"[..]))
        );
        libraries.replace_function(b"a", b"f", None);
        assert_eq!(flags(&libraries, b"f"), Some(1));
        let before = libraries.put(b"a", b"other code");
        assert_eq!((flags(&libraries, b"f"), libraries.bytes()), (None, 10));
        libraries.replace(b"a", before);
        assert_eq!((flags(&libraries, b"f"), libraries.bytes()), (Some(1), 4));
        libraries.replace(b"a", None);
        assert_eq!(libraries, Libraries::default());
    }

    #[test]
    fn a_function_that_moved_is_still_found_when_what_it_left_loses_it() {
        let mut libraries = Libraries::default();
        let function = || Some(Function { flags: 0, description: None });
        libraries.put(b"a", b"code");
        libraries.put(b"b", b"code");
        libraries.replace_function(b"a", b"f", function());
        libraries.replace_function(b"b", b"f", function());
        libraries.replace_function(b"a", b"f", None);
        assert_eq!(libraries.home(b"f"), Some(&b"b"[..]));
    }
}
