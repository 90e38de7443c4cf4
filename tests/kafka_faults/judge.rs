//! Holds everything that was said to the log: afterwards, by folding it once more.

use std::collections::HashMap;
use std::time::Duration;

use portcullis::address::Range;
use portcullis::command::Command;
use portcullis::record::{Position, Record};
use portcullis::view::{Refusal, View};

use super::load::{Acknowledged, Answer, Heard};

/// Ages are told in whole milliseconds.
const AGE_STEP: Duration = Duration::from_millis(1);

/// What came of it, in numbers.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    pub(crate) groups: usize,
    pub(crate) records: usize,
    pub(crate) repeated: usize,
    pub(crate) answers: usize,
}

/// Every answer is what the fold at its position says, and no older than it says; every acknowledged command
/// is in the log, and was applied once.
pub(crate) fn judge(heard: &Heard, records: &[Record]) -> Judged {
    let (answers, acknowledged) = (&heard.answers, &heard.acknowledged);
    let mut by_position: Vec<&Answer> = answers.iter().collect();
    by_position.sort_by_key(|answer| answer.position);
    let mut by_position = by_position.into_iter().peekable();
    let mut applied: HashMap<String, (usize, usize)> = HashMap::new();
    let mut view = View::default();
    for record in records {
        while let Some(answer) = by_position.next_if(|it| it.position <= record.offset.number()) {
            judge_answer(&view, answer);
        }
        let outcome = view.apply(record).expect("a command of this release").outcome;
        let command = Command::decode(record.value.as_deref().unwrap_or_default());
        if let Some(id) = command.ok().and_then(|command| command.id) {
            let counts = applied.entry(id.as_str().to_owned()).or_default();
            counts.0 += 1;
            counts.1 += usize::from(outcome != Err(Refusal::Duplicate));
        }
    }
    by_position.for_each(|answer| judge_answer(&view, answer));
    judge_ages(answers, acknowledged);
    let mut judged = Judged { answers: answers.len(), records: records.len(), ..Judged::default() };
    for group in acknowledged {
        judged.groups += 1;
        for line in 1..=group.commands {
            let id = format!("{}/{line}", group.key);
            let (there, times) = applied.get(&id).copied().unwrap_or_default();
            assert_eq!(times, 1, "{id} stands in the log {there} times; acknowledged: {group:?}");
            judged.repeated += there - 1;
        }
        assert!(group.offset < view.position().number(), "{group:?}");
    }
    judged
}

fn judge_answer(view: &View, answer: &Answer) {
    let range: Range = answer.address.to_string().parse().expect("an address");
    let blacklisted = view.blacklist().overlapping(range).next().is_some();
    assert_eq!(answer.blacklisted, blacklisted, "{answer:?}");
}

/// An age says when the list had all that was in the log: whatever was acknowledged before that is in it.
fn judge_ages(answers: &[Answer], acknowledged: &[Acknowledged]) {
    let mut acknowledged: Vec<&Acknowledged> = acknowledged.iter().collect();
    acknowledged.sort_by_key(|group| group.at);
    // The furthest offset up to each of them.
    let mut furthest = 0;
    let reached: Vec<u64> = acknowledged
        .iter()
        .map(|group| {
            furthest = furthest.max(group.offset + 1);
            furthest
        })
        .collect();
    for answer in answers {
        let Some(proven) = answer.age.and_then(|age| answer.sent.checked_sub(age + AGE_STEP)) else {
            continue;
        };
        let before = acknowledged.partition_point(|group| group.at < proven);
        let needed = before.checked_sub(1).map_or(0, |last| reached[last]);
        assert!(answer.position >= needed, "{answer:?} says that it knows all up to {needed}");
    }
}

/// Whether a list at this position holds all that was acknowledged.
pub(crate) fn reaches(heard: &Heard, position: Position) -> bool {
    heard.acknowledged.iter().all(|group| group.offset < position.number())
}
