//! `iris-bench compare-limit`: the yardstick and a gateway in turn, on the same cpu, in the same
//! minutes. Figures of one run swing with the machine; the ratio of the medians is what counts.

use std::path::PathBuf;

use clap::Args;

use super::cost::measure;
use super::drive::{Measured, STANDARD, Shape};
use super::flags::{Repeat, Timing};
use crate::BenchError;
use crate::measure::{Machine, median, pin, row};

/// Flags of `compare-limit`.
#[derive(Debug, Args)]
pub struct CompareLimitArgs {
    /// The gateway's binary.
    #[arg(long, value_name = "PATH")]
    gateway: PathBuf,
    /// The cpu that both servers run on.
    #[arg(long, value_name = "CPU", default_value = "0")]
    server_cpu: usize,
    #[command(flatten)]
    timing: Timing,
    #[command(flatten)]
    repeat: Repeat,
}

/// The medians of several runs of one load on one server.
struct Medians {
    cpu_us: f64,
    headroom: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
}

pub(super) fn run(args: &CompareLimitArgs) -> Result<(), BenchError> {
    pin(args.repeat.load_cpu);
    let commands = [
        ("limit", yardstick_command()?),
        ("gateway", gateway_command(args)),
    ];
    println!("{}\n{}", Machine::here(), Measured::heading());
    let mut summary = Vec::new();
    let mut verdict = Ok(());
    for shape in STANDARD {
        let mut runs = [Vec::new(), Vec::new()];
        for _ in 0..args.repeat.rounds {
            for ((name, command), runs) in commands.iter().zip(&mut runs) {
                let measured = measure(command, args.server_cpu, shape, &args.timing)?;
                println!("{}", measured.line(&format!("{} {name}", shape.name())));
                verdict = verdict.and(measured.verdict());
                runs.push(measured);
            }
        }
        let [limit, gateway] = runs.map(|runs| Medians::of(&runs));
        if let (Some(limit), Some(gateway)) = (limit, gateway) {
            summary.extend(compare(shape, &limit, &gateway));
        }
    }
    let heading = ["CPU us/msg", "headroom", "msg/s", "p50 us", "p99 us"].map(str::to_owned);
    println!(
        "\n{}",
        row(&format!("medians of {}", args.repeat.rounds), heading)
    );
    summary.iter().for_each(|line| println!("{line}"));
    verdict
}

impl Medians {
    fn of(runs: &[Measured]) -> Option<Self> {
        let of =
            |figure: fn(&Measured) -> f64| median(&runs.iter().map(figure).collect::<Vec<_>>());
        Some(Self {
            cpu_us: of(|run| run.cpu_us().unwrap_or(f64::NAN))?,
            headroom: of(|run| run.cost.headroom().unwrap_or(f64::NAN))?,
            rate: of(Measured::rate)?,
            p50_us: of(|run| run.latency_us(50.0))?,
            p99_us: of(|run| run.latency_us(99.0))?,
        })
    }

    fn line(&self, name: &str) -> String {
        let Self {
            cpu_us,
            headroom,
            rate,
            p50_us,
            p99_us,
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

/// Three lines: the limit, the gateway, and the gateway over the limit.
fn compare(shape: Shape, limit: &Medians, gateway: &Medians) -> [String; 3] {
    let ratio = |of: fn(&Medians) -> f64| format!("{:.2}", of(gateway) / of(limit));
    let ratios = [
        ratio(|m| m.cpu_us),
        // The generator's, not the server's.
        "-".to_owned(),
        ratio(|m| m.rate),
        ratio(|m| m.p50_us),
        ratio(|m| m.p99_us),
    ];
    let name = shape.name();
    [
        limit.line(&format!("{name} limit")),
        gateway.line(&format!("{name} gateway")),
        row(&format!("{name} gateway/limit"), ratios),
    ]
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
