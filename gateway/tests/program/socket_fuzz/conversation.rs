//! What a peer says: a valid conversation of one of the protocols, mutated or not, and how it ends.

use iris_protocol::framed::{PREFACE, encode};
use iris_protocol::{CloseReason, Name, classic};

use crate::support::Random;

/// Users who write to each other; few, so that they take each other over.
const USERS: u64 = 40;
/// Largest payload that the gateway takes, and a little more.
const PAYLOAD_MAX: u64 = 65_536;
const OVERSIZED: u64 = 70_000;

/// How a peer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It ends its side and reads what comes until the gateway ends.
    Politely,
    /// It ends its side and goes.
    Hastily,
    /// It goes, and leaves unread what has come: the kernel resets.
    Unread,
    /// It resets.
    Reset,
    /// It says nothing more, and goes when the gateway has had enough.
    Silently,
}

/// What of what comes a peer reads meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    All,
    Some,
    Nothing,
}

/// What a peer does.
#[derive(Debug)]
pub struct Conversation {
    /// Written one after the other.
    pub pieces: Vec<Vec<u8>>,
    pub reading: Reading,
    /// Its receive buffer is as small as the kernel allows.
    pub is_narrow: bool,
    pub ending: Ending,
}

/// One that is as good as any other.
pub fn make(random: &mut Random) -> Conversation {
    let mut bytes = if random.below(2) == 0 {
        framed(random)
    } else {
        classic(random)
    };
    if random.below(2) == 0 {
        mutate(&mut bytes, random);
    }
    if random.below(3) == 0 {
        bytes.truncate(random.below(bytes.len() as u64 + 1) as usize);
    }
    Conversation {
        pieces: split(&bytes, random),
        reading: [Reading::All, Reading::Some, Reading::Nothing][random.below(3) as usize],
        is_narrow: random.below(8) == 0,
        ending: match random.below(40) {
            0 => Ending::Silently,
            1..=9 => Ending::Politely,
            10..=16 => Ending::Hastily,
            17..=25 => Ending::Unread,
            _ => Ending::Reset,
        },
    }
}

fn user(random: &mut Random) -> String {
    match random.below(50) {
        0 => "n".repeat(255),
        1 => format!("käse-{}", random.below(USERS)),
        _ => format!("user-{}", random.below(USERS)),
    }
}

fn payload(random: &mut Random) -> Vec<u8> {
    let len = match random.below(40) {
        0 => PAYLOAD_MAX,
        1 => random.below(OVERSIZED),
        2..=5 => random.below(8_000),
        _ => random.below(100),
    };
    vec![b'a' + (len % 26) as u8; len as usize]
}

fn framed(random: &mut Random) -> Vec<u8> {
    let mut out = PREFACE.to_vec();
    let name = user(random);
    let name = Name::parse(name.as_bytes()).expect("a name");
    encode::login(&mut out, name, b"");
    let mut sequence = random.below(1 << 40) + 1;
    for _ in 0..random.below(30) {
        let other = user(random);
        match random.below(16) {
            0 => encode::ping(&mut out, random.number()),
            1 => encode::pong(&mut out, random.number()),
            2 => encode::presence_ask(&mut out, other.as_bytes()),
            3 => encode::follow(&mut out, other.as_bytes()),
            4 => encode::unfollow(&mut out, other.as_bytes()),
            5 | 6 => encode::ack(&mut out, random.below(4)),
            7 => {
                // An optional frame that nobody knows.
                out.extend([0, 0, 0, 9, 0xf3, 0, 0, 0]);
                out.extend([7; 9]);
            }
            8 if random.below(4) == 0 => {
                encode::close(&mut out, CloseReason::LoggedOut, 0, "");
            }
            _ => {
                // A repeat, now and then.
                sequence += random.below(8);
                let ttl_seconds = random.below(3) as u32;
                let payload = payload(random);
                encode::send(&mut out, sequence, ttl_seconds, other.as_bytes(), &payload);
            }
        }
    }
    out
}

fn classic(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    let name = user(random);
    classic::encode_login(&mut out, Name::parse(name.as_bytes()).expect("a name"));
    for _ in 0..random.below(30) {
        let other = user(random);
        let name = Name::parse(other.as_bytes()).expect("a name");
        match random.below(12) {
            0 | 1 => classic::encode_login(&mut out, name),
            2 => out.extend(b"\x03some id"),
            _ => {
                let mut payload = payload(random);
                payload.truncate(usize::from(u16::MAX));
                classic::encode_send(&mut out, name, &payload);
            }
        }
    }
    out
}

/// Changes it in a few places.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        let len = bytes.len() as u64;
        if len == 0 {
            return;
        }
        // Most of what is near the beginning is structure.
        let at = if random.below(2) == 0 {
            random.below(len.min(60)) as usize
        } else {
            random.below(len) as usize
        };
        let end = at + random.below((len - at as u64).min(200) + 1) as usize;
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.number() as u8,
            2 => drop(bytes.drain(at..end)),
            3 => {
                let again = bytes[at..end].to_vec();
                bytes.splice(at..at, again);
            }
            _ => bytes.insert(at, random.number() as u8),
        }
    }
}

fn split(bytes: &[u8], random: &mut Random) -> Vec<Vec<u8>> {
    let mut pieces = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let len = match random.below(4) {
            0 => rest.len(),
            1 => random.below(16) as usize + 1,
            _ => random.below(4_096) as usize + 1,
        };
        let (piece, after) = rest.split_at(len.min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}
