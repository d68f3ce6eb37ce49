//! What the store does about the disk below it: it watches how much is free, keeps a little in reserve, and takes a
//! failed database up again.
//!
//! Owner of all that happens here: the thread `iris-watch`. What it finds out stands in [`Condition`], where the
//! committers and whoever asks for the metrics read it.

mod ballast;
mod condition;
mod mend;
mod space;
mod watch;

pub(crate) use ballast::{BALLAST, Ballast};
pub(crate) use condition::Condition;
pub use condition::StoreState;
pub(crate) use mend::PROBE;
pub(crate) use space::{Order, Space, free_bytes};
pub(crate) use watch::{Notice, Patient, Watch};
