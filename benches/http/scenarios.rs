//! The ways in which the servers are asked.

use std::time::Duration;

use crate::client::{self, Latencies, Server};
use crate::commands::{GROUP, GROUPS_A_SECOND, Sender};
use crate::peers::{Peer, floors, portcullis};
use crate::report::{Part, Updates};
use crate::rounds::interleaved;

/// Connections of the open loop: enough that one is free whenever a question is due.
const OPEN_CONNECTIONS: usize = 8;

/// How long everything is measured.
#[derive(Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) turn: Duration,
    pub(crate) rate: u32,
}

fn servers(peers: &[Peer]) -> Vec<&Server> {
    peers.iter().flat_map(|peer| &peer.servers).collect()
}

fn part(heading: String, peers: &[Peer], plan: Plan, measure: impl Fn(&Server, usize) -> Latencies) -> Part {
    let servers = servers(peers);
    let names: Vec<String> = servers.iter().map(|server| server.name.to_owned()).collect();
    let measured =
        interleaved(&names, plan.rounds, plan.turn, |server, round| measure(servers[server], round));
    Part { heading, measured }
}

/// Connections that each ask again as soon as they are answered.
pub(crate) fn closed(peers: &[Peer], plan: Plan, connections: usize) -> Part {
    if connections == 1 {
        return part("1 connection".to_owned(), peers, plan, |server, round| {
            client::closed_one(server, round, plan.turn)
        });
    }
    part(format!("{connections} connections"), peers, plan, |server, round| {
        client::closed_many(server, round, connections, plan.turn)
    })
}

/// Questions at a fixed rate.
pub(crate) fn open(peers: &[Peer], plan: Plan) -> Part {
    let plan = Plan { turn: plan.turn * 2, ..plan };
    part(format!("{} a second", plan.rate), peers, plan, |server, round| {
        client::open(server, round, OPEN_CONNECTIONS, plan.rate, plan.turn)
    })
}

/// Whether commands come meanwhile.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Meanwhile {
    Idle,
    Commands,
}

/// One connection, with and without commands that the sidecar folds and publishes meanwhile. The hyper floor
/// shows what of the difference comes from sharing the cores, rather than from anything of ours.
pub(crate) fn updates(peers: &[Peer], plan: Plan) -> Updates {
    let plan = Plan { turn: plan.turn * 2, ..plan };
    let all = servers(peers);
    let named = |name| all.iter().find(|server| server.name == name).copied();
    let asked = [portcullis::TCP, portcullis::UNIX, floors::HELLO].map(named).into_iter().flatten();
    let turns: Vec<_> =
        asked.flat_map(|server| [(server, Meanwhile::Idle), (server, Meanwhile::Commands)]).collect();
    let name = |(server, meanwhile): &(&Server, Meanwhile)| match meanwhile {
        Meanwhile::Idle => server.name.to_owned(),
        Meanwhile::Commands => format!("{}, under commands", server.name),
    };
    let names: Vec<String> = turns.iter().map(name).collect();
    let sidecar = peers.iter().find(|peer| peer.servers.iter().any(|server| server.name == portcullis::TCP));
    let sidecar = sidecar.expect("ours is always there");
    let spared = all.iter().flat_map(|server| &server.questions).map(|question| question.address).collect();
    let mut sender = Sender::new(sidecar.folder(), spared);
    let measured = interleaved(&names, plan.rounds, plan.turn, |turn, round| {
        let (server, meanwhile) = turns[turn];
        let measure = || client::closed_one(server, round, plan.turn);
        if meanwhile == Meanwhile::Commands { sender.during(measure) } else { measure() }
    });
    let folded = sender.check_folded();
    let heading = format!("{} commands a second", GROUP * u64::from(GROUPS_A_SECOND));
    Updates { part: Part { heading, measured }, folded, sender }
}
