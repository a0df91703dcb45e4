//! A byte stream in both directions: a tty, a WWAN port, or the socket of a proxy.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use nix::unistd;

use super::{Link, LinkError, pause, ready};
use crate::host::deadline::Deadline;

/// The longest message that can be sent: proxies read this many bytes at once.
const MAX_LENGTH: usize = 4096;

/// The process at the other end of a socket, as the kernel knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    pub pid: u32,
    pub uid: u32,
}

#[derive(Debug)]
pub struct Stream {
    file: File,
    buffer: Box<[u8]>,
    /// The number of stop requests that this port has reported.
    stops: usize,
    /// Dropped after the file. A child process then closes the file, too.
    _keeper: Option<OwnedFd>,
}

impl Stream {
    /// A stream over an open, non-blocking descriptor.
    pub fn over(descriptor: impl Into<OwnedFd>) -> Stream {
        let buffer = vec![0; MAX_LENGTH].into_boxed_slice();
        Stream { file: File::from(descriptor.into()), buffer, stops: 0, _keeper: None }
    }

    /// A stream over a descriptor that a child process closes last, when `keeper` is dropped.
    pub(super) fn with_keeper(descriptor: impl Into<OwnedFd>, keeper: OwnedFd) -> Stream {
        Stream { _keeper: Some(keeper), ..Stream::over(descriptor) }
    }

    /// Connects to the abstract socket of this name. The proxies of libqmi and libmbim listen on such sockets.
    ///
    /// # Errors
    /// `ECONNREFUSED` if no process listens.
    pub fn connect_abstract(name: &str) -> nix::Result<Stream> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        Ok(Stream::over(socket))
    }

    /// The process that listens on the socket.
    pub(crate) fn peer(&self) -> nix::Result<Peer> {
        let credentials = getsockopt(&self.file, PeerCredentials)?;
        Ok(Peer { pid: credentials.pid().unsigned_abs(), uid: credentials.uid() })
    }

    fn ready(&mut self, events: PollFlags, by: Deadline) -> Result<bool, LinkError> {
        ready(self.file.as_fd(), events, by, &mut self.stops)
    }

    fn pause(&mut self, by: Deadline) -> Result<(), LinkError> {
        pause(by, &mut self.stops)
    }
}

impl Link for Stream {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        let mut rest = message;
        while !rest.is_empty() {
            match unistd::write(&self.file, rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EAGAIN) => {
                    if !self.ready(PollFlags::POLLOUT, by)? {
                        let is_unsent = rest.len() == message.len();
                        let cut_off = LinkError::Io { operation: "write", errno: Errno::ETIMEDOUT };
                        return Err(if is_unsent { LinkError::WriteTimeout } else { cut_off });
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENODEV | Errno::ENXIO | Errno::EIO) => {
                    return Err(LinkError::Gone);
                }
                Err(errno) => return Err(LinkError::Io { operation: "write", errno }),
            }
        }
        Ok(())
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        while !by.has_passed() {
            if !self.ready(PollFlags::POLLIN, by)? {
                return Ok(None);
            }
            match unistd::read(&self.file, &mut self.buffer) {
                // An empty message of a WWAN port. The end of a stream is a hang-up.
                Ok(0) => self.pause(by)?,
                Ok(length) => return Ok(self.buffer.get(..length)),
                Err(Errno::EAGAIN | Errno::EINTR) => {}
                Err(Errno::ECONNRESET | Errno::ENODEV | Errno::ENXIO | Errno::EIO) => return Err(LinkError::Gone),
                Err(errno) => return Err(LinkError::Io { operation: "read", errno }),
            }
        }
        Ok(None)
    }

    fn longest(&self) -> usize {
        MAX_LENGTH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::soon;
    use std::io::{Read, Write};
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener, UnixStream};
    use std::time::Duration;

    /// How long to wait for data that does not arrive.
    fn silence() -> Deadline {
        Deadline::after(Duration::from_millis(50))
    }

    /// A WWAN port passes on an empty packet as an empty message.
    #[test]
    fn an_empty_message_is_skipped_and_a_hang_up_is_the_end() {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::over(ours);
        theirs.send(b"").unwrap();
        theirs.send(b"x").unwrap();
        assert_eq!(stream.receive(soon()), Ok(Some(&b"x"[..])));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(Stream::over(ours).receive(soon()), Err(LinkError::Gone));
    }

    #[test]
    fn a_long_message_is_written_in_parts() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::over(ours);
        let message = vec![7; 1 << 20];
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| stream.send(&message, soon()));
            let mut came = vec![0; 1 << 20];
            theirs.read_exact(&mut came).unwrap();
            assert_eq!(sending.join().unwrap(), Ok(()));
            assert_eq!(came, message);
        });
        // Nothing of the second message is sent.
        let cut_off = LinkError::Io { operation: "write", errno: Errno::ETIMEDOUT };
        assert_eq!(stream.send(&message, silence()), Err(cut_off));
        assert_eq!(stream.send(&message, silence()), Err(LinkError::WriteTimeout));
    }

    #[test]
    fn end_of_stream_means_that_the_modem_left() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut stream = Stream::over(ours);
        theirs.write_all(b"bye").unwrap();
        assert_eq!(stream.receive(soon()), Ok(Some(&b"bye"[..])));
        assert_eq!(stream.receive(silence()), Ok(None));
        drop(theirs);
        assert_eq!(stream.receive(soon()), Err(LinkError::Gone));
        assert_eq!(stream.send(b"hello", soon()), Err(LinkError::Gone));
    }

    #[test]
    fn an_abstract_socket_is_connected_by_name() {
        let name = format!("wwan-quirks-test-{}", std::process::id());
        assert_eq!(Stream::connect_abstract(&name).unwrap_err(), Errno::ECONNREFUSED);
        let listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let mut stream = Stream::connect_abstract(&name).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        stream.send(b"open", soon()).unwrap();
        let mut came = [0; 4];
        theirs.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"open");
    }
}
