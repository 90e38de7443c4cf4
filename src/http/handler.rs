//! The lookup listener without its sockets: a request in, an answer out, on the calling thread.
//!
//! It is what each lookup worker has, so that benches and tests see what a request costs beside the network,
//! and programs can serve connections that they got in their own way.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hyper::body::Body;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::guard::Peer;
use super::pace::Pace;
use super::worker::Worker;
use super::{App, Kind, Source, connection};

/// Answers as a lookup listener does that was reached over TCP at 127.0.0.1.
///
/// It stays on the thread that made it, in a tokio runtime with timers: a body has only so much time.
pub struct Handler(Rc<Worker>);

impl Handler {
    /// A worker of its own, with a reader of its own. It lets go of replaced snapshots at the next request.
    pub fn new(app: App) -> Self {
        let (_, drain) = watch::channel(None);
        Self(Rc::new(Worker::new(Source::Sidecar(Arc::new(app)), Kind::Lookup, Arc::default(), drain)))
    }

    /// Answers one request. There is no error: whatever goes wrong is an answer, too.
    pub async fn answer<B>(
        &self,
        request: Request<B>,
    ) -> Response<impl Body<Data = Bytes, Error: Error> + use<B>>
    where
        B: Body<Data = Bytes, Error: Error> + Unpin + 'static,
    {
        self.0.answer(request, PEER, Instant::now()).await
    }

    /// Serves one connection until it ends, within the limits of the listener.
    pub async fn serve(&self, stream: impl AsyncRead + AsyncWrite + Unpin + 'static) {
        connection::serve(stream, PEER, Rc::clone(&self.0), Pace::new()).await;
    }
}

/// Requests are judged like those of the loopback port.
const PEER: Peer = Peer::Tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
