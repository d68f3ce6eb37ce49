//! How long a start takes after a kill -9, and how much memory, by the number of messages that wait.
//!
//! `cargo run --release -p iris-storage --example recovery_time -- fill FOLDER MESSAGES` stores so many and is killed as
//! soon as the last is acknowledged; `... -- open FOLDER` opens what that left, and tells what it took. It measures and
//! prints; it judges nothing.

mod desk;

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use desk::Desk;
use iris_storage::{Party, Reply, Request, StoreOptions};

const USERS: u64 = 100_000;
const PAYLOAD_LEN: usize = 100;
const IN_FLIGHT: u64 = 20_000;

type Failure = Box<dyn Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["fill", folder, messages] => fill(Path::new(folder), messages.parse()?),
        ["victim", folder, messages] => victim(Path::new(folder), messages.parse()?),
        ["open", folder] => open(Path::new(folder)),
        _ => Err("recovery_time fill FOLDER MESSAGES, or recovery_time open FOLDER".into()),
    }
}

/// Lets a process of its own store the messages, and kills it.
fn fill(folder: &Path, messages: u64) -> Result<(), Failure> {
    let began = Instant::now();
    let mut victim = Command::new(std::env::current_exe()?)
        .arg("victim")
        .arg(folder)
        .arg(messages.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let out = victim.stdout.take().ok_or("no output")?;
    let acknowledged = BufReader::new(out)
        .lines()
        .next()
        .ok_or("the victim ended")??;
    victim.kill()?;
    victim.wait()?;
    let took = began.elapsed().as_secs_f64();
    println!(
        "{acknowledged} acknowledged in {took:.1} s, {:.0}/s; killed",
        messages as f64 / took
    );
    Ok(())
}

fn victim(folder: &Path, messages: u64) -> Result<(), Failure> {
    let mut desk = Desk::open(StoreOptions::new(folder))?;
    let payload = [7; PAYLOAD_LEN];
    let (mut asked, mut answered) = (0, 0);
    while answered < messages {
        while asked < messages && asked - answered < IN_FLIGHT {
            asked += 1;
            desk.append(asked, &format!("user{}", asked % USERS), &payload);
        }
        match desk.reply()? {
            Reply::Appended { .. } => answered += 1,
            other => return Err(format!("{other:?}").into()),
        }
    }
    println!("{answered}");
    std::io::stdout().flush()?;
    // The parent ends it here, with whatever the database is doing.
    std::thread::sleep(Duration::from_secs(60));
    Ok(())
}

fn open(folder: &Path) -> Result<(), Failure> {
    let before = resident_mib()?;
    let began = Instant::now();
    let mut desk = Desk::open(StoreOptions::new(folder))?;
    let opened = began.elapsed();
    let after = resident_mib()?;
    let name = "user1";
    desk.client.submit(Request::Page {
        token: 1,
        party: Party(0),
        user: desk.store.name_key().hash(name),
        name: name.into(),
        from: 0,
        messages_max: 1000,
        bytes_max: usize::MAX,
    });
    let reply = desk.reply()?;
    let ready = began.elapsed();
    let Reply::Page { messages, lost, .. } = reply else {
        return Err(format!("{reply:?}").into());
    };
    println!(
        "open {:.0} ms, first page ({} messages, {lost} lost) at {:.0} ms, resident {after} MiB ({before} before), clean: {}",
        opened.as_secs_f64() * 1e3,
        messages.len(),
        ready.as_secs_f64() * 1e3,
        desk.store.recovery().is_clean()
    );
    Ok(())
}

fn resident_mib() -> Result<u64, Failure> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS:"))
        .ok_or("no VmRSS")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib / 1024)
}
