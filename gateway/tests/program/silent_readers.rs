//! Two thousand framed readers that never read: what is sent to them goes to their inboxes, within the memory for
//! output, and its senders are told so.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use iris_protocol::Outcome;

use crate::support::{Event, Framed, Gateway, of_environment};

const READERS: u64 = 2_000;
const SENDERS: u64 = 4;
/// Each reader is sent so much, unless `IRIS_SILENT_BYTES` says more.
const BYTES: u64 = 64 << 10;
/// In turn, from the shortest to one that fills an outbox by half.
const SIZES: [usize; 5] = [24, 200, 1_500, 9_000, 40_000];
const OUTPUT: &str = "32MiB";
const INPUT: &str = "32MiB";
/// The budgets, of which that of the store is 128 MiB on two cores; 96 MiB for the receive buffers and all else that two
/// cores have; and as much as the budgets for the tables of the store and what the allocator keeps.
const MEMORY_MAX: u64 = 480 << 20;

fn reader_name(reader: u64) -> String {
    format!("silent-{reader}")
}

/// The messages for one reader: together `bytes`, but for the last.
fn sizes(bytes: u64) -> Vec<usize> {
    let mut left = bytes as usize;
    let mut sizes = Vec::new();
    for size in SIZES.into_iter().cycle() {
        if left == 0 {
            break;
        }
        sizes.push(size.min(left).max(8));
        left = left.saturating_sub(size);
    }
    sizes
}

fn payload(reader: u64, number: usize, size: usize) -> Vec<u8> {
    let mut payload = (reader as u32).to_be_bytes().to_vec();
    payload.extend((number as u32).to_be_bytes());
    payload.resize(size, reader as u8);
    payload
}

/// Sends all readers of one sender everything, and each message must be answered as stored.
fn sends(address: SocketAddr, sender: u64, sizes: &[usize]) {
    const UNANSWERED_MAX: usize = 20_000;
    let mut client = Framed::login(address, &format!("sender-{sender}"));
    let mut unanswered = HashSet::new();
    let takes = |client: &mut Framed, unanswered: &mut HashSet<u64>| match client.hears() {
        Event::Answer(answer) => {
            assert_eq!(answer.outcome, Outcome::Stored);
            assert!(unanswered.remove(&answer.sequence), "answered twice");
        }
        other => panic!("{other:?}"),
    };
    for (number, size) in sizes.iter().enumerate() {
        for reader in (sender..READERS).step_by(SENDERS as usize) {
            let sequence = client.send(&reader_name(reader), &payload(reader, number, *size));
            unanswered.insert(sequence);
            while unanswered.len() >= UNANSWERED_MAX {
                takes(&mut client, &mut unanswered);
            }
        }
        // What has come meanwhile would fill the sender's own outbox.
        client.is_heard();
    }
    while !unanswered.is_empty() {
        takes(&mut client, &mut unanswered);
    }
}

#[test]
fn readers_that_never_read_cost_no_more_than_the_budget() {
    let sizes = sizes(of_environment("IRIS_SILENT_BYTES", BYTES));
    let all = READERS * sizes.len() as u64;
    let bytes = READERS * sizes.iter().sum::<usize>() as u64;
    let lifetime = Duration::from_secs(120 + bytes / (4 << 20));
    let gateway = Gateway::serving_for(
        lifetime,
        &[
            "--output-bytes-max",
            OUTPUT,
            "--input-bytes-max",
            INPUT,
            "--unanswered-sends-max",
            "65536",
            "--ack-timeout",
            "500ms",
        ],
    );
    let address = gateway.address();
    let readers: Vec<Framed> = (0..READERS)
        .map(|reader| Framed::login(address, &reader_name(reader)))
        .collect();
    let before = gateway.resident_bytes();
    let sending: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let sizes = sizes.clone();
            thread::spawn(move || sends(address, sender, &sizes))
        })
        .collect();
    let (mut most, mut output_most) = (0, 0);
    while !sending.iter().all(|sender| sender.is_finished()) {
        let metrics = gateway.metrics();
        let output = metrics.sum("iris_budget_bytes{budget=\"output\"}");
        let output_max = metrics.sum("iris_budget_max_bytes{budget=\"output\"}");
        assert!(output <= output_max, "{output} of {output_max}");
        output_most = output_most.max(output);
        most = most.max(gateway.resident_bytes());
        thread::sleep(Duration::from_millis(50));
    }
    for sender in sending {
        sender.join().expect("each message was answered as stored");
    }
    eprintln!(
        "{all} messages of {} MiB: resident {} MiB, {} MiB before; output {} KiB at most",
        bytes >> 20,
        most >> 20,
        before >> 20,
        output_most >> 10
    );
    assert!(most < before + MEMORY_MAX, "{most} bytes, {before} before");
    let metrics = gateway.metrics();
    assert_eq!(metrics.closed("slow-reader"), 0);
    assert_eq!(metrics.closed("overloaded"), 0);
    assert_eq!(metrics.refused_in_all(), 0);
    // It is all there for those who read in the end.
    for (reader, mut client) in (0..).zip(readers).step_by(100) {
        for (number, size) in sizes.iter().enumerate() {
            let message = client.takes();
            let expected = payload(reader, number, *size);
            assert!(message.payload == expected, "{number} of {reader}");
        }
        client.leave();
    }
}
