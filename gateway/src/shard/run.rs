//! A run: classic sends that stand one behind the other in a segment.
//!
//! A client with many messages in flight writes them in one go. What their readers need
//! is prefetched for all of them first (see [`ahead`](super::ahead)), so that these waits for
//! memory overlap, too, and not only those of the first send of each segment.
//!
//! Owner: the shard of the sender's connection.

use iris_protocol::{Name, classic};
use iris_ring::prefetch;
use iris_storage::UserHash;

use super::Shard;
use super::ahead::{BLOCK, LINE};
use super::slots::Key;

/// Sends of one segment that are looked at together.
const RUN: usize = 16;

/// A classic send that was decoded and is not acted upon yet.
#[derive(Clone, Copy)]
pub(super) struct Sighted<'a> {
    target: Name<'a>,
    hash: UserHash,
    payload: &'a [u8],
    /// Where in its segment it ends.
    end: usize,
}

impl Shard {
    /// The classic send that `input` begins with, and those right behind it: these are
    /// decoded and looked at together before they are routed one by one. Says how many
    /// bytes are done with; 0 if the first has to be read again later.
    pub(super) fn classic_sends<'a>(
        &mut self,
        id: Key,
        input: &'a [u8],
        first: Sighted<'a>,
    ) -> usize {
        if input.get(first.end) != Some(&classic::SEND) {
            // Nothing to look at together; most segments of clients that wait for each
            // message are this.
            let is_routed = self.route(id, first.target, first.hash, None, first.payload);
            return if is_routed { first.end } else { 0 };
        }
        // Decoding goes through them one by one, and would wait for one line after another.
        for line in input[first.end..].chunks(LINE).take(BLOCK) {
            prefetch(line.as_ptr());
        }
        let mut run = [first; RUN];
        let mut len = 1;
        while let Some(next) = run.get(len - 1).map(|last| last.end)
            && len < RUN
            && input.get(next) == Some(&classic::SEND)
            && let Ok(Some((classic::Command::Send { target, payload }, send_len))) =
                classic::decode(&input[next..])
        {
            run[len] = self.sighted(target, payload, next + send_len);
            len += 1;
        }
        if len > 1 {
            self.expect_readers(run[1..len].iter().map(|send| send.hash));
        }
        let mut took = 0;
        for send in &run[..len] {
            let is_read = self
                .connections
                .get(id)
                .is_some_and(|connection| connection.is_read());
            if !is_read || !self.route(id, send.target, send.hash, None, send.payload) {
                break;
            }
            took = send.end;
            self.commands += 1;
        }
        took
    }

    /// A send that was decoded and ends at `end` of its segment.
    pub(super) fn sighted<'a>(
        &self,
        target: Name<'a>,
        payload: &'a [u8],
        end: usize,
    ) -> Sighted<'a> {
        Sighted {
            target,
            hash: self.name_key.hash(target.as_bytes()),
            payload,
            end,
        }
    }
}
