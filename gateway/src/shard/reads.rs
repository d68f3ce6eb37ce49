//! What the store reads for the connections of a shard: pages and the depths of inboxes.
//!
//! Owner: the shard. Invariants: of a connection, whoever it has been, at most one page is under way, and at most one
//! of a user, whatever connections it has had; the next waits for the reply to the one before. What a session asked
//! is cancelled when it ends; each read is answered once all the same, and a reply that nobody waits for any more is
//! counted and dropped.

use iris_storage::{FailureKind, Party, Reply, Request};

use super::Shard;
use super::connection::Phase;
use super::inbox::Pending;
use super::limits::{
    DEPTH_RETRIES, FIRST_PAGE_BYTES, FIRST_PAGE_MESSAGES, PAGE_MESSAGES, STORE_RETRY_MS,
};
use super::slots::Key;
use super::user::DepthAsked;

/// Who waits for a page.
#[derive(Clone, Copy)]
pub(super) struct PageAsked {
    user: Key,
    connection: Key,
}

/// For whom the store reads what a connection asks: the connection, whoever it is just now, so that it gains nothing by
/// becoming many users.
pub(super) fn party_of(core: u16, connection: Key) -> Party {
    Party(u128::from(core) << 64 | u128::from(connection.token()))
}

impl Shard {
    /// Whether a page may be asked for a user's session: none is under way for the user or on the connection.
    pub(super) fn may_ask_page(&self, user_key: Key, connection: Key) -> bool {
        let user_waits = self.users.get(user_key).is_none_or(|user| user.paging);
        let connection = self.connections.get(connection);
        !user_waits && connection.is_some_and(|connection| !connection.paging)
    }

    /// Asks for the next page of a session's drain, of so many bytes.
    pub(super) fn ask_page(&mut self, user_key: Key, id: Key, mut bytes_max: usize) {
        let (Some(user), Some(connection)) =
            (self.users.get_mut(user_key), self.connections.get_mut(id))
        else {
            return;
        };
        let Some(drain) = user.drain.as_deref_mut() else {
            return;
        };
        let mut messages_max = PAGE_MESSAGES.min(self.limits.unacked_deliveries_max as usize / 2);
        if drain.is_first {
            messages_max = messages_max.min(FIRST_PAGE_MESSAGES);
            bytes_max = bytes_max.min(FIRST_PAGE_BYTES);
        }
        let token = self.pending.insert(Pending::Page(PageAsked {
            user: user_key,
            connection: id,
        }));
        drain.page = Some(token as u32);
        user.requests += 1;
        user.paging = true;
        connection.paging = true;
        self.effects.store.push(Request::Page {
            token: token as u64,
            party: party_of(self.core, id),
            user: user.hash(self.name_key),
            name: Box::from(&*user.name),
            from: user.next_sequence,
            messages_max: messages_max.max(1),
            bytes_max,
        });
    }

    /// The reply to a question for a page.
    pub(super) fn page_replied(&mut self, asked: PageAsked, reply: Reply) {
        let PageAsked { user, connection } = asked;
        self.request_done(user);
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.paging = false;
        }
        let token = reply.token() as u32;
        let drain = self.users.get_mut(user).and_then(|user| {
            user.paging = false;
            user.drain.as_deref_mut()
        });
        let is_awaited =
            drain.is_some_and(|drain| drain.page.take_if(|page| *page == token).is_some());
        match reply {
            Reply::Page {
                messages,
                next,
                end,
                lost,
                ..
            } if is_awaited => {
                self.metrics.lost += u64::from(lost);
                self.page(user, &messages, next, end);
            }
            Reply::Failed {
                error: FailureKind::NameCollision,
                ..
            } if is_awaited => self.name_collided(user),
            _ if is_awaited => self.page_failed(user),
            reply => {
                self.metrics.reads_unused += u64::from(matches!(reply, Reply::Page { .. }));
                // Whoever comes after that session may have waited for this.
                self.advance_drain(user);
                let next_user = self.user_of(connection);
                if let Some(next_user) = next_user.filter(|next_user| *next_user != user) {
                    self.advance_drain(next_user);
                }
                self.forget_if_done(user);
            }
        }
    }

    /// Asks how deep the inbox of a framed user is who is logging in, once all that
    /// is under way to it has arrived: what the older session left, and the burn of
    /// what its reader has. So the number is that of the deliveries to come.
    pub(super) fn ask_depth(&mut self, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let id = user.session;
        let is_welcoming = self
            .connections
            .get(id)
            .is_some_and(|connection| connection.phase == Phase::Welcoming);
        let Some(drain) = user.drain.as_deref_mut() else {
            return;
        };
        let must_wait = drain.appends_before > 0 || user.burning;
        let is_early = self.now.core_ms < drain.retry_at_ms;
        if !is_welcoming || drain.depth_asked.is_some() || must_wait || is_early {
            return;
        }
        user.requests += 1;
        let token = self.pending.insert(Pending::Welcome {
            user: user_key,
            connection: id,
        });
        drain.depth_asked = Some(DepthAsked {
            token: token as u32,
            tail_sequence: user.tail_sequence,
        });
        self.effects.store.push(Request::Account {
            token: token as u64,
            party: party_of(self.core, id),
            user: user.hash(self.name_key),
            name: Box::from(&*user.name),
        });
    }

    /// The reply to a question for the depth of an inbox.
    pub(super) fn depth_replied(&mut self, user_key: Key, id: Key, reply: &Reply) {
        self.request_done(user_key);
        let user = self.users.get_mut(user_key);
        let awaited = user.filter(|user| user.session == id).and_then(|user| {
            let asked = user.drain.as_deref_mut()?.depth_asked.take()?;
            // All that was stored before it was asked is counted in it, and nothing has come to be stored since.
            let is_exact = user.appending == 0 && user.tail_sequence == asked.tail_sequence;
            Some(is_exact)
        });
        match (awaited, reply) {
            (Some(is_exact), Reply::Account { messages, .. }) => {
                self.welcome(id, *messages);
                if is_exact && *messages == 0 {
                    self.find_empty(user_key, id);
                } else {
                    self.advance_drain(user_key);
                }
                self.read_unread(id);
            }
            (
                Some(_),
                Reply::Failed {
                    error: FailureKind::NameCollision,
                    ..
                },
            ) => self.name_collided(user_key),
            (Some(_), _) => self.depth_failed(user_key, id),
            (None, _) => {
                self.metrics.reads_unused += u64::from(matches!(reply, Reply::Account { .. }));
            }
        }
        self.forget_if_done(user_key);
    }

    /// A session that was welcomed to an inbox without a message, to which none is on its way: there is nothing to drain.
    fn find_empty(&mut self, user_key: Key, id: Key) {
        let is_session = self
            .connections
            .get(id)
            .is_some_and(|connection| connection.phase == Phase::Session);
        if is_session && let Some(user) = self.users.get_mut(user_key) {
            user.next_sequence = user.next_sequence.max(user.tail_sequence);
            self.go_live(user_key, id);
        }
    }

    /// The store could not say how deep the inbox is. It is asked again a few times,
    /// since a store that fails heals soon or not at all; then the login goes on, for
    /// messages between users who are online need no store.
    fn depth_failed(&mut self, user_key: Key, id: Key) {
        let retry_at_ms = self.now.core_ms + STORE_RETRY_MS;
        let drain = self.users.get_mut(user_key).map(|user| &mut user.drain);
        match drain {
            Some(Some(drain)) if drain.depth_failures < DEPTH_RETRIES => {
                drain.depth_failures += 1;
                drain.retry_at_ms = retry_at_ms;
                self.check_within(id, STORE_RETRY_MS);
            }
            _ => {
                self.welcome(id, 0);
                self.advance_drain(user_key);
                self.read_unread(id);
            }
        }
    }

    /// A session ends: what it asked of the store is not wanted any more.
    pub(super) fn cancel_reads(&mut self, id: Key, user_key: Key) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let Some(drain) = user.drain.as_deref_mut() else {
            return;
        };
        let party = party_of(self.core, id);
        let depth = drain.depth_asked.take().map(|asked| asked.token);
        for token in [drain.page.take(), depth].into_iter().flatten() {
            self.effects.store.push(Request::Cancel {
                token: u64::from(token),
                party,
            });
        }
    }
}
