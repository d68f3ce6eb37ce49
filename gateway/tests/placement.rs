//! Where cpus are left that no core is pinned to, nothing but a core runs on a core's cpu.

mod support;

use rustix::thread::{CpuSet, sched_getaffinity};

use support::{Framed, Gateway};

#[test]
fn threads_that_are_no_cores_leave_the_cores_cpus() {
    let allowed = sched_getaffinity(None).expect("known");
    let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.is_set(*cpu))
        .collect();
    if cpus.len() < 2 {
        println!("one cpu: there is nothing to leave");
        return;
    }
    let gateway = Gateway::serving_on_cores(&format!("{},", cpus[0]));
    // Somebody for whom memory was needed, so that the allocator has begun its work.
    let mut client = Framed::login(gateway.address(), "ann");
    client.sends("bob", b"for later");
    let (cores, others): (Vec<_>, Vec<_>) = gateway
        .threads()
        .into_iter()
        .partition(|(name, _)| name.starts_with("iris-core"));
    assert!(!cores.is_empty());
    for (name, cpus_of) in cores {
        assert!(cpus_of.is_set(cpus[0]) && cpus_of.count() == 1, "{name}");
    }
    let named = |wanted: &str| others.iter().any(|(name, _)| name.starts_with(wanted));
    for wanted in ["iris-commit", "fjall:worker", "jemalloc_bg"] {
        assert!(named(wanted), "{others:?}");
    }
    for (name, cpus_of) in &others {
        assert!(!cpus_of.is_set(cpus[0]), "{name} runs on the core's cpu");
    }
}
