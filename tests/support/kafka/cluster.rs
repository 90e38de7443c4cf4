//! Three brokers and a controller, so that brokers can fail without the controller.
//!
//! A controller of its own, because one that shared a process with a broker would be lost with it: with two
//! of three gone nobody would be left to say that the third is alone.

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::metadata::MetadataPartition;

use super::{Broker, BrokerOptions, PATIENCE, cluster_id, install, wait_until};

/// The number of the controller; brokers count from 1.
const CONTROLLER: usize = 100;

/// What every node has that is not alone: three copies of everything, two of which are enough.
const COPIES: &str = "\
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
# A follower that hangs is out of sync soon.
replica.lag.time.max.ms=3000
";

/// What a node is in a cluster.
#[derive(Clone)]
pub(super) struct Node {
    id: usize,
    /// The one that votes: `id@host:port`.
    voters: String,
    pub(super) cluster_id: String,
}

impl Node {
    /// What the node is told of its place; `brokers` and `controllers` are the listeners that it would have.
    pub(super) fn text(&self, brokers: &str, controllers: &str) -> String {
        let Self { id, voters, .. } = self;
        let place = format!("node.id={id}\ncontroller.quorum.voters={voters}\n{COPIES}");
        match *id {
            CONTROLLER => format!("{place}process.roles=controller\nlisteners={controllers}\n"),
            _ => format!("{place}process.roles=broker\nlisteners={brokers}\n"),
        }
    }
}

/// A cluster of three brokers.
pub struct Cluster {
    /// Knows which broker leads what, and which are in sync.
    pub controller: Broker,
    /// Keep the records.
    pub brokers: [Broker; 3],
}

impl Cluster {
    /// Starts all nodes, and waits until they answer.
    pub fn start() -> Self {
        install::fetch();
        let java_options = install::shared_classes();
        let stopped = |node| {
            let options = BrokerOptions { node: Some(node), ..BrokerOptions::default() };
            Broker::stopped(options, java_options.clone())
        };
        // Its port is in the place of all of them, its own too.
        let mut node = Node { id: CONTROLLER, voters: String::new(), cluster_id: cluster_id() };
        let mut controller = stopped(node.clone());
        node.voters = format!("{CONTROLLER}@127.0.0.1:{}", controller.ports.controller);
        controller.options.node = Some(node.clone());
        let mut brokers = [1, 2, 3].map(|id| stopped(Node { id, ..node.clone() }));
        // At once: each of them waits for the controller, and takes a while.
        std::thread::scope(|scope| {
            for node in brokers.iter_mut().chain([&mut controller]) {
                scope.spawn(|| {
                    node.format();
                    node.launch();
                });
            }
        });
        Self { controller, brokers }
    }

    /// Where clients connect to: all brokers, so that it does not matter which of them are there.
    pub fn bootstrap(&self) -> String {
        self.brokers.each_ref().map(Broker::bootstrap).join(",")
    }

    /// The place among the brokers of the one that leads a topic, as those that run know it.
    pub fn leader(&self, topic: &str) -> usize {
        self.led_by(topic).expect("the topic has a leader")
    }

    /// The same; none while nobody leads it.
    pub fn led_by(&self, topic: &str) -> Option<usize> {
        let leader = self.partition(topic, |partition| partition.leader());
        usize::try_from(leader - 1).ok()
    }

    /// Waits until every broker has all that the topics hold.
    pub fn wait_in_sync(&self, topics: &[&str]) {
        for topic in topics {
            let in_sync = || self.partition(topic, |partition| partition.isr().len());
            wait_until("all copies are in sync", || in_sync() == self.brokers.len());
        }
    }

    /// Looks at the one partition of a topic.
    fn partition<T>(&self, topic: &str, look: impl Fn(&MetadataPartition) -> T) -> T {
        let consumer: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", self.bootstrap()).create().expect("right settings");
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).expect("a broker answers");
        look(&metadata.topics()[0].partitions()[0])
    }
}
