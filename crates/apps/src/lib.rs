//! State machines to replicate: null and kv
