//! What operators and machines ask for: the HTTP side, counts, a look at a store at rest.

pub(crate) mod counts;
pub(crate) mod http;
pub mod inspect;
pub mod manual;
