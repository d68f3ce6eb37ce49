//! Servers are started, measured and blamed as promised; the yardstick serves as one.

mod support;

use support::{BENCH, bench};

#[test]
fn cost_reports_cpu_for_each_of_the_standard_loads() {
    let timing = ["--rounds", "1", "--warm-up", "0.1", "--duration", "0.3"];
    let server = ["--", BENCH, "limit", "--listen", "{address}"];
    let output = bench(&[&["cost"][..], &timing, &server].concat());
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for load in [
        "gather 200 x 1, 64 B ",
        "gather 1000 x 16, 64 B ",
        "gather 10000 x 1, 64 B ",
    ] {
        let line = text
            .lines()
            .find(|line| line.starts_with(load))
            .expect(load);
        let cpu_us: f64 = line[load.len()..]
            .split_ascii_whitespace()
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or_else(|| panic!("no figure in {line:?}"));
        // The kernel's TCP alone is beyond the lower bound; the upper allows for any machine.
        assert!((0.1..1000.0).contains(&cpu_us), "{line}");
    }
    assert!(
        text.lines()
            .next()
            .is_some_and(|line| line.contains("Linux ")),
        "{text}"
    );
}

#[test]
fn a_server_that_does_not_start_is_an_error_with_its_words() {
    let output = bench(&["cost", "--", "sh", "-c", "echo out of luck; exit 4"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("out of luck") && text.contains('4'), "{text}");
}

#[test]
fn a_missing_gateway_is_named() {
    let output = bench(&[
        "compare-limit",
        "--gateway",
        "/no/such/iris",
        "--rounds",
        "1",
        "--warm-up",
        "0",
        "--duration",
        "0.1",
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/no/such/iris"));
}

#[test]
fn a_duration_that_is_none_is_refused_at_once() {
    for wrong in ["-1", "soon", "1e300"] {
        let argument = format!("--duration={wrong}");
        let output = bench(&["ping", &argument]);
        assert_eq!(output.status.code(), Some(2), "{wrong}");
    }
}
