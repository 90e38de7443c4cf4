//! Which question has found no answer, and why. Part of both state machines.
//!
//! It is a difficulty until the same question has an answer, whatever else is answered meanwhile: else one that
//! fails for ever would be told and taken back every second.

use std::mem::{Discriminant, discriminant};

use crate::log::{Answer, Question};

/// The newest question without an answer.
#[derive(Debug, Default)]
pub struct Unanswered(Option<(Discriminant<Question>, String)>);

impl Unanswered {
    /// Takes in an answer, or that there is none.
    pub fn note(&mut self, answer: &Answer) {
        let kind = discriminant(&answer.question());
        match answer {
            Answer::Failed(_, reason) => self.0 = Some((kind, reason.clone())),
            _ => drop(self.0.take_if(|(unanswered, _)| *unanswered == kind)),
        }
    }

    /// Forgets it, because it may not be asked again.
    pub fn forget(&mut self) {
        self.0 = None;
    }

    /// Why there was no answer, in a sentence for people; none if nothing is unanswered.
    pub fn reason(&self) -> Option<&str> {
        self.0.as_ref().map(|(_, reason)| reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Identity;

    #[test]
    fn a_question_is_unanswered_until_it_has_an_answer_itself() {
        let mut unanswered = Unanswered::default();
        unanswered.note(&Answer::Failed(Question::TopicSettings, "denied".to_owned()));
        unanswered.note(&Answer::Identity(Identity::default()));
        assert_eq!(unanswered.reason(), Some("denied"));
        unanswered.note(&Answer::TopicSettings(Ok(())));
        assert_eq!(unanswered.reason(), None);
        unanswered.note(&Answer::Failed(Question::Identity, "no broker".to_owned()));
        unanswered.forget();
        assert_eq!(unanswered.reason(), None);
    }
}
