//! The machine as it is now: memory, cpus, limits and the kernel's settings that bound a gateway.
//!
//! What cannot be read is `None` (a container may hide any of it) and the plan does without it;
//! only memory and cpus have stand-ins, for without them there is no plan.

use std::fs;
use std::path::Path;

use rustix::process::{Resource, getrlimit};

/// What bounds a gateway on a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// `MemTotal` of /proc/meminfo, in bytes.
    pub memory_total: u64,
    /// `MemAvailable` of /proc/meminfo, in bytes: what can be had without swapping.
    pub memory_available: u64,
    /// What the control group still allows this process, in bytes, if it has a limit.
    pub memory_group: Option<u64>,
    /// Cpus this process may run on, by their numbers.
    pub cpus: Vec<usize>,
    /// RLIMIT_NOFILE, soft: file descriptors of the process, and slots of one ring.
    pub descriptors_soft: u64,
    /// RLIMIT_NOFILE, hard: as far as the process may raise the soft one by itself.
    pub descriptors_hard: u64,
    /// net.core.somaxconn: longest queue of connections waiting to be accepted.
    pub accept_queue_max: Option<u64>,
    /// net.ipv4.tcp_mem.
    pub tcp_memory: Option<TcpMemory>,
    /// net.ipv4.ip_local_port_range: bounds outgoing connections of load clients.
    pub local_ports: Option<PortRange>,
    /// Whether io_uring is allowed.
    pub io_uring: IoUring,
}

/// net.ipv4.tcp_mem, in bytes: for the buffers of all TCP sockets of the machine together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpMemory {
    /// Above it, sockets are pressed to shrink their buffers.
    pub pressure: u64,
    /// Above it, packets are dropped.
    pub max: u64,
}

/// net.ipv4.ip_local_port_range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
}

/// kernel.io_uring_disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IoUring {
    /// 0: allowed to every process, or a kernel before 6.6, which has no such setting.
    Allowed,
    /// 1: only to members of kernel.io_uring_group and processes with CAP_SYS_ADMIN.
    Privileged,
    /// 2: to nobody.
    Disabled,
}

/// Reads this machine.
pub fn read_machine() -> Machine {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let meminfo = text("/proc/meminfo");
    let limits = getrlimit(Resource::Nofile);
    Machine {
        // A stand-in small enough to be safe; the plan says what it rests on.
        memory_total: meminfo_bytes(&meminfo, "MemTotal").unwrap_or(1 << 30),
        memory_available: meminfo_bytes(&meminfo, "MemAvailable").unwrap_or(512 << 20),
        memory_group: memory_group(Path::new("/sys/fs/cgroup"), &text("/proc/self/cgroup")),
        cpus: cpus(),
        descriptors_soft: limits.current.unwrap_or(u64::MAX),
        descriptors_hard: limits.maximum.unwrap_or(u64::MAX),
        accept_queue_max: text("/proc/sys/net/core/somaxconn").trim().parse().ok(),
        tcp_memory: tcp_memory(
            &text("/proc/sys/net/ipv4/tcp_mem"),
            rustix::param::page_size() as u64,
        ),
        local_ports: port_range(&text("/proc/sys/net/ipv4/ip_local_port_range")),
        io_uring: match text("/proc/sys/kernel/io_uring_disabled").trim() {
            "1" => IoUring::Privileged,
            "2" => IoUring::Disabled,
            _ => IoUring::Allowed,
        },
    }
}

/// Cpus this process may run on: its affinity, not what the machine has.
fn cpus() -> Vec<usize> {
    let cpus: Vec<usize> = core_affinity::get_core_ids()
        .unwrap_or_default()
        .into_iter()
        .map(|core| core.id)
        .collect();
    if cpus.is_empty() { vec![0] } else { cpus }
}

/// A line such as `MemAvailable:   23842436 kB`, in bytes.
fn meminfo_bytes(meminfo: &str, key: &str) -> Option<u64> {
    let rest = meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    let kib: u64 = rest.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kib.checked_mul(1024)
}

/// What the tightest limit among the control groups of this process leaves, in bytes.
///
/// Version 2 keeps `memory.max` and `memory.current` in the group's folder, version 1
/// `memory.limit_in_bytes` and `memory.usage_in_bytes` below `memory/`. A limit may stand in any of
/// the groups above as well, so each one up to the root is looked at.
fn memory_group(root: &Path, groups: &str) -> Option<u64> {
    let mut tightest: Option<u64> = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (base, limit, usage) = match controllers {
            "" => (root.to_owned(), "memory.max", "memory.current"),
            list if list.split(',').any(|name| name == "memory") => (
                root.join("memory"),
                "memory.limit_in_bytes",
                "memory.usage_in_bytes",
            ),
            _ => continue,
        };
        let number = |path: &Path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let inner = base.join(group.trim_start_matches('/'));
        // Inside a container the path may be that of the host and not be there; the mount's root
        // is the group then.
        for folder in inner
            .ancestors()
            .take_while(|folder| folder.starts_with(&base))
        {
            let Some(limit) = number(&folder.join(limit)) else {
                continue;
            };
            let left = limit.saturating_sub(number(&folder.join(usage)).unwrap_or(0));
            tightest = Some(tightest.map_or(left, |other| other.min(left)));
        }
    }
    // Version 1 writes "no limit" as a number near 2^63.
    tightest.filter(|bytes| *bytes < 1 << 60)
}

/// `low pressure max` in pages.
fn tcp_memory(text: &str, page_bytes: u64) -> Option<TcpMemory> {
    let mut pages = text
        .split_ascii_whitespace()
        .skip(1)
        .map(|number| number.parse::<u64>().ok());
    let mut next = || pages.next()??.checked_mul(page_bytes);
    Some(TcpMemory {
        pressure: next()?,
        max: next()?,
    })
}

/// `first last`.
fn port_range(text: &str) -> Option<PortRange> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(PortRange {
        first: first.parse().ok()?,
        last: last.trim().parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_by_whole_keys() {
        let meminfo = "MemTotal:       24684100 kB\nMemAvailable:   23842436 kB\nMemAvail: 1 kB\nHugePages_Total: 0\n";
        assert_eq!(meminfo_bytes(meminfo, "MemTotal"), Some(24_684_100 * 1024));
        assert_eq!(
            meminfo_bytes(meminfo, "MemAvailable"),
            Some(23_842_436 * 1024)
        );
        assert_eq!(meminfo_bytes(meminfo, "Mem"), None);
        assert_eq!(meminfo_bytes(meminfo, "HugePages_Total"), None, "not in kB");
    }

    #[test]
    fn kernel_settings_are_read() {
        assert_eq!(
            tcp_memory("287901\t383870\t575802\n", 4096),
            Some(TcpMemory {
                pressure: 383_870 * 4096,
                max: 575_802 * 4096
            })
        );
        assert_eq!(tcp_memory("1 2", 4096), None);
        assert_eq!(
            port_range("32768\t60999\n"),
            Some(PortRange {
                first: 32_768,
                last: 60_999
            })
        );
        assert_eq!(port_range(""), None);
    }

    /// A folder tree as the kernel shows it.
    fn tree(files: &[(&str, &str)]) -> std::path::PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("iris-tune-{}-{number}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a file in a folder")).expect("folder");
            fs::write(path, text).expect("file");
        }
        root
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let root = tree(&[
            ("a/memory.max", "1000\n"),
            ("a/memory.current", "100\n"),
            ("a/b/memory.max", "max\n"),
            ("a/b/memory.current", "50\n"),
        ]);
        assert_eq!(memory_group(&root, "0::/a/b\n"), Some(900));
        assert_eq!(memory_group(&root, "0::/elsewhere\n"), None);
        assert_eq!(memory_group(&root, ""), None);
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn version_1_groups_are_read_and_their_no_limit_too() {
        let root = tree(&[
            ("memory/job/memory.limit_in_bytes", "5000\n"),
            ("memory/job/memory.usage_in_bytes", "1000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(memory_group(&root, "5:cpu:/x\n4:memory:/job\n"), Some(4000));
        assert_eq!(memory_group(&root, "4:memory:/\n"), None);
        fs::remove_dir_all(root).expect("removed");
    }

    #[test]
    fn this_machine_can_be_read() {
        let machine = read_machine();
        assert!(machine.memory_total >= machine.memory_available);
        assert!(!machine.cpus.is_empty() && machine.descriptors_soft <= machine.descriptors_hard);
    }
}
