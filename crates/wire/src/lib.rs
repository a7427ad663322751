//! Electrode's messages as bytes: the fixed header that the kernel parses, and the bodies.

#![forbid(unsafe_code)]

pub mod header;
