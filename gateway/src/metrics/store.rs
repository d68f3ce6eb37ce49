//! The inbox store's families on the metrics page.
//!
//! The store counts for itself; this only names what it counts. Called on an admin thread, as a
//! source of [`super::Published`].

use iris_storage::{FailureKind, StoreMetrics, StoreState};

use super::Page;
use super::latency::cumulative;

/// The store measures its commits in microseconds.
const MICROSECOND_NANOS: u64 = 1000;

impl Page {
    /// Every family of the store.
    pub fn store(&mut self, store: &StoreMetrics) {
        for (name, help, value) in [
            (
                "iris_store_appended_total",
                "Messages synced to disk",
                store.appended,
            ),
            (
                "iris_store_appended_bytes_total",
                "Bytes of their records",
                store.appended_bytes,
            ),
            (
                "iris_store_burned_total",
                "Messages removed because their readers have them",
                store.burned,
            ),
            (
                "iris_store_commits_total",
                "Batches written and synced",
                store.commits,
            ),
            (
                "iris_store_pages_total",
                "Pages read from inboxes",
                store.pages,
            ),
            (
                "iris_store_page_messages_total",
                "Messages in those pages",
                store.page_messages,
            ),
            (
                "iris_store_expired_total",
                "Messages that left their inbox because their time to live was over",
                store.expired,
            ),
            (
                "iris_store_dropped_total",
                "Messages that left a full inbox to make room for newer ones",
                store.dropped,
            ),
            (
                "iris_store_skipped_expired_total",
                "Times a page passed over a message whose time to live was over",
                store.skipped_expired,
            ),
            (
                "iris_store_reclaimed_burned_total",
                "Burned records destroyed on disk",
                store.reclaimed_burned,
            ),
            (
                "iris_store_reclaimed_expired_total",
                "Expired records destroyed on disk",
                store.reclaimed_expired,
            ),
            (
                "iris_store_lost_total",
                "Messages passed over because they are damaged",
                store.lost,
            ),
            (
                "iris_store_pages_broken_total",
                "Pages that went around a damaged part of a table",
                store.pages_broken,
            ),
            (
                "iris_store_seen_lost_total",
                "Last-seens that could not be noted",
                store.seen_lost,
            ),
            (
                "iris_store_reads_cancelled_total",
                "Reads taken out of the queue because their session had ended",
                store.reads_cancelled,
            ),
            (
                "iris_store_recovered_total",
                "Messages behind damage that a start or a healing put back",
                store.recovered,
            ),
            (
                "iris_store_recovery_lost_total",
                "Messages that a start or a healing found lost to damage, at most",
                store.recovery_lost,
            ),
        ] {
            self.counter(name, help, value);
        }
        self.family(
            "iris_store_failed_total",
            "counter",
            "Requests that the store did not do",
        );
        for (reason, count) in FailureKind::ALL.into_iter().zip(store.failed) {
            self.sample(
                "iris_store_failed_total",
                &format!("reason=\"{}\"", reason.label()),
                count,
            );
        }
        self.family(
            "iris_store_refused_total",
            "counter",
            "Requests that a queue of the store had no room for",
        );
        for (queue, reason, count) in [
            ("writes", "full", store.writes_refused),
            ("reads", "full", store.reads_refused),
            ("reads", "share", store.reads_over_share),
        ] {
            self.sample(
                "iris_store_refused_total",
                &format!("queue=\"{queue}\",reason=\"{reason}\""),
                count,
            );
        }
        self.gauge(
            "iris_store_live_messages",
            "Messages in the inboxes",
            store.live_messages,
        );
        self.gauge(
            "iris_store_live_bytes",
            "Bytes of their records",
            store.live_bytes,
        );
        self.gauge(
            "iris_store_queued_writes",
            "Requests waiting to be written",
            store.queued_writes,
        );
        self.gauge(
            "iris_store_queued_reads",
            "Requests waiting to be read",
            store.queued_reads,
        );
        self.gauge(
            "iris_store_commit_running_seconds",
            "Age of the oldest batch being written or synced; it grows while the disk is behind",
            store.commit_running.as_secs_f64(),
        );
        self.family(
            "iris_store_state",
            "gauge",
            "1 for the state the store is in: open; refusing messages, because little is free on the disk; \
             stopped, because a write failed; reopening after that",
        );
        for state in StoreState::ALL {
            self.sample(
                "iris_store_state",
                &format!("state=\"{}\"", state.label()),
                u8::from(state == store.state),
            );
        }
        self.counter(
            "iris_store_healed_total",
            "Times a database that had failed was taken up again",
            store.healed,
        );
        self.gauge(
            "iris_store_free_bytes",
            "Bytes free on the disk of the data folder",
            store.free_bytes,
        );
        let commits = &store.commit_us;
        self.family(
            "iris_store_commit_seconds",
            "histogram",
            "Time to write and sync a batch",
        );
        self.buckets(
            "iris_store_commit_seconds",
            "",
            cumulative(commits, MICROSECOND_NANOS),
            commits.len(),
            // The histogram keeps no sum; its mean is within a thousandth.
            commits.mean() * commits.len() as f64 / 1e6,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iris_storage::{Store, StoreOptions};
    use std::time::Duration;

    #[test]
    fn what_the_store_counts_stands_under_its_names() {
        let folder = tempfile::tempdir().expect("a folder");
        let open = Store::open(StoreOptions::new(folder.path())).expect("a new store");
        let mut store = open.metrics();
        open.close().expect("closed");
        store.appended = 5;
        store.queued_writes = 3;
        store.commit_running = Duration::from_millis(20);
        store.state = StoreState::Stopped;
        store.healed = 2;
        store.free_bytes = 77;
        store.commit_us.reset();
        store.commit_us.record(700).expect("in range");
        store.failed[FailureKind::Unwritable as usize] = 9;
        store.seen_lost = 4;
        store.reads_over_share = 6;
        store.reads_cancelled = 8;
        let mut page = Page::new();
        page.store(&store);
        let page = page.into_text();
        for line in [
            "iris_store_appended_total 5",
            "iris_store_failed_total{reason=\"unwritable\"} 9",
            "iris_store_seen_lost_total 4",
            "iris_store_refused_total{queue=\"reads\",reason=\"share\"} 6",
            "iris_store_reads_cancelled_total 8",
            "iris_store_queued_writes 3",
            "iris_store_commit_running_seconds 0.02",
            "iris_store_state{state=\"open\"} 0",
            "iris_store_state{state=\"stopped\"} 1",
            "iris_store_healed_total 2",
            "iris_store_free_bytes 77",
            "iris_store_commit_seconds_bucket{le=\"0.0005\"} 0",
            "iris_store_commit_seconds_bucket{le=\"0.001\"} 1",
            "iris_store_commit_seconds_count 1",
        ] {
            assert!(
                page.lines().any(|have| have == line),
                "{line} is not in\n{page}"
            );
        }
    }
}
