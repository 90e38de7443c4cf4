//! Serves one connection, within its limits.
//!
//! One future drives three things: hyper, which reads requests and writes answers; the [`Pace`], which says
//! when the client takes too long; and the drain. They share one poll, so that a request costs no timer, no
//! channel and no further task.
//!
//! A connection that breaks a limit of the pace is closed without an answer. A body that is too slow is
//! answered with 408, because by then there is a request to answer.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::guard::Peer;
use super::pace::{IDLE_MAX, InService, Pace, Paced};
use super::worker::Worker;

/// The most bytes of a header that are read at all; above its limit and below this one a header is answered
/// with an error in our shape, above it with the bare status. It bounds what a connection keeps in memory.
const BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Answers the requests of one connection until it ends, takes too long, or is drained.
pub(super) async fn serve<S>(socket: S, peer: Peer, worker: Rc<Worker>, pace: Rc<Pace>)
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let service = service_fn(|request| {
        // Begun here, not in the future, which hyper may poll later; its end is that of the body.
        let in_service = InService::begin(&pace);
        let answering = worker.answer(request, peer, pace.now().into_std());
        async move { Ok::<_, Infallible>(answering.await.map(|body| body.held_by(in_service))) }
    });
    let io = TokioIo::new(Paced::new(socket, Rc::clone(&pace)));
    // A client may send its last request and close its half: it still gets its answer. That also spares a
    // read for each request that would look whether the client is still there.
    let connection = http1::Builder::new()
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(io, service);
    let mut connection = pin!(connection);
    let mut alarm = pin!(tokio::time::sleep(IDLE_MAX));
    poll_fn(|cx| {
        pace.begin_turn();
        // Asked at each poll: telling hyper twice changes nothing, and the drain wakes us when it begins.
        if pace.draining(cx) {
            connection.as_mut().graceful_shutdown();
        }
        // What a connection fails of concerns its client alone.
        match connection.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            // After hyper, so that what it has just read and written counts.
            Poll::Pending => pace.poll_overdue(cx, alarm.as_mut()),
        }
    })
    .await;
}
