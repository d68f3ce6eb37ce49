//! Placeholder for the wiring.
use crate::client::{Envelope, Outlets, Read, StoreClient, Wake, Write};
use crate::error::StoreError;
use crate::metrics::{Counts, StoreMetrics};
use crate::options::StoreOptions;
use crossbeam_channel::Sender;

/// The inbox store of one data folder.
pub struct Store {
    seed: u64,
    outlets: Outlets,
    writes: Sender<Envelope<Write>>,
    reads: Sender<Envelope<Read>>,
    counts: Counts,
}

impl Store {
    /// Opens the data folder, creating it if missing.
    ///
    /// # Errors
    /// One line that says what to do.
    pub fn open(options: StoreOptions) -> Result<Store, StoreError> {
        let (writes, _) = crossbeam_channel::bounded(options.queue_requests_max);
        let (reads, _) = crossbeam_channel::bounded(options.queue_reads_max);
        Ok(Store {
            seed: 0,
            outlets: Outlets::default(),
            writes,
            reads,
            counts: Counts::new(options.reader_threads),
        })
    }

    /// The seed of [`user_hash`](crate::user_hash) for this folder.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A handle for one core. `wake` is called on a thread of the store after replies were queued, once for
    /// each batch of them; it must not block.
    pub fn client(&self, wake: Wake) -> StoreClient {
        StoreClient::new(&self.outlets, self.writes.clone(), self.reads.clone(), wake)
    }

    /// Totals since the store was opened.
    pub fn metrics(&self) -> StoreMetrics {
        self.counts.total()
    }

    /// Writes and answers what is queued, syncs, ends the threads.
    ///
    /// # Errors
    /// If writes had failed or a thread died before.
    pub fn close(self) -> Result<(), StoreError> {
        Ok(())
    }
}
