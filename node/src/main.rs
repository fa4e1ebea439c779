//! The server: binary `moonraft`.
fn main() {}
