//! The bare shard with framed users: each segment begins with the acknowledgement of what its
//! user was delivered, and has several sends behind it.

use iris_gateway::shard::BLOCK;
use iris_protocol::{Name, framed};

use super::bare_shard::Bare;

/// Sends of one segment.
pub const SENDS: usize = 10;

/// The shard, its users, and what they have been delivered.
pub struct BareFramed {
    bare: Bare,
    names: Vec<String>,
    /// Delivered to each, as far as its socket has it.
    delivered: Vec<u64>,
    sequence: u64,
    segments: Vec<Vec<u8>>,
}

impl BareFramed {
    /// So many users, each of whom sends 64 bytes to many others.
    pub fn new(users: usize) -> BareFramed {
        let names: Vec<String> = (0..users).map(|user| format!("user-{user}")).collect();
        let logins = names.iter().map(|name| {
            let mut login = framed::PREFACE.to_vec();
            let name = Name::parse(name.as_bytes()).expect("a name");
            framed::encode::login(&mut login, name, b"");
            login
        });
        BareFramed {
            bare: Bare::new(logins),
            names,
            delivered: vec![0; users],
            sequence: 0,
            segments: vec![Vec::new(); BLOCK],
        }
    }

    /// A turn in which so many messages are received, routed, sent, acknowledged and answered.
    pub fn turn(&mut self, messages: usize) {
        self.bare.begin_turn();
        let users = self.bare.connections.len();
        let mut reached = Vec::with_capacity(messages);
        for _ in 0..messages.div_ceil(BLOCK * SENDS) {
            let block = self.bare.next_block();
            for (segment, sender) in self.segments.iter_mut().zip(block.clone()) {
                segment.clear();
                framed::encode::ack(segment, self.delivered[sender]);
                for nth in 1..=SENDS {
                    self.sequence += 1;
                    let reader = (sender * 7_919 + nth * 31) % users;
                    let name = self.names[reader].as_bytes();
                    framed::encode::send(segment, self.sequence, 0, name, &[b'x'; 64]);
                    reached.push(reader);
                }
            }
            self.bare
                .receive(block.zip(self.segments.iter().map(Vec::as_slice)));
        }
        self.bare.flush();
        for reader in reached {
            self.delivered[reader] += 1;
        }
    }

    /// Messages whose readers have acknowledged them.
    pub fn delivered(&self) -> u64 {
        self.bare.delivered()
    }
}
