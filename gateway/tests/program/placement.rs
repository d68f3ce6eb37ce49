//! Where cpus are left that no core is pinned to, nothing but a core runs on a core's cpu; where none is, all are shared.

use rustix::thread::{CpuSet, sched_getaffinity};

use crate::support::{Framed, Gateway};

/// The cpus this test may run on, as a set and as a list.
fn allowed() -> (CpuSet, Vec<usize>) {
    let allowed = sched_getaffinity(None).expect("known");
    let cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    (allowed, cpus.collect())
}

#[test]
fn threads_that_are_no_cores_have_all_cpus_if_none_is_left() {
    let (allowed, cpus) = allowed();
    let list = cpus.iter().map(|cpu| format!("{cpu},")).collect::<String>();
    let gateway = Gateway::serving_on_cores(&list);
    for (name, cpus_of) in gateway.threads() {
        let is_core = name.starts_with("iris-core");
        assert!(is_core || cpus_of == allowed, "{name}: {cpus_of:?}");
    }
}

#[test]
fn threads_that_are_no_cores_leave_the_cores_cpus() {
    let (_, cpus) = allowed();
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
