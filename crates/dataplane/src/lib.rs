//! Loading and attaching the fast path, its maps and its neighbours
