//! Names to addresses, when somebody is about to use them.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::Config;

/// Why the replicas have no addresses. Displayed as `file:line: words`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// The name isn't known.
    #[error("{file}:{line}: can't resolve `{endpoint}`: {error}")]
    Unknown {
        /// The configuration file.
        file: String,
        /// The replica's line, from 1.
        line: usize,
        /// What should have been resolved.
        endpoint: String,
        /// What the resolver said.
        error: String,
    },
    /// There is no address family that all replicas have.
    #[error(
        "{file}:{line}: `{endpoint}` has no {family} address, but another replica has nothing else"
    )]
    Families {
        /// The configuration file.
        file: String,
        /// The replica's line, from 1.
        line: usize,
        /// The endpoint without an address of this family.
        endpoint: String,
        /// "IPv4" or "IPv6".
        family: &'static str,
    },
    /// Two names have the same address.
    #[error("{file}:{line}: `{endpoint}` is {address}, as the replica of line {first} is")]
    Duplicate {
        /// The configuration file.
        file: String,
        /// The later replica's line, from 1.
        line: usize,
        /// The later replica.
        endpoint: String,
        /// The address.
        address: SocketAddr,
        /// The earlier replica's line, from 1.
        first: usize,
    },
}

impl Config {
    /// The address of each replica, all of one family: IPv4 if every replica has such an address, else IPv6. Asks the
    /// system's resolver, so it may block.
    ///
    /// # Errors
    /// [`ResolveError`], which names the line.
    pub fn resolve(&self) -> Result<Vec<SocketAddr>, ResolveError> {
        let mut candidates: Vec<Vec<SocketAddr>> = Vec::new();
        for (index, endpoint) in self.replicas.iter().enumerate() {
            let found = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
            let found = found.map_err(|error| error.to_string()).and_then(|found| {
                let found: Vec<SocketAddr> = found.collect();
                if found.is_empty() {
                    Err("no address".to_owned())
                } else {
                    Ok(found)
                }
            });
            candidates.push(found.map_err(|error| ResolveError::Unknown {
                file: self.file.clone(),
                line: self.lines[index],
                endpoint: endpoint.to_string(),
                error,
            })?);
        }
        let addresses = self.choose(&candidates)?;
        for (index, address) in addresses.iter().enumerate() {
            if let Some(first) = addresses[..index].iter().position(|other| other == address) {
                return Err(ResolveError::Duplicate {
                    file: self.file.clone(),
                    line: self.lines[index],
                    endpoint: self.replicas[index].to_string(),
                    address: *address,
                    first: self.lines[first],
                });
            }
        }
        Ok(addresses)
    }

    /// The first address of each replica in a family that all have.
    fn choose(&self, candidates: &[Vec<SocketAddr>]) -> Result<Vec<SocketAddr>, ResolveError> {
        let of = |ipv4: bool| {
            let first =
                move |found: &Vec<SocketAddr>| found.iter().find(|a| a.is_ipv4() == ipv4).copied();
            candidates.iter().map(first).collect::<Vec<_>>()
        };
        let ipv4 = of(true);
        if ipv4.iter().all(Option::is_some) {
            return Ok(ipv4.into_iter().flatten().collect());
        }
        let ipv6 = of(false);
        match ipv6.iter().position(Option::is_none) {
            None => Ok(ipv6.into_iter().flatten().collect()),
            Some(index) => Err(ResolveError::Families {
                file: self.file.clone(),
                line: self.lines[index],
                endpoint: self.replicas[index].to_string(),
                family: "IPv6",
            }),
        }
    }
}
