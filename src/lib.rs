//! portcullis: an IP blacklist sidecar whose list is a fold over a log of commands.
//!
//! Read the modules in this order; each uses only what stands before it:
//!
//! 1. What things are: [`record`] (offsets, positions, timestamps), [`address`] (addresses and ranges),
//!    [`command`] (the edits), [`table`] (rows, watermark, fingerprint).
//! 2. What commands mean: [`blacklist`] (ranges that split and join), [`view`] (the fold).
//! 3. What lookups see: [`snapshot`], and what a sidecar says of itself: [`status`]. [`served`] is the view that
//!    is being served, shared.
//! 4. Where commands come from: [`log`]. How a view is brought to a log's end and kept there: [`backoff`],
//!    [`unanswered`], [`check`], [`ends`], [`topic_settings`], [`feed`], [`follower`], [`projector`]. What a
//!    log says, and whether its table holds that: [`replay`](mod@replay), [`verify`](mod@verify).
//! 5. How it is asked and run: [`priority`], [`http`], [`config`], [`service`], [`cli`].
//!
//! An in-process lookup:
//!
//! ```
//! use std::sync::Arc;
//!
//! use portcullis::record::{Offset, Record, Timestamp};
//! use portcullis::snapshot::{Draft, Publisher, Verdict};
//! use portcullis::view::View;
//!
//! let now = Timestamp::from_millis(1_800_000_000_000);
//! let mut view = View::default();
//! let mut draft = Draft::new(&view, now);
//! let (mut publisher, readers) = Publisher::new();
//!
//! let value = Some(b"BLACKLIST 203.0.113.0/24".to_vec());
//! let record = Record { offset: Offset::new(0), timestamp: now, key: None, value };
//! draft.apply(&view.apply(&record)?.effects);
//! publisher.publish(draft.snapshot(view.position()));
//!
//! let mut reader = readers.reader();
//! let snapshot = reader.snapshot().expect("one was published");
//! assert_eq!(snapshot.lookup("203.0.113.7".parse()?), Verdict::Blacklisted);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
pub mod log;
pub mod priority;
pub mod projector;
pub mod record;
pub mod replay;
pub mod served;
pub mod service;
pub mod snapshot;
pub mod status;
pub mod table;
pub mod topic_settings;
pub mod unanswered;
pub mod verify;
pub mod view;
