//! Two names with one hash: who comes second is told, counted, and given nothing of the other's.
//!
//! No two such names are known, so the entry of one is put under the hash of the other; all else is as it ever is.

use iris_protocol::framed::{self, Decoded, Frame};
use iris_protocol::{CloseReason, ErrorCode, Name, Outcome, RefusalReason, classic};
use iris_storage::Reply;

use super::*;

/// Anna is online, and zoe's name has her hash. A framed session of bert's asks.
struct Met {
    shard: Shard,
    anna: Key,
    bert: Key,
}

impl Met {
    fn new() -> Met {
        let mut met = Met {
            shard: harness::first_of(1),
            anna: Key::NONE,
            bert: Key::NONE,
        };
        met.anna = met.login_framed("anna");
        met.bert = met.login_framed("bert");
        let entry = met.shard.directory[&met.shard.name_key.hash("anna")];
        let met_by = met.shard.name_key.hash("zoe");
        met.shard.directory.insert(met_by, entry);
        met.shard.take_sent(met.anna);
        met.shard.take_sent(met.bert);
        met
    }

    fn login_framed(&mut self, name: &str) -> Key {
        let mut login = framed::PREFACE.to_vec();
        let name = Name::parse(name.as_bytes()).expect("a name");
        framed::encode::login(&mut login, name, b"");
        self.login(&login)
    }

    fn login(&mut self, login: &[u8]) -> Key {
        let id = self.shard.accepted();
        self.says(id, login);
        id
    }

    fn says(&mut self, id: Key, segment: &[u8]) {
        self.shard.begin_turn();
        self.shard.received(id, segment);
        // The store has nothing of anybody.
        while let Some(request) = self.shard.effects().store.pop() {
            let Some(token) = request.token() else {
                continue;
            };
            let reply = match request {
                iris_storage::Request::Page { from, .. } => Reply::Page {
                    token,
                    messages: Vec::new(),
                    next: from,
                    end: true,
                    lost: 0,
                },
                _ => Reply::Account {
                    token,
                    messages: 0,
                    bytes: 0,
                    last_seen_ms: 0,
                },
            };
            self.shard.stored(reply);
        }
    }
}

fn frame(bytes: &[u8]) -> Frame<'_> {
    match framed::decode(bytes, &framed::DecodeLimits::READER) {
        Ok(Decoded::Frame(frame, len)) if len == bytes.len() => frame,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_second_name_is_closed_with_its_own_reason() {
    let mut met = Met::new();
    let framed = met.login_framed("zoe");
    let closing = met.shard.take_sent(framed);
    assert!(
        matches!(
            frame(&closing),
            Frame::Close {
                reason: CloseReason::NameCollision,
                ..
            }
        ),
        "{:?}",
        frame(&closing)
    );
    let mut login = Vec::new();
    classic::encode_login(&mut login, Name::parse(b"zoe").expect("a name"));
    let classic = met.login(&login);
    for id in [framed, classic] {
        let reason = met.shard.closing_reason(id);
        assert_eq!(reason, Some(CloseReason::NameCollision));
    }
    assert_eq!(met.shard.metrics.name_collisions, 2);
    assert_eq!(met.shard.closing_reason(met.anna), None, "she was first");
    assert_eq!(met.shard.metrics.logins, 2, "hers and bert's");
}

#[test]
fn a_message_to_the_second_name_is_refused_and_reaches_nobody() {
    let mut met = Met::new();
    let mut send = Vec::new();
    framed::encode::send(&mut send, 1, 0, b"zoe", b"not for anna");
    met.says(met.bert, &send);
    let answers = met.shard.take_sent(met.bert);
    let Frame::Answers(mut answers) = frame(&answers) else {
        panic!("no answer");
    };
    let outcome = answers.next().map(|answer| answer.outcome);
    assert_eq!(outcome, Some(Outcome::Refused(RefusalReason::BadTarget)));
    assert_eq!(met.shard.metrics.name_collisions, 1);
    assert!(met.shard.take_sent(met.anna).is_empty());
}

#[test]
fn a_question_about_the_second_name_tells_nothing_of_the_first() {
    let mut met = Met::new();
    let (mut ask, mut follow) = (Vec::new(), Vec::new());
    framed::encode::presence_ask(&mut ask, b"zoe");
    framed::encode::follow(&mut follow, b"zoe");
    for question in [ask, follow] {
        met.says(met.bert, &question);
        let answer = met.shard.take_sent(met.bert);
        assert!(
            matches!(
                frame(&answer),
                Frame::Error {
                    code: ErrorCode::BadName,
                    subject: b"zoe",
                    ..
                }
            ),
            "{:?}",
            frame(&answer)
        );
    }
    assert_eq!(met.shard.metrics.name_collisions, 2);
    // Nor does an end of following zoe end that of following anna.
    let mut follow = Vec::new();
    framed::encode::follow(&mut follow, b"anna");
    framed::encode::unfollow(&mut follow, b"zoe");
    met.says(met.bert, &follow);
    met.shard.take_sent(met.bert);
    met.shard.ended(met.anna, CloseReason::PeerClosed, None);
    met.shard.tell_followers();
    assert!(matches!(
        frame(&met.shard.take_sent(met.bert)),
        Frame::Presence { .. }
    ));
}
