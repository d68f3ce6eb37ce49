//! What a gateway counts, how a core hands its counts out, and how they are shown to Prometheus.
//!
//! A core counts in plain fields of its own [`CoreMetrics`] and copies them into [`Published`] about
//! once a second: nothing on the way of a message is atomic or locked. The admin threads read the
//! copies and never touch a core, so they answer however busy the cores are; what they show is at
//! most about a second old.

mod budgets;
mod core;
mod latency;
mod page;
mod published;
mod store;

pub use budgets::BudgetShown;
pub use core::CoreMetrics;
pub use latency::Latency;
pub use page::Page;
pub use published::{Phase, Published};
