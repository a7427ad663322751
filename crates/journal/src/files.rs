//! The few things that the log asks of a file system, so that tests can put one in its place that loses what wasn't
//! synced.

use std::io;
use std::path::PathBuf;

/// One directory. A file's bytes are durable after `sync`, that it exists (or has another name) after `sync_directory`.
pub trait Files: Send + 'static {
    /// Another handle to the same directory.
    fn another(&self) -> Self;
    /// A file's path, for messages.
    fn path(&self, name: &str) -> PathBuf;
    /// The names of all files.
    ///
    /// # Errors
    /// As the file system says.
    fn list(&mut self) -> io::Result<Vec<String>>;
    /// All of a file.
    ///
    /// # Errors
    /// As the file system says.
    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes an empty file, or empties one.
    ///
    /// # Errors
    /// As the file system says.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Writes at the end of a file.
    ///
    /// # Errors
    /// As the file system says.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Writes at the beginning of a file over what is there, making the file if there is none. May be torn.
    ///
    /// # Errors
    /// As the file system says.
    fn overwrite(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts a file.
    ///
    /// # Errors
    /// As the file system says.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Makes names durable.
    ///
    /// # Errors
    /// As the file system says.
    fn sync_directory(&mut self) -> io::Result<()>;
    /// Gives a file another name, whether or not that was there.
    ///
    /// # Errors
    /// As the file system says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    ///
    /// # Errors
    /// As the file system says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}
