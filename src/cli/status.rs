//! `portcullis status`: how the service is.
//!
//! Three ways to look: once, every second until interrupted (`--watch`), or until it is ready (`--wait`, for
//! scripts that start the service and go on). As JSON the service's own words are printed unread; as text the
//! keys that this release knows, so that a service of another release can be looked at too. A projector may be
//! the service; it is known by its role.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use serde::Deserialize;
use serde_json::Value;

use crate::cli::connect::{Intent, Target, ask};
use crate::cli::failure::{Exit, Failure, shown};
use crate::cli::output::{Format, Output, note, unwritable};
use crate::http::client::{Client, Request};

/// The pause between two looks.
const REFRESH: Duration = Duration::from_secs(1);
/// The pause between two looks while waiting.
const POLL: Duration = Duration::from_millis(100);
/// How long `--wait` goes on without any answer. As long as the service answers, it is waited for.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// Moves to the upper left corner and clears all below it.
const CLEAR: &str = "\x1b[H\x1b[J";

/// The flags of `status`.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Look again every second
    #[arg(long, conflicts_with = "wait")]
    watch: bool,
    /// Wait until the service is ready; give up after 30 seconds without an answer
    #[arg(long)]
    wait: bool,
    /// Print the JSON object of the service
    #[arg(long)]
    json: bool,
}

/// What the service says of itself, as far as people are shown it.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum Seen {
    /// First, because it alone has a key that must be there.
    Projector(Projector),
    Sidecar(Sidecar),
}

/// What a sidecar says of itself. Every key may be missing, because it may be of another release.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Sidecar {
    phase: String,
    ready: bool,
    stale: bool,
    degraded: Option<Value>,
    alarm: Option<Value>,
    message: Option<String>,
    position: u64,
    log_end: u64,
    lag: u64,
    age_ms: Option<u64>,
    rows: Rows,
    fingerprint: String,
    refused: Value,
    version: String,
}

/// What a projector says of itself. Every key but the role may be missing.
#[derive(Clone, Debug, Deserialize)]
struct Projector {
    role: String,
    #[serde(default)]
    ready: bool,
    reason: Option<Value>,
    reason_offset: Option<u64>,
    degraded: Option<Value>,
    message: Option<String>,
    #[serde(default)]
    position: u64,
    #[serde(default)]
    rows: u64,
    #[serde(default)]
    fingerprint: String,
    #[serde(default)]
    version: String,
}

/// Numbers of rows, by family.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
struct Rows {
    ipv4: u64,
    ipv6: u64,
}

/// One look at the service: its own words, and what we read in them.
struct Look {
    body: Bytes,
    seen: Seen,
}

/// Prints the status once, or again and again, or once it is ready. A service that is not ready is no failure
/// unless it was to be waited for.
///
/// # Errors
/// When the service can't be asked, or will not become ready by itself.
pub fn run(args: &StatusArgs, target: &Target) -> Result<Exit, Failure> {
    let mut output = Output::lock();
    let format = args.json.into();
    if args.watch {
        watch(target, &mut output, format)?;
    } else if args.wait {
        print(&mut output, &until_ready(target)?, format)?;
    } else {
        print(&mut output, &look(&mut target.connect(Intent::Read)?)?, format)?;
    }
    output.flush()?;
    Ok(Exit::Done)
}

/// One look at the service.
fn look(client: &mut Client) -> Result<Look, Failure> {
    let body = ask(client, &Request { path: "/v1/status".to_owned(), ..Request::default() })?;
    let seen = serde_json::from_slice(&body).map_err(|error| {
        Failure::unavailable(format!("the answer of the service makes no sense: {error}"))
    })?;
    Ok(Look { body, seen })
}

/// Looks until nobody reads on. Text on a terminal is drawn over; all else is appended.
fn watch(target: &Target, output: &mut Output, format: Format) -> Result<(), Failure> {
    let redraw = format == Format::Text && io::stdout().is_terminal();
    // Kept for all looks. It connects again by itself when the service was started anew.
    let mut client = target.connect(Intent::Read)?;
    while !output.is_gone() {
        match look(&mut client) {
            Ok(look) => {
                if redraw {
                    output.bytes(CLEAR.as_bytes()).map_err(|error| unwritable(&error))?;
                }
                print(output, &look, format)?;
            }
            // Whoever watches wants to see it come back.
            Err(failure) => note(&failure.to_string()),
        }
        output.flush()?;
        thread::sleep(REFRESH);
    }
    Ok(())
}

/// Looks until the service is ready, over a new connection each time, since it may be starting only now.
///
/// It is given up in three cases: an alarm, or a projector that is stopped, which waiting does not end; a
/// failure that is not one of reaching the service; and no answer for [`SILENCE_MAX`]. How long a service that
/// answers takes is no matter: a long log is folded for as long as it takes.
fn until_ready(target: &Target) -> Result<Look, Failure> {
    let mut answered = Instant::now();
    let mut phase = String::new();
    loop {
        let failure = match target.connect(Intent::Read).and_then(|mut client| look(&mut client)) {
            Ok(look) => match look.seen.waiting() {
                Waiting::Over => return Ok(look),
                Waiting::Vain(reason) => {
                    return Err(Failure::unavailable(shown(&format!("not ready, and {reason}"))));
                }
                Waiting::For(now) => {
                    answered = Instant::now();
                    if now != phase {
                        // Each phase is told once, not with each look.
                        phase = now;
                        note(&format!("not ready yet: {}", shown(&phase)));
                    }
                    None
                }
            },
            Err(failure) => Some(failure),
        };
        match failure {
            Some(failure) if failure.exit() != Exit::Unavailable || answered.elapsed() >= SILENCE_MAX => {
                return Err(failure);
            }
            _ => thread::sleep(POLL),
        }
    }
}

/// Prints one look.
fn print(output: &mut Output, look: &Look, format: Format) -> Result<(), Failure> {
    match format {
        Format::Json => output.line(String::from_utf8_lossy(look.body.trim_ascii())),
        Format::Text => table(&look.seen).iter().try_for_each(|line| output.line(line)),
    }
}

/// How it stands with waiting for a service.
enum Waiting {
    /// It is ready.
    Over,
    /// It is on its way, and this far.
    For(String),
    /// It will not become ready by itself, for this reason.
    Vain(String),
}

/// The lines for people, each with the name of what it tells; none where saying it would only hide the rest.
type Lines = Vec<(&'static str, Option<String>)>;

impl Seen {
    fn waiting(&self) -> Waiting {
        let reason = |reason: &Option<Value>| reason.as_ref().map(words).unwrap_or_default();
        match self {
            Self::Sidecar(Sidecar { ready: true, .. }) | Self::Projector(Projector { ready: true, .. }) => {
                Waiting::Over
            }
            Self::Sidecar(sidecar) if sidecar.phase == "alarm" => {
                Waiting::Vain(format!("in alarm: {}", reason(&sidecar.alarm)))
            }
            Self::Projector(projector) if projector.role == "stopped" => {
                Waiting::Vain(format!("stopped: {}", reason(&projector.reason)))
            }
            Self::Sidecar(sidecar) => Waiting::For(sidecar.phase.clone()),
            Self::Projector(projector) => Waiting::For(projector.role.clone()),
        }
    }

    fn lines(&self) -> Lines {
        match self {
            Self::Sidecar(sidecar) => sidecar.lines(),
            Self::Projector(projector) => projector.lines(),
        }
    }
}

impl Sidecar {
    fn lines(&self) -> Lines {
        let age = self.age_ms.map_or_else(|| "unknown".to_owned(), |ms| format!("{ms} ms"));
        vec![
            ("phase", Some(self.phase.clone())),
            ("ready", Some(yes(self.ready))),
            ("stale", self.stale.then(|| yes(true))),
            ("degraded", self.degraded.as_ref().map(words)),
            ("alarm", self.alarm.as_ref().map(words)),
            ("message", self.message.clone()),
            ("position", Some(format!("{} (log end {}, lag {})", self.position, self.log_end, self.lag))),
            ("age", Some(age)),
            ("rows", Some(format!("{} IPv4, {} IPv6", self.rows.ipv4, self.rows.ipv6))),
            ("refused", Some(words(&self.refused))),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("version", Some(self.version.clone())),
        ]
    }
}

impl Projector {
    fn lines(&self) -> Lines {
        let reason = self.reason.as_ref().map(words);
        let reason = reason.map(|reason| match self.reason_offset {
            Some(offset) => format!("{reason} at offset {offset}"),
            None => reason,
        });
        vec![
            ("role", Some(self.role.clone())),
            ("ready", Some(yes(self.ready))),
            ("reason", reason),
            ("degraded", self.degraded.as_ref().map(words)),
            ("message", self.message.clone()),
            ("position", Some(self.position.to_string())),
            ("rows", Some(self.rows.to_string())),
            ("fingerprint", Some(self.fingerprint.clone())),
            ("version", Some(self.version.clone())),
        ]
    }
}

fn yes(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

/// The lines of one look.
fn table(seen: &Seen) -> Vec<String> {
    let lines = seen.lines().into_iter();
    lines.filter_map(|(name, text)| Some(format!("{name:<11} {}", shown(&text?)))).collect()
}

/// A small JSON value without its punctuation.
pub(super) fn words(value: &Value) -> String {
    match value {
        Value::String(word) => word.clone(),
        Value::Object(fields) => {
            let fields: Vec<String> = fields
                .iter()
                .map(|(name, value)| format!("{} {}", words(value), name.replace('_', " ")))
                .collect();
            fields.join(", ")
        }
        Value::Null => "nothing".to_owned(),
        value => value.to_string(),
    }
}
