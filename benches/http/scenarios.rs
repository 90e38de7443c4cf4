//! The ways in which the servers are asked.

use std::time::Duration;

use crate::client::{self, Latencies, Server};
use crate::commands::{GROUP, GROUPS_A_SECOND, Sender};
use crate::goals::{UPDATED, under_commands};
use crate::peers::{Peer, floors, portcullis};
use crate::report::{Part, Updates, grouped};
use crate::rounds::{Measured, interleaved};

/// Connections of the open loop: enough that one is free whenever a question is due.
const OPEN_CONNECTIONS: usize = 8;
/// How long it is tried whether a server holds the rate of the open loop.
const TRIAL: Duration = Duration::from_millis(300);

/// How long everything is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    /// Questions a second of the open loop.
    pub(crate) rate: u32,
}

pub(crate) fn servers(peers: &[Peer]) -> Vec<&Server> {
    peers.iter().flat_map(|peer| &peer.servers).collect()
}

fn measure(plan: Plan, servers: &[&Server], ask: impl Fn(&Server, usize) -> Latencies) -> Vec<Measured> {
    let names: Vec<String> = servers.iter().map(|server| server.name.to_owned()).collect();
    interleaved(&names, plan.rounds, plan.turn, |server, round| ask(servers[server], round))
}

/// One connection that asks again as soon as it is answered.
pub(crate) fn closed_one(plan: Plan, servers: &[&Server]) -> Part {
    let about = "One connection that asks again as soon as it is answered:".to_owned();
    let measured = measure(plan, servers, |server, round| client::closed_one(server, round, plan.turn));
    Part { name: "1 connection".to_owned(), title: "One connection".to_owned(), about, measured }
}

/// Connections that each ask again as soon as they are answered.
pub(crate) fn closed_many(plan: Plan, servers: &[&Server]) -> Part {
    let about = "Eight connections that each ask again as soon as they are answered, so that every answer \
                 waits behind up to seven others:";
    let ask = |server: &Server, round| client::closed_many(server, round, 8, plan.turn);
    let measured = measure(plan, servers, ask);
    Part {
        name: "8 connections".to_owned(),
        title: "Eight connections".to_owned(),
        about: about.to_owned(),
        measured,
    }
}

/// Questions at a fixed rate, of the servers that hold it; and why the others are not asked.
pub(crate) fn open(plan: Plan, servers: &[&Server]) -> (Part, Vec<String>) {
    let plan = Plan { turn: plan.turn * 2, ..plan };
    let (mut able, mut unable) = (Vec::new(), Vec::new());
    for server in servers {
        let answers = client::closed_many(server, 0, OPEN_CONNECTIONS, TRIAL).len();
        let rate = answers as f64 / TRIAL.as_secs_f64();
        if rate >= f64::from(plan.rate) {
            able.push(*server);
        } else {
            unable.push(format!("{} answers only {rate:.0} times a second.", server.name));
        }
    }
    let rate = grouped(plan.rate.into());
    let about = format!(
        "{rate} questions a second, on whichever of {OPEN_CONNECTIONS} connections is free, sent when they \
         are due whether those before are answered or not; the latency counts from when a question was due, and \
         the client does not sleep:"
    );
    let ask = |server: &Server, round| client::open(server, round, OPEN_CONNECTIONS, plan.rate, plan.turn);
    let measured = measure(plan, &able, ask);
    let (name, title) = (format!("{rate} a second"), format!("{rate} questions a second"));
    (Part { name, title, about, measured }, unable)
}

/// Whether commands come meanwhile.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Meanwhile {
    Nothing,
    Commands,
}

/// One connection, with and without commands that the sidecar folds and publishes meanwhile.
pub(crate) fn updates(plan: Plan, peers: &[Peer]) -> Updates {
    let plan = Plan { turn: plan.turn * 2, ..plan };
    let all = servers(peers);
    let asked = all.iter().filter(|server| UPDATED.contains(&server.name));
    let turns: Vec<(&Server, Meanwhile)> =
        asked.flat_map(|server| [(*server, Meanwhile::Nothing), (*server, Meanwhile::Commands)]).collect();
    let mut sender = sender(peers);
    let measured = interleaved(&names(&turns), plan.rounds, plan.turn, |turn, round| {
        let (server, meanwhile) = turns[turn];
        let measure = || client::closed_one(server, round, plan.turn);
        if meanwhile == Meanwhile::Commands { sender.during(measure) } else { measure() }
    });
    sender.check_folded();
    let rate = grouped(GROUP * u64::from(GROUPS_A_SECOND));
    let about = format!(
        "One connection, idle, and while the sidecar takes, folds and publishes {rate} commands a second, \
         in {GROUPS_A_SECOND} groups of {GROUP}, each durable before it is answered. The whole sidecar is on the \
         core of the servers, and who sends the commands on that of the client; what {} loses, which has \
         nothing to do with the commands, is what it costs to share these cores:",
        floors::HELLO
    );
    let (name, title) =
        (format!("{rate} commands a second"), format!("Idle, and under {rate} commands a second"));
    Updates { part: Part { name, title, about, measured }, sender }
}

fn sender(peers: &[Peer]) -> Sender {
    let ours = |peer: &&Peer| peer.servers.iter().any(|server| server.name == portcullis::TCP);
    let sidecar = peers.iter().find(ours).expect("it was started, else there is nothing to measure");
    let asked = servers(peers).into_iter().flat_map(|server| &server.questions);
    Sender::new(sidecar.folder(), asked.map(|question| question.address).collect())
}

fn names(turns: &[(&Server, Meanwhile)]) -> Vec<String> {
    let name = |(server, meanwhile): &(&Server, Meanwhile)| match meanwhile {
        Meanwhile::Nothing => server.name.to_owned(),
        Meanwhile::Commands => under_commands(server.name),
    };
    turns.iter().map(name).collect()
}
