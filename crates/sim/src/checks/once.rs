//! A request is executed at most once, and a retry gets the same bytes. (That nothing is executed twice the ledger itself
//! asserts: `crate::machine`.)

use std::collections::BTreeMap;
use std::sync::Arc;

use electrode_vr::{ClientId, Reply, RequestNumber};

use super::{Rule, Verdict};

pub(super) const RULE: Rule = Rule {
    name: "a retry gets the same reply",
    source: "VR Revisited 4.1 (client table); docs/protocol.md rule 7",
};

/// Every result that was ever sent.
#[derive(Debug, Default)]
pub(super) struct Once(BTreeMap<(ClientId, RequestNumber), Arc<[u8]>>);

impl Once {
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
