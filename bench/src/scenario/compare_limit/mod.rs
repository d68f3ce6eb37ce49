//! `iris-bench compare-limit`: the yardstick and a gateway in turn, on the same cpu, in the same
//! minutes. Figures of one run swing with the machine; the ratio of the medians is what counts.
//!
//! The yardstick speaks the classic protocol alone. So the framed protocol is held against the
//! classic one of the same gateway, which in turn is held against the yardstick.

mod loads;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::cost::measure;
use super::drive::{Load, Measured, verdict};
use super::flags::{Repeat, Timing};
use crate::BenchError;
use crate::dialect::Protocol;
use crate::measure::{Machine, median, microseconds, pin, row};
use loads::LoadsArgs;

/// What is held against what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Held {
    /// The gateway against the yardstick, both in the classic protocol.
    Classic,
    /// The gateway in the framed protocol against the same gateway in the classic one.
    Framed,
}

/// Flags of `compare-limit`.
#[derive(Debug, Args)]
pub struct CompareLimitArgs {
    /// The gateway's binary.
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// The cpu that both servers run on.
    #[arg(long, value_name = "CPU", default_value = "0")]
    server_cpu: usize,
    /// The protocol whose cost is held against the limit.
    #[arg(long, value_enum, default_value = "classic")]
    protocol: Held,
    #[command(flatten)]
    loads: LoadsArgs,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    repeat: Repeat,
}

/// One of the two that are compared.
struct Side {
    name: &'static str,
    protocol: Protocol,
    command: Vec<String>,
}

/// The medians of several runs of one load on one server.
struct Medians {
    cpu_us: f64,
    headroom: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    /// The last two of messages that were written in bursts, where there are some.
    burst_us: Option<[f64; 2]>,
}

pub(super) fn run(args: &CompareLimitArgs) -> Result<(), BenchError> {
    pin(args.repeat.load_cpu);
    println!("{}\n{}", Machine::here(), Measured::heading());
    let (mut summary, mut doubts) = (Vec::new(), Vec::new());
    let mut wrongs = Vec::new();
    let sides = sides(args)?;
    for load in args.loads.loads() {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..args.repeat.rounds {
            for (side, runs) in sides.iter().zip(&mut runs) {
                let (cpu, protocol) = (args.server_cpu, side.protocol);
                let measured = measure(&side.command, cpu, protocol, &load, &args.timing)?;
                let name = format!("{} {}", load.name(), side.name);
                measured.print(&name, &mut wrongs);
                runs.push(measured);
            }
        }
        for (side, runs) in sides.iter().zip(&runs) {
            let doubt = runs.iter().find_map(|run| run.cost.doubt());
            doubts.extend(doubt.map(|doubt| format!("{} {}: {doubt}", load.name(), side.name)));
        }
        let [least, held] = runs.map(|runs| Medians::of(&runs));
        if let (Some(least), Some(held)) = (least, held) {
            let names = [sides[0].name, sides[1].name];
            summary.extend(compare(&load, names, &least, &held));
        }
    }
    let heading = ["CPU us/msg", "headroom", "msg/s", "p50 us", "p99 us"].map(str::to_owned);
    println!(
        "\n{}",
        row(&format!("medians of {}", args.repeat.rounds), heading)
    );
    summary.iter().for_each(|line| println!("{line}"));
    doubts.iter().for_each(|doubt| println!("Mind: {doubt}"));
    verdict(&wrongs)
}

impl Medians {
    fn of(runs: &[Measured]) -> Option<Self> {
        let of = |figure: &dyn Fn(&Measured) -> f64| {
            median(&runs.iter().map(figure).collect::<Vec<_>>())
        };
        let burst = |quantile| {
            of(&|run: &Measured| microseconds(run.tally.burst_ns.value_at_quantile(quantile)))
        };
        let bursts = runs.iter().any(|run| !run.tally.burst_ns.is_empty());
        Some(Self {
            cpu_us: of(&|run| run.cpu_us().unwrap_or(f64::NAN))?,
            headroom: of(&|run| run.cost.headroom().unwrap_or(f64::NAN))?,
            rate: of(&Measured::rate)?,
            p50_us: of(&|run| run.latency_us(50.0))?,
            p99_us: of(&|run| run.latency_us(99.0))?,
            burst_us: if bursts {
                Some([burst(0.5)?, burst(0.99)?])
            } else {
                None
            },
        })
    }

    fn line(&self, name: &str) -> String {
        let Self {
            cpu_us,
            headroom,
            rate,
            p50_us,
            p99_us,
            burst_us: _,
        } = self;
        row(
            name,
            [
                format!("{cpu_us:.2}"),
                format!("{headroom:.2}"),
                format!("{rate:.0}"),
                format!("{p50_us:.0}"),
                format!("{p99_us:.0}"),
            ],
        )
    }
}

/// Three lines: one, the other, and the other over the one. Three more of what was written in
/// bursts.
fn compare(load: &Load, names: [&str; 2], least: &Medians, held: &Medians) -> Vec<String> {
    let ratio = |of: fn(&Medians) -> f64| format!("{:.2}", of(held) / of(least));
    let ratios = [
        ratio(|m| m.cpu_us),
        // The generator's, not the server's.
        "-".to_owned(),
        ratio(|m| m.rate),
        ratio(|m| m.p50_us),
        ratio(|m| m.p99_us),
    ];
    let [least_name, held_name] = names;
    let name = load.name();
    let mut lines = vec![
        least.line(&format!("{name} {least_name}")),
        held.line(&format!("{name} {held_name}")),
        row(&format!("{name} {held_name}/{least_name}"), ratios),
    ];
    if let (Some(of_least), Some(of_held)) = (least.burst_us, held.burst_us) {
        let line = |name: String, [p50, p99]: [String; 2]| {
            let dash = || "-".to_owned();
            let name = format!("  those in bursts, {name}");
            row(&name, [dash(), dash(), dash(), p50, p99])
        };
        let us = |us: f64| format!("{us:.0}");
        let ratio = |nth: usize| format!("{:.2}", of_held[nth] / of_least[nth]);
        lines.extend([
            line(least_name.to_owned(), of_least.map(us)),
            line(held_name.to_owned(), of_held.map(us)),
            line(format!("{held_name}/{least_name}"), [ratio(0), ratio(1)]),
        ]);
    }
    lines
}

/// The two that are compared, the one that costs least first.
fn sides(args: &CompareLimitArgs) -> Result<[Side; 2], BenchError> {
    let gateway = |name, protocol| Side {
        name,
        protocol,
        command: gateway_command(args),
    };
    Ok(match args.protocol {
        Held::Classic => [
            Side {
                name: "limit",
                protocol: Protocol::Classic,
                command: yardstick_command()?,
            },
            gateway("gateway", Protocol::Classic),
        ],
        Held::Framed => [
            gateway("classic", Protocol::Classic),
            gateway("framed", Protocol::Framed),
        ],
    })
}

/// This very program, as the yardstick.
fn yardstick_command() -> Result<Vec<String>, BenchError> {
    let program = std::env::current_exe()?.to_string_lossy().into_owned();
    let arguments = ["limit", "--listen", "{address}"].map(str::to_owned);
    Ok([program].into_iter().chain(arguments).collect())
}

/// The gateway with everything switched on but its admin port, on one core.
fn gateway_command(args: &CompareLimitArgs) -> Vec<String> {
    let program = args.gateway.to_string_lossy().into_owned();
    // The comma makes it a list of cpus and not a number of cores.
    let cores = format!("{},", args.server_cpu);
    let arguments = [
        "serve",
        "--listen",
        "{address}",
        "--data",
        "{data}",
        "--cores",
        &cores,
        "--admin",
        "off",
        "--max-connections",
        "20000",
    ];
    [program]
        .into_iter()
        .chain(arguments.map(str::to_owned))
        .collect()
}
