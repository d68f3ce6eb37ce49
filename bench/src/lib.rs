//! The load engine of `iris-bench` and its scenarios, as a library.
//!
//! Layers, each knowing only those after it: `scenario` (what is measured), `engine` (the clients
//! and the traffic between them), `dialect` (the protocols that servers are driven by), `report`
//! (tables, JSON, HDR logs, the web page), `measure` (CPU, memory, processes, the machine). `yardstick` is a server, the limit the gateway is held
//! against.
//!
//! Owner: one thread. Invariant: it measures and prints; it fails only when messages are lost,
//! astray or out of order, or when something cannot be run at all.

#![forbid(unsafe_code)]

pub mod dialect;
pub mod engine;
mod error;
mod interrupt;
mod measure;
mod report;
mod scenario;
mod yardstick;

pub use error::BenchError;
pub use scenario::Scenario;
