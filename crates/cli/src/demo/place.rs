//! Where the demo takes place: namespaces, or without root the loopback device.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use electrode_lab::{Host, Lab, is_root};

/// The replicas' port.
const PORT: u16 = 7077;

/// The lab with its hosts.
pub(super) struct Place {
    lab: Lab,
    /// One per replica.
    pub(super) hosts: Vec<Host>,
    /// Where the load comes from.
    pub(super) client: Host,
    /// This binary, to be started again.
    binary: PathBuf,
}

impl Place {
    pub(super) fn new(replicas: usize) -> Result<Place> {
        let lab = if is_root() {
            Lab::new("demo").context("making network namespaces")?
        } else {
            eprintln!(
                "Not root: everything runs over the loopback device and nothing in the kernel. For all of it: \
                 sudo electrode demo"
            );
            Lab::loopback("demo")?
        };
        let hosts = (0..replicas)
            .map(|index| lab.host(&format!("r{index}")))
            .collect::<Result<_, _>>()?;
        let client = lab.host("client")?;
        let binary = std::env::current_exe().context("finding this binary")?;
        Ok(Place {
            lab,
            hosts,
            client,
            binary,
        })
    }

    /// Whether programs can be attached here.
    pub(super) fn accelerates(&self) -> bool {
        self.lab.switch().is_some()
    }

    /// The addresses of the first `replicas` replicas.
    pub(super) fn addresses(&self, replicas: usize) -> Vec<SocketAddr> {
        let hosts = self.hosts.iter().take(replicas);
        hosts.map(|host| (host.ip(), PORT).into()).collect()
    }

    /// Writes the configuration of a group of the first `replicas` replicas.
    pub(super) fn configuration(&self, name: &str, replicas: usize) -> Result<PathBuf> {
        let path = self.lab.scratch().join(format!("{name}.txt"));
        let mut text = format!("f {}\n", (replicas - 1) / 2);
        for address in self.addresses(replicas) {
            text.push_str(&format!("replica {address}\n"));
        }
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// A file or directory of this demo's, removed with it.
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.lab.scratch().join(name)
    }

    /// This binary again, on `host`.
    pub(super) fn electrode<S: AsRef<OsStr>>(&self, host: &Host, arguments: &[S]) -> Command {
        let mut command = host.command(&self.binary);
        command.args(arguments);
        command
    }
}
