//! Where compiled chunks lie: in a table of Lua's.
//!
//! mlua has 8,000 places for all that Rust holds of Lua at a time, arguments of calls
//! among them. A chunk that had one of these would take it for as long as it is kept.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::{Function, Lua, Table};

/// See the module.
pub(super) struct Shelf {
    table: Table,
    /// Places that are empty.
    free: RefCell<Vec<usize>>,
    /// Places that were given back, and are not empty yet.
    returned: RefCell<Vec<usize>>,
}

/// A chunk's place, given back when nobody holds it any more.
pub(super) struct Place {
    shelf: Rc<Shelf>,
    index: usize,
}

impl Shelf {
    pub fn new(lua: &Lua) -> mlua::Result<Rc<Self>> {
        Ok(Rc::new(Self {
            table: lua.create_table()?,
            free: RefCell::default(),
            returned: RefCell::default(),
        }))
    }

    /// Lays a function down.
    pub fn put(self: &Rc<Self>, function: Function) -> mlua::Result<Place> {
        self.tidy()?;
        let index = self.free.borrow_mut().pop().unwrap_or_else(|| self.table.raw_len() + 1);
        self.table.raw_set(index, function)?;
        Ok(Place { shelf: Rc::clone(self), index })
    }

    /// Empties what was given back.
    pub fn tidy(&self) -> mlua::Result<()> {
        for index in self.returned.take() {
            // Not nil: the length stays what it is.
            self.table.raw_set(index, false)?;
            self.free.borrow_mut().push(index);
        }
        Ok(())
    }
}

impl Place {
    /// The function that lies here.
    pub fn function(&self) -> mlua::Result<Function> {
        self.shelf.table.raw_get(self.index)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shelf.returned.borrow_mut().push(self.index);
    }
}
