//! What is due: logins that take too long or come too often, silence, readers that do not
//! acknowledge, memory that idles.
//!
//! Owner: the shard. The wheel says whom to look at; here is what is looked for,
//! and when to look next.

use iris_protocol::CloseReason;

use super::Shard;
use super::connection::{Pause, Phase};
use super::limits::{
    ANSWERS_KEPT_MS, CHECK_MS, FAILED_MS, PROBE_AFTER_MS, PROBE_AGAIN_MS, STORE_AGAIN_MS,
};
use super::moments::Moments;
use super::slots::Key;

impl Shard {
    /// Time has passed: looks after everything that came due.
    pub fn tick(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.wheel.advance(self.now.core_ms, &mut due);
        for (id, tick) in due.drain(..) {
            if let Some(connection) = self.connections.get_mut(id)
                && connection.check_at == tick
            {
                connection.check_at = 0;
                self.check(id);
            }
        }
        self.due = due;
        self.end_rests();
        self.ask_for_answered();
        while let Some(user_key) = self.departed.pop_due(self.now.core_ms) {
            self.look_after_departed(user_key, false);
        }
    }

    /// When [`Shard::tick`] has something to do next, milliseconds of the core's clock.
    pub fn next_tick_ms(&self) -> Option<u64> {
        [&self.departed, &self.resting, &self.answered_logins]
            .into_iter()
            .map(Moments::next_due_ms)
            .chain([self.wheel.next_due_ms()])
            .flatten()
            .min()
    }

    /// A user has left: its answers are remembered until then, or until too many
    /// others have left after it.
    pub(super) fn remember_departed(&mut self, user_key: Key, until_ms: u64) {
        let Some(Some(sends)) = self.users.get_mut(user_key).map(|user| &mut user.sends) else {
            return;
        };
        if std::mem::replace(&mut sends.departed, true) {
            return;
        }
        self.departed.push(until_ms, user_key);
        // Those that wait for an answer stay; what they wait for is bounded elsewhere.
        if self.departed.len() > self.limits.departed_max
            && let Some(oldest) = self.departed.pop()
        {
            self.look_after_departed(oldest, true);
        }
    }

    /// A user's time in the list of the departed is over, be it `early`.
    fn look_after_departed(&mut self, user_key: Key, early: bool) {
        let Some(user) = self.users.get_mut(user_key) else {
            return;
        };
        let is_online = user.is_online();
        let Some(sends) = user.sends.as_mut() else {
            return;
        };
        sends.departed = false;
        if is_online {
            // Its answers are looked after with its connection.
            return;
        }
        if early && sends.unanswered == 0 {
            user.sends = None;
            self.forget_if_done(user_key);
        } else if let Some(kept_until_ms) = self.forget_answers(user_key) {
            let again_ms = kept_until_ms.max(self.now.core_ms + ANSWERS_KEPT_MS / 4);
            self.departed.push(again_ms, user_key);
            if let Some(Some(sends)) = self.users.get_mut(user_key).map(|user| &mut user.sends) {
                sends.departed = true;
            }
        }
    }

    /// Forgets the answers to a sender's sends once they are old and nothing is open;
    /// if they are not, says how long they are kept.
    fn forget_answers(&mut self, user_key: Key) -> Option<u64> {
        let user = self.users.get_mut(user_key)?;
        let sends = user.sends.as_ref()?;
        let kept_until_ms = sends.last_at_ms + ANSWERS_KEPT_MS;
        if sends.unanswered > 0 || kept_until_ms > self.now.core_ms {
            return Some(kept_until_ms);
        }
        user.sends = None;
        self.forget_if_done(user_key);
        None
    }

    /// Looks at one connection.
    fn check(&mut self, id: Key) {
        let now_ms = self.now.core_ms;
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        if connection.pause.has(Pause::LOGIN) && self.relogins.paused_until_ms(id) <= now_ms {
            self.resume(id, Pause::LOGIN);
        }
        let Some(connection) = self.connections.get(id) else {
            return;
        };
        // What it said before is read first, and for that it waits as long as it is held up.
        if let Some(reason) = connection.failed
            && !connection.is_held_up()
        {
            let until_ms = connection.received_at_ms + FAILED_MS;
            if until_ms <= now_ms {
                self.close(id, reason);
            }
            self.check_within(id, until_ms.saturating_sub(now_ms).max(FAILED_MS / 2));
            return;
        }
        let user_key = connection.user;
        let silent_ms = now_ms - connection.received_at_ms;
        let idle_ms = self.limits.idle_ms(connection.is_framed());
        let mut next_ms = CHECK_MS.min(idle_ms);
        if connection.failed.is_some() {
            next_ms = next_ms.min(FAILED_MS);
        }
        match connection.phase {
            Phase::Closing(_) => return,
            Phase::HandingOver { .. } => {
                // The socket moves when its last bytes are out: a peer that does
                // not take them cannot become another user.
                if silent_ms >= self.limits.login_timeout_ms && !self.is_flushed(id) {
                    self.hand_over_failed(id, CloseReason::SlowReader);
                    return;
                }
                next_ms = self.limits.login_timeout_ms;
            }
            Phase::Open if !connection.had_user => {
                if silent_ms >= self.limits.login_timeout_ms {
                    self.close(id, CloseReason::LoginTimeout);
                    return;
                }
                next_ms = self.limits.login_timeout_ms - silent_ms;
            }
            // What it says is not read, and that is not its fault.
            _ if connection.is_held_up() => {}
            _ => {
                if silent_ms >= idle_ms {
                    self.close(id, CloseReason::IdleTimeout);
                    return;
                }
                next_ms = next_ms.min(idle_ms - silent_ms);
            }
        }
        if connection.pause.has(Pause::LOGIN) {
            let until_ms = self.relogins.paused_until_ms(id);
            next_ms = next_ms.min(until_ms.saturating_sub(now_ms));
        }
        next_ms = next_ms.min(self.check_outbox(id, user_key));
        self.burn_to(user_key, 0);
        self.ask_depth(user_key);
        self.advance_drain(user_key);
        if let Some(Some(drain)) = self.users.get(user_key).map(|user| &user.drain)
            && drain.retry_at_ms > now_ms
        {
            next_ms = next_ms.min(drain.retry_at_ms - now_ms);
        }
        if self
            .users
            .get(user_key)
            .is_some_and(|user| user.sends.is_some())
        {
            self.forget_answers(user_key);
            next_ms = next_ms.min(ANSWERS_KEPT_MS);
        }
        self.check_within(id, next_ms);
    }

    /// Looks at what a session has not acknowledged; says when to look again.
    fn check_outbox(&mut self, id: Key, user_key: Key) -> u64 {
        let now_ms = self.now.core_ms;
        let ack_timeout_ms = self.limits.ack_timeout_ms;
        let Some(connection) = self.connections.get_mut(id) else {
            return u64::MAX;
        };
        let is_framed = connection.is_framed();
        let Some(outbox) = connection.outbox.as_ref() else {
            return u64::MAX;
        };
        let (unacked, awaited) = (outbox.has_unacked(), outbox.awaited() > 0);
        let is_barred = outbox.is_barred();
        // What is in the store already is not put there again.
        let age_ms = outbox.unstored_age_ms(now_ms);
        let is_live = self
            .users
            .get(user_key)
            .is_some_and(|user| user.drain.is_none());
        let left_ms = match age_ms {
            // Not while the store has all that it may have: what a session was sent is in memory already.
            Some(age_ms) if is_live && age_ms >= ack_timeout_ms && !self.takes_lanes() => {
                STORE_AGAIN_MS
            }
            Some(age_ms) if is_live && age_ms >= ack_timeout_ms => {
                self.spill(user_key);
                u64::MAX
            }
            Some(age_ms) if is_live => ack_timeout_ms - age_ms,
            _ => u64::MAX,
        };
        if is_framed {
            left_ms
        } else if !unacked && !is_barred {
            u64::MAX
        } else {
            self.probe(id);
            if awaited {
                PROBE_AGAIN_MS
            } else {
                PROBE_AFTER_MS
            }
        }
    }
}
