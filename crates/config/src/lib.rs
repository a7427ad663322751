//! config.txt: the group in the classic format
