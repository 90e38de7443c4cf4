//! Asking the log for its ends, and what the answers prove. Part of both state machines.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::log::{Ends, Question, Request, Topic};
use crate::record::Position;

/// How often the log is asked for its ends.
pub const ENDS_INTERVAL: Duration = Duration::from_secs(1);
/// A client that has answered nothing for so long is replaced.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// An open transaction that hides the log's end for so long is reported.
pub const OPEN_TRANSACTION_PATIENCE: Duration = Duration::from_secs(5);
/// How many answers wait at most for the fold to reach them.
const PAIRS_MAX: usize = 64;

/// Proves when a view was last at the end of the log.
///
/// A high watermark H, asked for first, and a last stable offset L, asked for second, prove that a view at
/// H or beyond is at the end since before the first question was sent, if L ≥ H. Nothing else does: ends of
/// a partition are reported once, and polls and errors say nothing about the log.
#[derive(Clone, Debug, Default)]
pub struct EndProof {
    pairs: VecDeque<(Instant, Position)>,
}

impl EndProof {
    /// Takes in an answer to a question that was sent at `asked`.
    pub fn answered(&mut self, asked: Instant, ends: Ends) {
        if ends.stable < ends.high {
            return;
        }
        if self.pairs.len() == PAIRS_MAX {
            // The oldest stay: a view that is far behind reaches them first, and proves at least that.
            self.pairs.pop_back();
        }
        self.pairs.push_back((asked, ends.high));
    }

    /// The latest time that a view at `position` is proven to have been at the end, if it is news.
    pub fn reached(&mut self, position: Position) -> Option<Instant> {
        let mut proven = None;
        while let Some((asked, _)) = self.pairs.pop_front_if(|(_, high)| *high <= position) {
            proven = Some(asked);
        }
        proven
    }

    /// Forgets all answers: they may be another log's.
    pub fn forget(&mut self) {
        self.pairs.clear();
    }
}

/// Asks every second where the commands end, one question at a time.
#[derive(Debug)]
pub struct EndsWatch {
    asked: Option<Instant>,
    waiting: bool,
    /// The served position when the ends were asked for.
    position_asked: Position,
    /// When anything was answered last.
    heard: Instant,
    hidden_since: Option<Instant>,
    proof: EndProof,
}

impl EndsWatch {
    /// Has asked nothing yet.
    pub fn new(now: Instant) -> Self {
        Self {
            asked: None,
            waiting: false,
            position_asked: Position::START,
            heard: now,
            hidden_since: None,
            proof: EndProof::default(),
        }
    }

    /// The question, when it is time for it; `position` is the one that is served.
    pub fn ask(&mut self, position: Position, now: Instant) -> Option<Request> {
        let due = self.asked.is_none_or(|asked| now >= asked + ENDS_INTERVAL);
        if !due || self.waiting {
            return None;
        }
        (self.asked, self.waiting, self.position_asked) = (Some(now), true, position);
        Some(Request::Ask(Question::Ends(Topic::Commands)))
    }

    /// Whether nothing was answered for so long that the client is to be replaced.
    pub fn is_silent(&mut self, now: Instant) -> bool {
        let silent = now >= self.heard + ANSWER_DEADLINE;
        if silent {
            (self.heard, self.waiting) = (now, false);
        }
        silent
    }

    /// Notes that the client lives.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Notes that this question stays without an answer.
    pub fn failed(&mut self) {
        self.waiting = false;
    }

    /// Takes in an answer; says whether an open transaction has hidden the log's end for too long.
    pub fn answered(&mut self, ends: Ends, now: Instant) -> bool {
        self.waiting = false;
        if let Some(asked) = self.asked {
            self.proof.answered(asked, ends);
        }
        self.hidden_since = if ends.stable < ends.high { self.hidden_since.or(Some(now)) } else { None };
        self.hidden_since.is_some_and(|since| now >= since + OPEN_TRANSACTION_PATIENCE)
    }

    /// The served position when the ends were asked for.
    pub const fn position_asked(&self) -> Position {
        self.position_asked
    }

    /// The latest time that a view at `position` is proven to have been at the end, if it is news.
    pub fn reached(&mut self, position: Position) -> Option<Instant> {
        self.proof.reached(position)
    }

    /// Forgets what was proven and asks anew, because the log may be another one. Answers under way must
    /// be dropped by then.
    pub fn forget(&mut self) {
        self.proof.forget();
        (self.asked, self.waiting) = (None, false);
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
    }
}
