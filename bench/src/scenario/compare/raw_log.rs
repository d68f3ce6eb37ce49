//! The yardstick of everything that is synced before it is answered: records appended to one file,
//! a batch with each fdatasync. No index, no network, no reader.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::engine::histogram;

/// Of a record besides its message, in bytes: about what any store needs to find it again.
const HEADER_BYTES: usize = 32;

/// What it came to.
#[derive(Debug)]
pub(super) struct RawLog {
    pub(super) records: u64,
    pub(super) elapsed: Duration,
    /// From the first byte of a batch to the end of its sync, in ns.
    pub(super) batch_ns: Histogram<u64>,
}

/// Appends batches of `batch` records to a file in `folder` for `time`, on `cpu`.
pub(super) fn run(
    folder: &Path,
    cpu: usize,
    batch: u32,
    message_bytes: usize,
    time: Duration,
) -> io::Result<RawLog> {
    std::thread::scope(|scope| {
        let log = scope.spawn(|| {
            core_affinity::set_for_current(core_affinity::CoreId { id: cpu });
            append(folder, batch, message_bytes, time)
        });
        log.join()
            .unwrap_or_else(|_| Err(io::Error::other("the raw log panicked")))
    })
}

fn append(folder: &Path, batch: u32, message_bytes: usize, time: Duration) -> io::Result<RawLog> {
    let folder = tempfile::TempDir::new_in(folder)?;
    let mut file = File::create_new(folder.path().join("log"))?;
    let bytes = vec![0x5a; batch as usize * (HEADER_BYTES + message_bytes)];
    let mut batch_ns = histogram();
    let (began, mut records) = (Instant::now(), 0);
    while began.elapsed() < time {
        let batch_began = Instant::now();
        file.write_all(&bytes)?;
        file.sync_data()?;
        batch_ns.saturating_record(batch_began.elapsed().as_nanos() as u64);
        records += u64::from(batch);
    }
    Ok(RawLog {
        records,
        elapsed: began.elapsed(),
        batch_ns,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_batches_are_counted_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = run(folder.path(), 0, 7, 64, Duration::from_millis(20)).expect("a disk");
        assert_eq!(log.records, 7 * log.batch_ns.len());
        assert!(log.records > 0);
        assert_eq!(folder.path().read_dir().expect("ours").count(), 0);
    }
}
