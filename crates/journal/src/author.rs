//! Writes that follow each other, as a replica makes them: for tests.

use std::sync::Arc;

use electrode_vr::{
    ClientId, Digest, Entry, GroupId, OpNumber, RequestNumber, Stored, View, Write,
};

/// Makes writes of group 7 that follow each other, as a replica does. `Stored` computes the digests, on a copy.
#[derive(Debug)]
pub struct Author {
    /// What they amount to so far.
    pub stored: Stored,
    next: u64,
    /// The view that was entered last; 0: none.
    pub view: u64,
}

impl Author {
    /// Nothing was written.
    #[must_use]
    pub fn new() -> Author {
        Author {
            stored: Stored::empty(),
            next: 1,
            view: 0,
        }
    }

    fn entries(&mut self, below: &mut impl FnMut(usize) -> usize) -> Vec<Entry> {
        let count = 1 + below(4);
        let entry = |number| Entry {
            client: ClientId(1),
            request: RequestNumber(number),
            op: vec![7; below(200)].into(),
        };
        let entries: Vec<Entry> = (self.next..).take(count).map(entry).collect();
        self.next += count as u64;
        entries
    }

    /// The digest that a log gets by `write`, found by trying.
    fn sealed(&self, mut write: Write) -> Write {
        let mut trial = self.stored.clone();
        let _ = trial.apply(write.clone());
        let (Write::Append { digest, .. } | Write::Enter { digest, .. }) = &mut write else {
            return write;
        };
        *digest = trial.digest();
        write
    }

    /// An append; `below` draws a number below its argument.
    pub fn append(&mut self, mut below: impl FnMut(usize) -> usize) -> Write {
        let entries = self.entries(&mut below);
        let write = self.sealed(Write::Append {
            view: View(self.view),
            after: self.stored.op(),
            entries,
            digest: Digest(0),
        });
        self.take(&write);
        write
    }

    /// The next view begins, with some entries.
    pub fn enter(&mut self, mut below: impl FnMut(usize) -> usize) -> Write {
        self.view += 1;
        let entries = self.entries(&mut below);
        let write = self.sealed(Write::Enter {
            group: GroupId(7),
            view: View(self.view),
            after: self.stored.op(),
            digest_after: self.stored.digest(),
            entries,
            digest: Digest(0),
        });
        self.take(&write);
        write
    }

    /// A checkpoint at the last op.
    pub fn checkpoint(&mut self) -> (OpNumber, Write) {
        let op = self.stored.op();
        let write = Write::Checkpoint {
            op,
            log_digest: self.stored.digest(),
            bytes: Arc::new(vec![1; 300]),
        };
        self.take(&write);
        (op, write)
    }

    fn take(&mut self, write: &Write) {
        let taken = self.stored.apply(write.clone());
        taken.expect("it was made to follow what is there");
    }
}

impl Default for Author {
    fn default() -> Author {
        Author::new()
    }
}
