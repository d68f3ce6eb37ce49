//! A model of the store: what is committed stays, in order; replies come late,
//! and some requests fail.

use std::collections::{BTreeMap, HashSet, VecDeque};

use iris_gateway::shard::Shard;
use iris_storage::{FailureKind, Party, Reply, Request, StoredMessage, record};

use crate::client::user_of;
use crate::ledger::Message;
use crate::random::Random;

#[derive(Default)]
struct Inbox {
    head: u64,
    messages: BTreeMap<u64, Vec<u8>>,
    last_seen_ms: u64,
}

/// A page that somebody waits for.
struct Page {
    core: usize,
    token: u64,
    party: Party,
    name: Box<str>,
}

/// The store of the simulated world; writes and reads queue apart, as the real one's do.
pub struct Store {
    inboxes: BTreeMap<String, Inbox>,
    writes: VecDeque<(usize, Request)>,
    reads: Vec<(usize, Request)>,
    replies: Vec<VecDeque<Reply>>,
    /// Pages that were asked for and not replied to.
    pages: Vec<Page>,
    cancels: u64,
    next_sequence: u64,
    pub fails_one_in: usize,
    /// It commits nothing.
    pub stalled: bool,
    /// Messages an inbox may hold; one more is refused.
    pub inbox_messages_max: usize,
    /// Every payload that was ever committed.
    pub committed: HashSet<Vec<u8>>,
}

impl Store {
    pub fn new(cores: usize, fails_one_in: usize) -> Store {
        Store {
            inboxes: BTreeMap::new(),
            writes: VecDeque::new(),
            reads: Vec::new(),
            replies: (0..cores).map(|_| VecDeque::new()).collect(),
            pages: Vec::new(),
            cancels: 0,
            next_sequence: 1,
            fails_one_in,
            stalled: false,
            inbox_messages_max: usize::MAX,
            committed: HashSet::new(),
        }
    }

    pub fn submit(&mut self, core: usize, request: Request) {
        match request {
            Request::Append { .. } | Request::Burn { .. } | Request::Seen { .. } => {
                self.writes.push_back((core, request));
            }
            Request::Page { .. } | Request::Account { .. } => {
                self.note_page(core, &request);
                self.reads.push((core, request));
            }
            Request::Cancel { token, .. } => self.cancel(core, token),
        }
    }

    /// At most one page of a connection is under way, and one of a user.
    fn note_page(&mut self, core: usize, request: &Request) {
        let Request::Page {
            token, party, name, ..
        } = request
        else {
            return;
        };
        for page in &self.pages {
            assert_ne!(page.name, *name, "a second page of a user");
            assert_ne!(page.party, *party, "a second page on a connection");
        }
        self.pages.push(Page {
            core,
            token: *token,
            party: *party,
            name: name.clone(),
        });
    }

    /// Takes a read out of the queue, unless a reader is at it.
    fn cancel(&mut self, core: usize, token: u64) {
        self.cancels += 1;
        let is_it = |(of, read): &(usize, Request)| *of == core && read.token() == Some(token);
        if !self.cancels.is_multiple_of(3)
            && let Some(at) = self.reads.iter().position(is_it)
        {
            self.reads.swap_remove(at);
            let error = FailureKind::Cancelled;
            self.replies[core].push_back(Reply::Failed { token, error });
        }
    }

    /// The process is gone: what was committed stays.
    pub fn crash(&mut self) {
        self.writes.clear();
        self.reads.clear();
        self.pages.clear();
        self.replies.iter_mut().for_each(VecDeque::clear);
    }

    pub fn is_idle(&self) -> bool {
        self.writes.is_empty()
            && self.reads.is_empty()
            && self.replies.iter().all(VecDeque::is_empty)
    }

    /// Messages that no reader has.
    pub fn depth(&self) -> usize {
        self.inboxes
            .values()
            .map(|inbox| inbox.messages.range(inbox.head..).count())
            .sum()
    }

    /// Those messages, and whose they are.
    pub fn unread(&self) -> impl Iterator<Item = (usize, Message)> {
        self.inboxes.iter().flat_map(|(name, inbox)| {
            inbox.messages.range(inbox.head..).map(|(_, record)| {
                let view = record::view(record).expect("it was sealed");
                (user_of(name), Message::parse(view.payload))
            })
        })
    }

    fn depth_of(&self, name: &str) -> usize {
        self.inboxes
            .get(name)
            .map_or(0, |inbox| inbox.messages.range(inbox.head..).count())
    }

    /// Commits some of what is queued, in order.
    pub fn commit(&mut self, random: &mut Random) {
        if self.stalled {
            return;
        }
        for _ in 0..1 + random.below(8) {
            let Some((core, request)) = self.writes.pop_front() else {
                return;
            };
            let fails = self.fails_one_in > 0 && random.one_in(self.fails_one_in);
            let reply = match request {
                Request::Append { token, .. } | Request::Burn { token, .. } if fails => {
                    Reply::Failed {
                        token,
                        error: FailureKind::Unwritable,
                    }
                }
                Request::Append { token, name, .. }
                    if self.depth_of(&name) >= self.inbox_messages_max =>
                {
                    Reply::Failed {
                        token,
                        error: FailureKind::InboxFull,
                    }
                }
                Request::Append {
                    token,
                    name,
                    mut record,
                    ..
                } => {
                    record::seal(&mut record, 1, 1).expect("shards write sound records");
                    let sequence = self.next_sequence;
                    self.next_sequence += 1 + random.below(3) as u64;
                    let view = record::view(&record).expect("shards write sound records");
                    self.committed.insert(view.payload.to_vec());
                    self.inboxes
                        .entry(name.into())
                        .or_default()
                        .messages
                        .insert(sequence, record);
                    Reply::Appended { token, sequence }
                }
                Request::Burn {
                    token, name, head, ..
                } => {
                    let inbox = self.inboxes.entry(name.into()).or_default();
                    inbox.head = inbox.head.max(head);
                    Reply::Burned { token }
                }
                Request::Seen { name, at_ms, .. } => {
                    self.inboxes.entry(name.into()).or_default().last_seen_ms = at_ms;
                    continue;
                }
                Request::Page { .. } | Request::Account { .. } | Request::Cancel { .. } => {
                    unreachable!("reads queue apart")
                }
            };
            self.replies[core].push_back(reply);
        }
    }

    /// Does one of the queued reads, any of them.
    pub fn read(&mut self, random: &mut Random) {
        if self.reads.is_empty() {
            return;
        }
        let at = random.below(self.reads.len());
        let (core, request) = self.reads.swap_remove(at);
        let fails = self.fails_one_in > 0 && random.one_in(self.fails_one_in);
        let reply = match request {
            Request::Page { token, .. } | Request::Account { token, .. } if fails => {
                Reply::Failed {
                    token,
                    error: FailureKind::Unreadable,
                }
            }
            Request::Page {
                token,
                name,
                from,
                messages_max,
                bytes_max,
                ..
            } => {
                let inbox = self.inboxes.entry(name.into()).or_default();
                let start = from.max(inbox.head);
                let mut bytes = 0;
                let messages: Vec<StoredMessage> = inbox
                    .messages
                    .range(start..)
                    .take(messages_max.min(1 + random.below(6)))
                    .take_while(|(_, record)| {
                        let first = bytes == 0;
                        bytes += record.len();
                        first || bytes <= bytes_max
                    })
                    .map(|(sequence, record)| StoredMessage {
                        sequence: *sequence,
                        record: record.as_slice().into(),
                    })
                    .collect();
                let next = messages
                    .last()
                    .map_or(start, |message| message.sequence + 1);
                let end = inbox.messages.range(next..).next().is_none();
                Reply::Page {
                    token,
                    messages,
                    next,
                    end,
                    lost: 0,
                }
            }
            Request::Account { token, name, .. } => {
                let inbox = self.inboxes.entry(name.into()).or_default();
                Reply::Account {
                    token,
                    messages: inbox.messages.range(inbox.head..).count() as u64,
                    bytes: 0,
                    last_seen_ms: inbox.last_seen_ms,
                }
            }
            _ => unreachable!("writes queue apart"),
        };
        self.replies[core].push_back(reply);
    }

    /// Gives a core some of its replies.
    pub fn reply(&mut self, core: usize, shard: &mut Shard, random: &mut Random) {
        for _ in 0..1 + random.below(6) {
            match self.replies[core].pop_front() {
                Some(reply) => {
                    let token = reply.token();
                    self.pages
                        .retain(|page| (page.core, page.token) != (core, token));
                    shard.stored(reply);
                }
                None => return,
            }
        }
    }
}
