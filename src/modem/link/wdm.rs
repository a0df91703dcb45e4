//! A cdc-wdm port (`/dev/cdc-wdmN`) of qmi_wwan or cdc_mbim.
//!
//! Properties of the kernel's `drivers/usb/class/cdc-wdm.c`:
//! - It truncates a message longer than `wMaxCommand` without an error.
//! - It sends one message at a time. Until the transfer is complete, the next write fails with `EAGAIN`.
//! - It reports the error of a write at the next write.
//! - A STALL reads as 0 bytes, which does not mean end of file.
//! - Several openers share the replies: the first reader takes a reply.
//! - The last close discards data that was not sent or not read.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::unistd;

use super::{Link, LinkError, OpenError, PromptClose, open_node};
use crate::host::deadline::Deadline;
use crate::host::sys;
use crate::modem::device::DeviceNumber;

/// The size in qmi_wwan, and the usual maximum in cdc_mbim.
const USUAL_MAX_COMMAND: u16 = 4096;

#[derive(Debug)]
pub(crate) struct Wdm {
    file: File,
    buffer: Box<[u8]>,
    /// The number of stop requests that this port has reported.
    stops: usize,
    closing: PromptClose,
}

impl Wdm {
    /// Opens the node. This takes as long as the kernel takes to resume the modem.
    pub(crate) fn open(path: &Path, number: DeviceNumber) -> Result<Wdm, OpenError> {
        let file = open_node(path, number)?;
        Wdm::over(file).map_err(|errno| OpenError::Io { path: path.to_owned(), source: io::Error::from(errno) })
    }

    /// A port over an open, non-blocking node.
    fn over(file: File) -> nix::Result<Wdm> {
        let longest = sys::wdm_max_command(file.as_fd()).ok().filter(|bytes| *bytes > 0).unwrap_or(USUAL_MAX_COMMAND);
        let buffer = vec![0; longest.into()].into_boxed_slice();
        Ok(Wdm { file, buffer, stops: 0, closing: PromptClose::new()? })
    }

    fn ready(&mut self, events: PollFlags, by: Deadline) -> Result<bool, LinkError> {
        super::ready(self.file.as_fd(), events, by, &mut self.stops)
    }
}

impl Drop for Wdm {
    fn drop(&mut self) {
        self.closing.begin();
    }
}

impl Link for Wdm {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        if message.len() > self.longest() {
            return Err(LinkError::TooLong { length: message.len(), longest: self.longest() });
        }
        let mut earlier_failed = false;
        loop {
            match unistd::write(&self.file, message) {
                Ok(written) if written == message.len() => return Ok(()),
                Ok(written) => return Err(LinkError::TooLong { length: message.len(), longest: written }),
                Err(Errno::EAGAIN) => {
                    if !self.ready(PollFlags::POLLOUT, by)? {
                        return Err(LinkError::WriteTimeout);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENODEV | Errno::ENXIO | Errno::ESHUTDOWN) => return Err(LinkError::Gone),
                // The error belongs to the previous message. This one was not sent.
                Err(Errno::EIO | Errno::EPIPE) if !earlier_failed => earlier_failed = true,
                Err(errno) => return Err(LinkError::Io { operation: "write", errno }),
            }
        }
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        while !by.has_passed() {
            if !self.ready(PollFlags::POLLIN, by)? {
                return Ok(None);
            }
            match unistd::read(&self.file, &mut self.buffer) {
                Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(length) => return Ok(self.buffer.get(..length)),
                Err(Errno::ENODEV | Errno::ENXIO | Errno::ESHUTDOWN) => return Err(LinkError::Gone),
                Err(Errno::ENOBUFS | Errno::EIO) => return Err(LinkError::Overrun),
                Err(errno) => return Err(LinkError::Io { operation: "read", errno }),
            }
        }
        Ok(None)
    }

    fn longest(&self) -> usize {
        self.buffer.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::soon;
    use nix::sys::socket::{setsockopt, sockopt};
    use nix::time::{ClockId, clock_gettime};
    use std::net::UdpSocket;
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::{Duration, Instant};

    /// How long to wait for data that does not arrive.
    const SILENCE: Duration = Duration::from_millis(50);

    fn silence() -> Deadline {
        Deadline::after(SILENCE)
    }

    fn port(end: impl Into<std::os::fd::OwnedFd>) -> Wdm {
        Wdm::over(File::from(end.into())).unwrap()
    }

    /// A port and the modem's end of it. The sockets are datagram sockets, because an empty datagram reads as 0 bytes
    /// and does not mean end of file.
    fn pair() -> (Wdm, UnixDatagram) {
        let (ours, modems) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (port(ours), modems)
    }

    #[test]
    fn messages_are_sent_and_received() {
        let (mut port, modem) = pair();
        port.send(b"ask", soon()).unwrap();
        let mut asked = [0; 8];
        assert_eq!(modem.recv(&mut asked).unwrap(), 3);
        modem.send(b"answer").unwrap();
        assert_eq!(port.receive(soon()), Ok(Some(&b"answer"[..])));
        assert_eq!(port.longest(), 4096);
    }

    #[test]
    fn silence_ends_with_the_deadline() {
        let (mut port, _modem) = pair();
        let began = Instant::now();
        assert_eq!(port.receive(silence()), Ok(None));
        assert!(began.elapsed() >= SILENCE);
    }

    #[test]
    fn an_empty_read_is_not_end_of_file() {
        let (mut port, modem) = pair();
        modem.send(b"").unwrap();
        modem.send(b"answer").unwrap();
        assert_eq!(port.receive(soon()), Ok(Some(&b"answer"[..])));
        modem.send(b"").unwrap();
        assert_eq!(port.receive(silence()), Ok(None));
    }

    #[test]
    fn a_modem_that_never_stops_sending_cannot_exceed_the_deadline() {
        let (mut port, modem) = pair();
        modem.send(b"more").unwrap();
        assert_eq!(port.receive(Deadline::after(Duration::ZERO)), Ok(None));
    }

    #[test]
    fn a_write_to_a_full_port_waits_until_the_deadline() {
        let (mut port, modem) = pair();
        let filled = loop {
            match port.send(&[0; 4096], silence()) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(filled, LinkError::WriteTimeout);
        std::thread::scope(|scope| {
            scope.spawn(|| while modem.recv(&mut [0; 4096]).unwrap() != 4 {});
            assert_eq!(port.send(b"late", soon()), Ok(()));
        });
    }

    /// A descriptor for which poll always returns POLLERR and nothing else: its error queue has a message. cdc-wdm does
    /// the same between a failed write and the next write.
    fn with_pending_error() -> Wdm {
        let [closed, socket] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true).unwrap();
        socket.connect(closed.local_addr().unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        drop(closed);
        let by = soon();
        // A child process of another test may still have the other socket open, which then takes the message.
        while socket.send(b"no reader").is_ok() && socket.take_error().unwrap().is_none() {
            assert!(!by.has_passed(), "no error came back");
            std::thread::yield_now();
        }
        port(socket)
    }

    #[test]
    fn a_pending_error_costs_no_cpu_time() {
        let mut port = with_pending_error();
        let cpu_time = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        let (began, cpu_before) = (Instant::now(), cpu_time());
        assert_eq!(port.receive(Deadline::after(2 * SILENCE)), Ok(None));
        let (wall, cpu) = (began.elapsed(), cpu_time() - cpu_before);
        assert!(wall >= 2 * SILENCE && cpu < wall / 10, "{cpu:?} of CPU time in {wall:?}");
    }

    #[test]
    fn a_reply_is_read_despite_a_pending_error() {
        let modem = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut port = with_pending_error();
        let ours = UdpSocket::from(std::os::fd::OwnedFd::from(port.file.try_clone().unwrap()));
        ours.connect(modem.local_addr().unwrap()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| modem.send_to(b"answer", ours.local_addr().unwrap()).unwrap());
            let received = port.receive(soon());
            assert_eq!(received, Ok(Some(&b"answer"[..])));
        });
    }

    #[test]
    fn a_port_that_hangs_up_is_gone() {
        let (ours, modems) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut port = port(ours);
        drop(modems);
        assert_eq!(port.receive(soon()), Err(LinkError::Gone));
    }

    #[test]
    fn a_message_that_the_port_would_truncate_is_not_sent() {
        let (mut port, _modem) = pair();
        assert_eq!(port.send(&[0; 4097], soon()), Err(LinkError::TooLong { length: 4097, longest: 4096 }));
    }
}
