//! A cdc-wdm port: `/dev/cdc-wdmN`, made by qmi_wwan and cdc_mbim.
//!
//! Of the kernel's `drivers/usb/class/cdc-wdm.c`: a message longer than `wMaxCommand` is cut without a word; one write
//! at a time, the next fails with `EAGAIN` until the first is through; an error of a write is told by the next one; a
//! stall reads as 0 bytes, which is no end; several openers share the answers, the first reader takes all; the last
//! close drops what was not yet sent or read.

use super::{LinkError, Port};
use crate::deadline::Deadline;
use crate::sys;
use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK};
use nix::poll::PollFlags;
use nix::sys::stat::{major, minor};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// What qmi_wwan gives its ports, and the most that cdc_mbim's usually have.
const USUAL_MAX_COMMAND: u16 = 4096;

/// A device number, as sysfs's `dev` and `st_rdev` have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    pub major: u64,
    pub minor: u64,
}

impl fmt::Display for DeviceNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The modem left between its event and now.
    #[error("{} is gone", .0.display())]
    Gone(PathBuf),
    /// Its other face, `/dev/wwan*`, is in use: the kernel lets one of the two be opened.
    #[error("{} is in use as a /dev/wwan port", .0.display())]
    InUse(PathBuf),
    #[error("{} is not character device {expected}, but {found}", .path.display())]
    OtherNode { path: PathBuf, expected: DeviceNumber, found: String },
    #[error("cannot open {}: {error}", .path.display())]
    Io { path: PathBuf, error: io::Error },
}

#[derive(Debug)]
pub struct Wdm {
    file: File,
    buffer: Box<[u8]>,
    /// How many of the requests to stop this port has told of.
    stops: usize,
}

impl Wdm {
    /// Opens the node that must be this character device and no link to one: after a replug, another modem may have
    /// taken its name.
    ///
    /// Takes as long as the kernel needs to wake the modem up.
    pub fn open(path: &Path, expected: DeviceNumber) -> Result<Wdm, OpenError> {
        let io = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => OpenError::Gone(path.to_owned()),
            Some(Errno::EBUSY) => OpenError::InUse(path.to_owned()),
            _ => OpenError::Io { path: path.to_owned(), error },
        };
        let other = |found: String| OpenError::OtherNode { path: path.to_owned(), expected, found };
        let opened =
            OpenOptions::new().read(true).write(true).custom_flags(O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC).open(path);
        let file = match opened {
            Err(error) if error.raw_os_error() == Some(Errno::ELOOP as i32) => return Err(other("a link".to_owned())),
            opened => opened.map_err(io)?,
        };
        let metadata = file.metadata().map_err(io)?;
        if !metadata.file_type().is_char_device() {
            return Err(other("no character device".to_owned()));
        }
        let found = DeviceNumber { major: major(metadata.rdev()), minor: minor(metadata.rdev()) };
        if found != expected {
            return Err(other(found.to_string()));
        }
        Ok(Wdm::over(file))
    }

    /// A port over what is already open, without blocking, and is the right node.
    fn over(file: File) -> Wdm {
        let longest = sys::wdm_max_command(file.as_fd()).ok().filter(|bytes| *bytes > 0).unwrap_or(USUAL_MAX_COMMAND);
        Wdm { file, buffer: vec![0; longest.into()].into_boxed_slice(), stops: 0 }
    }

    /// Whether the port became ready in time.
    fn ready(&mut self, events: PollFlags, by: Deadline) -> Result<bool, LinkError> {
        match sys::wait(self.file.as_fd(), events, by, self.stops) {
            Ok(flags) if flags.contains(PollFlags::POLLHUP) => Err(LinkError::Gone),
            Ok(flags) => Ok(!flags.is_empty()),
            Err(Errno::EINTR) => {
                self.stops += 1;
                Err(LinkError::Interrupted)
            }
            Err(errno) => Err(LinkError::Io { operation: "poll", errno }),
        }
    }
}

impl Port for Wdm {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        if message.len() > self.longest() {
            return Err(LinkError::TooLong { length: message.len(), longest: self.longest() });
        }
        let mut earlier_failed = false;
        loop {
            match self.file.write(message).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
                Ok(written) if written == message.len() => return Ok(()),
                Ok(written) => return Err(LinkError::TooLong { length: message.len(), longest: written }),
                Err(Errno::EAGAIN) => {
                    if !self.ready(PollFlags::POLLOUT, by)? {
                        return Err(LinkError::Jammed);
                    }
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ENODEV | Errno::ENXIO | Errno::ESHUTDOWN) => return Err(LinkError::Gone),
                // What became of the message before this one; this one has not been looked at.
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
            match self.file.read(&mut self.buffer).map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0))) {
                Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => {}
                Ok(length) => return Ok(self.buffer.get(..length)),
                Err(Errno::ENODEV | Errno::ENXIO | Errno::ESHUTDOWN) => return Err(LinkError::Gone),
                Err(Errno::ENOBUFS | Errno::EIO) => return Err(LinkError::Lost),
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
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::time::{Duration, Instant};

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(50))
    }

    fn port(end: impl Into<std::os::fd::OwnedFd>) -> Wdm {
        Wdm::over(File::from(end.into()))
    }

    /// A port, and the modem's end of it. Datagrams, as an empty one reads as 0 bytes without being an end.
    fn pair() -> (Wdm, UnixDatagram) {
        let (ours, modems) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (port(ours), modems)
    }

    #[test]
    fn messages_go_and_come() {
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
        assert_eq!(port.receive(soon()), Ok(None));
        assert!((50..500).contains(&began.elapsed().as_millis()));
    }

    #[test]
    fn an_empty_read_is_no_end() {
        let (mut port, modem) = pair();
        modem.send(b"").unwrap();
        modem.send(b"answer").unwrap();
        assert_eq!(port.receive(soon()), Ok(Some(&b"answer"[..])));
        modem.send(b"").unwrap();
        assert_eq!(port.receive(soon()), Ok(None));
    }

    #[test]
    fn a_modem_that_never_stops_talking_does_not_outlast_the_deadline() {
        let (mut port, modem) = pair();
        modem.send(b"more").unwrap();
        assert_eq!(port.receive(Deadline::after(Duration::ZERO)), Ok(None));
    }

    #[test]
    fn a_full_port_is_waited_for_until_the_deadline() {
        let (mut port, modem) = pair();
        let filled = loop {
            match port.send(&[0; 4096], soon()) {
                Ok(()) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(filled, LinkError::Jammed);
        std::thread::scope(|scope| {
            let sending = scope.spawn(|| port.send(b"late", Deadline::after(Duration::from_secs(10))));
            while modem.recv(&mut [0; 4096]).unwrap() != 4 {}
            assert_eq!(sending.join().unwrap(), Ok(()));
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
    fn nothing_is_sent_that_the_port_would_cut() {
        let (mut port, _modem) = pair();
        assert_eq!(port.send(&[0; 4097], soon()), Err(LinkError::TooLong { length: 4097, longest: 4096 }));
    }

    #[test]
    fn only_the_expected_device_is_opened() {
        let null = DeviceNumber { major: 1, minor: 3 };
        assert!(Wdm::open(Path::new("/dev/null"), null).is_ok());
        let refused = |path: &str, number| Wdm::open(Path::new(path), number).unwrap_err().to_string();
        assert_eq!(
            refused("/dev/null", DeviceNumber { major: 180, minor: 176 }),
            "/dev/null is not character device 180:176, but 1:3"
        );
        assert_eq!(refused("/proc/self/exe", null), "/proc/self/exe is not character device 1:3, but a link");
        assert_eq!(refused("/dev/no-such-node", null), "/dev/no-such-node is gone");
        let file = std::env::temp_dir().join(format!("wwan-quirks-wdm-{}", std::process::id()));
        std::fs::write(&file, "").unwrap();
        let refusal = refused(file.to_str().unwrap(), null);
        std::fs::remove_file(&file).unwrap();
        assert!(refusal.ends_with("is not character device 1:3, but no character device"), "{refusal}");
    }
}
