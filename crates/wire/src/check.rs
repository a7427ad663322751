//! The authenticator in every header: SipHash-2-4 over the rest of the message.
//!
//! With the group's secret key it is a message authentication code between replicas; with [`Key::UNKEYED`] it only
//! catches damage. The kernel computes the same function (fast-path rule R8), so what is hashed is fixed here.

use core::fmt;
use core::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::header::Kind;

/// Where the check stands in the header; these bytes alone aren't hashed.
const CHECK: core::ops::Range<usize> = 8..16;

/// The key of the authenticator: the group's secret, or [`Key::UNKEYED`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key(pub [u8; 16]);

impl Key {
    /// No secret: the check still catches every damaged message. Clients have no other key.
    pub const UNKEYED: Key = Key([0; 16]);

    /// The key for messages of this kind in a group whose key is `self`: what clients send and hear is unkeyed.
    #[must_use]
    pub fn for_kind(self, kind: Kind) -> Key {
        match kind {
            Kind::Request | Kind::Reply | Kind::StatusRequest | Kind::StatusReply => Key::UNKEYED,
            _ => self,
        }
    }
}

/// A secret isn't printed.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Key::UNKEYED {
            "Key::UNKEYED"
        } else {
            "Key(..)"
        })
    }
}

/// The check of a message (header and body): SipHash-2-4 over its bytes `[0..8)` and `[16..end)`, as one stream.
///
/// Bytes that are missing (a message shorter than a header) count as absent.
#[must_use]
pub fn check(key: &Key, message: &[u8]) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&key.0);
    hasher.write(&message[..CHECK.start.min(message.len())]);
    hasher.write(message.get(CHECK.end..).unwrap_or_default());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_published_vector_of_siphash_2_4() {
        // Aumasson & Bernstein, "SipHash: a fast short-input PRF", appendix A: key 00..0f, input 00..0e.
        let key = Key(core::array::from_fn(|i| i as u8));
        let mut message: Vec<u8> = (0..8).collect();
        message.extend([0xff; 8]);
        message.extend(8..15);
        assert_eq!(check(&key, &message), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn leaves_out_the_check_itself_and_nothing_else() {
        let message: Vec<u8> = (0..100).collect();
        let before = check(&Key::UNKEYED, &message);
        for at in 0..message.len() {
            let mut changed = message.clone();
            changed[at] ^= 1;
            assert_eq!(
                check(&Key::UNKEYED, &changed) == before,
                CHECK.contains(&at),
                "byte {at}"
            );
        }
    }

    #[test]
    fn depends_on_the_key() {
        assert_ne!(
            check(&Key([1; 16]), &[7; 90]),
            check(&Key::UNKEYED, &[7; 90])
        );
    }

    #[test]
    fn short_input_is_no_reason_to_panic() {
        for length in 0..20 {
            let _ = check(&Key::UNKEYED, &[0; 20][..length]);
        }
    }

    #[test]
    fn a_key_is_not_printed() {
        assert_eq!(format!("{:?}", Key([9; 16])), "Key(..)");
    }
}
