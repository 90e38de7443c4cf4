//! `portcullis serve`: the sidecar itself.
//!
//! The flags override the file, and the sum of both is checked again, because two places that are each right
//! may still collide.

use clap::Args;

use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::process::{ConfigArgs, ended, log_to_standard_error};
use crate::config::Config;
use crate::http::client::Endpoint;
use crate::http::settings::Listen;
use crate::service;

/// The flags of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
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
    ended(service::run(config, &data, &sockets))
}

/// The configuration as it will be served. A list of places that is given by flags replaces that of the file.
fn configuration(args: &ServeArgs, target: &Target) -> Result<Config, Failure> {
    let mut config = args.config.load(target)?;
    if !args.lookup.is_empty() {
        config.lookup.listen.clone_from(&args.lookup);
    }
    if !args.admin.is_empty() {
        config.admin.listen.clone_from(&args.admin);
    }
    config.check().map_err(|fault| Failure::usage(format!("--lookup and --admin do not fit: {fault}")))?;
    Ok(config)
}
