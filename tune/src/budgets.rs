//! Memory of a gateway that is not for connections: what each budget may take, from the memory there is.
//!
//! Pure. Invariant: all of them together take a fifth of the memory at most, but on a machine that hardly carries a
//! gateway.

use crate::machine::Machine;
use crate::plan::Note;

/// Memory for input that is not acted upon yet: a part of the memory, no less than a few hundred large frames need,
/// and no more than helps anyone.
const INPUT: Budget = Budget {
    part: 32,
    min: 16 << 20,
    max: 1 << 30,
};

/// Memory for outboxes: more, as it lets readers that are slow for a moment do without the inbox.
const OUTPUT: Budget = Budget {
    part: 16,
    min: 32 << 20,
    max: 4 << 30,
};

/// Memory for requests to the store, over all cores, and the most that one core can make use of.
const STORE_QUEUES: Budget = Budget {
    part: 32,
    min: 16 << 20,
    max: 16 << 30,
};
const STORE_QUEUE_BYTES_MAX: u64 = 64 << 20;

/// Memory for lanes between cores. A lane has 34 batches at most (32 on their way or on their way back, the one that is
/// filled and the one that is read), each of which may have grown to twice its limit.
const LANES: Budget = Budget {
    part: 16,
    min: 16 << 20,
    max: 16 << 30,
};
const BATCHES_OF_LANE: u64 = 2 * 34;
/// Least and most bytes of a batch: with fewer a batch carries few messages, more is no faster.
const BATCH_BYTES_MIN: u64 = 16 << 10;
const BATCH_BYTES_MAX: u64 = 256 << 10;

/// A part of the memory, within bounds.
struct Budget {
    /// One part of so many.
    part: u64,
    min: u64,
    max: u64,
}

impl Budget {
    fn of(&self, memory: u64) -> u64 {
        (memory / self.part).clamp(self.min, self.max)
    }
}

/// Memory that is not for connections.
pub(crate) struct Budgets {
    pub(crate) input: u64,
    pub(crate) output: u64,
    pub(crate) store_queue: u64,
    pub(crate) lane_batch: u64,
}

pub(crate) fn cores_of(machine: &Machine) -> u64 {
    machine.cpus.len().max(1) as u64
}

fn lanes_between(cores: u64) -> u64 {
    cores * (cores - 1)
}

pub(crate) fn memory_of(machine: &Machine) -> u64 {
    let group = machine.memory_group.unwrap_or(u64::MAX);
    machine.memory_available.min(group)
}

impl Budgets {
    /// The budgets on this machine.
    pub(crate) fn of(machine: &Machine) -> Budgets {
        let (memory, cores) = (memory_of(machine), cores_of(machine));
        let batches = lanes_between(cores).max(1) * BATCHES_OF_LANE;
        Budgets {
            input: INPUT.of(memory),
            output: OUTPUT.of(memory),
            store_queue: (STORE_QUEUES.of(memory) / cores).min(STORE_QUEUE_BYTES_MAX),
            lane_batch: (LANES.of(memory) / batches).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX),
        }
    }

    fn lanes(&self, machine: &Machine) -> u64 {
        lanes_between(cores_of(machine)) * BATCHES_OF_LANE * self.lane_batch
    }

    pub(crate) fn sum(&self, machine: &Machine) -> u64 {
        self.input + self.output + self.store_queue * cores_of(machine) + self.lanes(machine)
    }

    pub(crate) fn explain(&self, machine: &Machine, notes: &mut Vec<Note>) {
        let cores = cores_of(machine);
        notes.push(Note::Reason(format!(
            "input_bytes_max is {} MiB, 1/{} of the memory: commands that have not wholly arrived, or wait to be read",
            self.input >> 20,
            INPUT.part
        )));
        notes.push(Note::Reason(format!(
            "output_bytes_max is {} MiB, 1/{} of the memory: what waits for sockets and acknowledgements",
            self.output >> 20,
            OUTPUT.part
        )));
        notes.push(Note::Reason(format!(
            "requests to the inbox store may take {} MiB, {} MiB a core: at most 1/{} of the memory",
            (self.store_queue * cores) >> 20,
            self.store_queue >> 20,
            STORE_QUEUES.part
        )));
        notes.push(Note::Reason(format!(
            "lanes between cores may take {} MiB, in batches of {} KiB: at most 1/{} of the memory",
            self.lanes(machine) >> 20,
            self.lane_batch >> 10,
            LANES.part
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::IoUring;
    use crate::plan::{CONNECTION_BYTES, CORE_BYTES, CORES_PER_DATABASE, DATABASE_BYTES, plan};

    fn machine(memory: u64, cpus: usize) -> Machine {
        Machine {
            memory_total: memory,
            memory_available: memory,
            memory_group: None,
            cpus: (0..cpus).collect(),
            descriptors_soft: 1024,
            descriptors_hard: 20_000,
            accept_queue_max: None,
            tcp_memory: None,
            local_ports: None,
            io_uring: IoUring::Allowed,
        }
    }

    #[test]
    fn budgets_follow_the_memory_within_bounds_and_come_before_connections() {
        let with = |memory: u64, cpus: usize| plan(&machine(memory, cpus));
        for (memory, cpus) in [(1 << 30, 1), (1 << 30, 2), (24 << 30, 8), (256 << 30, 64)] {
            let planned = with(memory, cpus);
            let cores = cpus as u64;
            let lanes = lanes_between(cores) * BATCHES_OF_LANE * planned.lane_batch_bytes_max;
            let budgets = planned.input_bytes_max
                + planned.output_bytes_max
                + planned.store_queue_bytes_max * cores
                + lanes;
            let fixed = CORE_BYTES * cores + DATABASE_BYTES * cores.div_ceil(CORES_PER_DATABASE);
            let connections = u64::from(planned.connections_max) * CONNECTION_BYTES;
            assert!(budgets <= memory / 5, "{budgets} of {memory}");
            assert!(budgets + fixed + connections <= memory, "{planned:?}");
        }
        let small = with(1 << 30, 1);
        assert_eq!(small.input_bytes_max, 32 << 20);
        assert_eq!(small.output_bytes_max, 64 << 20);
        assert!(small.connections_max > 6_656, "{}", small.connections_max);
        let huge = with(4 << 40, 4);
        assert_eq!(huge.input_bytes_max, 1 << 30);
        assert_eq!(huge.store_queue_bytes_max, 64 << 20);
        assert_eq!(huge.lane_batch_bytes_max, 256 << 10);
        for (budget, note) in ["input_bytes_max", "output_bytes_max", "store", "lanes"]
            .iter()
            .zip(&small.notes[1..])
        {
            assert!(note.to_string().contains(budget), "{note}");
        }
    }
}
