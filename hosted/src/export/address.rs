//! Where statistics are served, and how one gets there.

use super::PATIENCE;
use core::fmt;
use core::str::FromStr;
use core::time::Duration;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Where statistics are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// HTTP over TCP.
    Tcp(SocketAddr),
    /// HTTP over a Unix socket.
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = io::Error;

    /// `unix:PATH`, `HOST:PORT` or `http://HOST:PORT`, where the host is a number.
    fn from_str(text: &str) -> io::Result<Self> {
        if let Some(path) = text.strip_prefix("unix:") {
            return Ok(Self::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        let address = address
            .trim_end_matches('/')
            .replace("localhost", "127.0.0.1");
        address.parse().map(Self::Tcp).map_err(|_| {
            let help = format!(
                "{text}: an address is unix:PATH or a number and a port, as 127.0.0.1:9184"
            );
            io::Error::new(io::ErrorKind::InvalidInput, help)
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A connection.
pub trait Stream: Read + Write + Send {
    /// Bounds the next reads and writes.
    ///
    /// # Errors
    /// If the system refuses.
    fn set_timeout(&self, time: Duration) -> io::Result<()>;
}

macro_rules! stream {
    ($type:ty) => {
        impl Stream for $type {
            fn set_timeout(&self, time: Duration) -> io::Result<()> {
                let time = Some(time.max(Duration::from_millis(1)));
                self.set_read_timeout(time)?;
                self.set_write_timeout(time)
            }
        }
    };
}
stream!(TcpStream);
stream!(UnixStream);

/// Connects to where statistics are served.
///
/// # Errors
/// If nobody serves there.
pub fn connect(address: &Address) -> io::Result<Box<dyn Stream>> {
    let stream: Box<dyn Stream> = match address {
        Address::Tcp(address) => Box::new(TcpStream::connect_timeout(address, PATIENCE)?),
        Address::Unix(path) => Box::new(UnixStream::connect(path)?),
    };
    stream.set_timeout(PATIENCE)?;
    Ok(stream)
}
