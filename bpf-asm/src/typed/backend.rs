//! From the intermediate form to instructions.
