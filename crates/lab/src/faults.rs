//! Bad links: loss, damage, duplication and reordering, by a program of the lab's own on the switch's ports.
//!
//! The kernel has netem for this, where it is built in; a program works everywhere that Electrode does. Faults are a
//! property of the way to a host: give them to every host, and every link is bad.

mod program;

use std::sync::PoisonError;

use crate::{Host, LabError, Loaded};

/// What happens to IP packets on their way to a host; each is a share of 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Vanishes.
    pub drop: u32,
    /// Arrives with one bit flipped, anywhere behind the Ethernet header.
    pub corrupt: u32,
    /// Arrives twice.
    pub duplicate: u32,
    /// Is held back, and arrives right after the next one for this host, whenever that comes.
    pub reorder: u32,
}

/// How often each fault has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultCounts {
    /// Packets that vanished.
    pub dropped: u64,
    /// Packets with a flipped bit.
    pub corrupted: u64,
    /// Packets that left twice.
    pub duplicated: u64,
    /// Packets that were overtaken.
    pub reordered: u64,
}

impl Host {
    /// Makes the way to this host as bad as that, from now on.
    ///
    /// # Errors
    /// The kernel refuses the program, or on the loopback device.
    pub fn set_faults(&self, faults: Faults) -> Result<(), LabError> {
        self.set_shares(faults, 0)
    }

    /// As [`Host::set_faults`], but only for UDP datagrams that were sent from `source_port` (without IP options or
    /// extension headers): with it a test can hit the replicas' messages and spare the clients'.
    ///
    /// # Errors
    /// As [`Host::set_faults`].
    pub fn set_faults_from(&self, source_port: u16, faults: Faults) -> Result<(), LabError> {
        self.set_shares(faults, source_port)
    }

    /// Port 0 stands for every packet.
    fn set_shares(&self, faults: Faults, source_port: u16) -> Result<(), LabError> {
        let place = self.placed("faults")?;
        let mut loaded = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if loaded.is_none() {
            let mut program = Loaded::new(program::program()?)?;
            program.attach(&place.switch, &place.port)?;
            *loaded = Some(program);
        }
        let Some(loaded) = loaded.as_mut() else {
            return Ok(());
        };
        let Faults {
            drop,
            corrupt,
            duplicate,
            reorder,
        } = faults;
        let shares = [drop, corrupt, duplicate, reorder, source_port.into()];
        loaded.set::<[u32; 5]>(program::SHARES, 0, shares)
    }

    /// How often each fault has happened on the way to this host.
    ///
    /// # Errors
    /// The kernel doesn't say.
    pub fn fault_counts(&self) -> Result<FaultCounts, LabError> {
        let mut loaded = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(loaded) = loaded.as_mut() else {
            return Ok(FaultCounts::default());
        };
        let [dropped, corrupted, duplicated, reordered] =
            loaded.value::<[u64; 4]>(program::COUNTS, 0)?;
        Ok(FaultCounts {
            dropped,
            corrupted,
            duplicated,
            reordered,
        })
    }
}
