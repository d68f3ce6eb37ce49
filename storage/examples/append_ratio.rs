//! Synced appends against a raw log on the same disk, in the same run: how much of what the disk can do the inbox
//! store keeps, how long a sender waits, and which threads take how much CPU for each message.
//!
//! `cargo run --release -p iris-storage --example append_ratio -- [folder [databases [seconds]]]`
//! The raw log: one thread that appends batches of 1,000 records of the same length to a file, one write and one
//! fdatasync each. Rounds of both alternate; medians. It measures and prints; it judges nothing. The folder
//! (default: one beside the current) is made and removed. Databases: 1, then 2. Seconds: of each round, 2.5 if not given; with
//! more of them the database's merges cannot keep up any more.

mod desk;

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use desk::{Desk, Users};
use iris_storage::{FailureKind, Reply, StoreOptions, record};

const PAYLOAD_LEN: usize = 100;
const PAYLOAD: [u8; PAYLOAD_LEN] = [7; PAYLOAD_LEN];
const USERS: u64 = 50_000;
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(2_500);
/// Between the peak and the steady load, for what the peak left to the database's workers.
const REST: Duration = Duration::from_secs(5);
/// The steady load: long enough for a dozen tables, their merges, and the upkeep.
const STEADY: Duration = Duration::from_secs(20);
const IN_FLIGHT: u64 = 16_000;
const LOG_BATCH: usize = 1_000;
/// What a record of the raw log has: payload, sender, header, key.
const LOG_RECORD_LEN: usize = PAYLOAD_LEN + 6 + record::OVERHEAD + 20;

/// Of the figures in /proc: USER_HZ, which Linux gives as 100 everywhere.
const TICKS_PER_SECOND: f64 = 100.0;

type Failure = Box<dyn Error>;

impl Desk {
    /// Messages a second with so many in flight.
    fn peak(&mut self, users: &mut Users, round: Duration) -> Result<f64, Failure> {
        let began = Instant::now();
        let (mut asked, mut answered) = (0, 0);
        while began.elapsed() < round || answered < asked {
            while began.elapsed() < round && asked - answered < IN_FLIGHT {
                for _ in 0..64 {
                    self.append(asked, users.pick(), &PAYLOAD);
                    asked += 1;
                }
            }
            while let Some(reply) = self.client.poll() {
                match reply {
                    Reply::Appended { .. } => answered += 1,
                    other => return Err(format!("{other:?}").into()),
                }
            }
            if answered < asked && !self.client.has_replies() {
                self.woken.recv_timeout(Duration::from_secs(60))?;
            }
        }
        Ok(answered as f64 / began.elapsed().as_secs_f64())
    }

    /// Times from when a message was due to its acknowledgement, microseconds, at a steady rate.
    fn paced(
        &mut self,
        users: &mut Users,
        rate: f64,
        round: Duration,
    ) -> Result<(Vec<u64>, u64), Failure> {
        let began = Instant::now();
        let count = (rate * round.as_secs_f64()) as u64;
        let due = |token: u64| Duration::from_secs_f64(token as f64 / rate);
        let (mut asked, mut shed, mut waits) = (0, 0, Vec::with_capacity(count as usize));
        while waits.len() as u64 + shed < count {
            let now = began.elapsed();
            while asked < count && due(asked) <= now {
                self.append(asked, users.pick(), &PAYLOAD);
                asked += 1;
            }
            while let Some(reply) = self.client.poll() {
                match reply {
                    Reply::Appended { token, .. } => {
                        let waited = began.elapsed().saturating_sub(due(token));
                        waits.push(waited.as_micros() as u64);
                    }
                    Reply::Failed {
                        error: FailureKind::Overloaded,
                        ..
                    } => shed += 1,
                    other => return Err(format!("{other:?}").into()),
                }
            }
            // Also the time to the next one that is due: a millisecond is enough of one.
            let _woken = self.woken.recv_timeout(Duration::from_millis(1));
        }
        waits.sort_unstable();
        Ok((waits, shed))
    }
}

/// Messages a second into a raw log.
fn raw_log(path: &Path, round: Duration) -> Result<f64, Failure> {
    let mut file = File::create(path)?;
    let batch = vec![7u8; LOG_RECORD_LEN * LOG_BATCH];
    let began = Instant::now();
    let mut written = 0u64;
    while began.elapsed() < round {
        file.write_all(&batch)?;
        file.sync_data()?;
        written += LOG_BATCH as u64;
    }
    let rate = written as f64 / began.elapsed().as_secs_f64();
    fs::remove_file(path)?;
    Ok(rate)
}

/// CPU of each kind of thread so far, user and kernel, seconds.
fn cpu_of_threads() -> Result<BTreeMap<String, (f64, f64)>, Failure> {
    let mut kinds = BTreeMap::new();
    for thread in fs::read_dir("/proc/self/task")? {
        let thread = thread?.path();
        let stat = fs::read_to_string(thread.join("stat"))?;
        let (head, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let kind = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let ticks = |n: usize| -> Result<f64, Failure> {
            let field = fields
                .split_whitespace()
                .nth(n)
                .ok_or("too few fields in stat")?;
            Ok(field.parse::<f64>()? / TICKS_PER_SECOND)
        };
        let sum: &mut (f64, f64) = kinds.entry(kind.to_string()).or_default();
        sum.0 += ticks(11)?;
        sum.1 += ticks(12)?;
    }
    Ok(kinds)
}

fn print_cpu(before: &BTreeMap<String, (f64, f64)>, appended: u64) -> Result<(), Failure> {
    let each = |seconds: f64| seconds * 1e6 / appended as f64;
    let mut total = 0.0;
    print!("  cpu us per append, user+kernel:");
    for (kind, (user, kernel)) in cpu_of_threads()? {
        let (user_before, kernel_before) = before.get(&kind).copied().unwrap_or_default();
        let (user, kernel) = (each(user - user_before), each(kernel - kernel_before));
        total += user + kernel;
        print!(" {kind} {user:.2}+{kernel:.2}");
    }
    println!("; total {total:.2}");
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(
        arguments
            .next()
            .unwrap_or_else(|| "append-ratio-data".to_string()),
    );
    if folder.exists() {
        return Err(format!("{} exists; choose a folder that does not", folder.display()).into());
    }
    fs::create_dir_all(&folder)?;
    let databases = match arguments.next() {
        Some(text) => vec![text.parse()?],
        None => vec![1, 2],
    };
    let round = match arguments.next() {
        Some(text) => Duration::try_from_secs_f64(text.parse()?)?,
        None => ROUND,
    };
    for databases in databases {
        let (mut raw, mut ours, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let path = folder.join(format!("store-{databases}"));
        let mut desk = Desk::open(StoreOptions {
            databases,
            ..StoreOptions::new(&path)
        })?;
        let mut users = Users::new(USERS);
        // Every user is known before it counts.
        desk.peak(&mut users, round / 2)?;
        let before = cpu_of_threads()?;
        let appended_before = desk.store.metrics().appended;
        for _ in 0..ROUNDS {
            let log = raw_log(&folder.join("log"), round / 4)?;
            let rate = desk.peak(&mut users, round)?;
            raw.push(log);
            ours.push(rate);
            ratios.push(rate / log);
        }
        let peak = median(&mut ours);
        println!(
            "{databases} database(s), {USERS} users, {PAYLOAD_LEN} bytes, {IN_FLIGHT} in flight: {peak:.0}/s; \
             raw log {:.0}/s; ratio {:.3}",
            median(&mut raw),
            median(&mut ratios)
        );
        print_cpu(&before, desk.store.metrics().appended - appended_before)?;
        thread::sleep(REST);
        let before = cpu_of_threads()?;
        let appended_before = desk.store.metrics().appended;
        let (waits, shed) = desk.paced(&mut users, peak / 2.0, STEADY)?;
        let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        println!(
            "  at half of that: acknowledged after p50 {} us, p99 {} us, max {} us; shed {shed}",
            at(0.5),
            at(0.99),
            at(1.0)
        );
        let metrics = desk.store.metrics();
        print_cpu(&before, metrics.appended - appended_before)?;
        println!(
            "  batches of {:.0} requests on average; commit p50 {} us, p99 {} us, max {} us; look-ups {}",
            metrics.commit_requests.mean(),
            metrics.commit_us.value_at_quantile(0.5),
            metrics.commit_us.value_at_quantile(0.99),
            metrics.commit_us.max(),
            metrics.tail_misses
        );
        desk.store.close()?;
    }
    fs::remove_dir_all(&folder)?;
    Ok(())
}
