//! portcullis: an IP blacklist sidecar whose list is a fold over a log of commands.

pub mod address;
pub mod backoff;
pub mod blacklist;
pub mod check;
pub mod cli;
pub mod command;
pub mod config;
pub mod ends;
pub mod feed;
pub mod follower;
pub mod http;
pub mod live;
pub mod log;
pub mod projector;
pub mod record;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod view;
