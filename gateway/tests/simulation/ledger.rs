//! What was sent, what was promised, and what came: the invariants are checked here.

use std::collections::{BTreeMap, HashMap, HashSet};

use iris_protocol::{MessageId, Outcome};

/// A message as the ledger knows it: the payload says who sent it to whom, and
/// its place among that sender's messages.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Message {
    pub sender: usize,
    pub number: u64,
    pub target: usize,
    /// The client that sent it first: order holds for what one client sends.
    pub client: usize,
}

impl Message {
    /// `<sender,number,target,client,padding>`: readable in a stream without frames.
    pub fn payload(&self, padding: usize) -> Vec<u8> {
        let mut payload = format!(
            "<{},{},{},{},",
            self.sender, self.number, self.target, self.client
        )
        .into_bytes();
        payload.resize(payload.len() + padding, b'.');
        payload.push(b'>');
        payload
    }

    pub fn parse(payload: &[u8]) -> Message {
        let text = std::str::from_utf8(payload)
            .unwrap_or_else(|_| panic!("torn {:?}", String::from_utf8_lossy(payload)));
        let inner = text
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'))
            .unwrap_or_else(|| panic!("torn payload {text:?}"));
        let mut fields = inner.split(',');
        let mut field = || {
            fields
                .next()
                .expect("five fields")
                .parse()
                .expect("a number")
        };
        Message {
            sender: field() as usize,
            number: field(),
            target: field() as usize,
            client: field() as usize,
        }
    }
}

#[derive(Default)]
pub struct Ledger {
    pub promised: BTreeMap<Message, Outcome>,
    /// Messages in the hands of a client of their reader.
    pub received: HashSet<Message>,
    /// Newest number by sending client and reader that has come.
    newest: HashMap<(usize, usize, usize), u64>,
    pub repeats: u64,
    /// Messages whose acknowledgement by a framed reader was read, and how many
    /// clients there had been by then.
    pub acked: HashMap<Message, usize>,
    /// The first client of this life of the gateway.
    pub first_client: usize,
    /// Requests of the store may fail.
    pub store_fails: bool,
    /// A refused send that is repeated comes when it is repeated.
    pub order_of_repeats_is_open: bool,
    pub deliveries: u64,
    /// Whose message has which id, and the other way round.
    of_id: HashMap<MessageId, (usize, u64)>,
    id_of: HashMap<(usize, u64), MessageId>,
}

impl Ledger {
    /// Client number `at`, one of `reader`'s, received this message.
    pub fn arrived(&mut self, reader: usize, at: usize, message: Message) {
        assert_eq!(message.target, reader, "{message:?} came to user {reader}");
        self.deliveries += 1;
        if !self.received.insert(message.clone()) {
            self.repeats += 1;
            assert!(
                self.store_fails || self.acked.get(&message).is_none_or(|before| at < *before),
                "{message:?} came again though its acknowledgement was read"
            );
            return;
        }
        let newest = self
            .newest
            .entry((message.client, message.sender, reader))
            .or_default();
        assert!(
            message.number > *newest || self.order_of_repeats_is_open,
            "order: {message:?} came first after number {newest}"
        );
        *newest = message.number.max(*newest);
    }

    /// A client saw this id with a message of a framed sender.
    pub fn identified(&mut self, id: MessageId, message: (usize, u64)) {
        let known = *self.id_of.entry(message).or_insert(id);
        assert_eq!(known, id, "a message keeps its id");
        let owner = *self.of_id.entry(id).or_insert(message);
        assert_eq!(owner, message, "no two messages share an id");
    }

    /// The gateway promised something about a message.
    pub fn answered(&mut self, message: Message, outcome: Outcome, is_stored: bool) {
        match outcome {
            Outcome::Delivered => assert!(
                self.received.contains(&message),
                "{message:?} was called delivered, but its reader does not have it"
            ),
            Outcome::Stored => assert!(
                is_stored,
                "{message:?} was called stored, but the store does not have it"
            ),
            Outcome::Refused(_) => return,
        }
        self.promised.insert(message, outcome);
    }

    /// At the end, with every inbox drained.
    pub fn settle(&self) {
        for (message, outcome) in &self.promised {
            assert!(
                self.received.contains(message),
                "lost: {message:?} was acknowledged as {outcome:?} and never came"
            );
        }
    }
}
