//! The kernel's part as the driver sees it: attached or off, and if off, why.

use std::net::SocketAddr;

use electrode_dataplane::{self as dataplane, Dataplane, Hook, Programs};
use electrode_vr::Durability;

use crate::error::RunError;
use crate::interface;
use crate::options::{Accelerate, Options};
use crate::status::Accelerated;

/// The attached programs, if any.
pub(crate) struct FastPath {
    pub(crate) dataplane: Option<Dataplane>,
    why_off: Option<String>,
    /// The longest message that fits one packet, in bytes.
    pub(crate) payload: usize,
}

impl FastPath {
    /// Attaches what the options ask for.
    pub(crate) fn open(options: &Options) -> Result<FastPath, RunError> {
        let attached = match options.accelerate {
            Accelerate::None => Err("--accelerate none".to_owned()),
            Accelerate::Only(programs) => Ok(attach(options, programs)?),
            Accelerate::Auto => attach(options, Accelerate::ALL).map_err(|error| {
                tracing::warn!("running in user space: {error}");
                error.to_string()
            }),
        };
        let (dataplane, why_off) = match attached {
            Ok(dataplane) => (Some(dataplane), None),
            Err(why) => (None, Some(why)),
        };
        let mtu = dataplane.as_ref().map_or(1500, |dataplane| {
            interface::mtu(&dataplane.attachment().interface)
        });
        let payload = payload(mtu, options.replicas[options.index.index()]);
        Ok(FastPath {
            dataplane,
            why_off,
            payload,
        })
    }

    /// For status and metrics.
    pub(crate) fn report(&self, armed: bool) -> Accelerated {
        let off = dataplane::Attachment {
            interface: String::new(),
            xdp: Hook::Off,
            tc: Hook::Off,
        };
        let attachment = self.dataplane.as_ref().map_or(&off, Dataplane::attachment);
        Accelerated {
            xdp: hook(attachment.xdp).to_owned(),
            tc: hook(attachment.tc).to_owned(),
            interface: Some(attachment.interface.clone()).filter(|name| !name.is_empty()),
            armed,
            why: self.why_off.clone(),
        }
    }
}

fn attach(options: &Options, programs: Programs) -> Result<Dataplane, RunError> {
    let own = options.index.index();
    let interface = match &options.interface {
        Some(name) => name.clone(),
        None => interface::find(own, &options.replicas)?,
    };
    let dataplane = Dataplane::attach(&dataplane::Options {
        interface,
        programs,
        answer: options.durability == Durability::Memory,
        allow_generic: true,
        index: options.index,
        replicas: options.replicas.clone(),
        key: options.key.0,
    })?;
    let attachment = dataplane.attachment();
    tracing::info!(
        "fast path on {}: XDP {}, TC {}",
        attachment.interface,
        hook(attachment.xdp),
        hook(attachment.tc)
    );
    if attachment.xdp == Hook::Generic {
        tracing::warn!(
            "{}'s driver has no native XDP: generic XDP saves less",
            attachment.interface
        );
    }
    Ok(dataplane)
}

fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Native => "native",
        Hook::Generic => "generic",
        Hook::Tcx => "tcx",
        Hook::Clsact => "clsact",
        Hook::Off => "off",
    }
}

/// What fits one packet of `mtu` bytes after the headers of IP and UDP.
fn payload(mtu: usize, own: SocketAddr) -> usize {
    mtu.saturating_sub(if own.is_ipv4() { 20 + 8 } else { 40 + 8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_leaves_room_for_the_headers() {
        assert_eq!(payload(1500, "10.0.0.1:1".parse().unwrap()), 1472);
        assert_eq!(payload(1500, "[::1]:1".parse().unwrap()), 1452);
    }
}
