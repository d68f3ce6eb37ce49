//! What is measured from outside: the CPU of a server process, the process itself, the machine;
//! and how figures are printed. Nothing here drives load.

mod cpu;
mod machine;
mod report;
mod server;

pub(crate) use cpu::CpuTime;
pub(crate) use machine::Machine;
pub(crate) use report::{median, microseconds, row};
pub(crate) use server::{Server, free_address};
