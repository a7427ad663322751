//! Client library: sessions, retries and deadlines.
//!
//! [`Session`] is the client's half of the protocol without I/O or clock; [`Client`] runs one over UDP on smol. Every
//! request ends, at its deadline at the latest, and an error says whether the operation may have been executed.

#![forbid(unsafe_code)]

mod client;
mod error;
pub mod session;

pub use client::{Client, ConnectError, Options};
pub use error::RequestError;
pub use session::Session;
