//! Which running service a verb talks to, and with which right.
//!
//! ```text
//!   --url ─► $PORTCULLIS_URL ─► --data: its admin.sock         named: this one or none
//!
//!   /run/portcullis/admin.sock ─► admin.sock in the data directory ─► 127.0.0.1:8182
//!                                                              not named: the first that accepts
//! ```
//!
//! The sockets come before the port because their files are the right to write: a first try needs no token.
//! Nothing is kept between two runs, and nothing is looked for in the network.
//!
//! A verb that reads goes past a socket that is closed to it. A verb that writes stops there: the service was
//! found, and its commands must not end up in another one that happens to be open.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Args;
use nix::unistd::{Gid, Group};

use crate::cli::failure::Failure;
use crate::config::{Environment, data_directory};
use crate::http::ADMIN_SOCKET;
use crate::http::client::{Client, ConnectError, Endpoint, Request, RequestError, Token};
use crate::http::guard::TOKEN_FILE;
use crate::http::settings::ADMIN_PORT;

/// Where the service of the whole system has its socket, if it was given a runtime directory.
const SYSTEM_DIRECTORY: &str = "/run/portcullis";

/// The flags that say where the service is.
#[derive(Args, Clone, Debug)]
pub struct TargetArgs {
    /// The service to talk to, as http://HOST:PORT or unix:PATH [default: $PORTCULLIS_URL, else admin.sock in
    /// the directory of --data, else the first that answers of /run/portcullis/admin.sock, admin.sock in the
    /// data directory, 127.0.0.1:8182]
    #[arg(long, global = true, value_name = "URL", display_order = 900)]
    pub url: Option<Endpoint>,
    /// The data directory [default: $STATE_DIRECTORY, else ~/.local/state/portcullis]
    #[arg(long, global = true, value_name = "DIR", display_order = 901)]
    pub data: Option<PathBuf>,
}

/// What a verb is about to do with the service.
///
/// It decides only what a closed socket means; the service judges the right itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Intent {
    /// Ask it something, which anybody may.
    Read,
    /// Have it take commands.
    Write,
}

/// The flags and the environment, as a verb needs them to reach the service.
#[derive(Clone, Debug)]
pub struct Target {
    /// The flags.
    pub args: TargetArgs,
    /// The environment.
    pub environment: Environment,
}

impl Target {
    /// Connects to the service, trying each place once, without asking anything yet.
    ///
    /// # Errors
    /// [`Exit::Unavailable`](super::failure::Exit::Unavailable), with all places and why, when none accepts a
    /// connection; [`Exit::Refused`](super::failure::Exit::Refused) when a verb that writes meets a socket
    /// that this user may not write to; [`Exit::Usage`](super::failure::Exit::Usage) when `$PORTCULLIS_URL`
    /// is no place.
    pub fn connect(&self, intent: Intent) -> Result<Client, Failure> {
        first(&self.places()?, intent, Client::connect)
    }

    /// The data directory, if one is known.
    ///
    /// # Errors
    /// When none is.
    pub fn data(&self) -> Result<PathBuf, Failure> {
        data_directory(self.args.data.as_deref(), &self.environment).map_err(Failure::usage)
    }

    /// The right to write over the connection: a Unix socket needs no token. For TCP it is
    /// `$PORTCULLIS_TOKEN`, else what stands in the data directory, if this user can read it and the service
    /// is on this machine.
    ///
    /// None is no error here: whether the service wants a token is its answer to give.
    ///
    /// # Errors
    /// When the token that was given can't be one.
    pub fn token(&self, endpoint: &Endpoint) -> Result<Option<Token>, Failure> {
        let Endpoint::Tcp { host, .. } = endpoint else { return Ok(None) };
        if let Some(text) = self.environment.text("PORTCULLIS_TOKEN") {
            return text
                .parse()
                .map(Some)
                .map_err(|error| Failure::usage(format!("PORTCULLIS_TOKEN: {error}")));
        }
        // The token in our own data directory is the right to write here, and nothing to hand to other hosts.
        let file = self.data().ok().filter(|_| is_loopback(host)).map(|data| data.join(TOKEN_FILE));
        let Some(text) = file.as_ref().and_then(|file| fs::read_to_string(file).ok()) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|error| Failure::usage(format!("{TOKEN_FILE}: {error}")))
    }

    /// Whether a service was named by its URL.
    pub fn names_url(&self) -> bool {
        self.args.url.is_some() || self.environment.text("PORTCULLIS_URL").is_some()
    }

    /// Where to look, in order. A place that was named is the only one: whoever names a service does not
    /// want the commands in another.
    fn places(&self) -> Result<Vec<Endpoint>, Failure> {
        let named = match (&self.args.url, self.environment.text("PORTCULLIS_URL")) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(text)) => {
                Some(text.parse().map_err(|error| Failure::usage(format!("PORTCULLIS_URL: {error}")))?)
            }
            (None, None) => None,
        };
        if let Some(named) = named {
            return Ok(vec![named]);
        }
        let socket = |directory: &Path| Endpoint::Unix(directory.join(ADMIN_SOCKET));
        if let Some(data) = &self.args.data {
            return Ok(vec![socket(data)]);
        }
        let system = socket(Path::new(SYSTEM_DIRECTORY));
        let data = self.data().ok().map(|data| socket(&data));
        let admin = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: ADMIN_PORT };
        Ok([system].into_iter().chain(data).chain([admin]).collect())
    }
}

/// Whether a connection to it stays on this machine. No other name is taken for one: a resolver
/// could say anything.
fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// The first place that accepts a connection. A socket that is there but closed to us ends the search of
/// a verb that writes: the service was found, and commands must not end up in another one.
fn first<C>(
    places: &[Endpoint],
    intent: Intent,
    mut connect: impl FnMut(&Endpoint) -> Result<C, ConnectError>,
) -> Result<C, Failure> {
    let mut tried = Vec::new();
    for place in places {
        match (connect(place), place, intent) {
            (Ok(connection), ..) => return Ok(connection),
            (Err(ConnectError::Denied), Endpoint::Unix(path), Intent::Write) => return Err(denied(path)),
            (Err(error), ..) => tried.push(format!("{place} ({error})")),
        }
    }
    let tried = tried.join(", ");
    Err(Failure::unavailable(format!("no service answers: tried {tried}; start it with `portcullis serve`")))
}

/// The failure that a socket is closed to this user, with the group that would open it.
fn denied(socket: &Path) -> Failure {
    let path = socket.display();
    match group_of(socket) {
        Some(group) => Failure::refused(format!(
            "permission denied on {path}: it belongs to the group {group}; ask to be let in, or use sudo"
        )),
        None => Failure::refused(format!("permission denied on {path}")),
    }
}

/// The group of the socket, or of the innermost folder on its way that we can see.
fn group_of(socket: &Path) -> Option<String> {
    let seen = socket.ancestors().find_map(|path| fs::metadata(path).ok())?;
    let gid = Gid::from_raw(seen.gid());
    let name = Group::from_gid(gid).ok().flatten().map(|group| group.name);
    Some(name.unwrap_or_else(|| gid.to_string()))
}

/// Asks one question and takes only success for an answer. It is asked again once, because a connection
/// that was kept may end at the very moment of asking. Not for commands: for these a repetition takes a key.
///
/// # Errors
/// When there is no answer, or another one than 200.
pub fn ask(client: &mut Client, request: &Request) -> Result<bytes::Bytes, Failure> {
    let answer = match client.send(request) {
        Err(RequestError::Lost(_)) => client.send(request),
        answer => answer,
    };
    let answer = answer.map_err(|error| lost(client, &error))?;
    if answer.status == 200 { Ok(answer.body) } else { Err(Failure::answered(&answer)) }
}

/// The failure that a request has no answer; it names the place.
pub fn lost(client: &Client, error: &dyn std::error::Error) -> Failure {
    Failure::unavailable(format!("{}: {error}", client.endpoint()))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::failure::Exit;

    fn target(url: Option<&str>, data: Option<&str>, variables: &[(&str, &str)]) -> Target {
        let pairs = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let url = url.map(|url| url.parse().expect("an endpoint"));
        Target { args: TargetArgs { url, data: data.map(Into::into) }, environment: pairs.collect() }
    }

    fn places(target: &Target) -> Vec<String> {
        target.places().expect("places").iter().map(Endpoint::to_string).collect()
    }

    #[test]
    fn the_places_have_an_order() {
        let url = [("PORTCULLIS_URL", "unix:/env.sock"), ("HOME", "/h")];
        assert_eq!(places(&target(Some("unix:/flag.sock"), None, &url)), ["unix:/flag.sock"]);
        assert_eq!(places(&target(None, None, &url)), ["unix:/env.sock"]);
        let (system, tcp) = ("unix:/run/portcullis/admin.sock", "http://127.0.0.1:8182");
        assert_eq!(
            places(&target(None, None, &[("STATE_DIRECTORY", "/s")])),
            [system, "unix:/s/admin.sock", tcp]
        );
        assert_eq!(places(&target(None, Some("d"), &[])), ["unix:d/admin.sock"], "it was named");
        assert_eq!(places(&target(None, None, &[])), [system, tcp], "no data directory is known");
        let wrong = target(None, None, &[("PORTCULLIS_URL", "nonsense")]).places().expect_err("no endpoint");
        assert_eq!(wrong.exit(), Exit::Usage);
        assert!(wrong.to_string().starts_with("PORTCULLIS_URL: "), "{wrong}");
    }

    #[test]
    fn a_denied_socket_stops_a_writer_only() {
        let socket = Endpoint::Unix("/etc/passwd".into());
        let places = [Endpoint::Unix("/missing".into()), socket.clone(), Endpoint::Unix("/open".into())];
        let connect = |place: &Endpoint| match place {
            Endpoint::Unix(path) if path == Path::new("/open") => Ok("open"),
            place if *place == socket => Err(ConnectError::Denied),
            _ => Err(ConnectError::Unreachable("not there".to_owned())),
        };
        assert_eq!(first(&places, Intent::Read, connect), Ok("open"));
        let denied = first(&places, Intent::Write, connect).expect_err("denied");
        assert_eq!(denied.exit(), Exit::Refused);
        assert!(denied.to_string().contains("/etc/passwd: it belongs to the group root"), "{denied}");

        let failure = first(&places[..2], Intent::Read, connect).expect_err("none is open");
        assert_eq!(failure.exit(), Exit::Unavailable);
        let text = "no service answers: tried unix:/missing (not there), unix:/etc/passwd (permission denied); \
                    start it with `portcullis serve`";
        assert_eq!(failure.to_string(), text);
    }

    #[test]
    fn the_group_of_a_hidden_socket_is_that_of_its_folder() {
        assert_eq!(group_of(Path::new("/etc/none/admin.sock")).as_deref(), Some("root"));
    }

    #[test]
    fn the_token_of_the_data_directory_stays_on_this_host() {
        let folder = tempfile::tempdir().expect("a folder");
        let data = folder.path().to_str().expect("UTF-8");
        let has =
            |target: &Target, url: &str| target.token(&url.parse().expect(url)).map(|token| token.is_some());
        let plain = target(None, Some(data), &[]);
        assert_eq!(has(&plain, "http://127.0.0.1:1"), Ok(false), "no file yet");
        fs::write(folder.path().join(TOKEN_FILE), "secret\n").expect("written");
        for url in ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1", "http://127.1.2.3"] {
            assert_eq!(has(&plain, url), Ok(true), "{url}");
        }
        for url in ["unix:/a.sock", "http://192.0.2.1:1", "http://localhost.example:1"] {
            assert_eq!(has(&plain, url), Ok(false), "{url}");
        }
        let given = target(None, Some(data), &[("PORTCULLIS_TOKEN", "mine")]);
        assert_eq!(has(&given, "http://192.0.2.1:1"), Ok(true));
        let wrong = target(None, None, &[("PORTCULLIS_TOKEN", "a\u{1}b")]);
        let failure = has(&wrong, "http://127.0.0.1:1").expect_err("no token");
        assert_eq!(failure.exit(), Exit::Usage);
    }
}
