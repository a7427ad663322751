//! State machines to replicate: [`Null`], which echoes, and [`Kv`], an ordered map of bytes to bytes.

#![forbid(unsafe_code)]

pub mod kv;
pub mod null;

pub use kv::{Compare, Kv, KvOp, KvResult, KvTxn, TxnResult};
pub use null::Null;
