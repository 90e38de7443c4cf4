//! What the verbs share that read a whole topic: a bar on a terminal, and a limit to waiting for nothing.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::replay::Progress;

/// How long a topic may say nothing while it is read.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// The time for which a topic that is being read has said nothing.
pub(super) struct Silence(Instant);

impl Silence {
    pub(super) fn new() -> Self {
        Self(Instant::now())
    }

    /// Notes that something came.
    pub(super) fn broken(&mut self) {
        self.0 = Instant::now();
    }

    /// An error once it has lasted too long.
    pub(super) fn bounded(&self, topic: &str) -> Result<(), String> {
        match self.0.elapsed() < SILENCE_MAX {
            true => Ok(()),
            false => Err(format!("{topic} said nothing for {} s", SILENCE_MAX.as_secs())),
        }
    }
}

/// Watches over a replay.
pub(super) struct Reading {
    bar: ProgressBar,
    records_read: u64,
    silence: Silence,
}

impl Reading {
    pub(super) fn new() -> Self {
        Self { bar: bar(), records_read: 0, silence: Silence::new() }
    }

    /// Shows how far it has got; an error once it has stood still for too long.
    pub(super) fn goes_on(&mut self, progress: Progress) -> Result<(), String> {
        self.bar.set_length(progress.end.number());
        self.bar.set_position(progress.position.number());
        if progress.records_read > self.records_read {
            self.records_read = progress.records_read;
            self.silence.broken();
        }
        self.silence.bounded("the commands log")
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A bar in commands, drawn on a terminal only.
pub(super) fn bar() -> ProgressBar {
    let bar = ProgressBar::new(0);
    let template = "{wide_bar} {human_pos}/{human_len} commands, {per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
