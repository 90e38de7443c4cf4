//! The tables, as Markdown.

use std::fmt::Write as _;

use crate::commands::Sender;
use crate::peers::{floors, nginx, portcullis};
use crate::rounds::Measured;

/// What was measured in one way, under its heading.
pub(crate) struct Part {
    pub(crate) heading: String,
    pub(crate) measured: Vec<Measured>,
}

impl Part {
    pub(crate) fn named(&self, name: &str) -> Option<&Measured> {
        self.measured.iter().find(|measured| measured.name == name)
    }

    /// A row for each server, the fastest first.
    pub(crate) fn table(&self) -> String {
        let mut rows: Vec<_> = self.measured.iter().map(|measured| (measured, measured.all())).collect();
        rows.sort_by_key(|(_, all)| all.value_at_quantile(0.5));
        let mut table = format!(
            "| {} | p50 | p99 | p99.9 | its rounds | max | a second |\n|---|--:|--:|--:|--:|--:|--:|\n",
            self.heading
        );
        for (measured, all) in rows {
            let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|quantile| micros(all.value_at_quantile(quantile)));
            let spread = measured.spread_ns(0.999);
            let (least, most) = (micros(*spread.start()), micros(*spread.end()));
            let (max, rate) = (micros(all.max()), measured.requests_a_second());
            let name = &measured.name;
            writeln!(table, "| {name} | {p50} | {p99} | {p999} | {least}–{most} | {max} | {rate:.0} |")
                .expect("a text grows");
        }
        table
    }
}

/// Microseconds, with three digits that say something.
fn micros(ns: u64) -> String {
    match ns as f64 / 1_000.0 {
        micros if micros < 99.95 => format!("{micros:.1}"),
        micros => format!("{micros:.0}"),
    }
}

/// One ratio that is to stay below a goal.
struct Goal {
    ours: &'static str,
    theirs: &'static str,
    quantile: f64,
    goal: f64,
}

const fn goal(ours: &'static str, theirs: &'static str, quantile: f64, goal: f64) -> Goal {
    Goal { ours, theirs, quantile, goal }
}

const AGAINST_PEERS: [Goal; 4] = [
    goal(portcullis::TCP, nginx::NAME, 0.5, 1.0),
    goal(portcullis::TCP, nginx::NAME, 0.99, 1.0),
    goal(portcullis::UNIX, nginx::NAME, 0.5, 0.7),
    goal(portcullis::UNIX, floors::ECHO_UNIX, 0.99, 1.25),
];

/// How ours compare with the peers, in each of these parts.
pub(crate) fn ratios(parts: &[&Part]) -> String {
    let mut table = String::from("| median of the rounds' ratios | goal |");
    parts.iter().for_each(|part| write!(table, " {} |", part.heading).expect("a text grows"));
    writeln!(table, "\n|---|--:|{}", "--:|".repeat(parts.len())).expect("a text grows");
    for Goal { ours, theirs, quantile, goal } in AGAINST_PEERS {
        let percent = quantile * 100.0;
        write!(table, "| {ours} / {theirs}, p{percent} | ≤ {goal:.2} |").expect("a text grows");
        for part in parts {
            let pair = part.named(ours).zip(part.named(theirs));
            let ratio = pair.map(|(ours, theirs)| format!("{:.2}", ours.ratio(theirs, quantile)));
            write!(table, " {} |", ratio.as_deref().unwrap_or("–")).expect("a text grows");
        }
        table.push('\n');
    }
    table
}

/// What was measured while commands came.
pub(crate) struct Updates {
    pub(crate) part: Part,
    pub(crate) folded: Result<(), String>,
    pub(crate) sender: Sender,
}

/// All that a run has shown.
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) about: Vec<String>,
    pub(crate) absent: Vec<String>,
    pub(crate) closed1: Option<Part>,
    pub(crate) closed8: Option<Part>,
    pub(crate) open: Option<Part>,
    pub(crate) updates: Option<Updates>,
}

impl Report {
    pub(crate) fn markdown(&self) -> String {
        let parts: Vec<&Part> = [&self.closed1, &self.closed8, &self.open].into_iter().flatten().collect();
        let mut text = format!("{}\n\n{}\n\n", self.machine, self.about.join(", "));
        for part in &parts {
            text.push_str(&part.table());
            text.push('\n');
        }
        text.push_str(&ratios(&parts));
        if let Some(updates) = &self.updates {
            text.push('\n');
            text.push_str(&updates.part.table());
            for name in [portcullis::TCP, portcullis::UNIX, floors::HELLO] {
                let idle = updates.part.named(name).unwrap();
                let under = updates.part.named(&format!("{name}, under commands")).unwrap();
                writeln!(
                    text,
                    "{name}: {:.2} {:.2} {:.2}",
                    under.ratio(idle, 0.5),
                    under.ratio(idle, 0.99),
                    under.ratio(idle, 0.999)
                )
                .unwrap();
            }
            writeln!(
                text,
                "{:?} sent {} in {:?}; {} {}",
                updates.folded,
                updates.sender.sent,
                updates.sender.time,
                updates.sender.latencies.value_at_quantile(0.5),
                updates.sender.latencies.value_at_quantile(0.99)
            )
            .unwrap();
        }
        text.push_str(&self.absent.join("\n"));
        text
    }
}
