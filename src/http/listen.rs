//! Binds the places to listen on.
//!
//! A Unix socket is made in a folder that nobody else can enter, gets its permissions there, and is then
//! moved to its name: it is never reachable by more than it should be, and there is no moment without a
//! socket when a stale one is replaced.
//!
//! ```text
//!   folder 0700  .x7Kq2/s   bind, listen, chown, chmod ── rename ──► admin.sock
//! ```
//!
//! A socket whose process was killed stays behind as a file; it is replaced if nobody accepts there. A file
//! that is no socket is left alone, and so is the socket of a process that lives. At the end only a socket
//! that is still ours is removed: another process may have taken the name since.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net;
use std::path::{Path, PathBuf};

use nix::unistd::Gid;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixSocket, UnixStream};

use super::guard::Peer;
use super::settings::{AdminSettings, Listen};

/// How many connections the kernel holds for us before they are accepted.
const BACKLOG: u32 = 1024;

/// Who may use a Unix socket: whoever the mode lets write to its file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rights {
    pub(super) mode: u32,
    pub(super) group: Option<Gid>,
}

impl Rights {
    /// Reading is open to whoever reaches the port, so the sockets for it are too.
    pub(super) const READ: Self = Self { mode: 0o666, group: None };

    /// Those of the configuration; the error says which group there is not.
    pub(super) fn new(settings: &AdminSettings) -> Result<Self, String> {
        Ok(Self { mode: settings.socket_mode.bits(), group: settings.group()? })
    }
}

/// Takes connections at one place.
///
/// Dropping it closes it; of a Unix socket it also removes the file.
#[derive(Debug)]
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

/// A connection on its way from the thread that accepts to the one that answers.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(std::net::TcpStream),
    Unix(net::UnixStream),
}

impl Listener {
    /// Binds; must be called within a runtime. The rights are those of a Unix socket and mean nothing to TCP.
    pub(super) fn bind(listen: &Listen, rights: Rights) -> io::Result<Self> {
        match listen {
            Listen::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path, rights),
        }
    }

    /// Where it listens: the port that was found where any was asked for.
    pub(super) fn place(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_, file) => Ok(Listen::Unix(file.path.clone())),
        }
    }

    /// The next connection, taken off the runtime that accepted it.
    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => listener.accept().await?.0.into_std().map(Socket::Tcp),
            Self::Unix(listener, _) => listener.accept().await?.0.into_std().map(Socket::Unix),
        }
    }
}

/// A connection on the runtime that answers it, and where it came in.
///
/// The address of a TCP peer is our own end of the connection: what `Host` may name.
pub(super) enum Connected {
    Tcp(TcpStream, Peer),
    Unix(UnixStream, Peer),
}

impl Socket {
    /// Puts the connection onto the runtime of the calling thread.
    pub(super) fn connect(self) -> io::Result<Connected> {
        match self {
            Self::Tcp(stream) => {
                // An answer is one write, and waits for nothing to be sent with.
                stream.set_nodelay(true)?;
                let ours = stream.local_addr()?.ip();
                Ok(Connected::Tcp(TcpStream::from_std(stream)?, Peer::Tcp(ours)))
            }
            Self::Unix(stream) => Ok(Connected::Unix(UnixStream::from_std(stream)?, Peer::Unix)),
        }
    }
}

/// A listener at a TCP address; on port 0 the kernel finds a free one.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Else a restart would have to wait for the connections of the process before to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener at the path of a Unix socket, which others can reach only once its rights are as they must be.
fn bind_unix(path: &Path, rights: Rights) -> io::Result<Listener> {
    // Says so when the path is longer than a client could connect to.
    net::SocketAddr::from_pathname(path)?;
    check_replaceable(path)?;
    let folder = Folder::new(path.parent().unwrap_or(Path::new(".")))?;
    let fresh = folder.0.join("s");
    let socket = UnixSocket::new_stream()?;
    socket.bind(&fresh)?;
    let listener = socket.listen(BACKLOG)?;
    // A sandbox may forbid even a chown that changes nothing.
    if let Some(group) = rights.group {
        chown(&fresh, None, Some(group.as_raw()))?;
    }
    fs::set_permissions(&fresh, Permissions::from_mode(rights.mode))?;
    // Looked at before the move: afterwards another process might have put its own in the place.
    let file = SocketFile::new(&fresh, path)?;
    fs::rename(&fresh, path)?;
    Ok(Listener::Unix(listener, file))
}

/// Nothing, or a socket that nobody accepts at, may be replaced. Asked with `symlink_metadata`, so that a
/// link is no socket, whatever it points to.
fn check_replaceable(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
        Ok(there) if there.file_type().is_socket() => {}
        Ok(_) => {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket is there"));
        }
    }
    match net::UnixStream::connect(path) {
        // It sees a connection that ends without a request, which every server is used to.
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

/// A folder that only we can enter, with a name so short that the socket's path fits wherever the final one
/// does. It is gone with this value.
struct Folder(PathBuf);

impl Folder {
    fn new(parent: &Path) -> io::Result<Self> {
        let name: String = std::iter::repeat_with(fastrand::alphanumeric).take(5).collect();
        let path = parent.join(format!(".{name}"));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The file of a socket; removed with this value, if it is still the one that we made.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
}

impl SocketFile {
    /// Remembers the socket by device and inode, which the move to `path` does not change.
    fn new(fresh: &Path, path: &Path) -> io::Result<Self> {
        let made = fs::symlink_metadata(fresh)?;
        Ok(Self { path: path.to_owned(), identity: (made.dev(), made.ino()) })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let there = fs::symlink_metadata(&self.path).map(|there| (there.dev(), there.ino()));
        if there.is_ok_and(|there| there == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}
