//! RocketMQ's remoting protocol, for servers and clients.
//!
//! [`frame`] cuts the byte stream, [`command`] reads and writes the head of a frame in both of its
//! forms, [`header`] holds the typed fields of each request, [`body`] the JSON bodies; none of
//! these does I/O. [`net`] runs them over tokio.

#![forbid(unsafe_code)]

pub mod body;
pub mod codes;
pub mod command;
pub mod dialect;
pub mod frame;
pub mod header;
pub mod net;
pub mod resource_name;

pub use codes::{Code, RequestCode, ResponseCode};
pub use command::{Command, Head, SerializeType};
pub use resource_name::ResourceName;
