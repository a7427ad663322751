//! What a client asks, and whether the answer is right.

use electrode_apps::{KvOp, KvResult};

/// Bytes that an operation has besides the payload, at most.
pub(super) const OVERHEAD: usize = 64;

/// What the group runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Application {
    /// Requests are payload, and come back.
    Null,
    /// Each client puts and gets a key of its own in turn.
    Kv,
}

impl Application {
    /// Which application answers [`probe`] like this.
    pub(super) fn by_answer(probe: &[u8], answer: &[u8]) -> Option<Application> {
        if answer == probe {
            return Some(Application::Null);
        }
        matches!(KvResult::decode(answer), Ok(KvResult::Value(_))).then_some(Application::Kv)
    }
}

/// A request that tells the applications apart and changes neither's data.
pub(super) fn probe() -> Vec<u8> {
    KvOp::Get {
        key: b"electrode-bench",
    }
    .encode()
}

/// The requests of one client, and what is known about its key.
#[derive(Debug)]
pub(super) struct Workload {
    application: Application,
    key: Vec<u8>,
    number: u64,
    payload: Vec<u8>,
    /// Whether the present request is a get.
    getting: bool,
    /// Whether the key's value is known to be the payload: not after a put without an answer.
    known: bool,
}

impl Workload {
    /// `name` has to be this client's alone, in this run and in others.
    pub(super) fn new(application: Application, name: u64, value_size: usize) -> Workload {
        Workload {
            application,
            key: format!("bench/{name:016x}").into_bytes(),
            number: name,
            payload: vec![0; value_size],
            // So that the first is a put.
            getting: true,
            known: false,
        }
    }

    /// Writes the next request into `op`, whose buffer is used again.
    pub(super) fn next(&mut self, op: &mut Vec<u8>) {
        self.getting = !self.getting && self.application == Application::Kv;
        if !self.getting {
            self.fill();
        }
        match self.application {
            Application::Null => {
                op.clear();
                op.extend_from_slice(&self.payload);
            }
            Application::Kv if self.getting => *op = KvOp::Get { key: &self.key }.encode(),
            Application::Kv => {
                self.known = false;
                *op = KvOp::Put {
                    key: &self.key,
                    value: &self.payload,
                }
                .encode();
            }
        }
    }

    /// Whether this is the right answer to the present request, byte by byte.
    pub(super) fn verify(&mut self, result: &[u8]) -> bool {
        match self.application {
            Application::Null => result == self.payload,
            Application::Kv => match KvResult::decode(result) {
                Ok(KvResult::Stored) => {
                    self.known = !self.getting;
                    self.known
                }
                Ok(KvResult::Value(value)) => {
                    self.getting && (!self.known || value == Some(self.payload.as_slice()))
                }
                _ => false,
            },
        }
    }

    /// A payload that no other request has (as far as there is room): numbers from a sequence, each of 8 bytes.
    fn fill(&mut self) {
        for chunk in self.payload.chunks_mut(8) {
            self.number = self
                .number
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            chunk.copy_from_slice(&self.number.to_le_bytes()[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use electrode_apps::{Kv, Null};
    use electrode_vr::StateMachine;

    use super::*;

    fn all_right(application: Application, machine: &mut dyn StateMachine) {
        let mut workload = Workload::new(application, 7, 20);
        let mut op = Vec::new();
        let mut ops = std::collections::HashSet::new();
        for round in 0..10 {
            workload.next(&mut op);
            ops.insert(op.clone());
            let mut result = machine.apply(&op);
            assert!(workload.verify(&result), "round {round}");
            let last = result.len() - 1;
            result[last] ^= 1;
            assert!(
                !workload.verify(&result),
                "round {round}: a wrong answer is noticed"
            );
            result[last] ^= 1;
            workload.verify(&result);
        }
        assert!(ops.len() >= 6, "the requests differ");
    }

    #[test]
    fn right_answers_are_right_and_wrong_ones_are_noticed() {
        all_right(Application::Null, &mut Null::default());
        all_right(Application::Kv, &mut Kv::default());
    }

    #[test]
    fn after_an_unanswered_put_a_get_proves_nothing() {
        let mut workload = Workload::new(Application::Kv, 7, 4);
        let mut op = Vec::new();
        workload.next(&mut op);
        workload.next(&mut op);
        assert!(
            workload.verify(&Kv::default().apply(&op)),
            "not there yet, perhaps"
        );
    }

    #[test]
    fn the_application_shows_in_its_answer() {
        let by_answer = |answer: &[u8]| Application::by_answer(&probe(), answer);
        assert_eq!(
            by_answer(&Null::default().apply(&probe())),
            Some(Application::Null)
        );
        assert_eq!(
            by_answer(&Kv::default().apply(&probe())),
            Some(Application::Kv)
        );
        assert_eq!(by_answer(b"?"), None);
    }

    #[test]
    fn the_overhead_is_enough() {
        let mut workload = Workload::new(Application::Kv, u64::MAX, 30_000);
        let mut op = Vec::new();
        workload.next(&mut op);
        assert!(op.len() <= 30_000 + OVERHEAD);
    }
}
