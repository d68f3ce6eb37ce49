//! The real binary over real sockets, on a real disk: one file for each behaviour.
//!
//! One program for all of them, so that what they share is built once and they run side by side.

#[path = "../support/mod.rs"]
mod support;

mod addresses;
mod away_delivery;
mod bad_input;
mod chat;
mod churn;
mod classic_cuts;
mod command_line;
mod drain;
mod ended_peers;
mod failing_disk;
mod full_disk;
mod half_frames;
mod held_up_sender;
mod hostile;
mod inbox_limits;
mod kill_ledger;
mod late_acks;
mod lifecycle;
mod login_answer;
mod memory_budgets;
mod mixed_sizes;
mod more_connections_than_descriptors;
mod online_delivery;
mod placement;
mod power_cut;
mod presence;
mod private_files;
mod protocols;
mod published_clients;
mod quick_classic;
mod relogin_flood;
mod second_signal;
mod session_life;
mod shares;
mod silent_readers;
mod slow_reader;
mod slow_store;
mod socket_fuzz;
mod start_errors;
mod stopped_reader;
mod store_commands;
mod takeover;
mod without_io_uring;
