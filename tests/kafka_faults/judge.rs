//! Holds everything that was said to the log: afterwards, by folding it once more.

use std::collections::HashMap;
use std::time::Duration;

use portcullis::address::Range;
use portcullis::command::Command;
use portcullis::record::Record;
use portcullis::view::{Refusal, View};

use super::load::{Acknowledged, Answer, Heard};

/// Ages are told in whole milliseconds.
const AGE_STEP: Duration = Duration::from_millis(1);

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) groups: usize,
    /// Commands that stand in the log once more than they had to.
    pub(crate) repeated: usize,
    pub(crate) answers: usize,
    /// Answers that are not what the fold says, or that are older than they say.
    pub(crate) wrong: Vec<String>,
    /// Acknowledged commands that were not applied once.
    pub(crate) lost: Vec<String>,
}

impl Judged {
    /// Fails if anything was wrong.
    pub(crate) fn hold(self, what: &str) -> Self {
        let shown = |texts: &[String]| texts.iter().take(3).cloned().collect::<Vec<_>>().join("\n");
        let (wrong, lost) = (shown(&self.wrong), shown(&self.lost));
        assert!(wrong.is_empty() && lost.is_empty(), "{what}: wrong:\n{wrong}\nlost:\n{lost}");
        assert!(self.answers > 0 && self.groups > 0, "{what}: nothing was judged");
        eprintln!("{what}: {self:?}");
        self
    }
}

/// Every answer is to be what the fold at its position says, and no older than it says; every acknowledged
/// command in the log, and applied once.
pub(crate) fn judge(heard: &Heard, records: &[Record]) -> Judged {
    let mut judged = Judged { answers: heard.answers.len(), ..Judged::default() };
    let mut by_position: Vec<&Answer> = heard.answers.iter().collect();
    by_position.sort_by_key(|answer| answer.position);
    let mut by_position = by_position.into_iter().peekable();
    let mut applied: HashMap<String, (usize, usize)> = HashMap::new();
    let mut view = View::default();
    for record in records {
        while let Some(answer) = by_position.next_if(|it| it.position <= record.offset.number()) {
            judged.wrong.extend(wrong(&view, answer));
        }
        let outcome = view.apply(record).expect("a command of this release").outcome;
        let command = Command::decode(record.value.as_deref().unwrap_or_default());
        if let Some(id) = command.ok().and_then(|command| command.id) {
            let counts = applied.entry(id.as_str().to_owned()).or_default();
            counts.0 += 1;
            counts.1 += usize::from(outcome != Err(Refusal::Duplicate));
        }
    }
    judged.wrong.extend(by_position.filter_map(|answer| wrong(&view, answer)));
    judged.wrong.extend(older_than_told(heard));
    for group in &heard.acknowledged {
        judged.groups += 1;
        for line in 1..=group.commands {
            let id = format!("{}/{line}", group.key);
            let (there, times) = applied.get(&id).copied().unwrap_or_default();
            if times != 1 {
                judged.lost.push(format!("{id}: {there} times in the log, applied {times} times: {group:?}"));
            }
            judged.repeated += there.saturating_sub(1);
        }
    }
    judged
}

fn wrong(view: &View, answer: &Answer) -> Option<String> {
    let range: Range = answer.address.to_string().parse().expect("an address");
    let blacklisted = view.blacklist().overlapping(range).next().is_some();
    (answer.blacklisted != blacklisted).then(|| format!("{answer:?}"))
}

/// An age says when the list had all that was in the log: whatever was acknowledged before that is in it.
fn older_than_told(heard: &Heard) -> Vec<String> {
    let mut acknowledged: Vec<&Acknowledged> = heard.acknowledged.iter().collect();
    acknowledged.sort_by_key(|group| group.at);
    // The furthest position up to each of them.
    let furthest = acknowledged.iter().scan(0, |furthest, group| {
        *furthest = (*furthest).max(group.offset + 1);
        Some(*furthest)
    });
    let furthest: Vec<u64> = furthest.collect();
    let mut older = Vec::new();
    for answer in &heard.answers {
        let Some(proven) = answer.age.and_then(|age| answer.sent.checked_sub(age + AGE_STEP)) else {
            continue;
        };
        let before = acknowledged.partition_point(|group| group.at < proven);
        let needed = before.checked_sub(1).map_or(0, |last| furthest[last]);
        if answer.position < needed {
            older.push(format!("{answer:?}, and {needed} was reached"));
        }
    }
    older
}
