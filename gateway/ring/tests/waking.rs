//! What wakes an owner, what makes no system call, and what bounds a wait.

mod harness;

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use harness::{PATIENCE, adopted_pair, next, ring};
use iris_ring::{Completion, Ring, RingConfig};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

#[test]
fn a_watched_eventfd_wakes_from_another_thread_each_time_it_is_watched() {
    let mut ring = ring();
    let blocking = eventfd(0, EventfdFlags::empty()).expect("an eventfd");
    let non_blocking = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
    for (token, wake) in [&blocking, &blocking, &non_blocking]
        .into_iter()
        .enumerate()
    {
        let token = token as u64;
        ring.watch(wake.as_fd(), token);
        let theirs = wake.try_clone().expect("a descriptor");
        let waker = thread::spawn(move || {
            thread::sleep(Duration::from_millis(20));
            rustix::io::write(&theirs, &1u64.to_ne_bytes()).expect("a wake");
        });
        ring.submit_and_wait(PATIENCE).expect("an entered ring");
        let Some(Completion::Woken {
            token: woken,
            result,
        }) = ring.next()
        else {
            panic!("not woken");
        };
        result.expect("the count");
        assert_eq!(woken, token);
        waker.join().expect("a waker");
    }
}

#[test]
fn a_wait_without_completions_ends_in_time() {
    let mut ring = ring();
    let began = Instant::now();
    ring.submit_and_wait(Duration::from_millis(50))
        .expect("no error of a time-out");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(45) && took < PATIENCE,
        "{took:?}"
    );
    assert!(ring.next().is_none());
}

#[test]
fn a_wait_ends_at_once_when_a_completion_is_there() {
    let mut ring = ring();
    let (slot, _peer) = adopted_pair(&mut ring);
    ring.outstanding(slot, 1);
    ring.submit().expect("an entered ring");
    let began = Instant::now();
    ring.submit_and_wait(PATIENCE).expect("no wait");
    assert!(began.elapsed() < PATIENCE / 2);
    assert!(ring.next().is_some());
}

#[test]
fn gathering_goes_on_past_what_is_sent_until_so_many_have_come() {
    let mut ring = ring();
    let pairs = [adopted_pair(&mut ring), adopted_pair(&mut ring)];
    for (token, (slot, _)) in (1..).zip(&pairs) {
        ring.recv_multishot(*slot, token);
    }
    ring.submit().expect("an entered ring");
    for (token, (slot, _)) in (1..).zip(&pairs) {
        ring.send(*slot, b"sent at once".to_vec(), 0, token);
    }
    let [(_, mut first), (_, mut second)] = pairs;
    let writer = thread::spawn(move || {
        first.write_all(b"one").expect("an open socket");
        thread::sleep(Duration::from_millis(50));
        second.write_all(b"two").expect("an open socket");
        (first, second)
    });
    let began = Instant::now();
    ring.submit_and_gather(2, PATIENCE).expect("no error");
    assert!(began.elapsed() < PATIENCE / 2);
    let (mut sent, mut received) = (0, 0);
    while let Some(completion) = ring.next() {
        match completion {
            Completion::Sent { .. } => sent += 1,
            Completion::Received { .. } => received += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((sent, received), (2, 2));
    writer.join().expect("a writer");
}

#[test]
fn submit_alone_runs_what_the_kernel_has_ready() {
    let mut ring = ring();
    let (slot, mut peer) = adopted_pair(&mut ring);
    ring.recv_multishot(slot, 1);
    ring.submit().expect("an entered ring");
    assert!(ring.is_idle());
    peer.write_all(b"x").expect("room");
    let deadline = Instant::now() + PATIENCE;
    while ring.is_idle() {
        assert!(
            Instant::now() < deadline,
            "the flag of ready work never rose"
        );
    }
    ring.submit().expect("an entered ring");
    let Some(Completion::Received { buffer, .. }) = ring.next() else {
        panic!("no completion after submit");
    };
    ring.recycle(buffer);
}

/// The kernel takes the flag of ready work away before it runs what is left of the time before, and then
/// what has come meanwhile: of that the flag stays, and an owner that believed it would never sleep. It
/// takes luck to meet that moment, so this is tried some thousand times.
#[test]
fn a_flag_of_work_that_was_run_already_keeps_nobody_awake() {
    const SOCKETS: usize = 28;
    /// The last write comes so many microseconds after the others, at most, while these are run.
    const PAUSES: usize = 100;
    const ROUNDS: usize = 2_000;
    let mut ring = ring();
    let mut peers = Vec::new();
    for token in 0..SOCKETS {
        let (slot, peer) = adopted_pair(&mut ring);
        ring.recv_multishot(slot, token as u64);
        peers.push(peer);
    }
    ring.submit().expect("an entered ring");
    let [begun, written] = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let wait_for = |count: &AtomicUsize, least| {
        while count.load(Ordering::Acquire) < least {
            std::hint::spin_loop();
        }
    };
    let writer = thread::spawn({
        let (begun, written) = (Arc::clone(&begun), Arc::clone(&written));
        move || {
            for round in 1..=ROUNDS {
                wait_for(&begun, round);
                let (last, others) = peers.split_last_mut().expect("peers");
                for peer in others {
                    peer.write_all(b"x").expect("room");
                }
                written.store(round, Ordering::Release);
                let pause = Duration::from_micros((round % PAUSES) as u64);
                let now = Instant::now();
                while now.elapsed() < pause {}
                last.write_all(b"x").expect("room");
            }
            peers
        }
    });
    for round in 1..=ROUNDS {
        begun.store(round, Ordering::Release);
        wait_for(&written, round);
        let deadline = Instant::now() + PATIENCE;
        let mut received = 0;
        while received < SOCKETS {
            assert!(
                Instant::now() < deadline,
                "round {round}: bytes are missing"
            );
            ring.submit().expect("an entered ring");
            while let Some(completion) = ring.next() {
                let Completion::Received { buffer, .. } = completion else {
                    panic!("{completion:?}");
                };
                received += ring.bytes(&buffer).len();
                ring.recycle(buffer);
            }
        }
        ring.submit().expect("an entered ring");
        assert!(ring.is_idle(), "round {round}");
    }
    drop(writer.join().expect("a writer"));
}

#[test]
fn submit_with_nothing_to_do_makes_no_system_call() {
    let mut ring = ring();
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    // SAFETY: both descriptors are open, and the ring is used only to show that it does not
    // enter the kernel through the one that is replaced.
    let replaced = unsafe { libc::dup2(null.as_raw_fd(), ring.fd()) };
    assert_eq!(replaced, ring.fd());
    ring.submit().expect("no system call, so no error");
    // The counter-proof: with something queued it does enter, and fails.
    ring.close(0, 1);
    ring.submit().expect_err("a file that is no ring");
    std::mem::forget(ring);
}

#[test]
fn the_eventfd_fires_on_completions_but_not_while_silenced() {
    let mut ring = ring();
    let notify = eventfd(0, EventfdFlags::NONBLOCK).expect("an eventfd");
    ring.notify(notify.as_fd()).expect("none was registered");
    let (slot, mut peer) = adopted_pair(&mut ring);
    let fired = || rustix::io::read(&notify, &mut [0u8; 8][..]).is_ok();
    let _ = fired();
    ring.recv_multishot(slot, 1);
    ring.submit().expect("an entered ring");
    peer.write_all(b"x").expect("room");
    let time = Timespec {
        tv_sec: 10,
        tv_nsec: 0,
    };
    let ready = poll(&mut [PollFd::new(&notify, PollFlags::IN)], Some(&time)).expect("a poll");
    assert_eq!(ready, 1, "not notified");
    assert!(fired());
    let Completion::Received { buffer, .. } = next(&mut ring) else {
        panic!("not a receive");
    };
    ring.recycle(buffer);
    let _ = fired();

    ring.notify_enabled(false);
    peer.write_all(b"y").expect("room");
    let deadline = Instant::now() + PATIENCE;
    while ring.is_idle() {
        assert!(Instant::now() < deadline, "never ready");
    }
    assert!(!fired(), "it was silenced");
    ring.notify_enabled(true);
    assert!(
        !ring.is_idle(),
        "what came while silenced is seen by looking"
    );
}

#[test]
fn what_cannot_be_submitted_waits_for_a_later_submit() {
    let config = RingConfig {
        submission_entries: 8,
        ..RingConfig::default()
    };
    let mut ring = Ring::open(&config).expect("a ring");
    let (slot, _peer) = adopted_pair(&mut ring);
    let null = std::fs::File::open("/dev/null").expect("/dev/null");
    // SAFETY: the descriptor is open. The ring is cut off from its kernel side for a while, as if
    // the kernel refused it, and gets it back before anything else is done with it.
    let kept = unsafe { libc::dup(ring.fd()) };
    // SAFETY: as above.
    let cut = unsafe { libc::dup2(null.as_raw_fd(), ring.fd()) };
    assert!(kept >= 0 && cut == ring.fd());
    for token in 0..100 {
        ring.outstanding(slot, token);
    }
    ring.submit().expect_err("a file that is no ring");
    // SAFETY: both are open; `kept` is ours to close, and closed once.
    let restored = unsafe { libc::dup2(kept, ring.fd()) + libc::close(kept) };
    assert_eq!(restored, ring.fd());
    for token in 0..100 {
        let Completion::Outstanding {
            token: answered,
            result,
        } = next(&mut ring)
        else {
            panic!("not an answer");
        };
        result.expect("a socket");
        assert_eq!(answered, token, "in order");
    }
}
