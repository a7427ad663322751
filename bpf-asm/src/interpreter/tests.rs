//! What the interpreter does and refuses.
