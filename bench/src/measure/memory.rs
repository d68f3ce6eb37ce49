//! Memory of a process and of the kernel, and what a process wrote, as `/proc` tells.

use std::fs;
use std::io;

/// Resident memory of process `pid` in bytes, what it shares with files included.
pub(crate) fn resident_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: Option<u64> = text
        .split_ascii_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok());
    let pages = pages
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unexpected /proc/PID/statm"))?;
    Ok(pages * rustix::param::page_size() as u64)
}

/// Memory of the kernel that grows with connections, in bytes: its slabs and the buffers of TCP.
/// Both are the whole machine's, so clients on the same machine are in it.
pub(crate) fn kernel_bytes() -> io::Result<u64> {
    let slab = field(&fs::read_to_string("/proc/meminfo")?, "Slab:").unwrap_or(0) * 1024;
    let sockets = fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    Ok(slab + tcp_pages(&sockets).unwrap_or(0) * rustix::param::page_size() as u64)
}

/// Bytes that process `pid` has caused to be written to disks, see proc_pid_io(5).
pub(crate) fn written_bytes(pid: u32) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/io"))?;
    field(&text, "write_bytes:").ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// `TCP: inuse 5 orphan 0 tw 0 alloc 7 mem 1`
fn tcp_pages(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("TCP:"))?;
    let mut words = line.split_ascii_whitespace();
    words.find(|word| *word == "mem")?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_touched_is_resident() {
        let pid = std::process::id();
        let before = resident_bytes(pid).expect("ours");
        let touched = vec![1u8; 64 << 20];
        let after = resident_bytes(pid).expect("ours");
        assert!(after - before > 60 << 20, "{before} {after}");
        assert!(kernel_bytes().expect("readable") > 1 << 20);
        drop(touched);
    }

    #[test]
    fn fields_are_found_by_name() {
        assert_eq!(field("MemTotal: 5 kB\nSlab:   77 kB\n", "Slab:"), Some(77));
        let text = "sockets: used 9\nTCP: inuse 5 orphan 0 tw 0 alloc 7 mem 12\nUDP: mem 3\n";
        assert_eq!(tcp_pages(text), Some(12));
    }
}
