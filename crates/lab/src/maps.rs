//! The maps of a lab's own programs, and running such a program once.

use std::io;
use std::time::Duration;

use aya::maps::{Array, MapData, RingBuf};
use aya::programs::{Program, TestRun, TestRunOptions};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::program::refused;
use crate::{LabError, Loaded};

impl Loaded {
    /// Writes an element of an array.
    ///
    /// # Errors
    /// There is no such array or element, or its values are of another size.
    pub fn set<V: aya::Pod>(&mut self, map: &str, index: u32, value: V) -> Result<(), LabError> {
        self.array(map)?
            .set(index, value, 0)
            .map_err(refused(&format!("writing to the map {map}")))
    }

    /// Reads an element of an array.
    ///
    /// # Errors
    /// As [`Loaded::set`].
    pub fn value<V: aya::Pod>(&mut self, map: &str, index: u32) -> Result<V, LabError> {
        self.array::<V>(map)?
            .get(&index, 0)
            .map_err(refused(&format!("reading the map {map}")))
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Result<Array<&mut MapData, V>, LabError> {
        let map = self.ebpf.map_mut(name).ok_or_else(|| no_map(name))?;
        Array::try_from(map).map_err(refused(&format!("opening the map {name}")))
    }

    /// The reading end of a ring buffer; once.
    ///
    /// # Errors
    /// There is no such ring, or it was taken before.
    pub fn take_ring(&mut self, name: &str) -> Result<Ring, LabError> {
        let map = self.ebpf.take_map(name).ok_or_else(|| no_map(name))?;
        RingBuf::try_from(map)
            .map(Ring)
            .map_err(refused(&format!("opening the ring {name}")))
    }

    /// Runs the program once on this frame, in the calling thread's namespace: `BPF_PROG_TEST_RUN`. Copies that a classifier
    /// redirects really leave. Returns its verdict.
    ///
    /// # Errors
    /// The kernel doesn't run it: the frame is too short or too long.
    pub fn run_once(&self, frame: &[u8]) -> Result<u32, LabError> {
        let doing = format!("running the program {}", self.name());
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::default()
        };
        let result = match self.ebpf.program(self.name()) {
            Some(Program::Xdp(program)) => program.test_run(options),
            Some(Program::SchedClassifier(program)) => program.test_run(options),
            _ => {
                return Err(LabError::Program {
                    doing,
                    message: "it can't be run like this".to_owned(),
                });
            }
        };
        let result = result.map_err(refused(&doing))?;
        Ok(result.return_value)
    }
}

fn no_map(name: &str) -> LabError {
    LabError::Program {
        doing: format!("finding the map {name}"),
        message: "it isn't in the object".to_owned(),
    }
}

/// The reading end of a ring buffer.
pub struct Ring(RingBuf<MapData>);

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Ring").finish_non_exhaustive()
    }
}

impl Ring {
    /// The oldest record that wasn't read yet, in bytes.
    pub fn next_record(&mut self) -> Option<Vec<u8>> {
        self.0.next().map(|record| record.to_vec())
    }

    /// Waits until there is a record, for so long at most.
    ///
    /// # Errors
    /// The system can't wait.
    pub fn wait(&self, at_most: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
