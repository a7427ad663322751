//! One host of a lab.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::keeper::Keeper;
use crate::{Child, LabError, Loaded, ip, namespace};

/// How long a link may take to carry frames after it was set up. The kernel does that in a work queue of its own, which a
/// busy machine holds up.
const LINK_PATIENCE: Duration = Duration::from_secs(20);

/// What a new host may have otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostOptions {
    /// The MTU of `eth0` and of its port, in bytes.
    pub mtu: u32,
}

impl Default for HostOptions {
    fn default() -> HostOptions {
        HostOptions { mtu: 1500 }
    }
}

/// One host: a network namespace with one interface.
///
/// Cheap to clone. After its lab is dropped its namespace is gone, and everything here is an error.
#[derive(Clone, Debug)]
pub struct Host {
    pub(crate) name: String,
    /// None on the loopback device.
    pub(crate) place: Option<Place>,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    pub(crate) mac: [u8; 6],
    pub(crate) keeper: Arc<Keeper>,
    /// The program that makes the way here bad, once there is one.
    pub(crate) faults: Arc<Mutex<Option<Loaded>>>,
}

/// Where a host is, in a lab with namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) switch: String,
    pub(crate) port: String,
}

impl Place {
    /// Waits until frames pass in both directions. Before that they are dropped without a word, and an ARP request among
    /// them is sent again after a whole second only.
    pub(crate) fn wait_for_the_link(&self) -> Result<(), LabError> {
        let ends = [
            (&self.switch, self.port.as_str(), "state forwarding"),
            (&self.namespace, "eth0", "state UP"),
        ];
        let started = Instant::now();
        for (namespace, interface, wanted) in ends {
            loop {
                let show = ["-n", namespace, "-d", "link", "show", "dev", interface];
                let shown = ip::run(&show)?;
                if shown.contains("state UP") && shown.contains(wanted) {
                    break;
                }
                if started.elapsed() > LINK_PATIENCE {
                    return Err(LabError::LinkDown {
                        interface: interface.to_owned(),
                        namespace: namespace.clone(),
                        shown: shown.trim().to_owned(),
                    });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }
}

impl Host {
    /// Its name in the lab.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its network namespace, as `ip netns` lists it; None on the loopback device.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.namespace.as_str())
    }

    /// Its port on the bridge in the switch's namespace.
    #[must_use]
    pub fn port(&self) -> Option<&str> {
        self.place.as_ref().map(|place| place.port.as_str())
    }

    /// Its interface: `eth0`, or `lo`.
    #[must_use]
    pub fn interface(&self) -> &'static str {
        if self.place.is_some() { "eth0" } else { "lo" }
    }

    /// Its IPv4 address, of a /24.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.ipv4
    }

    /// Its IPv6 address, of a /64.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        self.ipv6
    }

    /// Its IPv4 address.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        IpAddr::V4(self.ipv4)
    }

    /// The Ethernet address of `eth0`; zeroes on the loopback device.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// A command that will run on this host. Give it arguments and standard streams, then [`Host::spawn`] it.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        match &self.place {
            None => Command::new(program),
            Some(place) => {
                // `ip netns exec` becomes the command (it doesn't fork), so that the child's pid is the command's.
                let mut command = Command::new("ip");
                command
                    .args(["netns", "exec", &place.namespace])
                    .arg(program);
                command
            }
        }
    }

    /// As [`Host::command`], in a time namespace whose monotonic and boot clocks are so many seconds ahead of the machine's; see
    /// [`has_time_namespaces`](crate::has_time_namespaces).
    #[must_use]
    pub fn command_with_clocks_ahead(&self, program: impl AsRef<OsStr>, seconds: u32) -> Command {
        // It becomes the command too.
        let mut command = self.command("unshare");
        let seconds = seconds.to_string();
        command
            .args(["--time", "--monotonic", &seconds, "--boottime", &seconds])
            .arg(program);
        command
    }

    /// Starts a [`Host::command`].
    ///
    /// # Errors
    /// It can't be started.
    pub fn spawn(&self, command: Command) -> Result<Child, LabError> {
        Child::spawn(command, Arc::clone(&self.keeper))
    }

    /// Runs `work` on a thread of its own on this host: the sockets that it makes are this host's.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn in_namespace<R: Send>(&self, work: impl FnOnce() -> R + Send) -> Result<R, LabError> {
        match &self.place {
            None => Ok(work()),
            Some(place) => namespace::run(&place.namespace, work),
        }
    }

    /// Moves the calling thread to this host, for good. For threads that the caller owns.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn enter(&self) -> Result<(), LabError> {
        match &self.place {
            None => Ok(()),
            Some(place) => namespace::enter(&place.namespace),
        }
    }

    /// Loads a program and attaches it to `eth0`: XDP natively, a classifier to the egress. It stays until what this
    /// returns is dropped.
    ///
    /// # Errors
    /// The kernel refuses it, or on the loopback device.
    pub fn attach(&self, program: bpf_asm::program::Program) -> Result<Loaded, LabError> {
        let place = self.placed("a program")?;
        let mut loaded = Loaded::new(program)?;
        loaded.attach(&place.namespace, self.interface())?;
        Ok(loaded)
    }

    /// Attaches a classifier to the egress of this host's port on the switch, where it sees every frame on the way to this host.
    /// One program can be at several ports.
    ///
    /// # Errors
    /// The kernel refuses it, or on the loopback device.
    pub fn attach_at_port(&self, program: &mut Loaded) -> Result<(), LabError> {
        let place = self.placed("a program")?;
        program.attach(&place.switch, &place.port)
    }

    /// The names of the classifiers that TCX links attach to the egress of `eth0`, whoever attached them.
    ///
    /// # Errors
    /// The kernel has no TCX (before Linux 6.6), the lab is gone, or on the loopback device.
    pub fn egress_links(&self) -> Result<Vec<String>, LabError> {
        let place = self.placed("a program")?;
        crate::program::egress_links(&place.namespace, self.interface())
    }

    /// Pulls the cable at the switch: the host sees its carrier vanish and keeps its addresses.
    ///
    /// # Errors
    /// The lab is gone, or on the loopback device.
    pub fn link_down(&self) -> Result<(), LabError> {
        self.set_port("down")
    }

    /// Puts the cable back; frames pass when this returns.
    ///
    /// # Errors
    /// The lab is gone, or on the loopback device.
    pub fn link_up(&self) -> Result<(), LabError> {
        self.set_port("up")?;
        self.placed("a link")?.wait_for_the_link()
    }

    fn set_port(&self, state: &str) -> Result<(), LabError> {
        let place = self.placed("a link")?;
        ip::run(&["-n", &place.switch, "link", "set", &place.port, state]).map(drop)
    }

    pub(crate) fn placed(&self, what: &'static str) -> Result<&Place, LabError> {
        self.place.as_ref().ok_or(LabError::OnLoopback(what))
    }
}
