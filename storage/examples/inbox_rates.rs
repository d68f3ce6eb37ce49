//! What the inbox store does in a second on this machine: synced appends to many users, and a drain of one inbox.
//!
//! `cargo run --release -p iris-storage --example inbox_rates -- [folder] [messages] [users] [in flight]`
//! It measures and prints; it judges nothing. The folder (default: one beside the current) is made and removed.

mod desk;

use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use desk::{Desk, Users};
use iris_storage::{Party, Reply, Request, StoreOptions};

const PAYLOAD: [u8; 128] = [7; 128];
const HOT: &str = "messi";

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "inbox-rates-data".to_string()),
    );
    let messages: u64 = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse())?;
    let users: u64 = arguments.next().map_or(Ok(50_000), |text| text.parse())?;
    if folder.exists() {
        return Err(format!("{} exists; choose a folder that does not", folder.display()).into());
    }
    let in_flights = match arguments.next() {
        Some(text) => vec![text.parse()?],
        None => vec![1, 64, 1_000, 16_000],
    };
    for in_flight in in_flights {
        let mut desk = Desk::open(StoreOptions::new(&folder))?;
        let count = if in_flight == 1 {
            messages.min(5_000)
        } else {
            messages
        };
        appends(&mut desk, Users::new(users), count, in_flight)?;
        desk.store.close()?;
    }
    let mut desk = Desk::open(StoreOptions::new(&folder))?;
    drain(&mut desk, messages)?;
    desk.store.close()?;
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn appends(desk: &mut Desk, mut users: Users, count: u64, in_flight: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let (mut asked, mut answered) = (0, 0);
    while answered < count {
        while asked < count && asked - answered < in_flight {
            desk.append(asked, users.pick(), &PAYLOAD);
            asked += 1;
        }
        match desk.reply()? {
            Reply::Appended { .. } => answered += 1,
            other => return Err(format!("{other:?}").into()),
        }
    }
    let metrics = desk.store.metrics();
    println!(
        "synced appends, {in_flight} in flight: {:.0}/s; batch {:.0} requests, commit p50 {} us, p99 {} us, max {} us; look-ups {}",
        count as f64 / began.elapsed().as_secs_f64(),
        metrics.commit_requests.mean(),
        metrics.commit_us.value_at_quantile(0.5),
        metrics.commit_us.value_at_quantile(0.99),
        metrics.commit_us.max(),
        metrics.tail_misses,
    );
    Ok(())
}

fn drain(desk: &mut Desk, count: u64) -> Result<(), Failure> {
    let (mut asked, mut answered) = (0, 0);
    let began = Instant::now();
    while answered < count {
        while asked < count && asked - answered < 16_000 {
            desk.append(asked, HOT, &PAYLOAD);
            asked += 1;
        }
        desk.reply()?;
        answered += 1;
    }
    println!(
        "synced appends to one user: {:.0}/s",
        count as f64 / began.elapsed().as_secs_f64()
    );
    let user = desk.store.name_key().hash(HOT);
    for (pass, page_messages) in [("first", 1_000), ("again", 1_000), ("again", 4_000)] {
        let began = Instant::now();
        let (mut from, mut read) = (0, 0);
        loop {
            let (messages_max, bytes_max) = (page_messages, usize::MAX);
            desk.client.submit(Request::Page {
                token: 0,
                party: Party(0),
                user,
                name: HOT.into(),
                from,
                messages_max,
                bytes_max,
            });
            match desk.reply()? {
                Reply::Page {
                    messages,
                    next,
                    end,
                    ..
                } => {
                    read += messages.len();
                    from = next;
                    if end {
                        break;
                    }
                }
                other => return Err(format!("{other:?}").into()),
            }
        }
        let rate = read as f64 / began.elapsed().as_secs_f64();
        println!("drain, {pass}, pages of {page_messages}: {read} messages, {rate:.0}/s");
    }
    let began = Instant::now();
    desk.client.submit(Request::Burn {
        token: 0,
        user,
        name: HOT.into(),
        head: u64::MAX,
    });
    desk.reply()?;
    println!("burn of all of them: {} us", began.elapsed().as_micros());
    Ok(())
}
