//! Who is online, who was last seen when, and being told of changes: over both cores, within limits,
//! and after a restart.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use iris_protocol::ErrorCode;
use iris_protocol::framed::{Presence, encode};

use crate::support;
use crate::support::{Classic, Event, Framed, Gateway};

const NEVER: Presence = Presence::Away { last_seen_ms: 0 };

fn asks(client: &mut Framed, user: &str) -> Presence {
    let mut out = Vec::new();
    encode::presence_ask(&mut out, user.as_bytes());
    client.say(&out);
    told(client, user)
}

fn follows(client: &mut Framed, user: &str) {
    let mut out = Vec::new();
    encode::follow(&mut out, user.as_bytes());
    client.say(&out);
}

fn unfollows(client: &mut Framed, user: &str) {
    let mut out = Vec::new();
    encode::unfollow(&mut out, user.as_bytes());
    client.say(&out);
}

#[track_caller]
fn told(client: &mut Framed, user: &str) -> Presence {
    client.hears_such(|event| match event {
        Event::Presence(name, state) if name == user => Some(*state),
        _ => None,
    })
}

#[track_caller]
fn fails(client: &mut Framed) -> (ErrorCode, Vec<u8>) {
    client.hears_such(|event| match event {
        Event::Error(code, subject) => Some((*code, subject.clone())),
        _ => None,
    })
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

fn is_recent(state: Presence) -> bool {
    match state {
        Presence::Away { last_seen_ms } => now_ms().abs_diff(last_seen_ms) < 60_000,
        Presence::Online => false,
    }
}

/// Users with their homes on both cores.
fn subjects(gateway: &Gateway) -> Vec<String> {
    let mut users = gateway.users_of(0, "seen", 1);
    users.extend(gateway.users_of(1, "seen", 1));
    users
}

#[test]
fn asking_tells_online_away_and_never_seen() {
    let mut gateway = Gateway::serving(&[]);
    let users = subjects(&gateway);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for user in &users {
        assert_eq!(asks(&mut alice, user), NEVER);
        let framed = Framed::login(at, user);
        assert_eq!(asks(&mut alice, user), Presence::Online);
        framed.leave();
        let first = support::eventually("away", || {
            Some(asks(&mut alice, user)).filter(|state| is_recent(*state))
        });
        let classic = Classic::login(at, user);
        assert_eq!(asks(&mut alice, user), Presence::Online);
        // Long enough for the two stays to end at different times.
        thread::sleep(Duration::from_millis(20));
        classic.leave();
        // Until the store has written this stay, it tells of the one before.
        support::eventually("away since the second stay", || {
            let state = asks(&mut alice, user);
            (is_recent(state) && state != first).then_some(())
        });
    }
    let before: Vec<Presence> = users.iter().map(|user| asks(&mut alice, user)).collect();
    gateway.stop();
    gateway.start_again();
    let mut alice = Framed::login(gateway.address(), "alice");
    for (user, before) in users.iter().zip(before) {
        assert_eq!(asks(&mut alice, user), before, "last seen is kept");
    }
    assert_eq!(asks(&mut alice, "nobody"), NEVER);
}

#[test]
fn followers_are_told_of_changes_until_they_unfollow() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for user in subjects(&gateway) {
        for follower in subjects(&gateway) {
            let mut alice = Framed::login(at, &format!("follower of {follower}"));
            follows(&mut alice, &user);
            assert!(!matches!(told(&mut alice, &user), Presence::Online));
            for _ in 0..2 {
                let bob = Framed::login(at, &user);
                assert_eq!(told(&mut alice, &user), Presence::Online);
                bob.leave();
                assert!(is_recent(told(&mut alice, &user)));
            }
            unfollows(&mut alice, &user);
            // What is asked behind it comes back behind it.
            asks(&mut alice, &user);
            Framed::login(at, &user).leave();
            alice.hears_nothing_for(Duration::from_millis(150));
            alice.leave();
        }
    }
}

#[test]
fn one_who_comes_and_goes_all_the_time_is_told_of_once_a_second_and_in_the_end() {
    let gateway = Gateway::serving(&[]);
    let at = gateway.address();
    for user in subjects(&gateway) {
        let mut followers: Vec<Framed> = (0..40)
            .map(|n| Framed::login(at, &format!("follower-{n}-of-{user}")))
            .collect();
        for follower in &mut followers {
            follows(follower, &user);
            told(follower, &user);
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(2_500) {
            let bob = Framed::login(at, &user);
            bob.leave();
        }
        let last = Framed::login(at, &user);
        support::eventually("online", || {
            (asks(&mut followers[0], &user) == Presence::Online).then_some(())
        });
        // The round after the last change has ended when a second round could have.
        thread::sleep(Duration::from_millis(2_500));
        let rounds_max = begun.elapsed().as_secs() as usize + 1;
        for follower in &mut followers[1..] {
            let mut states = Vec::new();
            while let Some(event) = follower.hears_within(Duration::from_millis(50)) {
                if let Event::Presence(_, state) = event {
                    states.push(state);
                }
            }
            assert_eq!(states.last(), Some(&Presence::Online), "{states:?}");
            assert!(states.len() <= rounds_max, "{states:?}");
        }
        last.leave();
    }
}

#[test]
fn limits_and_bad_names_are_answered_and_the_session_lives() {
    let gateway = Gateway::serving(&["--follows-max", "2", "--followers-max", "1"]);
    let at = gateway.address();
    let mut alice = Framed::login(at, "alice");
    for user in ["one", "two"] {
        follows(&mut alice, user);
        assert_eq!(told(&mut alice, user), NEVER);
    }
    follows(&mut alice, "three");
    assert_eq!(
        fails(&mut alice),
        (ErrorCode::FollowLimit, b"three".to_vec())
    );
    // Twice is once, and room comes back.
    follows(&mut alice, "two");
    assert_eq!(told(&mut alice, "two"), NEVER);
    unfollows(&mut alice, "one");
    follows(&mut alice, "three");
    assert_eq!(told(&mut alice, "three"), NEVER);

    let mut bob = Framed::login(at, "bob");
    follows(&mut bob, "two");
    assert_eq!(
        fails(&mut bob),
        (ErrorCode::FollowersLimit, b"two".to_vec())
    );
    follows(&mut bob, "one");
    assert_eq!(told(&mut bob, "one"), NEVER);

    let mut out = Vec::new();
    encode::presence_ask(&mut out, b"a\x07b");
    encode::follow(&mut out, b"");
    bob.say(&out);
    assert_eq!(fails(&mut bob), (ErrorCode::BadName, b"a\x07b".to_vec()));
    assert_eq!(fails(&mut bob), (ErrorCode::BadName, Vec::new()));
    // Whoever leaves makes room for another follower.
    alice.leave();
    support::eventually("room", || {
        follows(&mut bob, "two");
        bob.hears_such(|event| match event {
            Event::Presence(..) => Some(true),
            Event::Error(..) => Some(false),
            _ => None,
        })
        .then_some(())
    });
    bob.is_heard();
}
