//! portcullis: an IP blacklist sidecar whose list is a fold over a log of commands.

pub mod address;
pub mod blacklist;
pub mod command;
pub mod log;
pub mod record;
pub mod snapshot;
pub mod table;
pub mod view;
