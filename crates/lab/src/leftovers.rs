//! What earlier runs left behind when even their keeper was killed.

use std::path::Path;

use crate::{LabError, ip};

/// Where the `ip` tool keeps the names of namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";

/// The first part of every lab's namespaces' names.
const PREFIX: &str = "electrode-";

/// Removes the namespaces of labs whose process is gone, and ends the processes in them; returns how many namespaces.
///
/// # Errors
/// There is no `ip` tool.
pub fn sweep() -> Result<usize, LabError> {
    let Ok(entries) = std::fs::read_dir(NAMESPACES) else {
        // Nobody has made a namespace since the machine came up.
        return Ok(0);
    };
    let mut swept = 0;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(owner) = owner(&name) else { continue };
        if Path::new("/proc").join(owner.to_string()).exists() {
            continue;
        }
        // Another lab may be sweeping the same ones at this moment: what is gone is fine.
        match remove(&name) {
            Ok(()) => swept += 1,
            Err(LabError::NoIpTool) => return Err(LabError::NoIpTool),
            Err(error) => tracing::debug!("leftover {name}: {error}"),
        }
    }
    Ok(swept)
}

/// The process that made a namespace of this name, if it is a lab's.
fn owner(name: &str) -> Option<u32> {
    let mut parts = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = parts.next()?.parse().ok()?;
    let _lab: u32 = parts.next()?.parse().ok()?;
    parts.next()?;
    Some(pid)
}

fn remove(name: &str) -> Result<(), LabError> {
    for pid in ip::run(&["netns", "pids", name])?.split_whitespace() {
        let Some(pid) = pid.parse().ok().and_then(rustix::process::Pid::from_raw) else {
            continue;
        };
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    ip::run(&["netns", "delete", name]).map(drop)
}

/// The name of the namespace of `host` in this process's lab number `lab`.
pub(crate) fn namespace_name(lab: u32, host: &str) -> String {
    format!("{PREFIX}{}-{lab}-{host}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_recognises_its_own_names_and_no_others() {
        assert_eq!(
            owner(&namespace_name(3, "r0")),
            Some(std::process::id()),
            "own"
        );
        assert_eq!(owner("electrode-17-0-r-1"), Some(17));
        for foreign in [
            "electrode-17",
            "electrode-x-0-r0",
            "electrode-1-x-r0",
            "web",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
