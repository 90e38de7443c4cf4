//! `portcullis serve`: the sidecar itself.
//!
//! The flags override the file, and the sum of both is checked again, because two places that are each right
//! may still collide. Logging begins before the service does, so that its first difficulty is seen; mistakes
//! of usage come before that, as one line without a time.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::note;
use crate::config::Config;
use crate::http::client::Endpoint;
use crate::http::settings::Listen;
use crate::service::{self, ServeError};

/// What is logged unless `RUST_LOG` says otherwise. What librdkafka says of its connections is told by our own
/// status, in one line and not once for each of its clients.
const LOGGED: &str = "info,librdkafka=off";

/// The flags of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// The configuration file [default: $CONFIGURATION_DIRECTORY/portcullis.toml, else
    /// /etc/portcullis/portcullis.toml, else all defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where to answer lookups, 127.0.0.1:8181 or unix:PATH, instead of where the configuration says;
    /// repeatable
    #[arg(long, value_name = "LISTEN")]
    lookup: Vec<Listen>,
    /// Where to answer operators, instead of where the configuration says; repeatable
    #[arg(long, value_name = "LISTEN")]
    admin: Vec<Listen>,
    /// Stands before the flag of all verbs of this name, which means nothing here and is refused.
    #[arg(long, hide = true)]
    url: Option<Endpoint>,
}

/// Serves until it is told to end by a signal.
///
/// # Errors
/// [`Exit::Usage`] when the configuration is wrong or no data directory is known; [`Exit::Unavailable`] when
/// something that the service needs is not there, like a free port or the data directory.
pub fn run(args: &ServeArgs, target: &Target) -> Result<Exit, Failure> {
    if args.url.is_some() || target.args.url.is_some() {
        return Err(Failure::usage("serve takes no --url; --lookup and --admin say where to listen"));
    }
    let config = configuration(args, target)?;
    let data = target.data()?;
    let sockets = target.environment.directory("RUNTIME_DIRECTORY").unwrap_or_else(|| data.clone());
    log_to_standard_error(target);
    match service::run(config, &data, &sockets) {
        Ok(()) => Ok(Exit::Done),
        Err(error @ ServeError::Configuration(_)) => Err(Failure::usage(error)),
        Err(error @ ServeError::Unavailable(_)) => Err(Failure::unavailable(error)),
    }
}

/// The configuration as it will be served. A list of places that is given by flags replaces that of the file.
fn configuration(args: &ServeArgs, target: &Target) -> Result<Config, Failure> {
    let mut config = Config::load(args.config.as_deref(), &target.environment).map_err(Failure::usage)?;
    if !args.lookup.is_empty() {
        config.lookup.listen.clone_from(&args.lookup);
    }
    if !args.admin.is_empty() {
        config.admin.listen.clone_from(&args.admin);
    }
    config.check().map_err(|fault| Failure::usage(format!("--lookup and --admin do not fit: {fault}")))?;
    Ok(config)
}

/// `RUST_LOG` says how much is logged. A value that makes no sense is noted and passed over: it must not keep
/// the sidecar from serving.
fn log_to_standard_error(target: &Target) {
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
