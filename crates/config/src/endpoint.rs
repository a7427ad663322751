//! `host:port`, as written: the name isn't resolved.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV6};

/// Where a replica is: a name or address, and a UDP port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// A host name, an IPv4 address, or an IPv6 address without its brackets.
    pub host: String,
    /// The UDP port, never 0.
    pub port: u16,
}

/// What is wrong with an endpoint, and where in it (a byte offset).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct EndpointError {
    pub(crate) offset: usize,
    pub(crate) expected: &'static str,
}

impl Endpoint {
    pub(crate) fn parse(text: &str) -> Result<Endpoint, EndpointError> {
        let wrong = |offset, expected| Err(EndpointError { offset, expected });
        let (host, colon) = if let Some(inside) = text.strip_prefix('[') {
            let Some((host, after)) = inside.split_once(']') else {
                return wrong(text.len(), "`]` after the IPv6 address");
            };
            if format!("[{host}]:1").parse::<SocketAddrV6>().is_err() {
                return wrong(1, "an IPv6 address between the brackets");
            }
            let colon = host.len() + 2;
            if !after.starts_with(':') {
                return wrong(colon, "`:` and a port after the address");
            }
            (host, colon)
        } else {
            let Some((host, port)) = text.split_once(':') else {
                return wrong(text.len(), "`:` and a port after the host");
            };
            if port.contains(':') {
                return wrong(0, "an IPv6 address in brackets, as in [::1]:51510");
            }
            if let Err(offset) = check_host(host) {
                return wrong(offset, "a host name or an IPv4 address");
            }
            (host, host.len())
        };
        let digits = &text[colon + 1..];
        let port = digits.parse::<u16>().ok().filter(|port| *port != 0);
        match port.filter(|_| digits.bytes().all(|digit| digit.is_ascii_digit())) {
            Some(port) => Ok(Endpoint {
                host: host.to_owned(),
                port,
            }),
            None => wrong(colon + 1, "a port from 1 to 65535"),
        }
    }

    /// What two spellings of the same address have in common.
    pub(crate) fn canonical(&self) -> String {
        match self.to_string().parse::<std::net::SocketAddr>() {
            Ok(address) => address.to_string(),
            Err(_) => self.to_string().trim_end_matches('.').to_ascii_lowercase(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A host name of letters, digits, `-`, `_` and `.`; what looks like an IPv4 address has to be one.
fn check_host(host: &str) -> Result<(), usize> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if let Some(offset) = host.bytes().position(|byte| !allowed(byte)) {
        return Err(offset);
    }
    let numeric = host
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let fits = if numeric {
        host.parse::<Ipv4Addr>().is_ok()
    } else {
        host.len() <= 253
            && host
                .strip_suffix('.')
                .unwrap_or(host)
                .split('.')
                .all(|label| (1..=63).contains(&label.len()))
    };
    if fits { Ok(()) } else { Err(0) }
}
