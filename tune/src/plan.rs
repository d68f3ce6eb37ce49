//! From a machine to the limits of a gateway on it. Pure: the same machine, the same plan.
//!
//! Memory is what bounds connections: descriptors do not, because the sockets live in the slots of
//! rings, and a core may have several rings.

use std::fmt;

use crate::budgets::{Budgets, cores_of, memory_of};
use crate::machine::{IoUring, Machine};

/// Memory one connection costs, the kernel's share included: 4.66 KiB in the kernel's slabs,
/// measured with 2,000,000 of them, and about 0.6 KiB in the gateway, rounded up.
pub const CONNECTION_BYTES: u64 = 5 * 1024 + 512;

/// Share of the memory left by the budgets that connections may take, in percent. The rest is for what the kernel
/// holds in bursts: TCP buffers, the page cache that the inbox store reads through.
const MEMORY_PERCENT: u64 = 80;

/// Memory of the inbox store for each database: 390 MiB were the most measured in floods, and there is room for a memtable
/// more. Up to [`CORES_PER_DATABASE`] cores share one.
pub(crate) const DATABASE_BYTES: u64 = 448 << 20;
pub(crate) const CORES_PER_DATABASE: u64 = 4;

/// Memory of a core before its first connection: ring, receive buffers (21 MiB), executor.
pub(crate) const CORE_BYTES: u64 = 44 << 20;

/// Most slots of one ring's file table, by the kernel (IORING_MAX_FIXED_FILES).
const RING_SLOTS_MAX: u64 = 1 << 20;

/// Fewest connections worth starting for, and the most there are ids for.
const CONNECTIONS_MIN: u64 = 64;
const CONNECTIONS_MAX: u64 = 16_000_000;

/// Least hard limit of descriptors: the store keeps tables and journals open, about 500 a database.
const DESCRIPTORS_MIN: u64 = 4096;

/// Accept queue that a storm of new connections needs.
const ACCEPT_QUEUE: u64 = 4096;

/// The limits of a gateway on a machine, and why they are so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Connections at once, over all cores.
    pub connections_max: u32,
    /// Memory for input that is not acted upon yet, of the process.
    pub input_bytes_max: u64,
    /// Memory for outboxes, of the process.
    pub output_bytes_max: u64,
    /// Memory for requests to the store, of each core.
    pub store_queue_bytes_max: u64,
    /// Bytes of one batch from a core to another.
    pub lane_batch_bytes_max: u64,
    /// Most slots that one ring's file table may have.
    pub ring_slots_max: u32,
    /// RLIMIT_NOFILE the gateway should set for itself at start: the hard limit.
    pub descriptors: u64,
    /// The reasons, and what an operator should change.
    pub notes: Vec<Note>,
}

/// A sentence about the plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// Why a figure is what it is.
    Reason(String),
    /// What limits the gateway although it need not, and how to change it.
    Advice(String),
    /// Why a gateway cannot run here, and how to change it.
    Obstacle(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (label, text) = match self {
            Note::Reason(text) => ("because", text),
            Note::Advice(text) => ("advice", text),
            Note::Obstacle(text) => ("obstacle", text),
        };
        write!(f, "{label}: {text}")
    }
}

/// The rings of each core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingPlan {
    /// Rings of each core; all but the first are opened when they are needed.
    pub rings: u32,
    /// Slots of each ring.
    pub slots: u32,
}

impl Plan {
    /// The rings that each of `cores` needs so that they hold `connections` together.
    ///
    /// Users spread over the cores by hash and connections by the kernel, neither quite evenly, and
    /// a core leaves up to an eighth of a table free for sockets on their way in: so each core gets
    /// a quarter and 64 slots more than its part.
    pub fn rings(&self, connections: u32, cores: u32) -> RingPlan {
        let part = u64::from(connections).div_ceil(u64::from(cores.max(1)));
        let wanted = part + part / 4 + 64;
        let slots = wanted.min(u64::from(self.ring_slots_max.max(1)));
        RingPlan {
            rings: clamped(wanted.div_ceil(slots)),
            slots: clamped(slots),
        }
    }
}

/// Plans the limits of a gateway that uses every cpu of `machine`.
pub fn plan(machine: &Machine) -> Plan {
    let mut notes = Vec::new();
    let budgets = Budgets::of(machine);
    let connections_max = connections(machine, &budgets, &mut notes);
    budgets.explain(machine, &mut notes);
    let ring_slots_max = machine.descriptors_hard.min(RING_SLOTS_MAX);
    notes.push(Note::Reason(format!(
        "a ring holds at most {ring_slots_max} connections: the lesser of the hard limit of descriptors \
         and the kernel's {RING_SLOTS_MAX}; a core that needs more has several rings"
    )));
    settings(machine, &mut notes);
    Plan {
        connections_max: clamped(connections_max),
        input_bytes_max: budgets.input,
        output_bytes_max: budgets.output,
        store_queue_bytes_max: budgets.store_queue,
        lane_batch_bytes_max: budgets.lane_batch,
        ring_slots_max: clamped(ring_slots_max),
        descriptors: machine.descriptors_hard,
        notes,
    }
}

fn connections(machine: &Machine, budgets: &Budgets, notes: &mut Vec<Note>) -> u64 {
    let memory = memory_of(machine);
    let source = if memory < machine.memory_available {
        "the control group allows"
    } else {
        "MemAvailable is"
    };
    let cores = cores_of(machine);
    let fixed = CORE_BYTES * cores + DATABASE_BYTES * cores.div_ceil(CORES_PER_DATABASE);
    let budgeted = budgets.sum(machine);
    let left = memory.saturating_sub(fixed + budgeted) / 100 * MEMORY_PERCENT;
    let wanted = left / CONNECTION_BYTES;
    notes.push(Note::Reason(format!(
        "{source} {} MiB; less {} MiB for {cores} cores and the inbox store and {} MiB for the budgets below, \
         {MEMORY_PERCENT} % of the rest at {:.1} KiB a connection (the kernel's share included) carries {wanted}",
        memory >> 20,
        fixed >> 20,
        budgeted >> 20,
        CONNECTION_BYTES as f64 / 1024.0,
    )));
    if wanted < CONNECTIONS_MIN {
        notes.push(Note::Advice(format!(
            "this machine's free memory does not carry a gateway; planned for {CONNECTIONS_MIN} connections all the \
             same: free memory, or use fewer cores"
        )));
    }
    wanted.clamp(CONNECTIONS_MIN, CONNECTIONS_MAX)
}

fn settings(machine: &Machine, notes: &mut Vec<Note>) {
    match machine.io_uring {
        IoUring::Allowed => {}
        IoUring::Privileged => notes.push(Note::Obstacle(
            "kernel.io_uring_disabled is 1: only members of kernel.io_uring_group may use io_uring; \
             put the gateway's group there, or set kernel.io_uring_disabled to 0"
                .to_owned(),
        )),
        IoUring::Disabled => notes.push(Note::Obstacle(
            "kernel.io_uring_disabled is 2: no process may use io_uring; set it to 0".to_owned(),
        )),
    }
    if machine.descriptors_hard < DESCRIPTORS_MIN {
        notes.push(Note::Advice(format!(
            "the hard limit of descriptors is {}: the inbox store may need more; \
             set LimitNOFILE (systemd) or ulimit -Hn to {DESCRIPTORS_MIN} or more",
            machine.descriptors_hard
        )));
    }
    if let Some(queue) = machine
        .accept_queue_max
        .filter(|queue| *queue < ACCEPT_QUEUE)
    {
        notes.push(Note::Advice(format!(
            "net.core.somaxconn is {queue}: a storm of connections overflows it; set it to {ACCEPT_QUEUE} or more"
        )));
    }
    if let Some(memory) = machine.tcp_memory {
        notes.push(Note::Reason(format!(
            "net.ipv4.tcp_mem lets the buffers of all sockets take {} MiB before they are pressed and {} MiB at most; \
             idle connections take none of it",
            memory.pressure >> 20,
            memory.max >> 20
        )));
    }
    if let Some(ports) = machine.local_ports {
        notes.push(Note::Reason(format!(
            "net.ipv4.ip_local_port_range has {} ports: load clients on this machine find a free one quickly for about \
             half of them on each pair of source and destination address",
            u32::from(ports.last.saturating_sub(ports.first)) + 1
        )));
    }
}

fn clamped(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::{PortRange, TcpMemory};

    /// 24 GB, 2 cpus: the machine of the figures in the documentation.
    fn machine() -> Machine {
        Machine {
            memory_total: 24_684_100 << 10,
            memory_available: 23_842_436 << 10,
            memory_group: None,
            cpus: vec![0, 1],
            descriptors_soft: 1024,
            descriptors_hard: 20_000,
            accept_queue_max: Some(4096),
            tcp_memory: Some(TcpMemory {
                pressure: 1 << 30,
                max: 2 << 30,
            }),
            local_ports: Some(PortRange {
                first: 32_768,
                last: 60_999,
            }),
            io_uring: IoUring::Allowed,
        }
    }

    fn obstacles(plan: &Plan) -> usize {
        plan.notes
            .iter()
            .filter(|note| matches!(note, Note::Obstacle(_)))
            .count()
    }

    fn advice(plan: &Plan) -> Vec<&str> {
        plan.notes
            .iter()
            .filter_map(|note| {
                if let Note::Advice(text) = note {
                    Some(text.as_str())
                } else {
                    None
                }
            })
            .collect()
    }

    #[test]
    fn memory_carries_the_connections() {
        let plan = plan(&machine());
        // (22.74 GiB - 536 MiB - 2.29 GiB) * 0.8 / 5.5 KiB
        assert_eq!(plan.connections_max, 3_038_902);
        assert!(u64::from(plan.connections_max) * CONNECTION_BYTES < (23_842_436 << 10) * 8 / 10);
        assert_eq!(obstacles(&plan), 0);
        assert_eq!(advice(&plan), [""; 0]);
    }

    #[test]
    fn a_control_group_tighter_than_the_machine_counts() {
        let mut small = machine();
        small.memory_group = Some(2 << 30);
        let planned = plan(&small);
        assert!(
            planned.connections_max < 300_000,
            "{}",
            planned.connections_max
        );
        assert!(
            planned.notes[0]
                .to_string()
                .contains("control group allows 2048 MiB")
        );
        small.memory_group = Some(1 << 50);
        assert_eq!(plan(&small), plan(&machine()));
    }

    #[test]
    fn a_tiny_and_a_huge_machine_stay_within_bounds() {
        let mut tiny = machine();
        tiny.memory_available = 100 << 20;
        let planned = plan(&tiny);
        assert_eq!(u64::from(planned.connections_max), CONNECTIONS_MIN);
        assert_eq!(advice(&planned).len(), 1);
        let mut huge = machine();
        huge.memory_available = 4 << 40;
        huge.descriptors_hard = u64::MAX;
        let planned = plan(&huge);
        assert_eq!(u64::from(planned.connections_max), CONNECTIONS_MAX);
        assert_eq!(u64::from(planned.ring_slots_max), RING_SLOTS_MAX);
        assert_eq!(planned.descriptors, u64::MAX);
    }

    #[test]
    fn rings_hold_the_connections_within_the_limit_of_descriptors() {
        let planned = plan(&machine());
        for (connections, cores) in [
            (1, 1),
            (1000, 2),
            (20_000, 1),
            (2_000_000, 2),
            (16_000_000, 1),
            (10, 64),
        ] {
            let rings = planned.rings(connections, cores);
            assert!(rings.slots <= planned.ring_slots_max, "{rings:?}");
            let slots = u64::from(rings.rings) * u64::from(rings.slots) * u64::from(cores);
            assert!(
                slots >= u64::from(connections) + u64::from(connections) / 8,
                "{rings:?} for {connections}"
            );
            // Without the last ring of each core it would not be enough.
            let part = u64::from(connections.div_ceil(cores));
            let spared = u64::from(rings.rings - 1) * u64::from(rings.slots);
            assert!(spared < part + part / 4 + 64, "{rings:?} for {connections}");
        }
        assert_eq!(
            planned.rings(1000, 2),
            RingPlan {
                rings: 1,
                slots: 689
            }
        );
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let mut hostile = machine();
        hostile.io_uring = IoUring::Disabled;
        hostile.descriptors_hard = 1024;
        hostile.accept_queue_max = Some(128);
        let planned = plan(&hostile);
        assert_eq!(obstacles(&planned), 1);
        let advice = advice(&planned);
        assert!(
            advice.iter().any(|text| text.contains("LimitNOFILE")),
            "{advice:?}"
        );
        assert!(
            advice
                .iter()
                .any(|text| text.contains("net.core.somaxconn is 128")),
            "{advice:?}"
        );
        hostile.io_uring = IoUring::Privileged;
        assert_eq!(obstacles(&plan(&hostile)), 1);
    }

    #[test]
    fn what_could_not_be_read_is_left_out() {
        let mut hidden = machine();
        (
            hidden.accept_queue_max,
            hidden.tcp_memory,
            hidden.local_ports,
        ) = (None, None, None);
        assert_eq!(plan(&hidden).notes.len(), 6);
    }
}
