//! Listening: on this machine only unless that is allowed, until somebody says that it is over, and in no child.

use super::{Address, Stream};
use crate::sys;
use std::io::{self, Write};
use std::net::{IpAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Waits for clients. A child of a fork does not: what it has of this is closed there.
pub(super) struct Listener {
    socket: Socket,
    /// Readable when it is over.
    over: UnixStream,
    /// The file of a Unix socket, to be removed at the end if it is still this one.
    file: Option<File>,
    in_children: sys::ClosedInChildren,
}

/// Ends the waiting of a listener, when it is dropped too.
pub(super) struct Ender(UnixStream);

impl Ender {
    pub(super) fn end(&mut self) {
        let _told = self.0.write_all(b"x");
    }
}

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

struct File {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl File {
    fn of(path: &Path) -> io::Result<Self> {
        let data = std::fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: data.dev(),
            inode: data.ino(),
        })
    }
}

impl Listener {
    /// Listens, and tells where: a port of 0 becomes one that is free.
    pub(super) fn bind(address: &Address, any_machine: bool) -> io::Result<(Self, Ender, Address)> {
        let (socket, file, address) = match address {
            Address::Tcp(address) => {
                if !any_machine && !is_loopback(address.ip()) {
                    let help = format!(
                        "{address} can be reached from other machines: use 127.0.0.1, or Options::any_machine"
                    );
                    return Err(io::Error::new(io::ErrorKind::PermissionDenied, help));
                }
                let listener = TcpListener::bind(address)?;
                let address = listener.local_addr()?;
                (Socket::Tcp(listener), None, Address::Tcp(address))
            }
            Address::Unix(path) => {
                // So that it can be found again wherever the program goes.
                let path = std::path::absolute(path)?;
                remove_dead_socket(&path);
                let listener = sys::private_unix_listener(&path)?;
                let file = File::of(&path)?;
                (Socket::Unix(listener), Some(file), Address::Unix(path))
            }
        };
        let (over, ender) = UnixStream::pair()?;
        let fds = [socket.fd(), over.as_raw_fd(), ender.as_raw_fd()];
        let listener = Self {
            socket,
            over,
            file,
            in_children: sys::ClosedInChildren::new(fds)?,
        };
        Ok((listener, Ender(ender), address))
    }

    /// The next client; `None` when it is over.
    pub(super) fn accept(&self) -> io::Result<Option<Box<dyn Stream>>> {
        if !sys::wait_for_first(self.socket.fd(), self.over.as_raw_fd())? {
            return Ok(None);
        }
        Ok(Some(match &self.socket {
            Socket::Tcp(listener) => Box::new(listener.accept()?.0),
            Socket::Unix(listener) => Box::new(listener.accept()?.0),
        }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Before the numbers are somebody else's.
        self.in_children.forget();
        if let Some(file) = &self.file
            && File::of(&file.path)
                .is_ok_and(|now| (now.device, now.inode) == (file.device, file.inode))
        {
            let _removed = std::fs::remove_file(&file.path);
        }
    }
}

impl Socket {
    fn fd(&self) -> RawFd {
        match self {
            Self::Tcp(listener) => listener.as_raw_fd(),
            Self::Unix(listener) => listener.as_raw_fd(),
        }
    }
}

fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// Removes what a program left behind that did not end well: a socket on which nobody listens. Nothing else.
fn remove_dead_socket(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    if is_socket && sys::nobody_listens(path) {
        let _removed = std::fs::remove_file(path);
    }
}
