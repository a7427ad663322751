//! One event at a time: what goes in, and the whole list of effects that comes out.

mod durability;
mod fast_path;
mod garbage;
mod lease;
mod normal;
mod recovery;
mod requests;
mod start;
mod state_transfer;
mod support;
mod transfer_limits;
mod view_change;
