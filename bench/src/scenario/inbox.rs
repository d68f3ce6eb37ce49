//! What scenarios of users who are away have in common: to store, and to drain.
//!
//! Invariant: a message counts as stored when its sender has the answer, and as drained when its
//! reader has it.

use std::ops::Range;

use super::run::{Run, latency_figures};
use crate::BenchError;
use crate::engine::{Pace, Traffic};
use crate::measure::Meter;

/// Sends `total` messages, `window` of each sender unanswered, and waits for all answers.
pub(super) fn store(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    case: &str,
    window: u32,
    total: u64,
) -> Result<(), BenchError> {
    run.progress.phase(case, Some(total));
    let settled = |traffic: &Traffic| traffic.answered() + traffic.streams().refusals();
    let before = settled(traffic);
    traffic.begin();
    let meter = Meter::begin(run.target.pid)?;
    traffic.start_total(Pace::Unanswered(window), total);
    let progress = &run.progress;
    let whole = traffic.run_until(|traffic| {
        progress.at(settled(traffic) - before);
        settled(traffic) - before >= total
    })?;
    traffic.end();
    let cost = meter.end()?;
    let tally = traffic.take();
    if !whole {
        run.report
            .warn(format!("{case}: the server stopped answering"));
    }
    let resident_mib = run.resident_mib();
    let answered = tally.answer_ns.len();
    let case = run.report.case(case);
    case.figure(
        "stored",
        "msg/s",
        answered as f64 / cost.elapsed.as_secs_f64(),
    );
    latency_figures(case, &tally.answer_ns);
    case.latencies(&tally.answer_ns)
        .figure("server, CPU", "us/msg", cost.server_us_each(answered))
        .figure("server, busy", "% of a cpu", cost.server_percent())
        .figure("server, resident", "MiB", resident_mib)
        .figure("generator, busy", "% of a cpu", cost.generator_percent());
    Ok(())
}

/// Logs `readers` in and waits until they have everything; then logs them out.
pub(super) fn drain(
    run: &mut Run<'_>,
    traffic: &mut Traffic,
    case: &str,
    readers: Range<u32>,
) -> Result<(), BenchError> {
    let waiting = traffic.streams().in_flight();
    run.progress.phase(case, Some(waiting));
    traffic.begin();
    let meter = Meter::begin(run.target.pid)?;
    traffic.log_in(readers.clone())?;
    let progress = &run.progress;
    traffic.run_until(|traffic| {
        let left = traffic.streams().in_flight();
        progress.at(waiting.saturating_sub(left));
        left == 0
    })?;
    traffic.end();
    let cost = meter.end()?;
    let tally = traffic.take();
    let resident_mib = run.resident_mib();
    let name = case;
    let case = run.report.case(name);
    case.figure(
        "drained",
        "msg/s",
        tally.delivered as f64 / cost.elapsed.as_secs_f64(),
    )
    .figure(
        "from login to the last",
        "ms",
        cost.elapsed.as_secs_f64() * 1e3,
    )
    .figure(
        "server, CPU",
        "us/msg",
        cost.server_us_each(tally.delivered),
    )
    .figure("server, busy", "% of a cpu", cost.server_percent())
    .figure("server, resident", "MiB", resident_mib)
    .figure("generator, busy", "% of a cpu", cost.generator_percent());
    run.record_series(name, &tally);
    traffic.log_out(readers)
}
