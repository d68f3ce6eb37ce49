//! The Iris messaging gateway.

#![forbid(unsafe_code)]

pub mod admin;
pub mod chat;
pub mod cli;
pub mod config;
pub mod core;
pub mod logging;
pub mod metrics;
pub mod placement;
pub mod serve;
pub mod shard;
pub mod signals;
