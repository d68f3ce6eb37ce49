//! Why a connection ends: one closed list, at once wire code, log field and metric label.
//!
//! Invariant: every connection that was accepted ends with exactly one of these, counted.

use crate::code_list::code_list;

code_list! {
    /// Why a connection ended.
    ///
    /// A framed peer is told in its CLOSE frame, where there is still a way to tell it; a classic
    /// peer only sees the connection end.
    CloseReason {
        PeerClosed = 1, "peer-closed", "the peer closed the connection";
        PeerReset = 2, "peer-reset", "the peer reset the connection";
        LoggedOut = 3, "logged-out", "the client logged out";
        Replaced = 4, "replaced", "a newer login of the same user took over";
        Draining = 5, "draining", "the server is shutting down";
        UnknownProtocol = 6, "unknown-protocol", "the first bytes belong to no protocol spoken here";
        UnknownCommand = 7, "unknown-command", "a classic command byte other than 1, 2 and 3";
        UnsupportedVersion = 8, "unsupported-version", "the preface asks for a major version not spoken here";
        BadFrame = 9, "bad-frame", "a frame's fields do not fit its length, or hold a value they cannot have";
        FrameTooLarge = 10, "frame-too-large", "a frame is longer than its kind may be";
        UnknownFrame = 11, "unknown-frame", "a frame of a required kind that is not known, or not taken from this side";
        BadName = 12, "bad-name", "a name is not 1 to 255 bytes of UTF-8 without control characters";
        EmptyTarget = 13, "empty-target", "a classic send to a target of length 0";
        NotLoggedIn = 14, "not-logged-in", "something other than a login came before the login";
        AlreadyLoggedIn = 15, "already-logged-in", "a second login on one framed connection";
        BadCredential = 16, "bad-credential", "the credential was not accepted";
        BadAck = 17, "bad-ack", "an ack of a delivery that was not made";
        LoginTimeout = 18, "login-timeout", "no login in the time given for it";
        IdleTimeout = 19, "idle-timeout", "nothing was heard for longer than the idle time-out";
        SlowReader = 20, "slow-reader", "the reader took its bytes too slowly for too long";
        ServerFull = 21, "server-full", "the server has as many connections as it may hold";
        Overloaded = 22, "overloaded", "the server has no memory for the rest of a long message: it did not come in time, or others hold it all";
        Storage = 23, "storage", "the inbox could not be read or written";
        Unreachable = 24, "unreachable", "the network gave up on the peer";
        Internal = 25, "internal", "a fault of the server";
        NameCollision = 26, "name-collision", "the name cannot be told from another user's in the store";
        AddressLimit = 27, "address-limit", "the peer's address has as many connections, or failed logins in a minute, as it may have";
    }
}

// Decoders fail with the reason to close with.
impl std::error::Error for CloseReason {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ErrorCode, RefusalReason};

    /// `FrameTooLarge` -> `frame-too-large`.
    fn kebab(variant: &str) -> String {
        let mut label = String::new();
        for character in variant.chars() {
            if character.is_ascii_uppercase() && !label.is_empty() {
                label.push('-');
            }
            label.push(character.to_ascii_lowercase());
        }
        label
    }

    #[test]
    fn every_list_is_consistent() {
        macro_rules! consistent {
            ($name:ident) => {
                for code in 0..=u8::MAX {
                    match $name::from_code(code) {
                        Some(value) => {
                            assert_eq!(value.code(), code);
                            assert_eq!($name::ALL[value.index()], value);
                            assert_eq!(value.label(), kebab(&format!("{value:?}")));
                            assert_eq!(value.to_string(), value.label());
                            assert!(value.text().len() > 10);
                        }
                        None => assert!(code == 0 || usize::from(code) > $name::COUNT),
                    }
                }
            };
        }
        consistent!(CloseReason);
        consistent!(RefusalReason);
        consistent!(ErrorCode);
    }
}
