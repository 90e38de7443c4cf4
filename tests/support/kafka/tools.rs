//! Kafka's own command-line tools, run against a broker. Each is a Java machine of its own, which takes about
//! a second: no test should run one in a loop.

use std::fs;
use std::io::Write;
use std::process::{Output, Stdio};

use super::{Broker, PATIENCE, install};

impl Broker {
    /// Runs a tool, by a name that `examples/kafka/run` knows or by its class, with the rights of the broker.
    pub fn tool(&self, name: &str, args: &[&str], input: &str) -> Output {
        let bootstrap = self.inner_bootstrap();
        self.run(name, &[&["--bootstrap-server", &bootstrap], args].concat(), input)
    }

    /// Runs a tool as a user of a secured broker.
    pub fn tool_as(&self, user: &str, password: &str, name: &str, args: &[&str], input: &str) -> Output {
        let file = tempfile::NamedTempFile::new_in(self.folder()).expect("it is our folder");
        let settings = format!(
            "security.protocol=SASL_PLAINTEXT\n\
             sasl.mechanism=PLAIN\n\
             sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required \
             username=\"{user}\" password=\"{password}\";\n"
        );
        fs::write(file.path(), settings).expect("it is our file");
        let (bootstrap, settings) = (self.bootstrap(), file.path().display().to_string());
        let access = ["--bootstrap-server", &bootstrap, "--command-config", &settings];
        self.run(name, &[&access, args].concat(), input)
    }

    fn run(&self, name: &str, args: &[&str], input: &str) -> Output {
        let mut command = self.java(install::bounded_script(), name);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let mut stdin = child.stdin.take().expect("it is piped");
        // Beside reading: both ends would wait for each other once the pipes are full.
        std::thread::scope(|scope| {
            // A tool may end before it has read all.
            scope.spawn(move || stdin.write_all(input.as_bytes()).ok());
            child.wait_with_output().expect("it is ours")
        })
    }

    /// Makes a topic of one partition.
    pub fn create_topic(&self, name: &str, configs: &[(&str, &str)]) {
        let configs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let configs = configs.iter().flat_map(|config| ["--config", config]);
        let args: Vec<&str> = ["--create", "--topic", name].into_iter().chain(configs).collect();
        succeeded(&self.tool("topics", &args, ""));
    }

    /// Changes settings of a topic.
    pub fn alter_topic(&self, name: &str, configs: &[(&str, &str)]) {
        // Brackets, because a value may have a comma.
        let configs: Vec<String> = configs.iter().map(|(key, value)| format!("{key}=[{value}]")).collect();
        let configs = configs.join(",");
        let topic = ["--alter", "--entity-type", "topics", "--entity-name", name];
        succeeded(&self.tool("configs", &[&topic[..], &["--add-config", &configs]].concat(), ""));
    }

    /// Removes a topic. The broker says so before all of it is gone: one of the same name may have to wait.
    pub fn delete_topic(&self, name: &str) {
        succeeded(&self.tool("topics", &["--delete", "--topic", name], ""));
    }

    /// Writes lines as records without keys.
    pub fn console_produce(&self, topic: &str, lines: &str) {
        let output = self.tool("console-producer", &["--topic", topic], lines);
        succeeded(&output);
        // It ends well whatever became of the records.
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!said.contains(" ERROR "), "{said}");
    }

    /// The first values of a topic as Kafka's own consumer reads them, a line each, committed or not.
    pub fn console_consume(&self, topic: &str, count: usize) -> String {
        let (count, limit) = (count.to_string(), PATIENCE.as_millis().to_string());
        // A partition that is named takes no group, which would have to be formed first.
        let from = ["--topic", topic, "--partition", "0", "--offset", "earliest"];
        let until = ["--max-messages", &count, "--timeout-ms", &limit];
        succeeded(&self.tool("console-consumer", &[&from[..], &until].concat(), ""))
    }

    /// Removes the records of a topic that stand before an offset.
    pub fn delete_records(&self, topic: &str, before: u64) {
        let partition = format!(r#"{{"topic":"{topic}","partition":0,"offset":{before}}}"#);
        let json = format!(r#"{{"version":1,"partitions":[{partition}]}}"#);
        succeeded(&self.tool("delete-records", &["--offset-json-file", "/dev/stdin"], &json));
    }

    /// Adds, removes or lists ACLs of a secured broker.
    pub fn acl(&self, args: &[&str]) -> String {
        succeeded(&self.tool("acls", args, ""))
    }

    /// Lists, describes or aborts transactions.
    pub fn transactions(&self, args: &[&str]) -> String {
        succeeded(&self.tool("transactions", args, ""))
    }
}

/// What a tool printed, if it did what it should.
pub fn succeeded(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "a tool of Kafka failed ({}):\n{out}{err}", output.status);
    out.into_owned()
}
