//! What users and cores cost who are merely there, against gateways of their own.

mod support;

use support::{bench, figure, sound};

#[test]
fn an_idle_user_is_charged_in_bytes() {
    let text = sound(&[
        "idle", "--users", "3000", "--settle", "0.5", "--rounds", "1",
    ]);
    let resident = figure(&text, "gateway, resident", "bytes");
    // What so few users take may lie in pages that the gateway already had.
    assert!(resident < 20_000.0, "{text}");
    // The rest of the machine is in it.
    figure(&text, "kernel, both ends", "bytes");
}

#[test]
fn gateways_of_several_cores_share_one_cpu_and_are_compared() {
    let text = sound(&[
        "cores",
        "--counts",
        "1,3",
        "--connections",
        "100",
        "--rate",
        "20000",
        "--rounds",
        "1",
        "--warm-up",
        "0.2",
        "--duration",
        "0.5",
    ]);
    assert!(
        text.contains("1 on one cpu") && text.contains("3 on one cpu"),
        "{text}"
    );
    for load in ["20000/s", "16 in flight"] {
        let compared = format!("3 over 1, {load}");
        let (_, compared) = text.split_once(&compared).expect("a comparison");
        let ratio = figure(compared, "server, CPU", "ratio of medians");
        assert!((0.1..20.0).contains(&ratio), "{text}");
    }
}

#[test]
fn scenarios_with_gateways_of_their_own_connect_to_no_other() {
    for scenario in ["idle", "cores"] {
        let output = bench(&[scenario, "--connect", "127.0.0.1:1"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("gateways of its own"), "{text}");
    }
}
