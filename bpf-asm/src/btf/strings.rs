//! The string table: each string once, ended by NUL, the empty one first.

use std::collections::BTreeMap;

/// Strings by offset.
#[derive(Clone, Debug)]
pub(super) struct Strings {
    bytes: Vec<u8>,
    offsets: BTreeMap<String, u32>,
}

impl Default for Strings {
    fn default() -> Strings {
        Strings {
            bytes: vec![0],
            offsets: BTreeMap::from([(String::new(), 0)]),
        }
    }
}

impl Strings {
    pub(super) fn offset(&mut self, text: &str) -> u32 {
        let text = text.split('\0').next().unwrap_or_default();
        if let Some(offset) = self.offsets.get(text) {
            return *offset;
        }
        let offset = super::length(&self.bytes);
        self.bytes.extend_from_slice(text.as_bytes());
        self.bytes.push(0);
        self.offsets.insert(text.to_owned(), offset);
        offset
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
