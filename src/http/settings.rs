//! Where the two listeners listen, and for whom.
//!
//! These are sections of the configuration file, and what [`Server::start`](super::Server::start) takes. The
//! types refuse what is wrong by itself, with the file's line; what is wrong only together with the rest
//! (a place that stands twice, an admin address that other hosts reach) is found by
//! [`Config::check`](crate::config::Config::check).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use nix::unistd::{Gid, Group};
use serde::Deserialize;

/// The port of the admin listener unless the settings name another one.
pub const ADMIN_PORT: u16 = 8182;

/// One place to listen on: a TCP address, or `unix:` and the path of a socket.
///
/// ```
/// use portcullis::http::settings::Listen;
///
/// let tcp: Listen = "127.0.0.1:8181".parse()?;
/// assert_eq!(tcp, Listen::Tcp(([127, 0, 0, 1], 8181).into()));
/// let unix: Listen = "unix:/run/portcullis/lookup.sock".parse()?;
/// assert_eq!(unix, Listen::Unix("/run/portcullis/lookup.sock".into()));
///
/// // A name is refused: only an address says for certain which hosts can reach it.
/// let error = "localhost:8181".parse::<Listen>().expect_err("a name");
/// assert!(error.to_string().starts_with("`localhost:8181` is no place to listen on"));
/// # Ok::<(), portcullis::http::settings::ListenError>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub enum Listen {
    /// A TCP address and port; port 0 is any free one.
    Tcp(SocketAddr),
    /// The path of a Unix socket; a relative one begins at the working directory.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        match text.strip_prefix("unix:") {
            Some("") => Err(ListenError(text.to_owned())),
            Some(path) => Ok(Self::Unix(path.into())),
            None => text.parse().map(Self::Tcp).map_err(|_| ListenError(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Listen {
    type Error = ListenError;

    fn try_from(text: String) -> Result<Self, ListenError> {
        text.parse()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A text that is no place to listen on.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error(
    "`{0}` is no place to listen on: write it like 127.0.0.1:8181, [::1]:8181 or unix:/run/portcullis/lookup.sock"
)]
pub struct ListenError(String);

/// The `[lookup]` section: the listener that request handlers ask.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct LookupSettings {
    /// Where to listen.
    /// At least one place, none of them twice but for any port 0; by default `127.0.0.1:8181`.
    pub listen: Vec<Listen>,
    /// How many threads answer, from 1 to [`WORKERS_MAX`](crate::config::WORKERS_MAX); by default 1. Each
    /// holds one core at most.
    pub workers: usize,
    /// Whether these threads look for requests without ever sleeping; by default they sleep. It spares a
    /// request the time that waking a thread takes, and costs a core for each of them, busy or not.
    pub spin: bool,
}

impl Default for LookupSettings {
    fn default() -> Self {
        let listen = vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], 8181)))];
        Self { listen, workers: 1, spin: false }
    }
}

/// The `[admin]` section: the listener that operators use. `admin.sock` in the data directory is there in
/// any case.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// Where to listen.
    /// At least one place, none of them also a lookup listener's; by default `127.0.0.1:8182`.
    pub listen: Vec<Listen>,
    /// The permissions of the Unix sockets, in octal: whoever may write to the socket may write commands.
    pub socket_mode: SocketMode,
    /// The name of the group that owns the Unix sockets; none is the group of the process.
    pub socket_group: Option<String>,
    /// Whether a TCP address that other hosts reach is allowed: they could read everything, unencrypted, and
    /// the token of a write would pass by unencrypted, too.
    pub allow_remote: bool,
}

impl AdminSettings {
    /// The first place that other hosts reach though that is not allowed.
    pub fn forbidden_remote(&self) -> Option<&Listen> {
        let remote = |listen: &&Listen| match listen {
            Listen::Tcp(address) => !address.ip().to_canonical().is_loopback(),
            Listen::Unix(_) => false,
        };
        self.listen.iter().find(remote).filter(|_| !self.allow_remote)
    }

    /// The group that owns the Unix sockets, looked up; none if no other was asked for. The error is a
    /// sentence for people, which names the group.
    ///
    /// # Errors
    /// When there is no such group, or that can't be found out.
    pub fn group(&self) -> Result<Option<Gid>, String> {
        let Some(name) = self.socket_group.as_deref() else { return Ok(None) };
        match Group::from_name(name) {
            Ok(Some(group)) => Ok(Some(group.gid)),
            Ok(None) => Err(format!("there is no group `{name}`")),
            Err(error) => Err(format!("the group `{name}` can't be looked up: {error}")),
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            listen: vec![Listen::Tcp(SocketAddr::from(([127, 0, 0, 1], ADMIN_PORT)))],
            socket_mode: SocketMode::default(),
            socket_group: None,
            allow_remote: false,
        }
    }
}

/// The `[http]` section: what both listeners share.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct HttpSettings {
    /// Host names and addresses besides the loopback ones that requests may be addressed to, without a port,
    /// for example behind a proxy that passes `Host` on. Names are compared without regard to case.
    pub hosts: Vec<String>,
}

impl HttpSettings {
    /// The first of the hosts that is neither a name nor an address; none when all are right. A port would
    /// never match, because that of the request is not looked at, and so it is wrong here.
    pub fn wrong_host(&self) -> Option<&str> {
        let name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        let is_name = |host: &str| !host.is_empty() && host.bytes().all(name);
        let wrong = |host: &&String| !is_name(host) && host.parse::<IpAddr>().is_err();
        self.hosts.iter().find(wrong).map(String::as_str)
    }
}

/// The permissions of a Unix socket, written in octal like `0660`; by default `0600`.
///
/// It is three or four octal digits in a string: the TOML number 660 would be a decimal one.
///
/// ```
/// use portcullis::http::settings::SocketMode;
///
/// assert_eq!(SocketMode::try_from("0660".to_owned())?.bits(), 0o660);
/// assert!(SocketMode::try_from("rw-rw----".to_owned()).is_err());
/// # Ok::<(), portcullis::http::settings::SocketModeError>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(try_from = "String")]
pub struct SocketMode(u32);

impl SocketMode {
    /// The permission bits, at most `0o777`.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl Default for SocketMode {
    fn default() -> Self {
        Self(0o600)
    }
}

impl TryFrom<String> for SocketMode {
    type Error = SocketModeError;

    fn try_from(text: String) -> Result<Self, SocketModeError> {
        let octal = (3..=4).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'7'));
        let bits = octal.then(|| u32::from_str_radix(&text, 8).ok()).flatten().filter(|bits| *bits <= 0o777);
        bits.map(Self).ok_or(SocketModeError(text))
    }
}

/// A text that is no permission of a socket.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no mode of a socket: write it in octal, like \"0660\"")]
pub struct SocketModeError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_to_listen_on_is_an_address_or_a_path() {
        for text in ["127.0.0.1:8181", "[::1]:0", "unix:/run/portcullis/lookup.sock"] {
            assert_eq!(text.parse::<Listen>().expect(text).to_string(), text);
        }
        for text in ["", "8181", "localhost:8181", "127.0.0.1", "unix:", "/run/lookup.sock"] {
            assert!(text.parse::<Listen>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_mode_is_octal() {
        assert_eq!(SocketMode::try_from("0660".to_owned()), Ok(SocketMode(0o660)));
        assert_eq!(SocketMode::try_from("600".to_owned()), Ok(SocketMode(0o600)));
        for text in ["", "66", "0o660", "0680", "rw-------", "7777", "06600"] {
            assert!(SocketMode::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
