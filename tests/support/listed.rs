//! What lookups are answered from, over a list that is there from the start, without a log and without
//! listeners.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portcullis::http::App;
use portcullis::http::guard::Token;
use portcullis::log::memory::MemoryLog;
use portcullis::record::{Position, Timestamp};
use portcullis::served::Served;
use portcullis::snapshot::{Draft, Publisher};
use portcullis::status::Status;
use portcullis::table::Row;
use portcullis::view::View;
use tokio::sync::watch;

/// A list, published at position 1.
pub struct Listed {
    pub app: App,
    pub draft: Draft,
    pub publisher: Publisher,
}

impl Listed {
    pub fn new(rows: impl Iterator<Item = Row>) -> Self {
        let view = View::from_rows(rows, Position::new(1), None, BTreeSet::new());
        let draft = Draft::new(&view, Timestamp::from_millis(0));
        let (mut publisher, readers) = Publisher::new();
        publisher.publish(draft.snapshot(view.position()));
        let status = Arc::new(Status::new(Instant::now()));
        // In the future, so that every answer names the age 0: one that grows would be made anew each
        // millisecond.
        status.set_proven(Instant::now() + Duration::from_secs(3600));
        let directory = tempfile::tempdir().expect("a folder");
        let app = App {
            readers,
            status,
            served: Arc::new(Served::default()),
            sink: Arc::new(MemoryLog::default().command_sink(|| Timestamp::from_millis(0))),
            log: Arc::new(MemoryLog::default()),
            published: watch::channel(Position::new(1)).1,
            token: Token::load_or_create(directory.path()).expect("a token"),
            version: "1.2.3",
        };
        Self { app, draft, publisher }
    }
}
