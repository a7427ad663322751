//! The lab: the switch that joins its hosts.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::host::Place;
use crate::keeper::Keeper;
use crate::leftovers::{namespace_name, sweep};
use crate::namespace;
use crate::program::{Loaded, pass};
use crate::{Host, HostOptions, LabError, ip, is_root};

/// The bridge that every host's port is on until [`Lab::partition`].
const BRIDGE: &str = "br0";

/// Hosts of a lab; the last part of their addresses is one byte.
const MAX_HOSTS: usize = 250;

/// Labs of this process so far.
static LABS: AtomicU32 = AtomicU32::new(0);

/// A switch and the hosts on it. Dropping it removes everything.
///
/// ```text
///   namespace switch            namespace r0
///   ┌──────────────────┐        ┌──────────────────────────────┐
///   │ br0 ── p1 (XDP) ─┼──veth──┼─ eth0 10.77.0.1/24, fd77::1  │
///   │   │              │        └──────────────────────────────┘
///   │   └─── p2 (XDP) ─┼──veth── eth0 of namespace r1 ...
///   └──────────────────┘
/// ```
#[derive(Debug)]
pub struct Lab {
    number: u32,
    /// The switch's namespace; None on the loopback device.
    switch: Option<String>,
    scratch: PathBuf,
    hosts: Mutex<Vec<Host>>,
    /// The XDP program on the ports; None on the loopback device.
    pass: Option<Mutex<Loaded>>,
    keeper: Arc<Keeper>,
}

impl Lab {
    /// Makes a lab without hosts, after removing what killed runs left behind.
    ///
    /// `hint` becomes part of the scratch directory's name.
    ///
    /// # Errors
    /// Without root, without the `ip` tool, or where the kernel has no namespaces or bridges.
    pub fn new(hint: &str) -> Result<Lab, LabError> {
        if !is_root() {
            return Err(LabError::NotRoot);
        }
        sweep()?;
        let mut lab = Lab::bare(hint)?;
        let switch = namespace_name(lab.number, "switch");
        lab.keeper.namespace(&switch)?;
        ip::run(&["netns", "add", &switch])?;
        ip::batch(
            &switch,
            &[
                "link set lo up".to_owned(),
                new_bridge(BRIDGE),
                format!("link set {BRIDGE} up"),
            ],
        )?;
        namespace::run(&switch, without_firewall)?;
        lab.pass = Some(Mutex::new(Loaded::new(pass()?)?));
        lab.switch = Some(switch);
        Ok(lab)
    }

    /// A lab without namespaces: every host is an address of the loopback device. For those who aren't root; there are
    /// no links to cut and no programs to attach.
    ///
    /// # Errors
    /// The scratch directory can't be made.
    pub fn loopback(hint: &str) -> Result<Lab, LabError> {
        Lab::bare(hint)
    }

    fn bare(hint: &str) -> Result<Lab, LabError> {
        check_name(hint)?;
        let number = LABS.fetch_add(1, Ordering::Relaxed);
        let scratch =
            std::env::temp_dir().join(format!("electrode-{}-{number}-{hint}", std::process::id()));
        let keeper = Keeper::start()?;
        // A directory of an earlier process that had this pid.
        let _ = std::fs::remove_dir_all(&scratch);
        std::fs::create_dir(&scratch)
            .map_err(LabError::io(format!("making {}", scratch.display())))?;
        keeper.directory(&scratch)?;
        Ok(Lab {
            number,
            switch: None,
            scratch,
            hosts: Mutex::new(Vec::new()),
            pass: None,
            keeper,
        })
    }

    /// A directory of this lab's own, removed with it.
    #[must_use]
    pub fn scratch(&self) -> &Path {
        &self.scratch
    }

    /// The switch's namespace; None on the loopback device.
    #[must_use]
    pub fn switch(&self) -> Option<&str> {
        self.switch.as_deref()
    }

    /// Moves the calling thread to the switch, for good. For threads that the caller owns.
    ///
    /// # Errors
    /// The lab is on the loopback device.
    pub fn enter_switch(&self) -> Result<(), LabError> {
        let switch = self.switch().ok_or(LabError::OnLoopback("a switch"))?;
        namespace::enter(switch)
    }

    /// Adds a host with an MTU of 1500.
    ///
    /// # Errors
    /// As [`Lab::host_with`].
    pub fn host(&self, name: &str) -> Result<Host, LabError> {
        self.host_with(name, HostOptions::default())
    }

    /// Adds a host; it can be reached when this returns.
    ///
    /// # Errors
    /// The name is taken or unfit, or the kernel can't make the link.
    pub fn host_with(&self, name: &str, options: HostOptions) -> Result<Host, LabError> {
        check_name(name)?;
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = name == "switch" || hosts.iter().any(|host| host.name == name);
        let number = match u8::try_from(hosts.len() + 1) {
            Ok(number) if hosts.len() < MAX_HOSTS && !taken => number,
            _ => return Err(LabError::NoRoom(name.to_owned())),
        };
        let host = match &self.switch {
            None => self.loopback_host(name, number),
            Some(switch) => self.namespace_host(switch, name, number, options)?,
        };
        hosts.push(host.clone());
        Ok(host)
    }

    fn loopback_host(&self, name: &str, number: u8) -> Host {
        // Two bytes from the process and the lab keep labs that run at the same time apart.
        let [high, low] = [std::process::id() as u8, self.number as u8];
        Host {
            name: name.to_owned(),
            place: None,
            ipv4: Ipv4Addr::new(127, 77 ^ low, high, number),
            ipv6: Ipv6Addr::LOCALHOST,
            mac: [0; 6],
            keeper: Arc::clone(&self.keeper),
            faults: Arc::default(),
        }
    }

    fn namespace_host(
        &self,
        switch: &str,
        name: &str,
        number: u8,
        options: HostOptions,
    ) -> Result<Host, LabError> {
        let namespace = namespace_name(self.number, name);
        let port = format!("p{number}");
        let mac = [0x02, 0xe1, 0xec, 0, 0, number];
        let address: Vec<String> = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let host = Host {
            name: name.to_owned(),
            ipv4: Ipv4Addr::new(10, 77, 0, number),
            ipv6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, number.into()),
            mac,
            keeper: Arc::clone(&self.keeper),
            faults: Arc::default(),
            place: Some(Place {
                namespace: namespace.clone(),
                switch: switch.to_owned(),
                port: port.clone(),
            }),
        };
        self.keeper.namespace(&namespace)?;
        ip::run(&["netns", "add", &namespace])?;
        let mtu = options.mtu;
        let address = address.join(":");
        ip::batch(
            switch,
            &[
                format!(
                    "link add {port} mtu {mtu} type veth peer name eth0 mtu {mtu} address {address} netns {namespace}"
                ),
                format!("link set {port} master {BRIDGE} up"),
            ],
        )?;
        if let Some(pass) = &self.pass {
            let mut pass = pass.lock().unwrap_or_else(PoisonError::into_inner);
            pass.attach(switch, &port)?;
        }
        ip::batch(
            &namespace,
            &[
                "link set lo up".to_owned(),
                format!("addr add {}/24 dev eth0", host.ipv4),
                format!("addr add {}/64 dev eth0 nodad", host.ipv6),
                "link set eth0 up".to_owned(),
            ],
        )?;
        host.placed("a link")?.wait_for_the_link()?;
        Ok(host)
    }

    /// Splits the network: hosts reach only those of their own group. Hosts that are in no group reach nobody.
    ///
    /// # Errors
    /// The lab is on the loopback device, or the kernel can't.
    pub fn partition(&self, groups: &[&[&Host]]) -> Result<(), LabError> {
        let switch = self
            .switch
            .as_deref()
            .ok_or(LabError::OnLoopback("a partition"))?;
        let mut commands = Vec::new();
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        for port in hosts.iter().filter_map(Host::port) {
            commands.push(format!("link set {port} nomaster"));
        }
        for (index, group) in groups.iter().enumerate() {
            let bridge = format!("split{index}");
            // Bridges of an earlier partition are used again.
            if ip::run(&["-n", switch, "link", "show", &bridge]).is_err() {
                ip::batch(switch, &[new_bridge(&bridge)])?;
            }
            commands.push(format!("link set {bridge} up"));
            for port in group.iter().filter_map(|host| host.port()) {
                commands.push(format!("link set {port} master {bridge}"));
            }
        }
        ip::batch(switch, &commands)
    }

    /// Joins all hosts again, and plugs every cable in.
    ///
    /// # Errors
    /// The lab is on the loopback device, or the kernel can't.
    pub fn heal(&self) -> Result<(), LabError> {
        let switch = self
            .switch
            .as_deref()
            .ok_or(LabError::OnLoopback("a partition"))?;
        let hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        let commands: Vec<String> = hosts
            .iter()
            .filter_map(Host::port)
            .map(|port| format!("link set {port} master {BRIDGE} up"))
            .collect();
        ip::batch(switch, &commands)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.keeper.finish();
    }
}

/// A switch has no firewall: its frames aren't shown to the calling namespace's IP tables, where the kernel would by default.
fn without_firewall() {
    for table in ["arptables", "ip6tables", "iptables"] {
        // Where there is no such file the kernel doesn't do it.
        let _ = std::fs::write(format!("/proc/sys/net/bridge/bridge-nf-call-{table}"), "0");
    }
}

/// The command for a bridge that forwards from the first moment.
fn new_bridge(name: &str) -> String {
    format!("link add {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
}

/// Names become parts of namespaces' and files' names and words of the keeper's script.
fn check_name(name: &str) -> Result<(), LabError> {
    let fit = (1..=20).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fit {
        Ok(())
    } else {
        Err(LabError::BadName(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_the_keepers_script_are_refused() {
        for name in ["", "a b", "r0;x", "r/0", "-$x", "r0\n", &"x".repeat(21)] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        for name in ["r0", "client", "a-b"] {
            assert!(check_name(name).is_ok(), "{name:?}");
        }
    }
}
