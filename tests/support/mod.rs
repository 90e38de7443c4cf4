//! What several test targets share.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "each test target uses its own part"
)]

pub mod disk;
pub mod follower_rig;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod oracle;
pub mod output;
pub mod port;
pub mod projector_rig;
pub mod strategies;
