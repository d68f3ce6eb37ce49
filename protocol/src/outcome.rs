//! What became of a send, and what else can go wrong without ending a session.
//!
//! Invariant: `Delivered` and `Stored` are promises (the message is in its reader's hands, or on
//! disk); everything that is neither is a refusal with a reason.

use crate::code_list::code_list;

code_list! {
    /// Why a send was refused. The connection lives on.
    RefusalReason {
        BadTarget = 1, "bad-target", "the target is not a valid name";
        PayloadTooLarge = 2, "payload-too-large", "the payload is over the limit given at login";
        BadSequence = 3, "bad-sequence", "the sequence number is 0 or has its top bit set";
        Overloaded = 4, "overloaded", "the sender has as many sends unanswered as it may";
        Storage = 5, "storage", "the message could not be stored, and may yet come up after the server recovers";
        InboxFull = 6, "inbox-full", "the reader's inbox holds as much as it may, or as much from this sender as one may";
        Expired = 7, "expired", "the time to live ended before the message could be handed over";
        Draining = 8, "draining", "the server is shutting down";
    }
}

code_list! {
    /// What went wrong with a request that has no answer of its own. The connection lives on.
    ErrorCode {
        BadName = 1, "bad-name", "the name asked about is not a valid name";
        FollowLimit = 2, "follow-limit", "the session follows as many users as it may";
        FollowersLimit = 3, "followers-limit", "the user has as many followers as it may";
        Overloaded = 4, "overloaded", "the session has as many questions waiting as it may";
    }
}

/// What became of a send.
///
/// On the wire two bytes: the outcome (1, 2 or 3), and the reason of a refusal (0 if none).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Outcome {
    /// The reader has acknowledged the message.
    Delivered,
    /// The message is in the reader's inbox, synced to disk.
    Stored,
    /// The server did not take the message.
    Refused(RefusalReason),
}

impl Outcome {
    /// The two bytes on the wire: outcome, reason.
    #[inline]
    pub const fn to_bytes(self) -> [u8; 2] {
        match self {
            Outcome::Delivered => [1, 0],
            Outcome::Stored => [2, 0],
            Outcome::Refused(reason) => [3, reason.code()],
        }
    }

    /// Reads the two bytes on the wire; `None` for a pair that means nothing.
    #[inline]
    pub const fn from_bytes(bytes: [u8; 2]) -> Option<Outcome> {
        match bytes {
            [1, 0] => Some(Outcome::Delivered),
            [2, 0] => Some(Outcome::Stored),
            [3, code] => match RefusalReason::from_code(code) {
                Some(reason) => Some(Outcome::Refused(reason)),
                None => None,
            },
            _ => None,
        }
    }

    /// The name in logs and metrics; a refusal's reason has a label of its own.
    pub const fn label(self) -> &'static str {
        match self {
            Outcome::Delivered => "delivered",
            Outcome::Stored => "stored",
            Outcome::Refused(_) => "refused",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_pairs_of_the_list_mean_something() {
        let mut meaningful = 0;
        for first in 0..=u8::MAX {
            for second in 0..=u8::MAX {
                if let Some(outcome) = Outcome::from_bytes([first, second]) {
                    assert_eq!(outcome.to_bytes(), [first, second]);
                    meaningful += 1;
                }
            }
        }
        assert_eq!(meaningful, 2 + RefusalReason::COUNT);
    }
}
