//! What several test targets share.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test target uses its own part"
)]

pub mod oracle;
pub mod strategies;
