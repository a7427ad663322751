//! Reads: not of the session, with numbers of their own, and in no order with requests that are in flight.

use electrode_vr::{RequestNumber, Time};
use electrode_wire::{ReplyRef, ReplyView};

use super::{Done, MS, Pending, Queued, Session};
use crate::RequestError;

impl Session {
    /// Takes a read: an operation that changes nothing. It isn't ordered with requests that are in flight, only after those that
    /// were answered, and it is answered without a round to the backups where the primary has a lease.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub fn submit_read(
        &mut self,
        now: Time,
        token: u64,
        op: Vec<u8>,
        deadline: Time,
    ) -> Result<(), RequestError> {
        let limit = self.settings.op_bytes;
        if op.len() > limit {
            let length = op.len();
            return Err(RequestError::TooLarge { length, limit });
        }
        if self.reads.len() >= self.settings.queue {
            let waiting = self.reads.len();
            return Err(RequestError::QueueFull { waiting });
        }
        let number = RequestNumber(self.next_read);
        self.next_read = self.next_read.wrapping_add(1) | RequestNumber::READS;
        let asked = Queued {
            token,
            op,
            since: now,
            deadline,
        };
        self.reads.push_back(Pending::new(number, asked, now));
        Ok(())
    }

    pub(super) fn on_read_reply<'a>(
        &mut self,
        now: Time,
        reply: &ReplyView<'a>,
    ) -> Option<Done<'a>> {
        let number = reply.request;
        let index = self.reads.iter().position(|read| read.number == number)?;
        self.learn_view(reply.view);
        let error = match reply.reply {
            ReplyRef::Done(result) => {
                let Queued { token, op, .. } = self.reads.remove(index)?.asked;
                return Some(Done { token, result, op });
            }
            ReplyRef::NotPrimary | ReplyRef::NoSession => return None,
            ReplyRef::Busy { retry_after_ms } => {
                let wait = (u64::from(retry_after_ms) * MS).clamp(MS, self.settings.retry_most);
                self.reads[index].retry_at = now.plus(wait);
                self.reads[index].retries = 0;
                return None;
            }
            ReplyRef::Unavailable => {
                self.reads[index].retries = self.reads[index].retries.max(1);
                return None;
            }
            ReplyRef::TooLarge { limit } => RequestError::TooLarge {
                length: self.reads[index].asked.op.len(),
                limit: usize::try_from(limit).unwrap_or(usize::MAX),
            },
            ReplyRef::NotRead => RequestError::NotRead,
        };
        let read = self.reads.remove(index)?;
        self.fail(read, |_| error);
        None
    }
}
