//! `iris-tune`: prints what it read of this machine, and the plan with its reasons.
//!
//! Reads and explains; changes nothing. Exit code 0, 1 if a gateway cannot run here, 2 for a wrong
//! command line.

#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use iris_tune::{Machine, Note, Plan, plan, read_machine};

const USAGE: &str = "\
iris-tune: reads this machine and says what an Iris gateway can carry on it, and why.

Usage: iris-tune [--help | --version]

It only reads (/proc, the process's limits and control group); it changes nothing.
The gateway asks for the same plan at every start and takes max_connections and its budgets of memory from it
unless it is configured.

Exit codes: 0 a gateway can run here; 1 it cannot, the lines with `obstacle` say why;
2 wrong command line.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (text, code) = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => {
            let machine = read_machine();
            let plan = plan(&machine);
            let blocked = plan
                .notes
                .iter()
                .any(|note| matches!(note, Note::Obstacle(_)));
            (report(&machine, &plan), u8::from(blocked))
        }
        ["--help" | "-h"] => (USAGE.to_owned(), 0),
        ["--version" | "-V"] => (
            concat!("iris-tune ", env!("CARGO_PKG_VERSION"), "\n").to_owned(),
            0,
        ),
        _ => {
            eprint!(
                "iris-tune: unexpected argument {:?}\n\n{USAGE}",
                arguments.join(" ")
            );
            return ExitCode::from(2);
        }
    };
    // A reader that went away (`| head`) is no failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(code)
}

fn report(machine: &Machine, plan: &Plan) -> String {
    let mut out = String::from("This machine\n");
    let mut line = |name: &str, value: String| {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "  {name:<32}{value}");
    };
    let number = |value: Option<u64>| {
        value.map_or_else(|| "not readable".to_owned(), |value| value.to_string())
    };
    let limit = |value: u64| {
        if value == u64::MAX {
            "unlimited".to_owned()
        } else {
            value.to_string()
        }
    };
    line(
        "memory in all",
        format!("{} MiB", machine.memory_total >> 20),
    );
    line(
        "memory available",
        format!("{} MiB", machine.memory_available >> 20),
    );
    line(
        "memory the control group leaves",
        machine.memory_group.map_or_else(
            || "no limit".to_owned(),
            |bytes| format!("{} MiB", bytes >> 20),
        ),
    );
    line("cpus", format!("{} {:?}", machine.cpus.len(), machine.cpus));
    line(
        "descriptors, soft and hard",
        format!(
            "{} {}",
            limit(machine.descriptors_soft),
            limit(machine.descriptors_hard)
        ),
    );
    line("net.core.somaxconn", number(machine.accept_queue_max));
    line(
        "kernel.io_uring_disabled",
        format!("io_uring is {:?}", machine.io_uring).to_lowercase(),
    );
    // As for a gateway on every cpu.
    let cores = u32::try_from(machine.cpus.len()).unwrap_or(u32::MAX);
    let rings = plan.rings(plan.connections_max, cores);
    let _ = write!(
        out,
        "\nPlan\n  {:<32}{}\n  {:<32}{} MiB\n  {:<32}{} MiB\n  {:<32}{} of {} slots\n\nReasons\n",
        "max_connections",
        plan.connections_max,
        "input_bytes_max",
        plan.input_bytes_max >> 20,
        "output_bytes_max",
        plan.output_bytes_max >> 20,
        "rings of each core",
        rings.rings,
        rings.slots
    );
    for note in &plan.notes {
        let _ = writeln!(out, "  {note}");
    }
    out
}
