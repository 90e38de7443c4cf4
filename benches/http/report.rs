//! What a run has shown, as Markdown.

use std::fmt::Write as _;

use crate::commands::Sender;
use crate::goals;
use crate::rounds::Measured;

/// What was measured in one way.
pub(crate) struct Part {
    /// A few words, for the head of a table.
    pub(crate) name: String,
    /// The same for a picture.
    pub(crate) title: String,
    /// What is done, in a sentence.
    pub(crate) about: String,
    pub(crate) measured: Vec<Measured>,
}

/// What was measured while commands came.
pub(crate) struct Updates {
    pub(crate) part: Part,
    pub(crate) sender: Sender,
}

/// All that a run has shown.
pub(crate) struct Report {
    /// Processor, kernel, day, and how busy the machine was before.
    pub(crate) machine: String,
    /// Who was measured, with versions.
    pub(crate) peers: String,
    /// Who was not, or not in everything, and why.
    pub(crate) absent: Vec<String>,
    pub(crate) parts: Vec<Part>,
    pub(crate) updates: Option<Updates>,
}

/// What holds for all figures.
const METHOD: &str = "\
Latencies in µs. Each server is a process of its own on one core, with one thread that answers, and the client
has another core; all hold the same 100,000 ranges of mixed width (CrowdSec: 10,000 addresses), and each was
measured only after 2,000 of its answers had been right. Everybody has a turn in every round, in an order that
changes; the first round is thrown away. The spread of p99.9 is from the least to the largest of the rounds.";

impl Part {
    pub(crate) fn named(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.name == name)
    }

    /// A row for each server, the fastest first.
    fn table(&self) -> String {
        let mut rows: Vec<_> = self.measured.iter().map(|measured| (measured, measured.all())).collect();
        rows.sort_by_key(|(_, all)| all.value_at_quantile(0.5));
        let mut table = format!(
            "| {} | p50 | p99 | p99.9 | its spread | max | answers/s |\n|---|--:|--:|--:|--:|--:|--:|\n",
            self.name
        );
        for (measured, all) in rows {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| micros(all.value_at_quantile(quantile)));
            let spread = measured.spread_ns(0.999);
            let (least, most, max) = (micros(*spread.start()), micros(*spread.end()), micros(all.max()));
            let (name, rate) = (&measured.name, grouped(measured.answers_a_second()));
            writeln!(table, "| {name} | {p50} | {p99} | {p999} | {least}–{most} | {max} | {rate} |")
                .expect("a text grows");
        }
        table
    }
}

/// A number with its thousands apart.
pub(crate) fn grouped(number: u64) -> String {
    match number / 1_000 {
        0 => number.to_string(),
        thousands => format!("{},{:03}", grouped(thousands), number % 1_000),
    }
}

/// Microseconds, with the digits that say something.
pub(crate) fn micros(ns: u64) -> String {
    match ns as f64 / 1_000.0 {
        micros if micros < 99.95 => format!("{micros:.1}"),
        micros => grouped(micros.round() as u64),
    }
}

impl Updates {
    fn markdown(&self) -> String {
        let Sender { sent, time, latencies, .. } = &self.sender;
        let [p50, p99] = [0.5, 0.99].map(|quantile| latencies.value_at_quantile(quantile) as f64 / 1e6);
        format!(
            "{}\n\n{}\n{}\n{} commands in {:.1} s, all of them folded; a group is durable and acknowledged \
             after p50 {p50:.1} ms, p99 {p99:.1} ms.\n\n",
            self.part.about,
            self.part.table(),
            goals::under_updates(&self.part),
            grouped(*sent),
            time.as_secs_f64()
        )
    }
}

impl Report {
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("{}.\n{}.\n\n{METHOD}\n\n", self.machine, self.peers);
        for part in &self.parts {
            write!(text, "{}\n\n{}\n", part.about, part.table()).expect("a text grows");
        }
        if !self.parts.is_empty() {
            writeln!(text, "{}", goals::against_peers(&self.parts)).expect("a text grows");
        }
        text.extend(self.updates.iter().map(Updates::markdown));
        text.extend(self.absent.iter().map(|why| format!("- {why}\n")));
        text
    }
}
