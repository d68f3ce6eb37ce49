//! The scenarios of users who are online, against the real gateway, in both protocols.

mod support;

use support::{bench, figure, gateway, sound};

const SHORT: [&str; 6] = ["--rounds", "2", "--warm-up", "0.2", "--duration", "0.5"];
const SHORTEST: [&str; 6] = ["--rounds", "1", "--warm-up", "0.1", "--duration", "0.3"];

#[test]
fn ping_reports_the_latency_of_one_pair() {
    for protocol in ["classic", "framed"] {
        let text = sound(&[&["ping", "--protocol", protocol][..], &SHORT].concat());
        let (half, most) = (
            figure(&text, "latency, p50", "us"),
            figure(&text, "latency, max", "us"),
        );
        assert!(0.0 < half && half <= most, "{text}");
        assert!(figure(&text, "server, CPU", "us/msg") > 0.5, "{text}");
        assert_eq!(text.contains("answered, p99"), protocol == "framed");
    }
}

#[test]
fn an_open_loop_holds_its_rate_and_a_closed_one_goes_as_fast_as_it_can() {
    let open = ["mesh", "--connections", "50", "--rate", "2000"];
    let text = sound(&[&open[..], &SHORT].concat());
    let rate = figure(&text, "delivered", "msg/s");
    assert!((1_500.0..2_500.0).contains(&rate), "{text}");
    assert!(text.contains("generator late, p99"), "{text}");

    let closed = ["mesh", "--connections", "50", "--in-flight", "4"];
    let text = sound(&[&closed[..], &SHORT].concat());
    assert!(figure(&text, "delivered", "msg/s") > rate, "{text}");
}

#[test]
fn closed_loops_of_every_shape_lose_nothing_and_say_how_late_bursts_are() {
    for protocol in ["classic", "framed"] {
        for shape in ["reply", "eager", "bursts"] {
            let flags = ["mesh", "--protocol", protocol, "--shape", shape];
            let load = ["--connections", "50", "--in-flight", "8"];
            let text = sound(&[&flags[..], &load, &SHORTEST].concat());
            assert!(figure(&text, "delivered", "msg/s") > 100.0, "{text}");
            assert!(figure(&text, "engine headroom", "times") > 0.0, "{text}");
            assert_eq!(text.contains("of bursts, p99"), shape == "bursts", "{text}");
        }
    }
}

#[test]
fn messages_as_long_as_they_get_and_of_mixed_sizes_all_come() {
    for protocol in ["classic", "framed"] {
        for size in ["65535", "0.8:64,0.15:1024,0.05:16384"] {
            let flags = ["mesh", "--protocol", protocol, "--shape", "reply"];
            let load = ["--connections", "30", "--in-flight", "2", "--size", size];
            let text = sound(&[&flags[..], &load, &SHORTEST].concat());
            assert!(figure(&text, "delivered", "msg/s") > 50.0, "{text}");
            assert!(text.contains(size), "{text}");
        }
    }
}

#[test]
fn a_reader_who_writes_to_nobody_is_not_asked_to_reply() {
    let flags = ["fan-in", "--in-flight", "1", "--shape", "reply"];
    let output = bench(&[&flags[..], &SHORTEST].concat());
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("--shape reply"), "{words}");
}

#[test]
fn many_writers_reach_one_reader_in_order() {
    for pace in [["--rate", "3000"], ["--in-flight", "2"]] {
        let fan_in = ["fan-in", "--senders", "30", "--bytes", "200"];
        let text = sound(&[&fan_in[..], &pace, &SHORT].concat());
        assert!(figure(&text, "delivered", "msg/s") > 100.0, "{text}");
    }
}

#[test]
fn a_protocol_or_a_size_that_is_none_is_refused_at_once() {
    for wrong in [
        ["--protocol", "smoke"],
        ["--size", "3"],
        ["--size", "0.5:64,0.5:8"],
        ["--rate", "0"],
        // Only a closed loop has one.
        ["--shape", "reply"],
    ] {
        let output = bench(&[&["mesh"][..], &wrong].concat());
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
    }
}

#[test]
fn a_report_is_written_in_every_form() {
    gateway();
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (page, log, table) = (path("page.html"), path("all.hlog"), path("all.hgrm"));
    let files = ["--html", &page, "--hlog", &log, "--hgrm", &table];
    let mesh = ["mesh", "--json", "--connections", "20"];
    let output = bench(&[&mesh[..], &SHORT, &files].concat());
    assert!(output.status.success(), "{output:?}");

    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["verdict"]["faults"]["lost"], 0);
    let latency = &json["cases"][0]["latency_ns"];
    let count = latency["count"].as_u64().expect("a count");
    assert!(count > 1_000, "{json}");

    let page = std::fs::read_to_string(page).expect("a page");
    assert!(page.contains("<title>mesh: sound"), "{page}");
    let log = std::fs::read_to_string(log).expect("a log");
    assert!(
        log.lines()
            .filter(|line| line.contains(",HISTFAAA"))
            .count()
            > 3
    );
    let table = std::fs::read_to_string(table).expect("a table");
    assert!(
        table.contains(&format!("Total count    = {count:12}]")),
        "{table}"
    );
}
