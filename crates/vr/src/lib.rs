//! Viewstamped Replication as a state machine without I/O, clock or randomness
