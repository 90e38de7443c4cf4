//! How long a connection may take for what it is doing, without a timer per request.
//!
//! ```text
//!               a byte is read              hyper has a whole header
//!    ┌─► Idle ─────────────────► Header ─────────────────────────────► Request ─┐
//!    │   at most IDLE_MAX        at most HEADER_MAX                     no limit │
//!    └──────────────────────── the body of the answer is gone ◄─────────────────┘
//!
//!    in any stage, while the client takes nothing of what we write: at most STALL_MAX
//! ```
//!
//! Two facts keep it cheap. The clock is read once a turn of the connection: changes of stage set a mark,
//! and the turn dates them all. And the one timer of a connection, the *alarm*, may ring too early: it is
//! moved only when the deadline has come nearer than it, and set anew when it rings before its time. A
//! header that arrives whole, and is answered at once, never moves it: by the time of the look the stage is
//! Idle again, with a deadline later than the alarm.
//!
//! A request has no limit here, unless its answer sets one, because the body and the log that it may wait for
//! have limits of their own. The attack that this guards against is the slow one: many connections that
//! send a header byte by byte, or never read their answers, and so take every place.

use std::cell::{Cell, RefCell};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// How long a connection may be open without a request.
pub const IDLE_MAX: Duration = Duration::from_secs(120);
/// How long a request's header may take from its first byte to its last.
pub const HEADER_MAX: Duration = Duration::from_secs(5);
/// How long a client may take nothing of an answer that is ready for it.
pub const STALL_MAX: Duration = Duration::from_secs(30);

/// What a connection is doing. At any moment it is one of these; being stalled comes on top.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// Nothing, or sending the last bytes of an answer.
    Idle,
    /// A header has begun.
    Header,
    /// A request is being worked on.
    Request,
}

/// The time that one connection takes. Shared by its socket, its requests and the task that drives it, all
/// on one thread.
///
/// hyper's own limit on the time for a header also runs while a connection is idle, and costs a timer for
/// each request. So the stages are told apart here, and there is one timer for each connection.
#[derive(Debug)]
pub(super) struct Pace {
    stage: Cell<Stage>,
    /// Whether the client takes nothing at the moment.
    stalled: Cell<bool>,
    /// Whether the time for the present stage begins anew.
    anew: Cell<bool>,
    /// When the present turn of the connection began.
    now: Cell<Instant>,
    since: Cell<Instant>,
    /// When the present request ends at the latest, however well it gets on.
    until: Cell<Option<Instant>>,
    draining: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Pace {
    /// The pace of a connection that begins now, idle.
    pub(super) fn new() -> Rc<Self> {
        let now = Instant::now();
        Rc::new(Self {
            stage: Cell::new(Stage::Idle),
            stalled: Cell::new(false),
            anew: Cell::new(true),
            now: Cell::new(now),
            since: Cell::new(now),
            until: Cell::new(None),
            draining: Cell::new(false),
            waker: RefCell::new(None),
        })
    }

    /// Reads the clock, once for all that the connection does until its next turn.
    pub(super) fn begin_turn(&self) {
        self.now.set(Instant::now());
    }

    /// The time that it is in this turn.
    pub(super) fn now(&self) -> Instant {
        self.now.get()
    }

    /// Changes the stage; its time begins with the turn that notices it.
    fn set(&self, stage: Stage) {
        self.stage.set(stage);
        self.anew.set(true);
    }

    /// The client sent something.
    fn bytes_read(&self) {
        match self.stage.get() {
            // A header has its time from its first byte on, however many reads it takes.
            Stage::Header => {}
            Stage::Idle => self.set(Stage::Header),
            // Without a limit there, it matters only to a client that is stalled and still sends.
            Stage::Request => self.anew.set(true),
        }
    }

    /// The client took something.
    fn bytes_written(&self) {
        // The end of an answer may still be on its way while the next header has begun. It must give that no
        // more time, unless the time was spent on a stall.
        if self.stalled.replace(false) || self.stage.get() != Stage::Header {
            self.anew.set(true);
        }
    }

    /// The client takes nothing. Only the first of several such writes counts: trying is not taking.
    fn write_blocked(&self) {
        if !self.stalled.replace(true) {
            self.anew.set(true);
        }
    }

    /// When the connection has taken too long; none while it is we who are to do something.
    fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.anew.take() {
            self.since.set(now);
        }
        let limit = match self.stage.get() {
            _ if self.stalled.get() => STALL_MAX,
            Stage::Idle => IDLE_MAX,
            Stage::Header => HEADER_MAX,
            Stage::Request => return self.until.get(),
        };
        let by_stage = self.since.get() + limit;
        Some(self.until.get().map_or(by_stage, |until| until.min(by_stage)))
    }

    /// Ready once the connection has taken too long. The alarm is only moved when it would ring too late, and
    /// when it rings too early.
    pub(super) fn poll_overdue(&self, cx: &mut Context<'_>, mut alarm: Pin<&mut Sleep>) -> Poll<()> {
        let now = self.now();
        let Some(deadline) = self.deadline(now) else { return Poll::Pending };
        if now >= deadline {
            return Poll::Ready(());
        }
        // A later deadline leaves it as it is, because moving a timer costs more than one ring too many.
        if alarm.deadline() > deadline {
            alarm.as_mut().reset(deadline);
        }
        // Polled until it is pending, which is what registers us to be woken.
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// Tells the connection to end behind the request that it is working on.
    pub(super) fn drain(&self) {
        self.draining.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whether it is to end. Remembers whom to wake for it.
    pub(super) fn draining(&self, cx: &Context<'_>) -> bool {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.draining.get()
    }
}

/// Held while a request is being worked on and its answer is being made.
#[derive(Debug)]
pub(super) struct InService(Rc<Pace>);

impl InService {
    /// A request begins: its header has been read.
    pub(super) fn begin(pace: &Rc<Pace>) -> Self {
        pace.set(Stage::Request);
        Self(Rc::clone(pace))
    }

    /// Cuts the connection off if the answer is not gone by then.
    pub(super) fn end_by(&self, until: std::time::Instant) {
        self.0.until.set(Some(until.into()));
    }
}

impl Drop for InService {
    fn drop(&mut self) {
        self.0.until.set(None);
        self.0.set(Stage::Idle);
    }
}

/// A socket that reports to the pace of its connection what passes through it, and changes nothing.
#[derive(Debug)]
pub(super) struct Paced<S> {
    socket: S,
    pace: Rc<Pace>,
}

impl<S> Paced<S> {
    pub(super) const fn new(socket: S, pace: Rc<Pace>) -> Self {
        Self { socket, pace }
    }

    /// What a write says of the client: an error says nothing, since it ends the connection anyway.
    fn wrote(&self, result: &Poll<io::Result<usize>>) {
        match result {
            Poll::Ready(Ok(1..)) => self.pace.bytes_written(),
            Poll::Pending => self.pace.write_blocked(),
            Poll::Ready(_) => {}
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Paced<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = Pin::new(&mut self.socket).poll_read(cx, buffer);
        // A read of nothing is the end of what the client sends, and no sign of life.
        if buffer.filled().len() > before {
            self.pace.bytes_read();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Paced<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.wrote(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, slices);
        self.wrote(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(pace: &Pace, now: Instant) -> Option<Duration> {
        pace.deadline(now).map(|deadline| deadline - now)
    }

    #[test]
    fn a_header_has_its_time_from_its_first_byte_on() {
        let (pace, start) = (Pace::new(), Instant::now());
        assert_eq!(left(&pace, start), Some(IDLE_MAX));
        pace.bytes_read();
        assert_eq!(left(&pace, start), Some(HEADER_MAX));
        pace.bytes_read();
        let later = start + Duration::from_secs(3);
        assert_eq!(left(&pace, later), Some(HEADER_MAX - Duration::from_secs(3)), "a drop does not help");
    }

    #[test]
    fn a_request_that_is_worked_on_has_no_deadline_and_the_idle_time_begins_behind_it() {
        let (pace, start) = (Pace::new(), Instant::now());
        pace.bytes_read();
        let request = InService::begin(&pace);
        assert_eq!(left(&pace, start), None);
        drop(request);
        let later = start + Duration::from_secs(60);
        assert_eq!(left(&pace, later), Some(IDLE_MAX));
        pace.bytes_written();
        assert_eq!(left(&pace, later + Duration::from_secs(60)), Some(IDLE_MAX), "it is still sending");
    }

    #[test]
    fn an_answer_that_must_end_by_a_time_does_so_though_it_gets_on() {
        let (pace, start) = (Pace::new(), Instant::now());
        let request = InService::begin(&pace);
        request.end_by((start + Duration::from_secs(40)).into_std());
        assert_eq!(left(&pace, start), Some(Duration::from_secs(40)));
        pace.write_blocked();
        assert_eq!(left(&pace, start), Some(STALL_MAX), "and before, if it does not");
        pace.bytes_written();
        let later = start + Duration::from_secs(30);
        pace.write_blocked();
        assert_eq!(left(&pace, later), Some(Duration::from_secs(10)));
        drop(request);
        pace.bytes_written();
        assert_eq!(left(&pace, later), Some(IDLE_MAX), "it held for that answer only");
    }

    #[test]
    fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
        let (pace, start) = (Pace::new(), Instant::now());
        let _request = InService::begin(&pace);
        pace.write_blocked();
        assert_eq!(left(&pace, start), Some(STALL_MAX));
        let later = start + Duration::from_secs(20);
        pace.write_blocked();
        assert_eq!(left(&pace, later), Some(STALL_MAX - Duration::from_secs(20)));
        pace.bytes_written();
        assert_eq!(left(&pace, later), None);
    }
}
