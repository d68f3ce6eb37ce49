//! A user came or went, and its followers are told: a few each turn at the user's home, and on each follower's core as
//! fast as that follower takes it.
//!
//! Owner: the shard. Invariants: a turn tells a bounded number of followers, and a batch for another core has no more of
//! that, so that a user with many followers holds nobody up; users whose followers are being told take turns; a session
//! keeps the newest state of each user it follows and no older one, and a connection that takes nothing holds no more
//! than that.

use iris_protocol::Name;
use iris_protocol::framed::{self, Presence};

use super::Shard;
use super::envelope::Notice;
use super::followers::REST_MS;
use super::slots::Key;

/// Followers told in a turn: most cost a send of their own, and 16 sends take less than a tenth of a millisecond.
const TOLD_PER_TURN: usize = 16;
/// The same of one batch to another core, which takes it in one turn.
pub(super) const TOLD_PER_BATCH: usize = 16;
/// Bytes that wait for a socket from which on changes wait for the socket as well: those that are replaced meanwhile
/// are never sent.
const UNSENT_BYTES_MAX: u64 = 2 << 10;

impl Shard {
    /// A user of this core came or went.
    pub(super) fn presence_changed(&mut self, user_key: Key) {
        if let Some(user) = self.users.get_mut(user_key)
            && let Some(followers) = user.followers.as_deref_mut()
            && followers.change()
        {
            self.telling.push_back(user_key);
        }
    }

    /// Tells some more followers of changes; says whether any were told. To be called once a turn.
    pub fn tell_followers(&mut self) -> bool {
        let mut told = 0;
        // Users whose next follower is behind a lane without room wait, and the others go on.
        let mut left = self.telling.len();
        while told < TOLD_PER_TURN
            && left > 0
            && let Some(user_key) = self.telling.pop_front()
        {
            left -= 1;
            if self.tell_some(user_key, &mut told) {
                self.resting.push(self.now.core_ms + REST_MS, user_key);
            } else {
                self.telling.push_back(user_key);
            }
        }
        told > 0
    }

    /// Goes on with the round of one user; says whether it has ended.
    fn tell_some(&mut self, user_key: Key, told: &mut usize) -> bool {
        while *told < TOLD_PER_TURN {
            let Some(user) = self.users.get_mut(user_key) else {
                return true;
            };
            let away_since_ms = (!user.is_online()).then_some(user.last_seen_ms);
            let name = std::rc::Rc::clone(&user.name);
            let Some(followers) = user.followers.as_deref_mut() else {
                return true;
            };
            let Some(follower) = followers.peek() else {
                followers.end_round();
                return true;
            };
            if follower.core != self.core {
                let lane = &mut self.lanes[usize::from(follower.core)];
                // Notices leave half of a batch to messages.
                if lane.notices >= TOLD_PER_BATCH
                    || lane.batch.len() > self.limits.lane_batch_bytes_max / 2
                {
                    return false;
                }
                lane.notices += 1;
            }
            followers.told();
            *told += 1;
            self.metrics.follow_changes += 1;
            self.tell_presence(follower, &name, away_since_ms, Notice::Change);
        }
        false
    }

    /// The rests that are over; users that changed meanwhile are told of again.
    pub(super) fn end_rests(&mut self) {
        while let Some(user_key) = self.resting.pop_due(self.now.core_ms) {
            let Some(user) = self.users.get_mut(user_key) else {
                continue;
            };
            let Some(followers) = user.followers.as_deref_mut() else {
                continue;
            };
            if followers.rested() {
                self.telling.push_back(user_key);
            } else if followers.is_over() {
                user.followers = None;
                self.forget_if_done(user_key);
            }
        }
    }

    /// Whether followers are still to be told, as far as there is room for it.
    pub fn is_telling(&self) -> bool {
        !self.telling.is_empty()
    }

    /// A session is told that a user it follows came or went.
    pub(super) fn note_change(&mut self, id: Key, name: &str, state: Presence) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Some(interest) = connection.interest.as_deref_mut() else {
            return;
        };
        let mut follows = interest.follows.iter_mut();
        // If it is not among them it was unfollowed meanwhile.
        if let Some(followed) = follows.find(|one| *one.name == *name) {
            interest.news += usize::from(followed.news.replace(state).is_none());
            self.tell_news(id);
        }
    }

    /// Tells a session what it does not know yet of those it follows, as far as it takes it.
    pub(super) fn tell_news(&mut self, id: Key) {
        while let Some(connection) = self.connections.get_mut(id)
            && let Some(interest) = connection.interest.as_deref_mut()
            && interest.news > 0
        {
            let unsent = connection.outbox.as_ref().map_or(0, |o| o.unsent_bytes());
            if unsent > UNSENT_BYTES_MAX || self.is_closing(id) {
                return;
            }
            let Some(interest) = self
                .connections
                .get_mut(id)
                .and_then(|connection| connection.interest.as_deref_mut())
            else {
                return;
            };
            interest.news -= 1;
            let mut follows = interest.follows.iter_mut();
            let Some((name, state)) =
                follows.find_map(|one| Some((one.name.clone(), one.news.take()?)))
            else {
                return;
            };
            if let Ok(user) = Name::parse(name.as_bytes()) {
                self.push_frame(id, |out| framed::encode::presence(out, user, state));
            }
        }
    }
}
