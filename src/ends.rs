//! Asking the log for its ends, and what the answers prove. Part of both state machines.
//!
//! A sidecar that hears nothing cannot tell whether nothing happens or its link is dead. So it asks for the
//! ends every second, and only the answer makes it young again:
//!
//! ```text
//!   asked ─────► H, high watermark ─────► L, last stable offset ─────► answer ─────► position ≥ H
//!     ▲                        proves something if L ≥ H                                  │
//!     └─────────────────────── the age counts from here ◄─────────────────────────────────┘
//! ```
//!
//! Whatever was in the log when the question was sent lies before H, and a view that reaches H has it all.
//! With L below H, an open transaction hides commands behind L from every reader, and nothing is proven; if
//! that lasts, it is reported, because everything else looks healthy meanwhile.
//!
//! [`EndProof`] is the bare rule, [`EndsQuestion`] the asking, [`EndsWatch`] both together as the follower
//! needs them. None of them reads a clock or sends anything.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::log::{Answer, Ends, Question, Request, Topic};
use crate::record::Position;

/// How often the log is asked for its ends; the age of a view that follows stays about that.
pub const ENDS_INTERVAL: Duration = Duration::from_secs(1);
/// A client that has answered nothing for so long is replaced.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// An open transaction that hides the log's end for so long is reported. Those of healthy producers are over
/// much sooner.
pub const OPEN_TRANSACTION_PATIENCE: Duration = Duration::from_secs(5);
/// How many answers wait at most for the fold to reach them.
const PAIRS_MAX: usize = 64;

/// Proves when a view was last at the end of the log.
///
/// A high watermark H, asked for first, and a last stable offset L, asked for second, prove that a view at
/// H or beyond is at the end since before the first question was sent, if L ≥ H. Nothing else does: ends of
/// a partition are reported once, and polls and errors say nothing about the log.
///
/// ```
/// use std::time::Instant;
///
/// use portcullis::ends::EndProof;
/// use portcullis::log::Ends;
/// use portcullis::record::Position;
///
/// let asked = Instant::now();
/// let (start, high) = (Position::START, Position::new(814));
/// let mut proof = EndProof::default();
/// proof.answered(asked, Ends { start, high, stable: high });
/// assert_eq!(proof.reached(Position::new(813)), None); // not there yet
/// assert_eq!(proof.reached(Position::new(814)), Some(asked)); // at the end, as of the question
/// ```
#[derive(Clone, Debug, Default)]
pub struct EndProof {
    /// When each question was sent, and the H of its answer; oldest first.
    pairs: VecDeque<(Instant, Position)>,
    /// The first L that was told.
    first_stable: Option<Position>,
}

impl EndProof {
    /// Takes in an answer to a question that was sent at `asked`.
    pub fn answered(&mut self, asked: Instant, ends: Ends) {
        // An end that lies before one that was told earlier is that of another log, or of one that lost its
        // end: what waits to be reached there never will be, and would keep all that comes after it waiting.
        self.pairs.retain(|(_, high)| *high <= ends.high);
        let first_stable = self.first_stable.get_or_insert(ends.stable);
        *first_stable = ends.stable.min(*first_stable);
        if ends.stable < ends.high {
            return;
        }
        if self.pairs.len() == PAIRS_MAX {
            // The oldest stay: a view that is far behind reaches them first, and proves at least that.
            self.pairs.pop_back();
        }
        self.pairs.push_back((asked, ends.high));
    }

    /// The latest time that a view at `position` is proven to have been at the end, if it is news. To be
    /// called after each answer and each fold: either may be the one that completes a proof.
    pub fn reached(&mut self, position: Position) -> Option<Instant> {
        let mut proven = None;
        while let Some((asked, _)) = self.pairs.pop_front_if(|(_, high)| *high <= position) {
            proven = Some(asked);
        }
        proven
    }

    /// Whether a view at `position` holds all that any reader could see when the first question was answered.
    /// It need not be proven for that: while one foreign transaction overlaps the next, nothing ever is.
    pub fn is_caught_up(&self, position: Position) -> bool {
        self.first_stable.is_some_and(|stable| stable <= position)
    }

    /// Forgets all answers: they may be another log's.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

/// The question for a topic's ends, asked every second, one at a time.
#[derive(Debug, Default)]
pub struct EndsQuestion {
    asked: Option<(Topic, Instant)>,
    /// Since when there is a question without an answer, be it asked once or several times.
    unanswered: Option<Instant>,
    /// The next time, for the topic that was asked about last; for the other one it is due at once.
    due: Option<(Topic, Instant)>,
}

impl EndsQuestion {
    /// The question, when it is due.
    pub fn ask(&mut self, topic: Topic, now: Instant) -> Option<Request> {
        let early = self.due.is_some_and(|(last, due)| last == topic && now < due);
        if self.asked.is_some() || early {
            return None;
        }
        self.asked = Some((topic, now));
        self.unanswered.get_or_insert(now);
        self.due = Some((topic, now + ENDS_INTERVAL));
        Some(Request::Ask(Question::Ends(topic)))
    }

    /// Forgets the question that is under way; the next one keeps its time, so that a reader which is
    /// replaced again and again does not become a loop. The client still owes an answer.
    pub fn forget(&mut self) {
        self.asked = None;
    }

    /// Forgets the question that is under way, and asks the next one at once.
    pub fn hurry(&mut self) {
        (self.asked, self.due) = (None, None);
    }

    /// When the question was sent that this answers; none if it is no answer to it.
    pub fn answered(&mut self, answer: &Answer) -> Option<Instant> {
        let (Answer::Ends(topic, _) | Answer::Failed(Question::Ends(topic), _)) = answer else { return None };
        let (_, asked) = self.asked.take_if(|(asked, _)| asked == topic)?;
        self.unanswered = None;
        Some(asked)
    }

    /// Whether the client must be replaced, because it owes an answer for [`ANSWER_DEADLINE`]; says so once,
    /// and the question is then due again.
    pub fn is_overdue(&mut self, now: Instant) -> bool {
        let overdue = self.unanswered.take_if(|since| now >= *since + ANSWER_DEADLINE).is_some();
        if overdue {
            self.asked = None;
        }
        overdue
    }
}

/// Watches where the commands end, for a view that is folded from them.
#[derive(Debug, Default)]
pub struct EndsWatch {
    question: EndsQuestion,
    /// How far the view was when the ends were asked for: a log that ends before it has lost records, while
    /// one that ends before today's position may just have been asked early.
    position_asked: Position,
    /// Answers to what was asked before prove nothing.
    proves_from: Option<Instant>,
    /// Since when every answer had its stable end below its high one.
    hidden_since: Option<Instant>,
    proof: EndProof,
}

impl EndsWatch {
    /// The question, when it is due; `position` is the one of the view.
    pub fn ask(&mut self, position: Position, now: Instant) -> Option<Request> {
        let request = self.question.ask(Topic::Commands, now)?;
        self.position_asked = position;
        Some(request)
    }

    /// Whether the client must be replaced; the question is then due again.
    pub fn is_overdue(&mut self, now: Instant) -> bool {
        self.question.is_overdue(now)
    }

    /// Takes in an answer; the ends, if it is one to our question.
    pub fn answered(&mut self, answer: &Answer, now: Instant) -> Option<Ends> {
        let asked = self.question.answered(answer)?;
        let Answer::Ends(_, ends) = answer else { return None };
        if self.proves_from.is_none_or(|from| asked >= from) {
            self.proof.answered(asked, *ends);
        }
        self.hidden_since = if ends.stable < ends.high { self.hidden_since.or(Some(now)) } else { None };
        Some(*ends)
    }

    /// Whether an open transaction has hidden the log's end for too long.
    pub fn is_hidden(&self, now: Instant) -> bool {
        self.hidden_since.is_some_and(|since| now >= since + OPEN_TRANSACTION_PATIENCE)
    }

    /// How far the view was when the ends were asked for.
    pub const fn position_asked(&self) -> Position {
        self.position_asked
    }

    /// The latest time that a view at `position` is proven to have been at the end, if it is news.
    pub fn reached(&mut self, position: Position) -> Option<Instant> {
        self.proof.reached(position)
    }

    /// Whether a view at `position` was where readers see the end, at some time since a reader was opened.
    pub fn is_caught_up(&self, position: Position) -> bool {
        self.proof.is_caught_up(position)
    }

    /// Notes that a reader is opened now. What was told of the log before may be of another one, which it
    /// does not read: asked for anew is where the log ends that it does.
    pub fn reader_opens(&mut self, now: Instant) {
        self.proof.forget();
        self.proves_from = Some(now);
        self.question.due = None;
    }

    /// Forgets what was proven and asks anew, because the log may be another one. Answers under way must
    /// be dropped by then.
    pub fn forget(&mut self) {
        self.proof.forget();
        self.question.hurry();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(high: u64, stable: u64) -> Ends {
        Ends { start: Position::START, high: Position::new(high), stable: Position::new(stable) }
    }

    #[test]
    fn the_end_is_proven_by_a_pair_that_agrees_once_the_view_has_reached_it() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut proof = EndProof::default();
        proof.answered(at(0), ends(10, 10));
        proof.answered(at(1), ends(12, 11));
        proof.answered(at(2), ends(13, 13));
        assert_eq!(proof.reached(Position::new(9)), None);
        assert_eq!(proof.reached(Position::new(12)), Some(at(0)));
        assert_eq!(proof.reached(Position::new(12)), None, "it is no news");
        assert_eq!(proof.reached(Position::new(13)), Some(at(2)));
        proof.answered(at(3), ends(13, 13));
        proof.forget();
        assert_eq!(proof.reached(Position::new(13)), None);
        // A log that was replaced while it was checked.
        proof.answered(at(4), ends(14, 14));
        proof.answered(at(5), ends(9, 9));
        assert_eq!(proof.reached(Position::new(9)), Some(at(5)));
    }
}
