//! What is measured from outside: the CPU of a server process, the process itself, the machine;
//! and how figures are printed. Nothing here drives load.

mod calls;
mod cpu;
mod cpus;
mod machine;
mod memory;
mod meter;
mod report;
mod sampler;
mod server;

pub(crate) use calls::CallCount;
pub(crate) use cpus::pin;
pub(crate) use machine::Machine;
pub(crate) use memory::{kernel_bytes, resident_bytes, written_bytes};
pub(crate) use meter::{Cost, Meter};
pub(crate) use report::{median, microseconds, row};
pub(crate) use sampler::{Sample, Sampler};
pub(crate) use server::{Server, free_address};
