//! Where each client session was last heard from, bounded.

use std::collections::HashMap;
use std::mem;
use std::net::SocketAddr;

use electrode_vr::ClientId;

/// Sessions per generation; twice as many are remembered at most.
const GENERATION: usize = 8192;

/// Addresses of sessions in two generations: when the young one is full it becomes the old one, and what was old and
/// wasn't heard from meanwhile is forgotten. A forgotten client asks again and is known again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clients {
    young: HashMap<ClientId, SocketAddr>,
    old: HashMap<ClientId, SocketAddr>,
}

impl Clients {
    /// Replies to `client` go to `address` from now.
    pub(crate) fn heard(&mut self, client: ClientId, address: SocketAddr) {
        if let Some(known) = self.young.get_mut(&client) {
            *known = address;
            return;
        }
        if self.young.len() == GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(client, address);
    }

    /// Where `client` was last heard from.
    pub(crate) fn address(&self, client: ClientId) -> Option<SocketAddr> {
        self.young
            .get(&client)
            .or_else(|| self.old.get(&client))
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_last_source_counts() {
        let mut clients = Clients::default();
        clients.heard(ClientId(1), address(1));
        clients.heard(ClientId(1), address(2));
        assert_eq!(clients.address(ClientId(1)), Some(address(2)));
        assert_eq!(clients.address(ClientId(2)), None);
    }

    #[test]
    fn memory_is_bounded_and_the_busy_stay() {
        let mut clients = Clients::default();
        for other in 1..=10 * GENERATION as u64 {
            clients.heard(ClientId(0), address(9));
            clients.heard(ClientId(other), address(1));
        }
        assert!(clients.young.len() + clients.old.len() <= 2 * GENERATION);
        assert_eq!(clients.address(ClientId(0)), Some(address(9)));
        assert_eq!(clients.address(ClientId(1)), None);
    }
}
