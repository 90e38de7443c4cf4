//! A real Apache Kafka for tests: one node on loopback, which is its own controller, or a [`Cluster`] of
//! several. It is fetched, and every part of it run, by `examples/kafka/run`, as a user does it.

mod cluster;
mod install;
mod produce;
mod tools;

#[allow(unused_imports, reason = "each test target uses its own part")]
pub use cluster::Cluster;
pub use tools::succeeded;

use cluster::Node;

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long anything may take that has to happen; generous, because a machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The broker's own word that it answers: it is said when the broker is unfenced and its ports are open.
const STARTED: &str = "Kafka Server started";

/// What every broker of a test has.
const PROPERTIES: &str = "\
controller.listener.names=CONTROLLER
inter.broker.listener.name=INNER
auto.create.topics.enable=false

# There is no second broker to keep copies.
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
offsets.topic.num.partitions=1
transaction.state.log.num.partitions=1

# Quick enough for tests. After `kill -9`, a broker can come back only when its session is over. The default
# buffer of the cleaner does not fit into the heap.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=4194304
log.cleaner.backoff.ms=200
log.initial.task.delay.ms=500
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
";

/// What may differ between brokers.
#[derive(Clone, Default)]
pub struct BrokerOptions {
    properties: Vec<(String, String)>,
    users: Vec<(String, String)>,
    advertised: Option<u16>,
    listeners: Vec<(String, String)>,
    scram: Vec<String>,
    /// What it is in a cluster; alone if it is in none.
    node: Option<Node>,
}

impl BrokerOptions {
    /// Sets a property of the broker; it wins over what the harness sets.
    pub fn property(mut self, name: &str, value: &str) -> Self {
        self.properties.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes a user (SASL/PLAIN), and the broker a secured one: its listener takes no one without a password,
    /// and a user may do what an ACL allows. `admin` may do everything.
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.push((name.to_owned(), password.to_owned()));
        self
    }

    /// Tells clients to connect to this port of loopback, where somebody else must listen, and lead them on to
    /// [`Broker::bootstrap`].
    pub fn advertise(mut self, port: u16) -> Self {
        self.advertised = Some(port);
        self
    }

    /// Adds a listener for clients, by its name in capitals and its protocol; see [`Broker::bootstrap_of`].
    pub fn listener(mut self, name: &str, protocol: &str) -> Self {
        self.listeners.push((name.to_owned(), protocol.to_owned()));
        self
    }

    /// Makes a user of a mechanism like `SCRAM-SHA-512`, before the broker starts for the first time.
    pub fn scram_user(mut self, mechanism: &str, name: &str, password: &str) -> Self {
        self.scram.push(format!("{mechanism}=[name={name},password={password}]"));
        self
    }

    /// Starts a broker of this kind, and waits until it answers.
    pub fn start(self) -> Broker {
        install::fetch();
        Broker::start_with(self, install::shared_classes())
    }

    fn text(&self, ports: &Ports, data: &Path) -> String {
        let Ports { clients, inner, controller, others } = ports;
        let sasl = if self.users.is_empty() { "PLAINTEXT" } else { "SASL_PLAINTEXT" };
        let mut protocols = format!("CLIENTS:{sasl},INNER:PLAINTEXT,CONTROLLER:PLAINTEXT");
        let mut brokers = format!("CLIENTS://127.0.0.1:{clients},INNER://127.0.0.1:{inner}");
        for ((name, protocol), port) in self.listeners.iter().zip(others) {
            protocols += &format!(",{name}:{protocol}");
            brokers += &format!(",{name}://127.0.0.1:{port}");
        }
        let controllers = format!("CONTROLLER://127.0.0.1:{controller}");
        let place = match &self.node {
            Some(node) => node.text(&brokers, &controllers),
            None => format!(
                "process.roles=broker,controller\nnode.id=1\nlisteners={brokers},{controllers}\n\
                 controller.quorum.bootstrap.servers=127.0.0.1:{controller}\n"
            ),
        };
        let data = data.display();
        let mut text =
            format!("{PROPERTIES}\nlog.dirs={data}\nlistener.security.protocol.map={protocols}\n{place}");
        if !self.users.is_empty() {
            let user = |(name, password): &(String, String)| format!(" user_{name}=\"{password}\"");
            let users: String = self.users.iter().map(user).collect();
            // Whoever comes to the inner listener or to the controller has no name: the broker itself, and
            // the harness's tools.
            text += &format!(
                "sasl.enabled.mechanisms=PLAIN\n\
                 listener.name.clients.plain.sasl.jaas.config=\
                 org.apache.kafka.common.security.plain.PlainLoginModule required{users};\n\
                 authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                 super.users=User:ANONYMOUS;User:admin\n\
                 allow.everyone.if.no.acl.found=false\n"
            );
        }
        if let Some(port) = self.advertised {
            text += &format!("advertised.listeners=CLIENTS://127.0.0.1:{port},INNER://127.0.0.1:{inner}\n");
        }
        self.properties.iter().for_each(|(name, value)| text += &format!("{name}={value}\n"));
        text
    }
}

/// Ports that nobody listens on.
#[derive(Clone)]
struct Ports {
    clients: u16,
    inner: u16,
    controller: u16,
    /// Of the listeners that were added, in their order.
    others: Vec<u16>,
}

impl Ports {
    fn free(others: usize) -> Self {
        let others = (0..others).map(|_| free_port()).collect();
        Self { clients: free_port(), inner: free_port(), controller: free_port(), others }
    }
}

/// A free port below those that the system gives to outgoing connections: while a broker is down, a client
/// that tries to reach it could otherwise be given its port, and be connected to itself.
fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| fastrand::u16(10_000..32_000)).find(free).expect("it never ends")
}

/// A name for a new cluster: 16 bytes in base64, the last of which says nothing.
fn cluster_id() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(21).chain(['A']).collect()
}

/// A broker; when it is dropped, or the process ends in whatever way, it is killed and its folder removed.
pub struct Broker {
    options: BrokerOptions,
    ports: Ports,
    /// Options for the Java machine.
    java_options: String,
    /// Ends the broker when we are gone; the leader of the process group that all of Java is in.
    watch: Child,
    java: Option<Child>,
    folder: TempDir,
}

impl Broker {
    /// Starts a broker without users, and waits until it answers.
    pub fn start() -> Self {
        BrokerOptions::default().start()
    }

    fn start_with(options: BrokerOptions, java_options: String) -> Self {
        let mut broker = Self::stopped(options, java_options);
        broker.format();
        broker.launch();
        broker
    }

    /// A broker with a folder and ports, and nothing in it.
    fn stopped(options: BrokerOptions, java_options: String) -> Self {
        let folder = TempDir::with_prefix("portcullis-kafka-").expect("a folder");
        let watch = watch(folder.path());
        let ports = Ports::free(options.listeners.len());
        Self { options, ports, java_options, watch, java: None, folder }
    }

    /// Where clients connect to: `host:port`.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.clients)
    }

    /// The same on a listener that was added.
    pub fn bootstrap_of(&self, listener: &str) -> String {
        let mut listeners = self.options.listeners.iter().zip(&self.ports.others);
        let port = listeners.find_map(|((name, _), port)| (name == listener).then_some(port));
        format!("127.0.0.1:{}", port.expect("a listener that was added"))
    }

    /// Where everybody may do everything, in a secured broker too, and whatever is advertised to clients.
    pub fn inner_bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.inner)
    }

    /// Everything that the broker has in files.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the broker said.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    /// Ends it as an operator does (SIGTERM), and waits for that.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGTERM);
        let mut java = self.java.take().expect("it runs");
        wait_until("the broker ends", || java.try_wait().expect("it is ours").is_some());
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        self.java.take().expect("it runs").wait().expect("it is ours");
    }

    /// Lets it stand still: connections stay open, and nothing is answered.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same ports and data, after `kill -9` if it runs.
    pub fn restart(&mut self) {
        if self.java.is_some() {
            self.kill();
        }
        self.launch();
    }

    /// Another, empty cluster under the same address.
    pub fn wipe_and_restart(&mut self) {
        if self.java.is_some() {
            self.kill();
        }
        fs::remove_dir_all(self.folder().join("data")).expect("it is there");
        self.format();
        self.launch();
    }

    fn signal(&self, signal: Signal) {
        kill(pid(self.java.as_ref().expect("it runs")), signal).expect("it is ours");
    }

    fn format(&self) {
        let file = self.folder().join("server.properties");
        let text = self.options.text(&self.ports, &self.folder().join("data"));
        fs::write(&file, text).expect("it is our folder");
        let mut command = self.java(install::bounded_script(), "kafka.tools.StorageTool");
        command.arg("format").arg("--config").arg(file);
        match &self.options.node {
            Some(node) => command.args(["--cluster-id", &node.cluster_id]),
            None => command.args(["--standalone", "--cluster-id", &cluster_id()]),
        };
        command.args(self.options.scram.iter().flat_map(|user| ["--add-scram", user]));
        succeeded(&command.output().expect("it runs"));
    }

    fn launch(&mut self) {
        let said = self.log().len();
        let log = File::options().create(true).append(true).open(self.folder().join("log"));
        let log = log.expect("it is our folder");
        let mut command = self.java(install::script(), "kafka.Kafka");
        command.arg(self.folder().join("server.properties"));
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut java = command.spawn().expect("it starts");
        let began = Instant::now();
        // A file that grows may end in the middle of a line, but not in the middle of these words for long.
        while !self.log().get(said..).is_some_and(|since| since.contains(STARTED)) {
            let ended = java.try_wait().expect("it is ours").is_some();
            if ended || began.elapsed() > PATIENCE {
                let _gone = java.kill();
                let lines: Vec<_> = self.log().lines().map(str::to_owned).collect();
                let tail = lines[lines.len().saturating_sub(60)..].join("\n");
                panic!("the broker did not start (ended by itself: {ended}):\n{tail}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.java = Some(java);
    }

    /// Completes a command of the script's: a tool or class of Kafka, in the group that ends with us.
    fn java(&self, mut command: Command, class: &str) -> Command {
        command.arg(class).env("KAFKA_OPTS", &self.java_options).stdin(Stdio::null());
        command.process_group(pid(&self.watch).as_raw());
        command
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _gone = killpg(pid(&self.watch), Signal::SIGKILL);
        let _reaped = self.watch.wait();
        if let Some(java) = &mut self.java {
            let _reaped = java.wait();
        }
    }
}

/// Waits for the end of its input, which comes when our process ends, however that happens. Then it kills all
/// of its process group and, from outside of it, removes the folder. (A group that loses its parent while a
/// member stands still is sent SIGHUP by the system.)
fn watch(folder: &Path) -> Child {
    let script = r#"trap '' HUP; read -r; set -m; (sleep 1; rm -rf "$0") & kill -9 0"#;
    let mut command = Command::new("bash");
    command.args(["-c", script]).arg(folder).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("bash starts")
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("ids of processes are small"))
}

/// The broker that all tests of one binary share; each takes topics of its own.
pub fn shared_broker() -> &'static Broker {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(Broker::start)
}

/// Waits until something holds that has to.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "not after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
