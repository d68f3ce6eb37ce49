//! Which protocol a connection speaks: told by its first byte, decided here and nowhere else.
//!
//! TLS (0x16) and WebSocket (`G` of `GET `) are not spoken yet; when they are, they are told apart
//! here.

/// A protocol that shares the port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Protocol {
    /// The bytes of the Erlang Iris: see [`crate::classic`].
    Classic,
    /// The framed protocol: see [`crate::framed`].
    Framed,
}

impl Protocol {
    /// The name in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Protocol::Classic => "classic",
            Protocol::Framed => "framed",
        }
    }
}

/// The protocols that are spoken somewhere.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Protocols {
    /// [`Protocol::Classic`] is.
    pub classic: bool,
    /// [`Protocol::Framed`] is.
    pub framed: bool,
}

impl Protocols {
    /// Every one.
    pub const ALL: Protocols = Protocols {
        classic: true,
        framed: true,
    };

    /// Whether this one is spoken.
    pub const fn speaks(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Classic => self.classic,
            Protocol::Framed => self.framed,
        }
    }
}

/// The protocol that begins with this byte. `None`: close with
/// [`CloseReason::UnknownProtocol`](crate::CloseReason::UnknownProtocol).
///
/// A classic send (0x02) is told from noise although nobody is logged in yet, so that such a client
/// is counted as not logged in rather than as an unknown protocol.
#[inline]
pub const fn sniff(first_byte: u8) -> Option<Protocol> {
    match first_byte {
        crate::classic::LOGIN | crate::classic::SEND => Some(Protocol::Classic),
        b'I' => Some(Protocol::Framed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_bytes_and_no_others_begin_a_protocol() {
        for byte in 0..=u8::MAX {
            let expected = match byte {
                0x01 | 0x02 => Some(Protocol::Classic),
                0x49 => Some(Protocol::Framed),
                _ => None,
            };
            assert_eq!(sniff(byte), expected, "{byte:#04x}");
        }
        assert_eq!(sniff(crate::framed::PREFACE[0]), Some(Protocol::Framed));
    }
}
