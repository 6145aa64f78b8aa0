//! The typed fields of each request and response, decoded straight from the header's bytes.
//!
//! Field names on the wire are Apache's; each struct's document comment names the request code. A
//! field that Apache marks as `CFNotNull` is required here too.

mod admin;
mod field;
mod group;
mod message;
mod name_server;
mod offset;
mod pull;
mod send;

pub use admin::*;
pub use field::{Field, Header, HeaderError};
pub use group::*;
pub use message::*;
pub use name_server::*;
pub use offset::*;
pub use pull::*;
pub use send::*;
