//! What the verbs share that are processes of their own and not clients of one: their configuration, what
//! they log, and how they end.
//!
//! Logging begins before the process does its work, so that its first difficulty is seen; mistakes of usage
//! come before that, as one line without a time.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::config::Config;
#[cfg(feature = "kafka")]
use crate::log::kafka::KafkaLog;
use crate::service::ServeError;

/// What is logged unless `RUST_LOG` says otherwise. What librdkafka says of its connections is told by our own
/// status, in one line and not once for each of its clients.
const LOGGED: &str = "info,librdkafka=off";

/// The flag that names the configuration.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// The configuration file [default: $CONFIGURATION_DIRECTORY/portcullis.toml, else
    /// /etc/portcullis/portcullis.toml, else all defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// The configuration of the file.
    ///
    /// # Errors
    /// When it can't be read or is wrong.
    pub fn load(&self, target: &Target) -> Result<Config, Failure> {
        Config::load(self.config.as_deref(), &target.environment).map_err(Failure::usage)
    }

    /// Whether a file was named.
    pub const fn is_given(&self) -> bool {
        self.config.is_some()
    }
}

/// Refuses the flags that name a service, for a verb that talks to Kafka itself.
///
/// # Errors
/// When one of them is there.
#[cfg(feature = "kafka")]
pub fn refuse_service(verb: &str, target: &Target) -> Result<(), Failure> {
    if target.args.url.is_some() || target.args.data.is_some() {
        return Err(Failure::usage(format!(
            "{verb} takes no --url and no --data: it talks to Kafka itself, as --config says"
        )));
    }
    Ok(())
}

/// The log on Kafka that the configuration names, for a verb that talks to it itself.
///
/// # Errors
/// [`Exit::Usage`] when the configuration is wrong or names no Kafka.
#[cfg(feature = "kafka")]
pub fn kafka_log(verb: &str, args: &ConfigArgs, target: &Target) -> Result<KafkaLog, Failure> {
    refuse_service(verb, target)?;
    let settings = args.load(target)?.log.kafka().map_err(Failure::usage)?;
    let settings = settings.ok_or_else(|| {
        Failure::usage(format!(
            "{verb} is for Kafka only: set kind = \"kafka\" in [log], and name the topics there"
        ))
    })?;
    KafkaLog::new(settings).map_err(Failure::usage)
}

/// How a process has ended.
///
/// # Errors
/// [`Exit::Usage`] when the configuration can't be had, [`Exit::Unavailable`] for all else.
pub fn ended(end: Result<(), ServeError>) -> Result<Exit, Failure> {
    match end {
        Ok(()) => Ok(Exit::Done),
        Err(error @ ServeError::Configuration(_)) => Err(Failure::usage(error)),
        Err(error @ ServeError::Unavailable(_)) => Err(Failure::unavailable(error)),
    }
}

/// `RUST_LOG` says how much is logged. A value that makes no sense is noted and passed over: it must not keep
/// the process from its work.
pub fn log_to_standard_error(target: &Target) {
    let colours = io::stderr().is_terminal() && target.environment.text("NO_COLOR").is_none();
    let wanted = target.environment.text("RUST_LOG").unwrap_or(LOGGED);
    let filter = EnvFilter::try_new(wanted).unwrap_or_else(|error| {
        note(&format!("RUST_LOG: {error}; logging as with RUST_LOG={LOGGED}"));
        EnvFilter::new(LOGGED)
    });
    let logger = tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(colours).with_env_filter(filter);
    // It fails only if there is a logger already, which is then the one that was wanted.
    let _ = logger.try_init();
}
