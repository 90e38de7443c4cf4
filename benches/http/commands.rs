//! Commands that come while lookups are measured: groups over the admin socket, as whoever keeps a list sends
//! them, at a fixed rate.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portcullis::http::client::{Client, Endpoint, Request};
use serde_json::Value;

use crate::client::{Latencies, latencies};
use crate::peers::{portcullis::admin_socket, wait};

pub(crate) const GROUP: u64 = 20;
pub(crate) const GROUPS_A_SECOND: u32 = 50;

/// Who sends the commands, and what has come of them.
pub(crate) struct Sender {
    client: Client,
    random: fastrand::Rng,
    /// The addresses that lookups ask about, whose answers must stay as they are.
    spared: HashSet<Ipv4Addr>,
    /// The position before the first command.
    began_at: u64,
    pub(crate) sent: u64,
    /// For how long commands were sent, all in all.
    pub(crate) time: Duration,
    /// How long a group takes to be durable.
    pub(crate) latencies: Latencies,
}

impl Sender {
    pub(crate) fn new(folder: &Path, spared: HashSet<Ipv4Addr>) -> Self {
        let client = Client::connect(&Endpoint::Unix(admin_socket(folder))).expect("it listens");
        let random = fastrand::Rng::with_seed(13);
        let (time, latencies) = (Duration::ZERO, latencies());
        let mut sender = Self { client, random, spared, began_at: 0, sent: 0, time, latencies };
        sender.began_at = sender.status()["position"].as_u64().expect("a number");
        sender
    }

    /// Sends commands for as long as something runs; what that comes to.
    pub(crate) fn during<T>(&mut self, run: impl FnOnce() -> T) -> T {
        let (stop, began) = (AtomicBool::new(false), Instant::now());
        let outcome = std::thread::scope(|scope| {
            let sending = scope.spawn(|| self.send_until(&stop));
            let outcome = run();
            stop.store(true, Ordering::Relaxed);
            sending.join().expect("every group is taken");
            outcome
        });
        self.time += began.elapsed();
        outcome
    }

    fn send_until(&mut self, stop: &AtomicBool) {
        let (began, apart) = (Instant::now(), Duration::from_secs(1) / GROUPS_A_SECOND);
        let mut groups = 0;
        while !stop.load(Ordering::Relaxed) {
            std::thread::sleep((began + apart * groups).saturating_duration_since(Instant::now()));
            self.send();
            groups += 1;
        }
    }

    fn send(&mut self) {
        let body: String = (0..GROUP).map(|_| self.command()).collect();
        let request =
            Request { path: "/v1/commands".to_owned(), body: Some(body.into()), ..Request::default() };
        let began = Instant::now();
        let answer = self.client.send(&request).expect("it answers");
        self.latencies.record(began.elapsed().as_nanos() as u64).expect("it grows with what it holds");
        assert_eq!(answer.status, 201, "{}", String::from_utf8_lossy(&answer.body));
        self.sent += GROUP;
    }

    /// A line about a random address that nobody asks about.
    fn command(&mut self) -> String {
        let action = self.random.choice(["BLACKLIST", "WHITELIST"]).expect("there are two");
        let mut random = std::iter::repeat_with(|| Ipv4Addr::from_bits(self.random.u32(..)));
        let address = random.find(|address| !self.spared.contains(address)).expect("there are many");
        format!("{action} {address}\n")
    }

    /// Holds the sidecar to have folded all that was sent, and refused nothing.
    pub(crate) fn check_folded(&mut self) {
        let folded = wait(|| {
            let status = self.status();
            let all = status["position"].as_u64() == Some(self.began_at + self.sent);
            let refused = status["refused"].as_object().into_iter().flatten();
            let none = refused.map(|(_, count)| count.as_u64()).all(|count| count == Some(0));
            if all && none { Ok(()) } else { Err(status.to_string()) }
        });
        folded.unwrap_or_else(|status| panic!("not all commands were folded: {status}"));
    }

    fn status(&mut self) -> Value {
        let request = Request { path: "/v1/status".to_owned(), ..Request::default() };
        let answer = self.client.send(&request).expect("it answers");
        serde_json::from_slice(&answer.body).expect("JSON")
    }
}
