//! What a flood of messages to users who are away does to those who are online, and to the gateway's memory.
//!
//! `cargo run --release -p iris-gateway --example absent_flood [SECONDS [CORES]]` starts the gateway that was built beside
//! it, with these cores (`0,` is one on cpu 0, which leaves the others to the store), on a data folder of its own. Pairs
//! of users who are online write to each other at a steady rate: first alone; then, for so many seconds, beside others who
//! send to users who are away as fast as they get answers. It prints how long online messages took from the moment each
//! was due, in both parts and as a ratio, and the gateway's memory. It measures and prints, and judges nothing.
//!
//! The clients share the machine with the gateway, and real ones would not. So those that flood stand back (nice 10) and
//! run on the cpus that are not listed in CORES, if there are any; and those that measure go first (real-time priority,
//! by `chrt` of util-linux, where it is allowed; it says if not): a client's own wait for a cpu is not the gateway's. What
//! is left of it is shown as `late`: from the moment a message was due until it was written. And one more pair writes over
//! a bare loopback connection, at the same rate and priority: what it shows, the machine does to a message that meets no
//! gateway. Both parts are measured alike.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use iris_gateway::config::Cores;
use iris_protocol::framed::{DecodeLimits, Decoded, Frame, PREFACE, decode, encode};
use iris_protocol::{Name, Outcome};
use rustix::thread::{sched_getaffinity, sched_setaffinity};

const ALONE: Duration = Duration::from_secs(20);
const WARM_UP: Duration = Duration::from_secs(1);
const SECONDS: u64 = 60;
const PAIRS: usize = 8;
/// One message in this time for each pair.
const INTERVAL: Duration = Duration::from_millis(4);
const FLOODERS: usize = 4;
/// Sends without an answer, for each flooder: what WELCOME allows by default.
const WINDOW: u64 = 1024;
const ABSENT: u64 = 50_000;
const PAYLOAD: usize = 100;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A connection that is logged in.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn login(address: &str, user: &str) -> Result<Client, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let mut client = Client {
            stream,
            input: Vec::new(),
        };
        let mut out = PREFACE.to_vec();
        encode::login(&mut out, Name::parse(user.as_bytes())?, b"");
        client.stream.write_all(&out)?;
        let mut welcomed = false;
        while !welcomed {
            client.hear(|frame| welcomed |= matches!(frame, Frame::Welcome(_)))?;
        }
        Ok(client)
    }

    /// Waits for bytes and takes every whole frame among them. False at the end.
    fn hear(&mut self, mut take: impl FnMut(Frame<'_>)) -> Result<bool, Failure> {
        let mut piece = [0; 64 << 10];
        let len = self.stream.read(&mut piece)?;
        self.input.extend_from_slice(&piece[..len]);
        let mut at = 0;
        while let Decoded::Frame(frame, len) = decode(&self.input[at..], &DecodeLimits::READER)? {
            take(frame);
            at += len;
        }
        self.input.drain(..at);
        Ok(len > 0)
    }
}

/// Microseconds since the run began; what online messages carry.
fn micros(start: Instant) -> u64 {
    start.elapsed().as_micros() as u64
}

/// The calling thread goes before the gateway and all others; false if it may not.
fn go_first() -> bool {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    Command::new("chrt")
        .args(["--fifo", "--pid", "10", &thread])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The calling thread leaves the cpus of a list to the gateway if others are left.
fn leave_cpus_of(cores: &Cores) -> Result<(), Failure> {
    let Cores::List(cpus) = cores else {
        return Ok(());
    };
    let mut left = sched_getaffinity(None)?;
    cpus.iter().for_each(|cpu| left.unset(*cpu));
    if left.count() > 0 {
        sched_setaffinity(None, &left)?;
    }
    Ok(())
}

/// What a message carries: when it was due, and when it was written.
fn stamp(due: u64, start: Instant) -> [u8; 16] {
    (u128::from(due) << 64 | u128::from(micros(start))).to_be_bytes()
}

/// How long messages took, and how late they were written, in microseconds.
struct Taken {
    from: u64,
    until: u64,
    latency: Histogram<u64>,
    late: Histogram<u64>,
}

impl Taken {
    /// Of the messages that are due in this time.
    fn new(from: u64, until: u64) -> Result<Taken, Failure> {
        Ok(Taken {
            from,
            until,
            latency: Histogram::new(3)?,
            late: Histogram::new(3)?,
        })
    }

    /// A message came; true if it is the last that is wanted.
    fn note(&mut self, payload: &[u8], start: Instant) -> Result<bool, Failure> {
        let now = micros(start);
        let stamp = u128::from_be_bytes(payload.try_into()?);
        let (due, written) = ((stamp >> 64) as u64, stamp as u64);
        if (self.from..self.until).contains(&due) {
            self.latency.record(now.saturating_sub(due))?;
            self.late.record(written.saturating_sub(due))?;
        }
        Ok(due >= self.until)
    }

    fn add(&mut self, other: &Taken) -> Result<(), Failure> {
        self.latency.add(&other.latency)?;
        self.late.add(&other.late)?;
        Ok(())
    }
}

/// Calls `write` with a number and the moment it is due, each `INTERVAL`.
fn at_intervals(
    start: Instant,
    done: &AtomicBool,
    mut write: impl FnMut(u64, u64) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let first = micros(start);
    let mut number = 0;
    while !done.load(Ordering::Relaxed) {
        number += 1;
        let due = first + number * INTERVAL.as_micros() as u64;
        thread::sleep(Duration::from_micros(due.saturating_sub(micros(start))));
        write(number, due)?;
    }
    Ok(())
}

/// One half of a pair: a message each `INTERVAL` to the reader of that name.
fn writes(address: &str, reader: &str, start: Instant, done: &AtomicBool) -> Result<(), Failure> {
    let mut client = Client::login(address, &format!("writer-to-{reader}"))?;
    let mut answers = client.stream.try_clone()?;
    // Answers are taken and not looked at.
    thread::spawn(move || std::io::copy(&mut answers, &mut std::io::sink()));
    go_first();
    at_intervals(start, done, |number, due| {
        let mut out = Vec::new();
        let payload = stamp(due, start);
        encode::send(&mut out, number, 0, reader.as_bytes(), &payload);
        Ok(client.stream.write_all(&out)?)
    })
}

/// Both halves of the pair that has no gateway between them.
fn bare(start: Instant, done: &Arc<AtomicBool>, mut taken: Taken) -> Result<Taken, Failure> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut writer = TcpStream::connect(listener.local_addr()?)?;
    writer.set_nodelay(true)?;
    let (mut reader, _) = listener.accept()?;
    let done = Arc::clone(done);
    thread::spawn(move || {
        go_first();
        // It ends when its reader has.
        at_intervals(start, &done, |_, due| {
            Ok(writer.write_all(&stamp(due, start))?)
        })
    });
    go_first();
    let mut payload = [0; 16];
    loop {
        reader.read_exact(&mut payload)?;
        if taken.note(&payload, start)? {
            return Ok(taken);
        }
    }
}

/// The other half of a pair: takes, acknowledges, measures.
fn reads(mut client: Client, start: Instant, mut taken: Taken) -> Result<Taken, Failure> {
    go_first();
    let mut over = false;
    while !over {
        let mut last = 0;
        let mut failed = None;
        client.hear(|frame| {
            if let Frame::Deliver {
                delivery, payload, ..
            } = frame
            {
                last = delivery;
                match taken.note(payload, start) {
                    Ok(is_last) => over |= is_last,
                    Err(error) => failed = Some(error),
                }
            }
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        let mut out = Vec::new();
        encode::ack(&mut out, last);
        client.stream.write_all(&out)?;
    }
    Ok(taken)
}

#[derive(Default)]
struct Tally {
    stored: AtomicU64,
    refused: AtomicU64,
}

/// As fast as answers come.
fn floods(
    address: &str,
    cores: &Cores,
    me: usize,
    done: &AtomicBool,
    tally: &Tally,
) -> Result<(), Failure> {
    leave_cpus_of(cores)?;
    rustix::process::setpriority_process(None, 10)?;
    let mut client = Client::login(address, &format!("flooder-{me}"))?;
    let (mut sent, mut answered) = (0u64, 0u64);
    while !done.load(Ordering::Relaxed) {
        let mut out = Vec::new();
        while sent - answered < WINDOW {
            sent += 1;
            // Spread over all, and never the same order for two.
            let target = (sent * FLOODERS as u64 + me as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let target = format!("absent-{}", target % ABSENT);
            encode::send(&mut out, sent, 0, target.as_bytes(), &[b'.'; PAYLOAD]);
        }
        client.stream.write_all(&out)?;
        client.hear(|frame| {
            if let Frame::Answers(answers) = frame {
                for answer in answers {
                    answered += 1;
                    let counter = match answer.outcome {
                        Outcome::Refused(_) => &tally.refused,
                        Outcome::Stored | Outcome::Delivered => &tally.stored,
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            }
        })?;
    }
    Ok(())
}

fn resident_mib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status
        .split_once("VmRSS:")
        .map(|(_, rest)| rest.split_whitespace().next());
    kib.flatten()
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        >> 10
}

/// Runs one part and prints it.
fn part(
    what: &str,
    (address, process, cores): (&str, u32, &Cores),
    flooders: usize,
    time: Duration,
) -> Result<Taken, Failure> {
    let start = Instant::now();
    let (from, until) = (
        WARM_UP.as_micros() as u64,
        (WARM_UP + time).as_micros() as u64,
    );
    let done = Arc::new(AtomicBool::new(false));
    let tally = Arc::new(Tally::default());
    // Of this part alone: what is written when a reader has gone would come to the next of its name.
    let name = |pair: usize| format!("reader-{pair}-{}", what.replace(' ', "-"));
    let readers: Vec<_> = (0..PAIRS)
        .map(|pair| {
            let client = Client::login(address, &name(pair))?;
            let taken = Taken::new(from, until)?;
            Ok(thread::spawn(move || reads(client, start, taken)))
        })
        .collect::<Result<_, Failure>>()?;
    let taken = Taken::new(from, until)?;
    let bare = {
        let done = Arc::clone(&done);
        thread::spawn(move || bare(start, &done, taken))
    };
    let mut others = Vec::new();
    for pair in 0..PAIRS {
        let (address, done, reader) = (address.to_owned(), Arc::clone(&done), name(pair));
        others.push(thread::spawn(move || {
            writes(&address, &reader, start, &done)
        }));
    }
    for me in 0..flooders {
        let (address, cores) = (address.to_owned(), cores.clone());
        let (done, tally) = (Arc::clone(&done), Arc::clone(&tally));
        others.push(thread::spawn(move || {
            floods(&address, &cores, me, &done, &tally)
        }));
    }
    let mut memory = 0;
    while start.elapsed() < WARM_UP + time {
        memory = memory.max(resident_mib(process));
        thread::sleep(Duration::from_millis(50));
    }
    let mut online = Taken::new(from, until)?;
    for reader in readers {
        online.add(&reader.join().map_err(|_| "a reader panicked")??)?;
    }
    let bare = bare.join().map_err(|_| "the bare pair panicked")??;
    done.store(true, Ordering::Relaxed);
    for other in others {
        other.join().map_err(|_| "a writer panicked")??;
    }
    let seconds = (WARM_UP + time).as_secs_f64();
    println!(
        "{what:<12} {:>8.0} stored/s, {} refused; {memory} MiB at most",
        tally.stored.load(Ordering::Relaxed) as f64 / seconds,
        tally.refused.load(Ordering::Relaxed),
    );
    show("online", &online.latency);
    show("late", &online.late);
    show("bare", &bare.latency);
    Ok(online)
}

fn show(what: &str, latency: &Histogram<u64>) {
    println!(
        "  {what:<10} {:>8} messages: p50 {:>6} us, p99 {:>6} us, p99.9 {:>6} us, max {:>7} us",
        latency.len(),
        latency.value_at_quantile(0.5),
        latency.value_at_quantile(0.99),
        latency.value_at_quantile(0.999),
        latency.max(),
    );
}

/// A gateway of its own on any port, ended with this.
struct Gateway(Child, String);

impl Gateway {
    fn start(data: &str, cores: &str) -> Result<Gateway, Failure> {
        let beside = std::env::current_exe()?;
        let built = beside
            .ancestors()
            .nth(2)
            .ok_or("no folder above")?
            .join("iris");
        let mut child = Command::new(&built)
            .args([
                "serve",
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "off",
                "--data",
                data,
                "--cores",
                cores,
            ])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}: build it first", built.display()))?;
        let mut log = BufReader::new(child.stderr.take().ok_or("no log")?);
        let mut line = String::new();
        let address = loop {
            line.clear();
            if log.read_line(&mut line)? == 0 {
                return Err("the gateway ended".into());
            }
            if let Some((_, address)) = line.split_once("serving listen=") {
                break address.trim().to_owned();
            }
        };
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::stderr()));
        Ok(Gateway(child, address))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let seconds = arguments.next().map_or(Ok(SECONDS), |text| text.parse())?;
    let cores = arguments.next().unwrap_or_else(|| "all".to_owned());
    let listed = Cores::parse(&cores)?;
    let data = tempfile::tempdir()?;
    let gateway = Gateway::start(data.path().to_str().ok_or("a path in UTF-8")?, &cores)?;
    println!(
        "cores {cores}: {PAIRS} pairs, a message each {INTERVAL:?}; {FLOODERS} flooders with {WINDOW} sends each under way, {PAYLOAD} bytes to {ABSENT} absent users"
    );
    if !thread::spawn(go_first).join().unwrap_or(false) {
        println!("no real-time priority: the clients' own waits for a cpu are in the figures");
    }
    let gateway = (&gateway.1[..], gateway.0.id(), &listed);
    let alone = part("alone", gateway, 0, ALONE)?;
    let time = Duration::from_secs(seconds);
    let flooded = part("with flood", gateway, FLOODERS, time)?;
    let ratio = |quantile| {
        flooded.latency.value_at_quantile(quantile) as f64
            / alone.latency.value_at_quantile(quantile).max(1) as f64
    };
    println!("ratio: p50 {:.2}, p99 {:.2}", ratio(0.5), ratio(0.99));
    Ok(())
}
