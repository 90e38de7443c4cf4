//! Who may ask: `Host`, the token, `Origin`.
//!
//! A port on localhost is reachable by every web page that is open on the host, through DNS rebinding and
//! cross-site requests. So over TCP a request must be addressed to us by a name that is ours, and a write
//! must know the token. A Unix socket is guarded by the permissions of its file.
//!
//! | | reading | writing |
//! |---|---|---|
//! | TCP | one `Host` that is ours | that, no `Origin`, and the token |
//! | Unix socket | the file's permissions | the file's permissions, no `Origin` |
//!
//! `/healthz` and `/readyz` are asked under any name. What it does not do: it encrypts nothing, tells no
//! users apart, and counts no wrong guesses, because a token of 32 random bytes is not to be guessed.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use hyper::header::{AUTHORIZATION, HOST, ORIGIN};
use hyper::http::request::Parts;
use subtle::ConstantTimeEq;

use super::answer::Problem;
use super::codes;
use super::settings::HttpSettings;

/// The file in the data directory that holds the token.
pub const TOKEN_FILE: &str = "admin.token";
/// How many random bytes a token has.
const TOKEN_BYTES: usize = 32;
/// The longest token that a file may hold, for those who write their own.
const TOKEN_CHARS_MAX: usize = 256;

/// What a write over TCP must know.
///
/// It is made of visible ASCII, 32 to 256 characters; one that we make is 32 random bytes in hex.
///
/// ```
/// use portcullis::http::guard::Token;
///
/// let directory = tempfile::tempdir()?;
/// let token = Token::load_or_create(directory.path())?;
/// assert_eq!(token.as_str().len(), 64);
/// assert_eq!(Token::load_or_create(directory.path())?, token);
/// assert_eq!(format!("{token:?}"), "Token(…)");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct Token(String);

impl Token {
    /// Reads the token of a data directory, or makes one if there is none yet, readable by its owner only.
    ///
    /// Two processes must not do this at once; the service holds the lock of the directory before it does.
    ///
    /// # Errors
    /// [`Io`](TokenError::Io) when the file can't be read or written; [`Invalid`](TokenError::Invalid) when
    /// it holds something that no token is. An empty file is an error too: a token that is empty would let
    /// everybody in.
    pub fn load_or_create(directory: &Path) -> Result<Self, TokenError> {
        let path = directory.join(TOKEN_FILE);
        let failed = |source| TokenError::Io { path: path.clone(), source };
        match fs::read_to_string(&path) {
            Ok(text) => Self::parse(&text).ok_or(TokenError::Invalid { path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::create(&path).map_err(failed),
            Err(error) => Err(failed(error)),
        }
    }

    /// The token in the text of a file, which may end in a line feed.
    fn parse(text: &str) -> Option<Self> {
        let token = text.trim_ascii();
        let fits = (TOKEN_BYTES..=TOKEN_CHARS_MAX).contains(&token.len());
        (fits && token.bytes().all(|b| b.is_ascii_graphic())).then(|| Self(token.to_owned()))
    }

    /// Written in full under another name first: a crash leaves no half token behind.
    fn create(path: &Path) -> io::Result<Self> {
        let mut bytes = [0; TOKEN_BYTES];
        fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let unfinished = path.with_extension("token.new");
        // Left over from a crash in the middle of this.
        let _ = fs::remove_file(&unfinished);
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        Ok(Self(token))
    }

    /// The token as a client sends it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in a time that does not tell how much of the guess is right.
    fn is(&self, guess: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(guess).into()
    }
}

impl fmt::Debug for Token {
    /// Never shows the token, which would end up in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can't be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The file holds something that no token is.
    #[error(
        "{} holds no token: {TOKEN_BYTES} to {TOKEN_CHARS_MAX} visible ASCII characters; delete it, and a new one is made",
        path.display()
    )]
    Invalid {
        /// The file.
        path: PathBuf,
    },
}

/// Where a request came in; it decides what a request has to show.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Peer {
    /// Over TCP, to this address of ours: that of the connection, not the one that was bound, which may be
    /// any.
    Tcp(IpAddr),
    /// Over a Unix socket.
    Unix,
}

/// The host names besides the loopback ones that requests may be addressed to.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts(Vec<String>);

impl Hosts {
    /// Takes the names of the configuration; the error is the first that is no host name.
    pub(super) fn new(settings: &HttpSettings) -> Result<Self, String> {
        match settings.wrong_host() {
            Some(wrong) => Err(wrong.to_owned()),
            None => Ok(Self(settings.hosts.clone())),
        }
    }

    /// Whether `host[:port]` names us, on whichever port: port forwarding changes it.
    ///
    /// Names must be listed, because rebinding makes a foreign name lead here. An address can't be rebound,
    /// so that the one which the connection came in at is ours without being listed.
    fn admit(&self, authority: &str, ours: IpAddr) -> bool {
        let Some(host) = without_port(authority) else { return false };
        let named = |name: &String| name.eq_ignore_ascii_case(host);
        if host.eq_ignore_ascii_case("localhost") || self.0.iter().any(named) {
            return true;
        }
        let address = host.parse().map(|ip: IpAddr| ip.to_canonical());
        address.is_ok_and(|ip| ip.is_loopback() || ip == ours.to_canonical())
    }
}

/// The host of `host`, `host:port`, `[address]` or `[address]:port`.
fn without_port(authority: &str) -> Option<&str> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, if port.is_empty() { "" } else { port.strip_prefix(':')? })
        }
        None => authority.split_once(':').unwrap_or((authority, "")),
    };
    (port.len() <= 5 && port.bytes().all(|b| b.is_ascii_digit())).then_some(host)
}

/// Lets a request pass that is addressed to us.
pub(super) fn check_host(head: &Parts, hosts: &Hosts, peer: Peer) -> Result<(), Problem> {
    let Peer::Tcp(ours) = peer else { return Ok(()) };
    let mut values = head.headers.get_all(HOST).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        let hint = "send `Host: localhost`, as every HTTP client does by itself";
        return Err(Problem::new(codes::HOST_INVALID, "there must be exactly one `Host`", hint).closing());
    };
    let host_is_ours = value.to_str().is_ok_and(|host| hosts.admit(host, ours));
    // A target in absolute form overrules `Host`, by the standard; so both have to be ours.
    let target_is_ours = head.uri.authority().is_none_or(|authority| hosts.admit(authority.as_str(), ours));
    if host_is_ours && target_is_ours {
        return Ok(());
    }
    let hint = "address it to localhost, or name the host in `[http] hosts`";
    Err(Problem::new(codes::HOST_FOREIGN, "the request is addressed to another host", hint))
}

/// Lets a request pass that may write.
///
/// A browser sends `Origin` with every cross-site POST, and no other program has reason to. So it is refused
/// whatever else the request shows, before the token is looked at.
pub(super) fn check_write(head: &Parts, token: &Token, peer: Peer) -> Result<(), Problem> {
    if head.headers.contains_key(ORIGIN) {
        let hint = "send it from a program that is no web page";
        return Err(Problem::new(codes::ORIGIN_REFUSED, "a web page may not write", hint));
    }
    if peer == Peer::Unix || bearer(head).is_some_and(|guess| token.is(guess)) {
        return Ok(());
    }
    let hint =
        "send `Authorization: Bearer` with the text of admin.token in the data directory, or use admin.sock";
    Err(Problem::new(codes::TOKEN_INVALID, "writing over TCP takes the token", hint))
}

/// The token that a request carries, if it carries exactly one.
fn bearer(head: &Parts) -> Option<&[u8]> {
    let mut values = head.headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn ours_are_loopback_names_the_bound_address_and_those_of_the_configuration() {
        let names = vec!["blacklist.internal".to_owned(), "192.0.2.9".to_owned()];
        let hosts = Hosts::new(&HttpSettings { hosts: names }).expect("names");
        let ours = "192.0.2.1".parse().expect("an address");
        for host in [
            "localhost",
            "LocalHost:8181",
            "localhost:",
            "127.0.0.1",
            "127.8.9.1:80",
            "[::1]:8181",
            "[::1]",
            "[::ffff:127.0.0.1]:1",
            "192.0.2.1:8181",
            "192.0.2.9",
            "Blacklist.Internal:443",
        ] {
            assert!(hosts.admit(host, ours), "{host}");
        }
        for host in [
            "",
            ":8181",
            "evil.example",
            "localhost.evil.example",
            "user@localhost",
            "localhost:8181:8181",
            "localhost:x",
            "localhost:999999",
            "192.0.2.2",
            "[::1",
            "[::1]8181",
            "::1",
            "localhost, evil.example",
        ] {
            assert!(!hosts.admit(host, ours), "{host}");
        }
    }

    #[test]
    fn a_host_of_the_configuration_is_a_name_without_a_port() {
        for name in ["", "a:80", "a/b", "*", "http://a"] {
            let settings = HttpSettings { hosts: vec![name.to_owned()] };
            assert_eq!(Hosts::new(&settings).expect_err("no name"), name);
        }
    }

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let token = Token::load_or_create(directory.path()).expect("a token");
        assert_eq!(token.as_str().len(), 2 * TOKEN_BYTES);
        assert_eq!(Token::load_or_create(directory.path()).expect("the token"), token);
        let other = tempfile::tempdir().expect("a directory");
        assert_ne!(Token::load_or_create(other.path()).expect("a token"), token);
        let mode = fs::metadata(directory.path().join(TOKEN_FILE)).expect("the file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn an_empty_token_file_lets_nobody_in() {
        for text in ["", "\n", "short", "thirty-two characters with blanks"] {
            let directory = tempfile::tempdir().expect("a directory");
            fs::write(directory.path().join(TOKEN_FILE), text).expect("written");
            let error = Token::load_or_create(directory.path()).expect_err("no token");
            assert!(matches!(error, TokenError::Invalid { .. }), "{error}");
        }
    }
}
