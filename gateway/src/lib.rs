//! The Iris messaging gateway.

#![forbid(unsafe_code)]

pub mod config;
pub mod metrics;
pub mod signals;
