//! Reads the machine and plans the limits of an Iris gateway.
//!
//! [`read_machine`] reads `/proc` and the process's limits into a [`Machine`]; [`plan`] turns a
//! machine into a [`Plan`] with the reason of every figure. The gateway asks both at every start;
//! the program `iris-tune` prints them before one.
//!
//! Reads only; nothing here changes the machine. `plan` is a pure function, tested on machines that
//! do not exist.

#![forbid(unsafe_code)]

mod budgets;
mod machine;
mod plan;

pub use machine::{IoUring, Machine, PortRange, TcpMemory, read_machine};
pub use plan::{CONNECTION_BYTES, Note, Plan, RingPlan, plan};
