//! The counts of one core: plain data, owned by that core, copied out about once a second.
//!
//! Counters only grow; gauges are set to what is. Every way a connection or a message can end has a
//! counter, so what came in can be held against what went out.

use iris_protocol::{CloseReason, RefusalReason};

use super::latency::Latency;

/// What Prometheus calls a counter or a gauge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
}

/// One line of a scrape for each core.
pub(super) struct Scalar {
    pub kind: Kind,
    /// Metric name; neighbours of the same name form one family.
    pub name: &'static str,
    /// A further label, or empty.
    pub label: &'static str,
    pub help: &'static str,
    pub value: fn(&CoreMetrics) -> u64,
}

/// Declares the plain fields together with the names they are published under.
macro_rules! core_metrics {
    ($($kind:ident $field:ident $name:literal $label:literal $help:literal;)+) => {
        /// The counts of one core.
        #[derive(Clone, Debug, Default)]
        pub struct CoreMetrics {
            $(
                #[doc = concat!($help, " (`", $name, "`).")]
                pub $field: u64,
            )+
            /// Ended connections, by [`CloseReason::index`] (`iris_closed_total`).
            pub closed: [u64; CloseReason::COUNT],
            /// Refused sends, by [`RefusalReason::index`] (`iris_messages_refused_total`).
            pub refused: [u64; RefusalReason::COUNT],
            /// How long turns of the core took (`iris_turn_seconds`).
            pub turn_time: Latency,
        }

        pub(super) const SCALARS: &[Scalar] = &[
            $(Scalar {
                kind: Kind::$kind,
                name: $name,
                label: $label,
                help: $help,
                value: |metrics| metrics.$field,
            },)+
        ];
    };
}

core_metrics! {
    Gauge connections "iris_connections" "" "Open connections";
    Gauge sessions "iris_sessions" "" "Users logged in";
    Counter accepted "iris_accepted_total" "" "Connections accepted";
    Counter accept_failures "iris_accept_failures_total" "" "Accepts that the kernel failed, and that were put off for a while";
    Counter ends_found "iris_ends_found_total" "" "Ends of peers that no operation told, and a look at the socket found";
    Counter socket_faults "iris_socket_faults_total" "" "Connections that lived on without a socket, or sockets that did not end when closed: faults of the server, mended";
    Counter address_unknown "iris_address_unknown_total" "" "Connections whose address the kernel did not tell, so that no limit of addresses holds for them";
    Counter logins "iris_logins_total" "" "Logins that were let in, takeovers among them";
    Counter takeovers "iris_takeovers_total" "" "Logins that ended an older session of the same user";
    Counter received_classic "iris_messages_received_total" "protocol=\"classic\"" "Messages that senders sent";
    Counter received_framed "iris_messages_received_total" "protocol=\"framed\"" "Messages that senders sent";
    Counter delivered "iris_messages_delivered_total" "" "Messages that their readers acknowledged";
    Counter stored "iris_messages_stored_total" "" "Messages synced into an inbox";
    Counter spilled "iris_messages_spilled_total" "" "Messages that went to the inbox because their online reader was behind";
    Counter returned "iris_messages_returned_total" "" "Messages put back into the inbox because the session ended before they were acknowledged";
    Counter lost "iris_messages_lost_total" "" "Stored messages that failed their checks when they were read and were passed over";
    Counter store_failures "iris_store_failures_total" "" "Requests that the store did not do";
    Counter name_collisions "iris_name_collisions_total" "" "Logins, messages and questions turned away because the store keeps another user under the name's key";
    Counter handed_over "iris_handed_over_total" "" "Connections moved to the home core of their user";
    Counter duplicates_dropped "iris_duplicates_dropped_total" "" "Repeated sends that were known by their id and dropped";
    Counter senders_held_up "iris_senders_held_up_total" "" "Times a sender was left unread until the store of the counting core had room for its messages";
    Counter relogins_delayed "iris_relogins_delayed_total" "" "Times a classic connection was left unread because it logged in again too often";
    Counter reads_unused "iris_reads_unused_total" "" "Pages and depths that came when their session had ended";
    Counter lane_sent "iris_lane_sent_total" "" "Entries put into lanes to other cores";
    Counter lane_received "iris_lane_received_total" "" "Entries taken from lanes of other cores";
    Counter lane_dropped "iris_lane_dropped_total" "" "Batches for another core that had ended";
    Counter turn_waits "iris_turn_waits_total" "" "Times a connection had more to say than is read of it in one turn";
    Counter lane_full_pauses "iris_lane_full_pauses_total" "" "Times a full lane made this core wait with its work for another";
    Counter unread_dropped "iris_unread_dropped_bytes_total" "" "Bytes received on connections that were closed before these were read";
    Counter input_waits "iris_input_waits_total" "" "Times a connection was left unread until there was memory for the rest of its command";
    Counter recv_no_buffer "iris_recv_no_buffer_total" "" "Receives that found no free buffer and were armed again";
    Counter follow_changes "iris_follow_changes_total" "" "Presence changes told to followers";
    Counter bytes_in "iris_received_bytes_total" "" "Bytes received from clients";
    Counter bytes_out "iris_sent_bytes_total" "" "Bytes sent to clients";
    Counter turns "iris_turns_total" "" "Turns of the core's loop";
    Counter late_turns "iris_late_turns_total" "" "Turns that came a quarter of a second or more after a time-out was due: the process was stopped, or had no cpu";
    Counter parks "iris_parks_total" "" "Times the core had nothing to do and waited";
    Gauge realtime "iris_realtime" "" "1 while the core has a real-time priority, 0 while it needs most of its cpu or has none at all";
    Counter output_spills "iris_output_spills_total" "" "Times a session's deliveries went to the inbox because outboxes were short of memory and it had its share";
    Counter output_pauses "iris_output_pauses_total" "" "Times a connection was left unread because outboxes were short of memory and it had its share";
    Gauge outbox_bytes "iris_outbox_bytes" "" "Memory of the chunks of what waits for sockets and acknowledgements";
    Gauge partial_bytes "iris_partial_bytes" "" "Memory of input that is not acted upon yet: frames that have not wholly arrived, and what waits to be read";
    Gauge store_pending_bytes "iris_store_pending_bytes" "" "Bytes handed to the store and not yet answered";
}

impl CoreMetrics {
    /// Counts an ended connection.
    pub fn count_close(&mut self, reason: CloseReason) {
        self.closed[reason.index()] += 1;
    }

    /// Counts a refused send.
    pub fn count_refusal(&mut self, reason: RefusalReason) {
        self.refused[reason.index()] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prometheus wants the lines of a family together and its name used once.
    #[test]
    fn families_are_together_and_named_after_their_kind() {
        let mut seen: Vec<&str> = Vec::new();
        for scalar in SCALARS {
            if seen.last() != Some(&scalar.name) {
                assert!(!seen.contains(&scalar.name), "{} is scattered", scalar.name);
                seen.push(scalar.name);
            }
            assert_eq!(
                scalar.kind == Kind::Counter,
                scalar.name.ends_with("_total"),
                "{}",
                scalar.name
            );
            assert!(scalar.name.starts_with("iris_"), "{}", scalar.name);
        }
    }
}
