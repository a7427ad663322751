//! A guest's root file system as a cpio archive of the kind `newc`, which the kernel unpacks at boot.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

const FOLDER: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;
const LINK: u32 = 0o120_777;

/// The archive so far. Names are relative to the root; folders come into being by what is put into them.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    names: BTreeSet<String>,
}

impl Archive {
    /// Puts a folder into it.
    pub(crate) fn folder(&mut self, name: &str) -> Result<()> {
        if self.has(name) {
            return Ok(());
        }
        self.parent(name)?;
        self.entry(name, FOLDER, &[])
    }

    /// Puts an executable file into it.
    pub(crate) fn file(&mut self, name: &str, content: &[u8]) -> Result<()> {
        if self.has(name) {
            return Ok(());
        }
        self.parent(name)?;
        self.entry(name, EXECUTABLE, content)
    }

    /// Puts a file of this machine into it, under a name of its own.
    pub(crate) fn copy(&mut self, name: &str, from: &Path) -> Result<()> {
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        self.file(name, &content)
    }

    /// Puts a symbolic link into it.
    pub(crate) fn link(&mut self, name: &str, to: &str) -> Result<()> {
        if self.has(name) {
            return Ok(());
        }
        self.parent(name)?;
        self.entry(name, LINK, to.as_bytes())
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    fn parent(&mut self, name: &str) -> Result<()> {
        match name.rsplit_once('/') {
            Some((parent, _)) => self.folder(parent),
            None => Ok(()),
        }
    }

    /// Everything belongs to root, is of 1970, and has the number of its place.
    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.names.insert(name.to_owned());
        let number = u32::try_from(self.names.len())?;
        let size = u32::try_from(content.len()).with_context(|| format!("{name} is too large"))?;
        let length = u32::try_from(name.len() + 1)?;
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::default();
        archive.file("a/b/c", b"x").unwrap();
        archive.file("a/b/d", b"y").unwrap();
        archive.link("a/e", "b/c").unwrap();
        let names: Vec<_> = archive.names.iter().map(String::as_str).collect();
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "a/e"]);
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let at = |name: &str| text.find(name).unwrap();
        assert!(at("a\0") < at("a/b\0") && at("a/b\0") < at("a/b/c\0"));
        assert_eq!(text.matches("070701").count(), 6);
    }
}
