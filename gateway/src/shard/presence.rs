//! Who is online, who was last seen when, and who wants to be told.
//!
//! Owner: the home core of the user in question answers; the asking connection's
//! core passes questions and answers on. Both directions are bounded: a session
//! follows so many, a user has so many followers, a session asks so much at once.
//! How changes are told is in [`fan_out`](super::fan_out).

use iris_protocol::framed::{self, Presence};
use iris_protocol::{ErrorCode, Name};
use iris_storage::Request;

use super::Shard;
use super::connection::Followed;
use super::envelope::{self, Envelope, Inquiry, Notice};
use super::followers::Follower;
use super::inbox::Pending;
use super::reads::party_of;
use super::slots::Key;

impl Shard {
    /// A framed client asks about a user.
    pub(super) fn inquire(&mut self, id: Key, inquiry: Inquiry, user: &[u8]) {
        let Ok(name) = Name::parse(user) else {
            self.push_error(id, ErrorCode::BadName, user);
            return;
        };
        let name = name.as_str();
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let interest = connection.interest.get_or_insert_default();
        let follows = interest
            .follows
            .iter()
            .position(|followed| *followed.name == *name);
        match inquiry {
            Inquiry::Unfollow => match follows {
                Some(at) => {
                    let followed = interest.follows.swap_remove(at);
                    interest.news -= usize::from(followed.news.is_some());
                }
                None => return,
            },
            Inquiry::Ask | Inquiry::Follow => {
                if interest.inquiries >= self.limits.inquiries_max {
                    self.push_error(id, ErrorCode::Overloaded, user);
                    return;
                }
                if inquiry == Inquiry::Follow && follows.is_none() {
                    if interest.follows.len() >= self.limits.follows_max as usize {
                        self.push_error(id, ErrorCode::FollowLimit, user);
                        return;
                    }
                    interest.follows.push(Followed {
                        name: name.into(),
                        news: None,
                    });
                }
                interest.inquiries += 1;
            }
        }
        self.send_inquiry(id, inquiry, name);
    }

    fn send_inquiry(&mut self, id: Key, inquiry: Inquiry, name: &str) {
        let home = self.name_key.hash(name).home(usize::from(self.cores));
        if home == usize::from(self.core) {
            self.inquired(self.core, id, inquiry, name);
        } else {
            envelope::push(
                &mut self.lanes[home].batch,
                &Envelope::Inquire {
                    inquiry,
                    connection: id,
                    name,
                },
            );
        }
    }

    /// A connection of some core asks about a user of this one.
    pub(super) fn inquired(&mut self, core: u16, connection: Key, inquiry: Inquiry, name: &str) {
        let follower = Follower { core, connection };
        let hash = self.name_key.hash(name);
        if inquiry == Inquiry::Unfollow {
            if let Some(user_key) = self.directory.get(&hash).copied()
                && self.is_named(user_key, name)
            {
                self.remove_follower(user_key, follower);
                self.forget_if_done(user_key);
            }
            return;
        }
        let user_key = self.user_entry(hash, name);
        if !self.is_named(user_key, name) {
            self.metrics.name_collisions += 1;
            self.tell_presence(follower, name, None, Notice::NameCollision);
            return;
        }
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        if inquiry == Inquiry::Follow {
            let known = user.followers.as_deref();
            let is_new = known.is_none_or(|known| !known.contains(follower));
            let len = known.map_or(0, |known| known.len());
            if is_new && len >= self.limits.followers_max as usize {
                self.tell_presence(follower, name, None, Notice::FollowRefused);
                self.forget_if_done(user_key);
                return;
            }
            if is_new {
                user.followers.get_or_insert_default().add(follower);
            }
        }
        if user.is_online() {
            self.tell_presence(follower, name, None, Notice::Answer);
        } else if user.last_seen_ms > 0 {
            let last_seen_ms = user.last_seen_ms;
            self.tell_presence(follower, name, Some(last_seen_ms), Notice::Answer);
        } else {
            user.requests += 1;
            let token = self.pending.insert(Pending::LastSeen {
                user: user_key,
                core,
                connection,
            });
            self.effects.store.push(Request::Account {
                token: token as u64,
                party: party_of(core, connection),
                user: hash,
                name: name.into(),
            });
        }
    }

    fn is_named(&self, user_key: Key, name: &str) -> bool {
        self.users
            .get(user_key)
            .is_some_and(|user| *user.name == *name)
    }

    fn remove_follower(&mut self, user_key: Key, follower: Follower) {
        if let Some(user) = self.users.get_mut(user_key)
            && let Some(followers) = user.followers.as_mut()
        {
            followers.remove(follower);
            if followers.is_over() {
                user.followers = None;
            }
        }
    }

    /// The store keeps another user under the key of the one that was asked about.
    pub(super) fn inquiry_collided(&mut self, user_key: Key, follower: Follower) {
        self.metrics.name_collisions += 1;
        self.remove_follower(user_key, follower);
        if let Some(user) = self.users.get(user_key) {
            let name = std::rc::Rc::clone(&user.name);
            self.tell_presence(follower, &name, None, Notice::NameCollision);
        }
    }

    /// The store said when a user was last seen.
    pub(super) fn last_seen_known(&mut self, user_key: Key, follower: Follower, last_seen_ms: u64) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        user.last_seen_ms = user.last_seen_ms.max(last_seen_ms);
        let away_since_ms = (!user.is_online()).then_some(user.last_seen_ms);
        let name = std::rc::Rc::clone(&user.name);
        self.tell_presence(follower, &name, away_since_ms, Notice::Answer);
    }

    pub(super) fn tell_presence(
        &mut self,
        to: Follower,
        name: &str,
        away_since_ms: Option<u64>,
        notice: Notice,
    ) {
        if to.core == self.core {
            self.presence_told(to.connection, name, away_since_ms, notice);
        } else {
            envelope::push(
                &mut self.lanes[usize::from(to.core)].batch,
                &Envelope::Presence {
                    connection: to.connection,
                    name,
                    away_since_ms,
                    notice,
                },
            );
        }
    }

    /// A connection of this core is told about a user.
    pub(super) fn presence_told(
        &mut self,
        id: Key,
        name: &str,
        away_since_ms: Option<u64>,
        notice: Notice,
    ) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        if !connection.has_session() || self.is_closing(id) {
            return;
        }
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let state = match away_since_ms {
            None => Presence::Online,
            Some(last_seen_ms) => Presence::Away { last_seen_ms },
        };
        if notice == Notice::Change {
            self.note_change(id, name, state);
            return;
        }
        let interest = connection.interest.get_or_insert_default();
        interest.inquiries = interest.inquiries.saturating_sub(1);
        let follows = interest.follows.iter().position(|one| *one.name == *name);
        let refusal = match notice {
            Notice::FollowRefused => Some(ErrorCode::FollowersLimit),
            Notice::NameCollision => Some(ErrorCode::BadName),
            Notice::Answer | Notice::Change => None,
        };
        if let Some(code) = refusal {
            if let Some(at) = follows {
                let followed = interest.follows.swap_remove(at);
                interest.news -= usize::from(followed.news.is_some());
            }
            self.push_error(id, code, name.as_bytes());
            return;
        }
        // The answer is newer than what was still to be told.
        if let Some(at) = follows
            && interest.follows[at].news.take().is_some()
        {
            interest.news -= 1;
        }
        let Ok(user) = Name::parse(name.as_bytes()) else {
            return;
        };
        self.push_frame(id, |out| framed::encode::presence(out, user, state));
        self.pause_if_flooded(id);
    }

    fn push_error(&mut self, id: Key, code: ErrorCode, subject: &[u8]) {
        self.push_frame(id, |out| {
            framed::encode::error(out, code, subject, code.text())
        });
        self.pause_if_flooded(id);
    }

    /// A session ended: nobody tells it anything any more.
    pub(super) fn unfollow_all(&mut self, id: Key) {
        let Some(connection) = self.connections.get_mut(id) else {
            return;
        };
        let Some(interest) = connection.interest.take() else {
            return;
        };
        for followed in &interest.follows {
            self.send_inquiry(id, Inquiry::Unfollow, &followed.name);
        }
    }
}
