//! What a projector makes of what the log says: reports of readers, and answers.
//!
//! Each is handed to the stage that asked for it, and what comes of it is followed up at once: records are
//! folded, what is due is written, a check that has passed opens a reader.

use super::folding::Next;
use super::{Clocks, Effect, Projector, Stage};
use crate::check::Trouble;
use crate::log::{Answer, ReadEvent, Topic};

impl Projector {
    /// Hands what a reader reports to the stage that asked for it.
    pub(super) fn read(&mut self, topic: Topic, event: ReadEvent, clocks: Clocks) {
        if let ReadEvent::Failed(reason) = &event {
            self.difficulty = Some(reason.clone());
        }
        match (&mut self.stage, topic) {
            (Stage::Standby(standby), Topic::Table) => {
                standby.read(&event, clocks.now);
                match event {
                    ReadEvent::Failed(_) => self.wait(clocks),
                    _ => self.judge(clocks),
                }
            }
            (Stage::Loading(_), Topic::Table) => self.read_table(event, clocks),
            (Stage::Folding(_), Topic::Commands) => self.read_commands(event, clocks),
            _ => {}
        }
    }

    fn read_table(&mut self, event: ReadEvent, clocks: Clocks) {
        let Stage::Loading(loading) = &mut self.stage else { return };
        match event {
            ReadEvent::Failed(_) => loading.retry_at(clocks.now + self.read_waits.wait()),
            event => {
                self.patience.progress(clocks.now);
                match loading.read(&event) {
                    Ok(None) => {}
                    Ok(Some(folding)) => {
                        if let ReadEvent::End(position) = event {
                            self.tail.read_up_to(position, loading.alives_read());
                        }
                        self.begin_to_fold(folding, clocks);
                    }
                    Err(halt) => self.halt(halt, clocks),
                }
            }
        }
    }

    /// Takes in what the reader of the commands reports.
    fn read_commands(&mut self, event: ReadEvent, clocks: Clocks) {
        let Stage::Folding(folding) = &mut self.stage else { return };
        if let Err(trouble) = folding.meet(&event) {
            return self.halt(trouble.into(), clocks);
        }
        let news = match event {
            // After the last transaction nothing more is folded: what comes now is for whoever follows.
            _ if folding.farewell().is_some() => return,
            ReadEvent::Failed(_) => return self.read_anew(clocks),
            // It was delivered though nothing was wanted: held here, it would leave memory without a bound.
            _ if folding.is_full() => return self.read_anew(clocks),
            ReadEvent::Records(records) => folding.hold(records),
            ReadEvent::End(position) => folding.reached(position, clocks.now),
        };
        // A new reader that sees the same record or the same end again is no progress.
        if news {
            self.patience.progress(clocks.now);
        }
        self.fold(clocks);
    }

    /// Folds what is there: one transaction is being written, and the next one gathered meanwhile.
    pub(super) fn fold(&mut self, clocks: Clocks) {
        loop {
            let Stage::Folding(folding) = &mut self.stage else { return };
            match folding.fold(&self.settings.skip_offsets, clocks.now) {
                Ok(undecodable) => {
                    let tell = undecodable.into_iter().map(|(offset, why)| Effect::Undecodable(offset, why));
                    self.effects.extend(tell);
                }
                Err(halt) => return self.halt(halt, clocks),
            }
            self.write(clocks);
            if !matches!(&self.stage, Stage::Folding(folding) if folding.has_work()) {
                return;
            }
        }
    }

    pub(super) fn answered(&mut self, answer: &Answer, clocks: Clocks) {
        let asked = self.ends.answered(answer);
        self.settings_watch.answered(answer, clocks.now);
        self.unanswered.note(answer);
        match &mut self.stage {
            Stage::Standby(standby) => {
                standby.answered(answer, clocks.now);
                self.judge(clocks);
            }
            Stage::Folding(folding) => {
                self.tail.answered(answer, clocks.now);
                let proven = folding.proven();
                let next = folding.answered(answer, asked, clocks.now);
                if folding.proven() != proven {
                    self.patience.progress(clocks.now);
                    self.difficulty = None;
                }
                self.follow(next, clocks);
                self.fold(clocks);
            }
            _ => {}
        }
    }

    /// Goes on with what a check came to.
    fn follow(&mut self, next: Result<Next, Trouble>, clocks: Clocks) {
        match next {
            Ok(Next::Nothing) => {}
            Ok(Next::Ask(requests)) => self.request(requests),
            Ok(Next::Open(from)) => self.open(Topic::Commands, from),
            Ok(Next::Recheck) => return self.read_anew(clocks),
            Err(trouble) => return self.halt(trouble.into(), clocks),
        }
        self.write(clocks);
    }
}
