//! The reference interpreter: what it computes, what it refuses, and how runs interleave. No root.

mod faults;
mod helpers;
mod maps;
mod steps;
mod support;
