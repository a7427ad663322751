//! Client library: sessions, retries and deadlines
