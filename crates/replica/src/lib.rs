//! The replica: sockets, timers and the fast path around the protocol core
