//! `iris-bench idle`: what a user costs who is logged in and says nothing, in the gateway and in
//! the kernel.
//!
//! Each round has a gateway of its own, since memory that was used once is used again. Before
//! anything is measured, users come and go until the gateway grows no more: so what is there
//! whoever connects, receive buffers and pools, is not charged to those who stay.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use clap::Args;

use super::flags::{Common, seconds};
use super::run::Run;
use crate::BenchError;
use crate::dialect::Heard;
use crate::engine::{Clients, End, Handler, Post};
use crate::measure::{kernel_bytes, resident_bytes};

/// What the figures are found by.
pub(super) const CASE: &str = "an idle user";
pub(super) const RESIDENT: &str = "gateway, resident";
pub(super) const KERNEL: &str = "kernel, half of it";
/// How long the memory of the logins themselves takes to go back.
pub(super) const SETTLE: Duration = Duration::from_secs(5);
/// Users who come and go before.
const VISITORS: u32 = 1_000;
/// How often they do at most.
const VISITS_MAX: u32 = 200;
/// The gateway grows no more if it grew less than this in so many visits.
const GROWTH_BYTES: u64 = 128 << 10;
const STEADY: usize = 10;

/// Flags of `idle`.
#[derive(Debug, Args)]
pub struct IdleArgs {
    /// Users, 2,000 and up.
    #[arg(long, value_name = "N", default_value = "10000", value_parser = clap::value_parser!(u32).range(2_000..=2_000_000))]
    users: u32,
    /// Seconds until the memory of the logins themselves has gone back.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    settle: Duration,
    #[command(flatten)]
    common: Common,
}

/// Memory at a moment.
#[derive(Debug, Clone, Copy)]
struct Memory {
    resident: u64,
    kernel: u64,
}

pub(super) fn run(args: &IdleArgs) -> Result<(), BenchError> {
    args.common.target.must_be_ours("idle")?;
    let mut run = Run::begin("idle", &args.common)?;
    run.report.setting("users", args.users);
    for round in 0..args.common.repeat.rounds {
        if round > 0 {
            run.go_on_with(args.common.target.ready()?)?;
        }
        measure(&mut run, args.users, args.settle)?;
    }
    run.finish()
}

/// Adds one more round.
pub(super) fn measure(run: &mut Run<'_>, users: u32, settle: Duration) -> Result<(), BenchError> {
    run.progress.phase("users come and go", None);
    warm_up(run)?;
    wait(run, None, settle)?;
    let before = Memory::of(run)?;
    let mut clients = run.open_clients(users)?;
    run.progress.phase("idle", None);
    wait(run, Some(&mut clients), settle)?;
    let after = Memory::of(run)?;
    run.report.verdict.add_logins(users.into(), users.into());
    // As many as came and went before fill places that were there already.
    let new = f64::from(users - VISITORS);
    let all = f64::from(users);
    let resident = after.resident.saturating_sub(before.resident) as f64 / new;
    let kernel = after.kernel.saturating_sub(before.kernel) as f64 / all;
    run.report
        .case(CASE)
        .figure(RESIDENT, "bytes", resident)
        .figure("kernel, both ends", "bytes", kernel)
        .figure(KERNEL, "bytes", kernel / 2.0);
    Ok(())
}

/// Users come and go until the gateway grows no more.
fn warm_up(run: &mut Run<'_>) -> Result<(), BenchError> {
    let mut grown = VecDeque::new();
    for _ in 0..VISITS_MAX {
        let mut clients = run.clients(VISITORS)?;
        clients.log_in(VISITORS)?;
        for client in 0..VISITORS {
            clients.leave(client);
        }
        while (0..VISITORS).any(|client| clients.is_open(client)) || clients.is_closing() {
            clients.turn(Duration::from_millis(10), &mut Silence)?;
        }
        let now = Memory::of(run)?.resident;
        grown.push_back(now);
        if grown.len() > STEADY
            && let Some(before) = grown.pop_front()
            && now < before + GROWTH_BYTES
        {
            return Ok(());
        }
    }
    run.report
        .warn("the gateway grew as long as users came and went: it was measured nevertheless");
    Ok(())
}

/// Waits, and goes on answering for the clients.
fn wait(
    run: &Run<'_>,
    mut clients: Option<&mut Clients>,
    time: Duration,
) -> Result<(), BenchError> {
    let began = Instant::now();
    while began.elapsed() < time {
        match &mut clients {
            Some(clients) => clients.turn(Duration::from_millis(100), &mut Silence)?,
            None => std::thread::sleep(Duration::from_millis(100)),
        }
        run.progress.tick();
    }
    Ok(())
}

impl Memory {
    fn of(run: &Run<'_>) -> Result<Self, BenchError> {
        Ok(Self {
            resident: run.target.pid.map_or(Ok(0), resident_bytes)?,
            kernel: kernel_bytes()?,
        })
    }
}

/// Nobody says anything.
struct Silence;

impl Handler for Silence {
    fn heard(&mut self, _: u32, _: Heard, _: &[u8], _: u64, _: &mut Post) {}
    fn ended(&mut self, _: u32, _: End) {}
}
