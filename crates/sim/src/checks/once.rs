//! A request is executed at most once, and a retry gets the same bytes, or hears that its session has expired: a session that is
//! gone is an error, never a second execution. (That nothing is executed twice the ledger itself asserts, which forgets no
//! session: `crate::machine`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use electrode_vr::{ClientId, Reply, RequestNumber};

use super::{Rule, Verdict};
use crate::machine::place_of;

pub(super) const RULE: Rule = Rule {
    name: "a retry gets the same reply",
    source: "VR Revisited 4.1 (client table); docs/protocol.md rule 7",
};

/// Every result that was ever sent.
#[derive(Debug, Default)]
pub(super) struct Once(BTreeMap<(ClientId, RequestNumber), Arc<[u8]>>);

impl Once {
    /// The place in the order of a request that a replica answered.
    pub(super) fn place(&self, client: ClientId, request: RequestNumber) -> Option<u64> {
        let bytes = self.0.get(&(client, request))?;
        Some(place_of(bytes))
    }

    pub(super) fn check(
        &mut self,
        client: ClientId,
        request: RequestNumber,
        reply: &Reply,
    ) -> Verdict {
        let Reply::Done(bytes) = reply else {
            return Ok(());
        };
        // A read is answered by what is there when it is asked again.
        if request.is_read() {
            return Ok(());
        }
        let first = self
            .0
            .entry((client, request))
            .or_insert_with(|| Arc::clone(bytes));
        if first == bytes {
            return Ok(());
        }
        Err(format!(
            "request {request} of client {client} got two different results"
        ))
    }
}
