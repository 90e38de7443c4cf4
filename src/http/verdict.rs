//! The answers to a check of one address, made beforehand.
//!
//! There are four: two verdicts in two forms. What changes in them is the position and the age of the
//! snapshot, in their headers, and most requests find both as the one before left them. So making an answer
//! is a copy of its headers, which formats no number and hashes no name.

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;

use super::answer::{AGE_MS, Answer, BLACKLISTED, Body, JSON, PLAIN, POSITION};
use crate::record::Position;
use crate::snapshot::Verdict;

/// The two forms that answers, and batches, have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Plain,
    Json,
}

/// The form of the answer that the client wants: plain text if it accepts exactly that.
/// Several types, or `*/*`, get JSON without being weighed.
pub(super) fn wanted_form(head: &Parts) -> Form {
    match head.headers.get(ACCEPT) {
        Some(accept) if accept == PLAIN => Form::Plain,
        _ => Form::Json,
    }
}

/// The position and the age in ms that answers name; no age before the first proof of one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Stamp {
    pub(super) position: Position,
    pub(super) age_ms: Option<u64>,
}

/// The answers of one worker.
#[derive(Debug)]
pub(super) struct VerdictAnswers {
    blacklisted: Forms,
    free: Forms,
}

impl VerdictAnswers {
    pub(super) fn new() -> Self {
        Self {
            blacklisted: Forms::new("1", r#"{"blacklisted":true}"#),
            free: Forms::new("0", r#"{"blacklisted":false}"#),
        }
    }

    /// The answer that tells this verdict.
    pub(super) fn answer(&mut self, verdict: Verdict, form: Form, stamp: Stamp) -> Answer {
        let forms = match verdict {
            Verdict::Blacklisted => &mut self.blacklisted,
            Verdict::Free => &mut self.free,
        };
        match form {
            Form::Plain => forms.plain.answer(stamp),
            Form::Json => forms.json.answer(stamp),
        }
    }
}

/// The answers that tell one verdict.
#[derive(Debug)]
struct Forms {
    plain: Prepared,
    json: Prepared,
}

impl Forms {
    fn new(digit: &'static str, json: &'static str) -> Self {
        Self { plain: Prepared::new(PLAIN, digit, digit), json: Prepared::new(JSON, digit, json) }
    }
}

/// One answer, as it was last given.
#[derive(Debug)]
struct Prepared {
    headers: HeaderMap,
    body: Bytes,
    stamp: Option<Stamp>,
}

impl Prepared {
    fn new(content_type: HeaderValue, digit: &'static str, body: &'static str) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(BLACKLISTED, HeaderValue::from_static(digit));
        Self { headers, body: Bytes::from_static(body.as_bytes()), stamp: None }
    }

    fn answer(&mut self, stamp: Stamp) -> Answer {
        if self.stamp != Some(stamp) {
            self.headers.insert(POSITION, stamp.position.number().into());
            // Once there is an age there always will be one.
            if let Some(age_ms) = stamp.age_ms {
                self.headers.insert(AGE_MS, age_ms.into());
            }
            self.stamp = Some(stamp);
        }
        let mut answer = Answer::new(Body::whole(self.body.clone()));
        *answer.headers_mut() = self.headers.clone();
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_names_the_position_and_the_age_that_it_is_given() {
        let mut answers = VerdictAnswers::new();
        let text = |value: &HeaderValue| value.to_str().expect("visible ASCII").to_owned();
        let header = |answer: &Answer, name| answer.headers().get(name).map(text);
        for (position, age_ms) in [(1, None), (1, Some(0)), (2, Some(0)), (2, Some(7)), (1, Some(7))] {
            for (verdict, digit) in [(Verdict::Blacklisted, "1"), (Verdict::Free, "0")] {
                for (form, content_type) in [(Form::Plain, PLAIN), (Form::Json, JSON)] {
                    let answer =
                        answers.answer(verdict, form, Stamp { position: Position::new(position), age_ms });
                    assert_eq!(header(&answer, POSITION), Some(position.to_string()));
                    assert_eq!(header(&answer, AGE_MS), age_ms.map(|age_ms: u64| age_ms.to_string()));
                    assert_eq!(header(&answer, BLACKLISTED).as_deref(), Some(digit));
                    assert_eq!(answer.headers().get(CONTENT_TYPE), Some(&content_type));
                }
            }
        }
    }
}
