//! Unix sockets that the daemon listens at.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt as _, PermissionsExt as _},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixSocket};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 64;

/// A socket at a path, which is removed with it.
#[derive(Debug)]
pub struct Bound {
    /// The socket.
    pub listener: UnixListener,
    path: PathBuf,
}

impl Bound {
    /// Listens at a path, for the socket's owner alone (mode 0600, before anyone can connect). What a daemon that was killed
    /// has left there is removed; needs a tokio runtime.
    ///
    /// # Errors
    /// Those of bind(2); [`ErrorKind::AddrInUse`] if another daemon listens there, or something else is there.
    pub fn listen(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let socket = UnixSocket::new_stream()?;
        socket.bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener: socket.listen(BACKLOG)?, path: path.to_owned() })
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Nothing can be done about a failure; the next daemon removes it.
        _ = fs::remove_file(&self.path);
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        metadata => metadata?,
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(ErrorKind::AddrInUse, "something that is no socket is there"));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::new(ErrorKind::AddrInUse, "another daemon listens there")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_owners_and_goes_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let bound = Bound::listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(Bound::listen(&path).unwrap_err().kind(), ErrorKind::AddrInUse, "another daemon");
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn what_was_left_is_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Bound::listen(&path).unwrap());
        fs::write(&path, "mine").unwrap();
        assert_eq!(Bound::listen(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(fs::read(&path).unwrap(), b"mine");
    }
}
