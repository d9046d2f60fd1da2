//! DogStatsD's sockets: opened here, with room for datagrams not read yet.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use serde_json::{Map, Value, json};
use socket2::{Domain, SockAddr, Socket, Type};
use tracing::warn;

use crate::ingest::IngestError;
use crate::ingest::settings::Sockets;

/// How long a reader waits before it looks whether to stop.
const LOOK_UP: Duration = Duration::from_millis(100);

/// Anyone on the host may send, none but the agent reads.
const UNIX_MODE: u32 = 0o722;

/// A socket that is read.
#[derive(Debug)]
pub struct Open {
    /// The socket.
    pub socket: Socket,
    /// The inode of a UDP socket, by which the kernel counts what it drops.
    pub inode: Option<u64>,
}

/// Opens the sockets that are set, and notes where they are bound.
///
/// # Errors
/// [`IngestError::Listen`].
pub fn open(sockets: &Sockets, bound: &mut Map<String, Value>) -> Result<Vec<Open>, IngestError> {
    let mut all = Vec::new();
    if let Some(path) = &sockets.unix {
        let failed = |source| IngestError::Listen {
            key: "ingest.dogstatsd.unix",
            at: path.display().to_string(),
            source,
        };
        let socket = unix(path).map_err(failed)?;
        prepare(&socket, sockets.receive_buffer_bytes).map_err(failed)?;
        bound.insert("dogstatsd_unix".into(), json!(path.display().to_string()));
        all.push(Open { socket, inode: None });
    }
    if let Some(at) = sockets.udp {
        let failed = |source| IngestError::Listen {
            key: "ingest.dogstatsd.udp",
            at: at.to_string(),
            source,
        };
        let (socket, address) = udp(at).map_err(failed)?;
        prepare(&socket, sockets.receive_buffer_bytes).map_err(failed)?;
        if !address.ip().is_loopback() {
            warn!(%address, "not a loopback address: whoever reaches it can count, unasked");
        }
        let inode = rustix::fs::fstat(socket.as_fd()).map_err(|error| failed(error.into()))?.st_ino;
        bound.insert("dogstatsd_udp".into(), json!(address.to_string()));
        all.push(Open { socket, inode: Some(inode) });
    }
    Ok(all)
}

fn prepare(socket: &Socket, receive_buffer_bytes: usize) -> io::Result<()> {
    socket.set_recv_buffer_size(receive_buffer_bytes)?;
    socket.set_read_timeout(Some(LOOK_UP))
}

fn udp(at: SocketAddr) -> io::Result<(Socket, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    socket.bind(&at.into())?;
    let bound = socket.local_addr()?.as_socket().unwrap_or(at);
    Ok((socket, bound))
}

/// A datagram socket at this path, in place of one that nobody reads any more.
fn unix(path: &Path) -> io::Result<Socket> {
    let address = SockAddr::unix(path)?;
    let is_socket =
        std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket {
        let probe = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        match probe.connect(&address) {
            Ok(()) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    socket.bind(&address)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(UNIX_MODE))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_left_by_the_dead_is_replaced_and_one_in_use_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dsd.socket");
        let first = unix(&path).unwrap();
        assert_eq!(unix(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(unix(&path).is_ok());
        let file = dir.path().join("file");
        std::fs::write(&file, "kept").unwrap();
        assert!(unix(&file).is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    }
}
