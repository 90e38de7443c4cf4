//! The configuration: each module's own settings, composed, and where the file and the data are.
//!
//! ```text
//!   file   --config, else $CONFIGURATION_DIRECTORY/portcullis.toml, else /etc/portcullis/portcullis.toml,
//!          else all defaults
//!   data   --data, else $STATE_DIRECTORY, else $XDG_STATE_HOME/portcullis,
//!          else $HOME/.local/state/portcullis
//! ```
//!
//! A file is taken as a whole: the first one that is there is the only one, and every key that it does not
//! set has its default. Flags of the command line come on top of it. No setting comes from the environment,
//! only these directories.
//!
//! A mistake in the file is reported with the file, the line and the key, because "invalid type" alone
//! sends people to the documentation. What the types can't say is checked by [`Config::check`], which the
//! command line calls again after its own flags have overridden the file.
//!
//! The sections themselves stand with what they set: [`http::settings`](crate::http::settings) and
//! [`log::settings`](crate::log::settings) have most.

mod projector;

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

pub use self::projector::{
    PROJECTOR_PORT, ProjectorSettings, TAKEOVER_AFTER_MAX, TAKEOVER_AFTER_MIN, TakeoverAfter,
    TakeoverAfterError,
};
use crate::http::settings::{AdminSettings, HttpSettings, Listen, LookupSettings};
use crate::log::settings::{LogSettings, Wrong};

/// The most threads that answer lookups; a number above it is taken for a typing mistake.
pub const WORKERS_MAX: usize = 256;
/// The name of the configuration file in its directory.
const FILE_NAME: &str = "portcullis.toml";
/// The directory of the configuration where systemd names none.
const SYSTEM_DIRECTORY: &str = "/etc/portcullis";

/// The environment variables, as the process or a test has them. They are read once, at the start, and handed
/// on, so that the rest of our code looks at these only.
///
/// ```
/// use portcullis::config::Environment;
///
/// let environment: Environment =
///     [("STATE_DIRECTORY".into(), "/var/lib/portcullis:/srv/more".into()), ("NO_COLOR".into(), "".into())]
///         .into_iter()
///         .collect();
/// assert_eq!(environment.directory("STATE_DIRECTORY"), Some("/var/lib/portcullis".into()));
/// assert_eq!(environment.text("NO_COLOR"), None, "empty is as good as absent");
/// ```
#[derive(Clone, Debug, Default)]
pub struct Environment(HashMap<OsString, OsString>);

impl Environment {
    /// The variables of this process.
    pub fn of_process() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable that is set, not empty and UTF-8.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(&OsString::from(name))?.to_str().filter(|text| !text.is_empty())
    }

    /// The directory that systemd hands over in a variable: the first one of a list with colons.
    pub fn directory(&self, name: &str) -> Option<PathBuf> {
        self.text(name)?.split(':').find(|path| !path.is_empty()).map(PathBuf::from)
    }
}

impl FromIterator<(OsString, OsString)> for Environment {
    fn from_iter<I: IntoIterator<Item = (OsString, OsString)>>(variables: I) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// All that the service is told.
///
/// ```
/// use std::path::Path;
///
/// use portcullis::config::Config;
///
/// let file = Path::new("portcullis.toml");
/// let text = r#"
///     [lookup]
///     listen = ["127.0.0.1:8181", "unix:/run/portcullis/lookup.sock"]
///     workers = 2
/// "#;
/// let config = Config::parse(text, file)?;
/// assert_eq!((config.lookup.listen.len(), config.lookup.workers), (2, 2));
/// assert_eq!(config.admin, Config::default().admin, "what is not set has its default");
///
/// let error = Config::parse("[lookup]\nworker = 2\n", file).expect_err("a typing mistake");
/// assert_eq!(error.to_string(), "portcullis.toml:2: unknown key `worker`; did you mean `workers`?");
/// # Ok::<(), portcullis::config::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The commands log.
    pub log: LogSettings,
    /// The listener that request handlers ask.
    pub lookup: LookupSettings,
    /// The listener that operators use.
    pub admin: AdminSettings,
    /// What all listeners share.
    pub http: HttpSettings,
    /// The projector, with a listener of its own.
    pub projector: ProjectorSettings,
}

impl Config {
    /// Reads the configuration from `file`, else from where systemd says, else from `/etc/portcullis`;
    /// the defaults if there is no file at all.
    ///
    /// A file that is there and can't be read is an error, not a reason to go on to the next: its settings
    /// were meant to hold.
    ///
    /// # Errors
    /// When the file that was named is not there, or any of them can't be read or is wrong.
    pub fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, ConfigError> {
        if let Some(file) = file {
            let text = fs::read_to_string(file).map_err(|error| ConfigError::unreadable(file, &error))?;
            return Self::parse(&text, file);
        }
        let directory = environment.directory("CONFIGURATION_DIRECTORY");
        for directory in directory.into_iter().chain([SYSTEM_DIRECTORY.into()]) {
            let file = directory.join(FILE_NAME);
            match fs::read_to_string(&file) {
                Ok(text) => return Self::parse(&text, &file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(ConfigError::unreadable(&file, &error)),
            }
        }
        Ok(Self::default())
    }

    /// Reads the configuration from the text of `file`, whose name is used in errors only.
    ///
    /// # Errors
    /// When a key is unknown, or a value has a wrong type or makes no sense. The error is one line, which
    /// begins with file and line and names the key.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigError> {
        let at = |place: usize, message: String| {
            let before = text.get(..place).unwrap_or(text);
            ConfigError(format!("{}:{}: {message}", file.display(), before.matches('\n').count() + 1))
        };
        let config: Self = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            at(span.start, explain(text, &span, error.message()))
        })?;
        config
            .check()
            .map_err(|fault| at(key_place(text, &fault.key).unwrap_or_default(), fault.to_string()))?;
        Ok(config)
    }

    /// Checks what the types alone can't. It looks up a socket group, and touches nothing else.
    ///
    /// # Errors
    /// The first key whose value makes no sense.
    ///
    /// ```
    /// use portcullis::config::Config;
    ///
    /// let mut config = Config::default();
    /// config.admin.listen = vec!["0.0.0.0:8182".parse()?];
    /// let fault = config.check().expect_err("open to others");
    /// assert!(fault.to_string().starts_with("admin.listen: other hosts reach 0.0.0.0:8182"));
    /// config.admin.allow_remote = true;
    /// assert_eq!(config.check(), Ok(()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn check(&self) -> Result<(), Fault> {
        check_log(&self.log).map_err(|Wrong { key, reason }| Fault { key: format!("log.{key}"), reason })?;
        let workers = self.lookup.workers;
        if !(1..=WORKERS_MAX).contains(&workers) {
            let reason = format!("{workers} is not a number of threads from 1 to {WORKERS_MAX}");
            return Err(Fault::new("lookup.workers", reason));
        }
        check_listen("lookup.listen", &self.lookup.listen, &[])?;
        check_listen("admin.listen", &self.admin.listen, &self.lookup.listen)?;
        // Of another process, which may run on another host: it may have the same places.
        check_listen("projector.listen", &self.projector.listen, &[])?;
        self.check_remote()?;
        self.admin.group().map_err(|reason| Fault::new("admin.socket_group", reason))?;
        match self.http.wrong_host() {
            Some(host) => {
                let reason = format!(
                    "`{host}` is not the name or address of a host, without scheme, brackets and port"
                );
                Err(Fault::new("http.hosts", reason))
            }
            None => Ok(()),
        }
    }

    /// Whoever reaches the admin listener reads everything, so that other hosts must be let in on purpose.
    fn check_remote(&self) -> Result<(), Fault> {
        match self.admin.forbidden_remote() {
            Some(listen) => {
                let reason =
                    format!("other hosts reach {listen}; if that is wanted, set allow_remote = true");
                Err(Fault::new("admin.listen", reason))
            }
            None => Ok(()),
        }
    }
}

/// Refuses a log that can't be reached as it is described. Kafka is not asked for that.
fn check_log(log: &LogSettings) -> Result<(), Wrong> {
    match log.kafka()? {
        None => Ok(()),
        #[cfg(feature = "kafka")]
        Some(settings) => crate::log::kafka::KafkaLog::new(settings).map(drop),
        #[cfg(not(feature = "kafka"))]
        Some(_) => Err(Wrong {
            key: "kind".to_owned(),
            reason: "this program was built without Kafka; build it with its default features".to_owned(),
        }),
    }
}

/// Refuses an empty list, and a place that stands twice in it or in `others`. Port 0 may: each time it is
/// another port.
fn check_listen(key: &str, listen: &[Listen], others: &[Listen]) -> Result<(), Fault> {
    if listen.is_empty() {
        return Err(Fault::new(key, "the list is empty; name at least one place".to_owned()));
    }
    let any_port = |place: &Listen| matches!(place, Listen::Tcp(address) if address.port() == 0);
    let mut seen: Vec<&Listen> = others.iter().collect();
    for place in listen {
        if seen.contains(&place) && !any_port(place) {
            return Err(Fault::new(key, format!("{place} stands twice")));
        }
        seen.push(place);
    }
    Ok(())
}

/// Says in our own words what the TOML reader found wrong in the place `span`.
fn explain(text: &str, span: &Range<usize>, message: &str) -> String {
    let message = message.trim_end().replace('\n', "; ");
    if message.starts_with("unknown field") {
        // Behind the last "expected" all known keys stand between backticks.
        let known = message.rsplit_once(", expected ").map_or("", |(_, known)| known);
        let known: Vec<&str> = known.split('`').skip(1).step_by(2).collect();
        return unknown_key(text.get(span.clone()).unwrap_or_default(), &known);
    }
    match key_at(text, span.start) {
        Some(key) => format!("{key}: {message}"),
        None => message,
    }
}

/// Names the key that was probably meant, else all that there are.
fn unknown_key(key: &str, known: &[&str]) -> String {
    let key = key.trim_matches(['"', '\'']);
    let near = known.iter().map(|name| (strsim::damerau_levenshtein(key, name), name)).min();
    match near {
        // More than half of it wrong is no typing mistake.
        Some((distance, name)) if distance * 2 <= name.len() => {
            format!("unknown key `{key}`; did you mean `{name}`?")
        }
        _ => format!("unknown key `{key}`; known here: {}", known.join(", ")),
    }
}

/// The key whose value stands in this place of the text, with its section.
fn key_at(text: &str, place: usize) -> Option<String> {
    let (document, _) = DeTable::parse_recoverable(text);
    let found = keys(document.get_ref()).into_iter().find(|key| key.span.contains(&place))?;
    Some(found.path)
}

/// Where a key stands in the text.
fn key_place(text: &str, path: &str) -> Option<usize> {
    let (document, _) = DeTable::parse_recoverable(text);
    keys(document.get_ref()).into_iter().find(|key| key.path == path).map(|key| key.span.start)
}

/// A key with its section, and where it and its value stand.
struct Key {
    path: String,
    span: Range<usize>,
}

/// Every key of a document that is no section, however its sections are written.
fn keys(table: &DeTable<'_>) -> Vec<Key> {
    let below = |(name, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| match value.get_ref() {
        DeValue::Table(inner) => {
            let inside = |key: Key| Key { path: format!("{}.{}", name.get_ref(), key.path), ..key };
            keys(inner).into_iter().map(inside).collect()
        }
        _ => vec![Key { path: name.get_ref().to_string(), span: name.span().start..value.span().end }],
    };
    table.iter().flat_map(below).collect()
}

/// The data directory: `flag`, else where systemd says, else in the user's home. It need not be there yet.
///
/// A relative `XDG_STATE_HOME` or `HOME` is passed over, as the XDG specification wants it: the data must not
/// depend on where the program was started.
///
/// # Errors
/// When none of them is known.
pub fn data_directory(flag: Option<&Path>, environment: &Environment) -> Result<PathBuf, ConfigError> {
    let absolute = |name| environment.text(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || {
        let base = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")));
        base.map(|base| base.join("portcullis"))
    };
    flag.map(Path::to_path_buf).or_else(|| environment.directory("STATE_DIRECTORY")).or_else(home).ok_or_else(
        || ConfigError("no data directory is known: name one with --data, or set HOME".to_owned()),
    )
}

/// The configuration can't be used; one line that names the place and the reason, for people.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    fn unreadable(file: &Path, error: &io::Error) -> Self {
        Self(format!("{}: cannot be read: {error}", file.display()))
    }
}

/// A key whose value makes no sense: `lookup.workers: 0 is not …`. Whoever knows the file adds the place.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{key}: {reason}")]
pub struct Fault {
    key: String,
    reason: String,
}

impl Fault {
    fn new(key: &str, reason: String) -> Self {
        Self { key: key.to_owned(), reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(feature = "kafka")]
    use crate::log::settings::ClientValue;
    use crate::record::Offset;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, Path::new("p.toml")).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_said_is_the_defaults() {
        assert_eq!(parse(""), Ok(Config::default()));
        assert_eq!(parse("[log]\n[lookup]\n[admin]\n[http]\n[projector]\n"), Ok(Config::default()));
    }

    #[test]
    fn every_section_is_read() {
        let text = r#"
            [log]
            kind = "embedded"
            skip_offsets = [7]
            [lookup]
            listen = ["127.0.0.1:0", "127.0.0.1:0", "unix:/tmp/l.sock"]
            workers = 2
            spin = true
            [admin]
            listen = ["0.0.0.0:8182"]
            allow_remote = true
            socket_mode = "0660"
            [http]
            hosts = ["blacklist.example"]
            [projector]
            listen = ["0.0.0.0:8183", "unix:/tmp/p.sock"]
            takeover_after = "30s"
        "#;
        let config = parse(text).expect("a configuration");
        assert_eq!(config.log.skip_offsets, [Offset::new(7)]);
        assert_eq!((config.lookup.listen.len(), config.lookup.workers, config.lookup.spin), (3, 2, true));
        assert_eq!(config.admin.socket_mode.bits(), 0o660);
        assert_eq!(config.http.hosts, ["blacklist.example"]);
        let ProjectorSettings { listen, takeover_after } = config.projector;
        assert_eq!((listen.len(), takeover_after.duration().as_secs()), (2, 30));
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_key() {
        let cases = [
            ("[lookup]\n\nworker = 1\n", "p.toml:3: unknown key `worker`; did you mean `workers`?"),
            ("[lokup]\nworkers = 1\n", "p.toml:1: unknown key `lokup`; did you mean `lookup`?"),
            ("lookup = { lisen = [] }", "p.toml:1: unknown key `lisen`; did you mean `listen`?"),
            (
                "\n\"od`d\" = 1",
                "p.toml:2: unknown key `od`d`; known here: log, lookup, admin, http, projector",
            ),
            (
                "[log]\nbrokers = 1\n",
                "p.toml:2: unknown key `brokers`; known here: kind, bootstrap_servers, commands_topic, table_topic, client, \
                 allow_finite_retention, skip_offsets",
            ),
            ("[http]\nabc = 1\n", "p.toml:2: unknown key `abc`; known here: hosts"),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(text).expect_err(text), expected);
        }
    }

    #[test]
    fn a_wrong_value_names_its_line_and_key() {
        let cases = [
            ("[lookup]\nworkers = \"two\"", "p.toml:2: lookup.workers: invalid type: string \"two\""),
            ("[lookup]\nworkers = -1", "p.toml:2: lookup.workers: invalid value"),
            ("[lookup]\nworkers = 0", "p.toml:2: lookup.workers: 0 is not a number of threads from 1 to 256"),
            ("[lookup]\nlisten = []", "p.toml:2: lookup.listen: the list is empty"),
            (
                "[lookup]\nlisten = [\n  \"127.0.0.1:1\",\n  \"8181\",\n]",
                "p.toml:2: lookup.listen: `8181` is no place",
            ),
            ("[admin]\n\nlisten = []", "p.toml:3: admin.listen: the list is empty"),
            ("[admin]\nlisten = [\"[::]:1\"]", "p.toml:2: admin.listen: other hosts reach [::]:1"),
            ("[admin]\nlisten = [\"127.0.0.1:8181\"]", "p.toml:2: admin.listen: 127.0.0.1:8181 stands twice"),
            ("[admin]\nsocket_mode = \"9\"", "p.toml:2: admin.socket_mode: `9` is no mode"),
            ("[admin]\nallow_remote = 1", "p.toml:2: admin.allow_remote: invalid type"),
            (
                "[log]\nkind = \"kafak\"",
                "p.toml:2: log.kind: unknown variant `kafak`, expected `embedded` or `kafka`",
            ),
            ("[log]\nskip_offsets = [1,\n -2]", "p.toml:3: log.skip_offsets: invalid value"),
            ("[http]\nhosts = [\"a:80\"]", "p.toml:2: http.hosts: `a:80` is not the name"),
            ("[http]\nhosts = [\"[::1]\"]", "p.toml:2: http.hosts: `[::1]` is not the name"),
            ("[http]\nhosts = [\"a]b\"]", "p.toml:2: http.hosts: `a]b` is not the name"),
            (
                "[admin]\nsocket_group = \"none-such\"",
                "p.toml:2: admin.socket_group: there is no group `none-such`",
            ),
            ("[http]\nhosts = [\"http://a\"]", "p.toml:2: http.hosts: `http://a` is not the name"),
            ("[http]\nhosts = [\"\"]", "p.toml:2: http.hosts: `` is not the name"),
            ("[projector]\nlisten = []", "p.toml:2: projector.listen: the list is empty"),
            (
                "[projector]\ntakeover_after = \"5s\"",
                "p.toml:2: projector.takeover_after: `5s` is no duration from 10s to 3600s",
            ),
            ("[projector]\ntakeover_after = 15", "p.toml:2: projector.takeover_after: invalid type"),
            ("http = 1", "p.toml:1: http: invalid type"),
            ("[lookup]\nworkers = 1\nworkers = 2", "p.toml:3: "),
            ("[lookup\n", "p.toml:1: "),
            ("[lookup]\nworkers =\n", "p.toml:2: "),
        ];
        for (text, expected) in cases {
            let error = parse(text).expect_err(text);
            assert!(error.starts_with(expected) && !error.contains('\n'), "{text}\n{error}\n{expected}");
        }
    }

    const KAFKA: &str =
        "[log]\nkind = \"kafka\"\nbootstrap_servers = \"localhost:9092\"\ncommands_topic = \"c\"\n";

    #[test]
    fn kafka_is_described_completely_and_with_nothing_that_is_ours_to_set() {
        let cases = [
            ("[log]\nkind = \"kafka\"", "p.toml:1: log.bootstrap_servers: is needed with kind = \"kafka\""),
            (
                "[log]\nkind = \"kafka\"\nbootstrap_servers = \"a:1\"",
                "p.toml:1: log.commands_topic: is needed with kind = \"kafka\"",
            ),
            (
                "[log]\n\ncommands_topic = \"c\"",
                "p.toml:3: log.commands_topic: means something with kind = \"kafka\"",
            ),
            (
                "[log.client]\n\"client.id\" = \"a\"",
                "p.toml:1: log.client: means something with kind = \"kafka\"",
            ),
        ];
        let below = [
            ("table_topic = \"c\"", "p.toml:5: log.table_topic: is the commands_topic"),
            ("table_topic = \"a b\"", "p.toml:5: log.table_topic: `a b` is no name of a topic"),
            ("table_topic = \"..\"", "p.toml:5: log.table_topic: `..` is no name of a topic"),
            (
                "table_topic = \"t\"\nskip_offsets = [7]",
                "p.toml:6: log.skip_offsets: is for logs without a table",
            ),
            (
                "[log.client]\n\"topic.auto.offset.reset\" = \"latest\"",
                "p.toml:6: log.client.topic.auto.offset.reset: is called `auto.offset.reset`",
            ),
            (
                "[log.client]\n\"isolation.level\" = \"read_uncommitted\"",
                "p.toml:6: log.client.isolation.level: is not to be set here: commands of transactions",
            ),
            ("[log.client]\n\"client.id\" = 1.5", "p.toml:6: log.client.client.id: write it in quotes"),
        ];
        let below = below.map(|(text, expected)| (format!("{KAFKA}{text}"), expected));
        let cases = cases.map(|(text, expected)| (text.to_owned(), expected)).into_iter().chain(below);
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text);
            assert!(error.starts_with(expected) && !error.contains('\n'), "{text}\n{error}\n{expected}");
        }
    }

    #[cfg(feature = "kafka")]
    #[test]
    fn librdkafka_judges_its_settings_before_anything_runs() {
        let with = |client: &str| parse(&format!("{KAFKA}[log.client]\n{client}"));
        let config = with("\"socket.timeout.ms\" = 7000\n\"socket.keepalive.enable\" = true").expect("right");
        let kafka = config.log.kafka().expect("right").expect("Kafka");
        assert_eq!(kafka.client.get("socket.timeout.ms"), Some(&ClientValue("7000".to_owned())));
        assert!(!format!("{config:?}").contains("7000"), "a value may be a password");
        let cases = [
            ("\"max.in.flight\" = 6", "p.toml:1: log.client: `max.in.flight` must be set <= 5"),
            (
                "\"socket.timeout\" = 1",
                "p.toml:6: log.client.socket.timeout: librdkafka has no setting `socket.timeout`",
            ),
            ("\"socket.timeout.ms\" = \"x\"", "p.toml:6: log.client.socket.timeout.ms: Invalid value"),
            (
                "\"security.protocol\" = \"tls\"",
                "p.toml:6: log.client.security.protocol: Invalid value \"tls\"",
            ),
            ("\"ssl.ca.location\" = \"/nowhere\"\n\"security.protocol\" = \"ssl\"", "p.toml:1: log.client: "),
        ];
        for (text, expected) in cases {
            let error = with(text).expect_err(text);
            assert!(error.starts_with(expected) && !error.contains('\n'), "{text}\n{error}\n{expected}");
        }
    }

    #[cfg(not(feature = "kafka"))]
    #[test]
    fn a_build_without_kafka_says_so() {
        let error = parse(KAFKA).expect_err("no Kafka");
        assert!(error.starts_with("p.toml:2: log.kind: this program was built without Kafka"), "{error}");
    }

    #[test]
    fn the_file_is_searched_for_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("UTF-8").to_owned();
        let named = folder.path().join("named.toml");
        fs::write(&named, "[lookup]\nworkers = 3").expect("written");
        let systemd = environment(&[("CONFIGURATION_DIRECTORY", &format!("{path}:/nowhere"))]);
        let workers = |file, environment| Config::load(file, environment).map(|config| config.lookup.workers);

        assert_eq!(workers(Some(&named), &systemd), Ok(3));
        assert_eq!(workers(None, &systemd), Ok(1), "no file in either place");
        fs::write(folder.path().join(FILE_NAME), "[lookup]\nworkers = 2").expect("written");
        assert_eq!(workers(None, &systemd), Ok(2));
        assert_eq!(workers(Some(&named), &systemd), Ok(3));
        let missing = workers(Some(Path::new("/nowhere/p.toml")), &systemd).expect_err("no such file");
        assert!(missing.to_string().starts_with("/nowhere/p.toml: cannot be read: "), "{missing}");
        let folder_as_file = workers(Some(folder.path()), &systemd).expect_err("a folder");
        assert!(folder_as_file.to_string().contains("cannot be read"), "{folder_as_file}");
    }

    #[test]
    fn the_data_directory_is_searched_for_in_order() {
        let all = [("STATE_DIRECTORY", "/s:/t"), ("XDG_STATE_HOME", "/x"), ("HOME", "/h")];
        let directory = |flag: Option<&str>, variables| {
            data_directory(flag.map(Path::new), &environment(variables))
                .map(|path| path.display().to_string())
        };
        assert_eq!(directory(Some("d"), &all), Ok("d".to_owned()));
        assert_eq!(directory(None, &all), Ok("/s".to_owned()));
        assert_eq!(directory(None, &all[1..]), Ok("/x/portcullis".to_owned()));
        assert_eq!(directory(None, &all[2..]), Ok("/h/.local/state/portcullis".to_owned()));
        let relative = [("XDG_STATE_HOME", "x"), ("HOME", "/h")];
        assert_eq!(directory(None, &relative), Ok("/h/.local/state/portcullis".to_owned()));
        assert!(directory(None, &[("HOME", "")]).is_err());
    }
}
