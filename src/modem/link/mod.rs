//! Byte transport to and from a modem. [`Link`] is the interface to each kind of port.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(test)]
pub(crate) mod fake;
pub mod stream;
pub(super) mod tty;
pub mod usb;
pub(super) mod wdm;
pub(super) mod wwan;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::PollFlags;
use nix::sys::time::TimeSpec;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};

use crate::host::deadline::Deadline;
use crate::host::sys::{self, AS_ROOT};
use crate::modem::device::DeviceNumber;

/// How long closing a port may wait for the modem to accept the last bytes.
const CLOSING: Duration = Duration::from_millis(50);

/// Limits the time that closing a port takes. The kernel waits up to 30 s for a modem to accept the written bytes:
/// `closing_wait` of a tty, `WDM_FLUSH_TIMEOUT` of cdc-wdm. A signal ends that wait.
///
/// In a struct, this field must come after the port, because fields are dropped in the order of their declaration.
#[derive(Debug)]
struct PromptClose(Timer);

impl PromptClose {
    fn new() -> nix::Result<PromptClose> {
        sys::interrupter().map(PromptClose)
    }

    /// Starts the timer that interrupts the process. Called just before the port is closed.
    fn begin(&mut self) {
        let each = Expiration::Interval(TimeSpec::from_duration(CLOSING));
        if let Err(errno) = self.0.set(each, TimerSetTimeFlags::empty()) {
            log::debug!("closing the port has no time limit: {errno}");
        }
    }
}

/// How often to poll a port on which poll(2) returns at once. cdc-wdm keeps the error of a failed write until the next
/// write, and a WWAN port may deliver empty messages.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A port of a modem.
pub trait Link {
    /// Sends one whole message.
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError>;

    /// Reads the next bytes from the modem: a part of a message, one message, or several. Returns `None` if no bytes
    /// arrive before the deadline. Always returns `None` after the deadline, so that a modem that never stops sending
    /// cannot hold the caller.
    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError>;

    /// The longest message that the port takes, in bytes.
    fn longest(&self) -> usize;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The port accepted no bytes before the deadline.
    #[error("the port did not accept the message in time")]
    WriteTimeout,
    #[error("the modem disconnected")]
    Gone,
    /// Another process has opened the port after this one. Reported once.
    #[error("another program has opened the port too")]
    Contended,
    /// The process received a termination signal. Reported once for each signal.
    #[error("stopped by a signal")]
    Interrupted,
    /// Bytes from the modem were lost. The next bytes may begin in the middle of a message.
    #[error("bytes from the modem were lost")]
    Overrun,
    #[error("a message of {length} bytes is longer than the {longest} bytes that the port accepts")]
    TooLong { length: usize, longest: usize },
    #[error("{operation} on the port failed: {errno}")]
    Io { operation: &'static str, errno: Errno },
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is gone")]
    Gone { path: PathBuf },
    #[error("{path} does not exist")]
    Missing { path: PathBuf },
    /// The `/dev/wwan*` node of the same port is open, and the kernel allows only one of the two. Or another program
    /// uses a tty exclusively (`TIOCEXCL`).
    #[error("{path} is in use by another program, or as a /dev/wwan port")]
    InUse { path: PathBuf },
    /// The modem's firmware is not running, or does not reply. A later attempt may succeed.
    #[error("{path} cannot be opened yet: the modem is not ready ({source})")]
    NotReady { path: PathBuf, source: io::Error },
    /// The process received a termination signal.
    #[error("stopped by a signal while {path} was opened")]
    Interrupted { path: PathBuf },
    #[error("cannot open {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not the character device {major}:{minor} that sysfs names")]
    WrongDevice { path: PathBuf, major: u64, minor: u64 },
}

impl OpenError {
    /// What a person can do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            OpenError::NotReady { .. } => "if the problem persists, shut the machine down and turn it on again",
            // The kernel has the port, but no node was created for it, or a container hides the node.
            OpenError::Missing { .. } => "create this device node; in a container, pass the node on from the host",
            OpenError::Interrupted { .. } => "try again",
            OpenError::InUse { .. } => "stop the program that uses it, then run `wwan-quirks apply`",
            OpenError::Io { source, .. } if sys::lacks_root(source) => AS_ROOT,
            _ => "check the kernel log for messages about the port",
        }
    }
}

/// Opens a device node for reading and writing, without blocking.
///
/// # Errors
/// `WrongDevice` if the node is not the character device `number`. Symbolic links are not followed.
pub(crate) fn open_node(path: &Path, number: DeviceNumber) -> Result<File, OpenError> {
    let file = open_path(path).map_err(|source| open_error(path, source))?;
    check_number(&file, path, number)?;
    Ok(file)
}

fn open_path(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path)
}

fn open_error(path: &Path, source: io::Error) -> OpenError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => OpenError::Missing { path: path.to_owned() },
        Some(Errno::ENODEV | Errno::ENXIO) => OpenError::Gone { path: path.to_owned() },
        Some(Errno::EBUSY) => OpenError::InUse { path: path.to_owned() },
        Some(Errno::EINTR) => OpenError::Interrupted { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source },
    }
}

fn check_number(file: &File, path: &Path, number: DeviceNumber) -> Result<(), OpenError> {
    let metadata = file.metadata().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    if DeviceNumber::of(&metadata) != Some(number) {
        let DeviceNumber { major, minor } = number;
        return Err(OpenError::WrongDevice { path: path.to_owned(), major, minor });
    }
    Ok(())
}

/// Waits until the descriptor is ready. Returns `false` if the deadline passes first. `stops` counts the stop requests
/// that the port has reported.
fn ready(fd: BorrowedFd, events: PollFlags, by: Deadline, stops: &mut usize) -> Result<bool, LinkError> {
    loop {
        match sys::wait(fd, events, by, *stops) {
            Ok(flags) if flags.contains(PollFlags::POLLHUP) => return Err(LinkError::Gone),
            Ok(flags) if flags.intersects(events) => return Ok(true),
            Ok(flags) if flags.is_empty() || by.has_passed() => return Ok(false),
            // Only POLLERR is set.
            Ok(_) => pause(by, stops)?,
            Err(errno) => return Err(not_waited(errno, stops)),
        }
    }
}

/// Waits before the port is polled again, because poll(2) would return at once.
fn pause(by: Deadline, stops: &mut usize) -> Result<(), LinkError> {
    sys::pause(by.at_most(POLL_INTERVAL), *stops).map_err(|errno| not_waited(errno, stops))
}

fn not_waited(errno: Errno, stops: &mut usize) -> LinkError {
    if errno == Errno::EINTR {
        *stops += 1;
        return LinkError::Interrupted;
    }
    LinkError::Io { operation: "poll", errno }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn opens_only_the_named_character_device() {
        let null = DeviceNumber { major: 1, minor: 3 };
        assert!(open_node(Path::new("/dev/null"), null).is_ok());
        let other = open_node(Path::new("/dev/zero"), null).unwrap_err();
        assert!(matches!(other, OpenError::WrongDevice { .. }), "{other}");
        assert!(matches!(open_node(Path::new("/dev/no-such"), null), Err(OpenError::Missing { .. })));
        let root = TempRoot::new("link");
        let link = root.at("/null");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let refused = open_node(&link, null);
        assert!(matches!(refused, Err(OpenError::Io { .. })));
    }
}
