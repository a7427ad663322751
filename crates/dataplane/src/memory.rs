//! The programs' maps as memory of this process: the only `unsafe` of the data plane.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use electrode_fastpath::abi::{Block, Heard, PEERS, SLOTS, Shared, Target};
use electrode_fastpath::host::{Memory, Word};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Pages of a map, shared with the kernel. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Pages {
    start: NonNull<u8>,
    length: NonZeroUsize,
}

impl Pages {
    /// Maps `length` bytes of a map from `offset` on.
    ///
    /// # Errors
    /// The kernel refuses, for example because the map isn't `BPF_F_MMAPABLE`.
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        length: usize,
        offset: i64,
        writable: bool,
    ) -> io::Result<Pages> {
        let length = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let protection = if writable {
            ProtFlags::PROT_READ | ProtFlags::PROT_WRITE
        } else {
            ProtFlags::PROT_READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice; nothing else in this process refers to it.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, offset) }?;
        Ok(Pages {
            start: start.cast(),
            length,
        })
    }

    /// The 64-bit word at this byte offset. Both sides reach the words by atomics only.
    fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(
            offset.is_multiple_of(8) && offset + 8 <= self.length.get(),
            "a word inside the pages"
        );
        // SAFETY: inside the mapping, which lives as long as self; aligned, because mappings start at a page; AtomicU64 may
        // alias memory that others change by atomics, which is what the programs do.
        unsafe { AtomicU64::from_ptr(self.start.as_ptr().add(offset).cast()) }
    }

    /// Writes a plain value, word by word, each by a relaxed atomic: a program that reads it at the same time sees whole words.
    fn write<T: Copy>(&self, offset: usize, value: &T) {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
        for at in (0..size_of::<T>()).step_by(8) {
            // SAFETY: T is made of 8-byte words without padding (abi.rs declares only such blocks), so every word is initialised.
            let word = unsafe {
                std::ptr::from_ref(value)
                    .cast::<u8>()
                    .add(at)
                    .cast::<u64>()
                    .read()
            };
            self.word(offset + at).store(word, Ordering::Relaxed);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: this mapping was made by `map`, and no reference to it outlives self.
        let unmapped = unsafe { munmap(self.start.cast(), self.length.get()) };
        debug_assert!(unmapped.is_ok(), "a mapping of ours can be unmapped");
    }
}

/// The maps' memory: what [`Host`](electrode_fastpath::host::Host) works on here.
#[derive(Debug)]
pub struct Maps {
    shared: Pages,
    slots: Pages,
    heard: Pages,
    targets: Pages,
    ring_consumer: Pages,
    ring_producer: Pages,
}

/// Everything that programs and user space share, at one moment: what must not change can be shown not to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Tail, wake word and blocks ([`Shared`]), as words.
    pub shared: Vec<u64>,
    /// The quorum slots.
    pub slots: Vec<u64>,
    /// [`Heard`] of each replica, as words.
    pub heard: Vec<u64>,
    /// [`Target`] of each replica, as words.
    pub targets: Vec<u64>,
    /// Bytes that have gone through the ring so far: what was reserved, and what was taken.
    pub ring: [u64; 2],
}

const SHARED_TAIL: usize = core::mem::offset_of!(Shared, tail);
const SHARED_WAKE: usize = core::mem::offset_of!(Shared, wake);
const SHARED_BLOCKS: usize = core::mem::offset_of!(Shared, blocks);

impl Maps {
    /// Maps all of them.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(crate) fn map(
        shared: impl AsFd,
        slots: impl AsFd,
        heard: impl AsFd,
        targets: impl AsFd,
        ring: impl AsFd,
    ) -> io::Result<Maps> {
        let page = rustix::param::page_size();
        Ok(Maps {
            shared: Pages::map(shared.as_fd(), size_of::<Shared>(), 0, true)?,
            slots: Pages::map(slots.as_fd(), 8 * SLOTS as usize, 0, true)?,
            heard: Pages::map(heard.as_fd(), size_of::<Heard>() * PEERS, 0, true)?,
            targets: Pages::map(targets.as_fd(), size_of::<Target>() * PEERS, 0, true)?,
            // The first page holds the consumer's position, the second the producer's (kernel/bpf/ringbuf.c).
            ring_consumer: Pages::map(ring.as_fd(), page, 0, false)?,
            ring_producer: Pages::map(ring.as_fd(), page, page as i64, false)?,
        })
    }

    /// Writes where copies for a replica go. The MAC's word is written last.
    pub(crate) fn write_target(&self, index: usize, target: &Target) {
        let at = index * size_of::<Target>();
        self.targets
            .write(at + core::mem::offset_of!(Target, peer), &target.peer);
        self.targets
            .word(at + core::mem::offset_of!(Target, mac))
            .store(target.mac, Ordering::Release);
    }

    /// All of it. Not one atomic read: for moments in which nobody writes.
    pub(crate) fn image(&self) -> Image {
        let words = |pages: &Pages| {
            let offsets = (0..pages.length.get()).step_by(8);
            offsets
                .map(|at| pages.word(at).load(Ordering::SeqCst))
                .collect()
        };
        let position = |pages: &Pages| pages.word(0).load(Ordering::SeqCst);
        Image {
            shared: words(&self.shared),
            slots: words(&self.slots),
            heard: words(&self.heard),
            targets: words(&self.targets),
            ring: [position(&self.ring_producer), position(&self.ring_consumer)],
        }
    }

    /// Writes back all but the ring.
    pub(crate) fn restore(&self, image: &Image) {
        for (pages, words) in [
            (&self.shared, &image.shared),
            (&self.slots, &image.slots),
            (&self.heard, &image.heard),
            (&self.targets, &image.targets),
        ] {
            assert_eq!(8 * words.len(), pages.length.get(), "an image of such maps");
            for (at, word) in words.iter().enumerate() {
                pages.word(8 * at).store(*word, Ordering::SeqCst);
            }
        }
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        match word {
            Word::Tail => self.shared.word(SHARED_TAIL),
            Word::Wake => self.shared.word(SHARED_WAKE),
            Word::Slot(index) => self.slots.word(8 * index),
            Word::HeardAt(index) => self
                .heard
                .word(index * size_of::<Heard>() + core::mem::offset_of!(Heard, at)),
            Word::HeardOp(index) => self
                .heard
                .word(index * size_of::<Heard>() + core::mem::offset_of!(Heard, op)),
        }
    }
}

impl Memory for Maps {
    fn load(&self, word: Word) -> u64 {
        self.word(word).load(Ordering::SeqCst)
    }

    fn store(&self, word: Word, value: u64) {
        self.word(word).store(value, Ordering::SeqCst);
    }

    fn fetch_add(&self, word: Word, value: u64) -> u64 {
        self.word(word).fetch_add(value, Ordering::SeqCst)
    }

    fn compare_exchange(&self, word: Word, expected: u64, new: u64) -> u64 {
        match self
            .word(word)
            .compare_exchange(expected, new, Ordering::SeqCst, Ordering::SeqCst)
        {
            Ok(old) | Err(old) => old,
        }
    }

    fn write_block(&self, which: usize, block: &Block) {
        self.shared
            .write(SHARED_BLOCKS + which * size_of::<Block>(), block);
    }

    fn ring_has_record(&self) -> bool {
        self.ring_producer.word(0).load(Ordering::Acquire)
            != self.ring_consumer.word(0).load(Ordering::Acquire)
    }
}
