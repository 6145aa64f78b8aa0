//! The JSON bodies of RocketMQ's remoting protocol, one file per family.
//!
//! Every type implements [`Body`]: it reads strict JSON and fastjson's dialect, and writes
//! fastjson's (see `writer.rs` for why). Fields are declared in alphabetical order of their Java
//! names, so that our bytes are Apache's. Unknown fields are ignored, missing ones have the value
//! of the Java class' initialiser, and null is zero, false or empty.
//!
//! Where Java has a null name, ours is the empty text, which is left out when written; a field
//! whose absence means something of its own is an `Option`. Names of topics and groups stay
//! `String`: whoever acts on one makes it a [`crate::ResourceName`] first.
//!
//! Used by the name server, the broker and the client. Nothing here does I/O.

pub mod client;
pub mod cluster;
pub mod connection;
pub mod data_version;
pub mod group;
pub mod heartbeat;
pub mod kv;
pub mod lock;
pub mod offset;
pub(crate) mod reader;
pub mod register;
pub mod replication;
pub mod route;
pub mod running;
pub mod static_topic;
pub mod stats;
pub mod topic;
pub(crate) mod writer;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::dialect::DialectError;

pub use client::*;
pub use cluster::*;
pub use connection::*;
pub use data_version::*;
pub use group::*;
pub use heartbeat::*;
pub use kv::*;
pub use lock::*;
pub use offset::*;
pub use register::*;
pub use replication::*;
pub use route::*;
pub use running::*;
pub use static_topic::*;
pub use stats::*;
pub use topic::*;

/// Something that is a command's whole body. Source: `RemotingSerializable`.
pub trait Body: Serialize + DeserializeOwned {
    /// Reads a body in strict JSON or in fastjson's dialect.
    ///
    /// # Errors
    /// [`BodyError::Dialect`] or [`BodyError::Shape`]; both are the peer's fault. No bytes at all
    /// are an error too, where Apache's decoder answers null.
    fn decode(bytes: &[u8]) -> Result<Self, BodyError> {
        reader::from_slice(bytes)
    }

    /// Writes the body as Apache's classes write and read it: compact, without nulls, integer
    /// keys bare and object keys as objects.
    fn encode(&self) -> Vec<u8> {
        writer::to_vec(self, writer::Form::Fastjson)
    }

    /// Writes the body as strict JSON: integer keys are quoted, object keys are quoted texts.
    /// For people and for files of our own; Apache's classes cannot read the latter.
    fn encode_strict(&self) -> Vec<u8> {
        writer::to_vec(self, writer::Form::Strict)
    }
}

/// Why a body cannot be read. All of it is the sender's fault; the connection may live on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// Not JSON, not even fastjson's.
    #[error("body: {0}")]
    Dialect(#[from] DialectError),
    /// JSON, but not of this body's shape.
    #[error("body is no {body}: {detail}")]
    Shape { body: &'static str, detail: String },
    /// The deflate stream of a compressed body is damaged.
    #[error("compressed body cannot be inflated")]
    Inflate,
    /// A compressed body is larger inside than anything we would read.
    #[error("compressed body inflates to more than {limit} bytes")]
    TooLarge { limit: usize },
    /// A length or a count inside a compressed body points past its end.
    #[error("compressed body ends inside its {part}")]
    Truncated { part: &'static str },
    /// A topic's text form is not `name read write perm filterType [attributes]`.
    #[error("topic config is malformed: {text}")]
    TopicText { text: String },
}

/// Marks the types that travel as whole bodies.
macro_rules! bodies {
    ($($body:ty),* $(,)?) => {
        $(impl crate::body::Body for $body {})*
    };
}
pub(crate) use bodies;
