//! What the figures should come to, as ratios of two servers in the same round. Whether they do is for
//! whoever reads the table: a time depends on the machine, and a bench that asserted one would fail on a
//! bad day.

use std::fmt::Write as _;

use crate::peers::{floors, nginx, portcullis};
use crate::report::Part;

/// One ratio and what it should not exceed.
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

/// What commands may cost lookups: a quantile and how much larger it may be.
const UNDER_UPDATES: [(f64, Option<f64>); 3] = [(0.5, Some(1.1)), (0.99, Some(1.5)), (0.999, None)];
/// Whose lookups are compared with and without commands: ours, and those of a server that has nothing to do
/// with them, so that what it loses is what sharing the cores costs.
pub(crate) const UPDATED: [&str; 3] = [portcullis::TCP, portcullis::UNIX, floors::HELLO];

/// What lookups that are measured under commands are called.
pub(crate) fn under_commands(name: &str) -> String {
    format!("{name}, under commands")
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.2}"))
}

/// How ours compare with the peers, in each of these parts.
pub(crate) fn against_peers(parts: &[Part]) -> String {
    let mut table = String::from("| median of the rounds' ratios | goal |");
    parts.iter().for_each(|part| write!(table, " {} |", part.name).expect("a text grows"));
    writeln!(table, "\n|---|--:|{}", "--:|".repeat(parts.len())).expect("a text grows");
    for Goal { ours, theirs, quantile, goal } in AGAINST_PEERS {
        let percent = quantile * 100.0;
        write!(table, "| {ours} / {theirs}, p{percent} | ≤ {goal:.2} |").expect("a text grows");
        for part in parts {
            let pair = part.named(ours).zip(part.named(theirs));
            let ratio = pair.map(|(ours, theirs)| ours.ratio(theirs, quantile));
            write!(table, " {} |", shown(ratio)).expect("a text grows");
        }
        table.push('\n');
    }
    table
}

/// What commands cost lookups.
pub(crate) fn under_updates(part: &Part) -> String {
    let mut table = String::from("| under commands / idle, median of the rounds' ratios | goal |");
    UPDATED.iter().for_each(|name| write!(table, " {name} |").expect("a text grows"));
    writeln!(table, "\n|---|--:|{}", "--:|".repeat(UPDATED.len())).expect("a text grows");
    for (quantile, goal) in UNDER_UPDATES {
        let goal = goal.map_or(String::new(), |goal| format!("≤ {goal:.2}"));
        write!(table, "| p{} | {goal} |", quantile * 100.0).expect("a text grows");
        for name in UPDATED {
            let pair = part.named(&under_commands(name)).zip(part.named(name));
            let ratio = pair.map(|(busy, idle)| busy.ratio(idle, quantile));
            write!(table, " {} |", shown(ratio)).expect("a text grows");
        }
        table.push('\n');
    }
    table
}
