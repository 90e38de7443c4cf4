//! `portcullis project`: the writer of the table.

use std::path::PathBuf;

use clap::Args;

use crate::cli::connect::Target;
use crate::cli::failure::{Exit, Failure};
use crate::cli::process::{ConfigArgs, ended, log_to_standard_error};
use crate::config::Config;
use crate::http::client::Endpoint;
use crate::http::settings::Listen;
use crate::record::Offset;
use crate::service;

/// The flags of `project`.
#[derive(Args, Clone, Debug)]
pub struct ProjectArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Pass over the command of a later release at this offset, for every reader and for good; repeatable
    #[arg(long = "skip-offset", value_name = "N", value_parser = parse_offset)]
    skip_offsets: Vec<Offset>,
    /// Where to tell how it is, 127.0.0.1:8183 or unix:PATH, instead of where the configuration says;
    /// repeatable
    #[arg(long, value_name = "LISTEN")]
    listen: Vec<Listen>,
    /// Stands before the flag of all verbs of this name, which means nothing here and is refused.
    #[arg(long, hide = true)]
    url: Option<Endpoint>,
    /// As the one above.
    #[arg(long, hide = true)]
    data: Option<PathBuf>,
}

/// Projects until it is told to end by a signal.
///
/// # Errors
/// [`Exit::Usage`] when the configuration is wrong or names no log with a table; [`Exit::Unavailable`] when
/// something that the projector needs is not there, like a free port.
pub fn run(args: &ProjectArgs, target: &Target) -> Result<Exit, Failure> {
    let (url, data) = (args.url.is_some() || target.args.url.is_some(), &args.data);
    if url || data.is_some() || target.args.data.is_some() {
        return Err(Failure::usage("project takes no --url and no --data; --listen says where to listen"));
    }
    let config = configuration(args, target)?;
    log_to_standard_error(target);
    ended(service::project(&config, args.skip_offsets.iter().copied().collect()))
}

/// The configuration as it will be used. A list of places that is given by flags replaces that of the file.
fn configuration(args: &ProjectArgs, target: &Target) -> Result<Config, Failure> {
    let mut config = args.config.load(target)?;
    if !args.listen.is_empty() {
        config.projector.listen.clone_from(&args.listen);
    }
    config.check().map_err(|fault| Failure::usage(format!("--listen does not fit: {fault}")))?;
    Ok(config)
}

/// For clap.
pub(super) fn parse_offset(text: &str) -> Result<Offset, String> {
    text.parse().map(Offset::new).map_err(|_| "an offset is a whole number from 0".to_owned())
}
