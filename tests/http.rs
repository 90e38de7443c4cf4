//! The HTTP listeners, over real sockets.
#![allow(
    unreachable_pub,
    missing_docs,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::missing_errors_doc,
    reason = "tests and what they stand on"
)]

#[path = "support/client.rs"]
mod client;
#[path = "support/sidecar.rs"]
mod sidecar;

#[path = "http/checks.rs"]
mod checks;
#[path = "http/commands.rs"]
mod commands;
#[path = "http/health.rs"]
mod health;
#[path = "http/lifecycle.rs"]
mod lifecycle;
#[path = "http/limits.rs"]
mod limits;
#[path = "http/projector.rs"]
mod projector;
#[path = "http/ranges.rs"]
mod ranges;
#[path = "http/replay.rs"]
mod replay;
#[path = "http/rights.rs"]
mod rights;
