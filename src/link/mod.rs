//! How bytes travel: each kind of port behind [`Port`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(test)]
pub(crate) mod scripted;
pub mod stream;
pub mod tty;
pub mod wdm;

use crate::deadline::Deadline;
use crate::sys;
use nix::errno::Errno;
use nix::libc::{O_CLOEXEC, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK};
use nix::poll::PollFlags;
use nix::sys::stat::{major, minor};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// A port that a modem listens on.
pub trait Port {
    /// Sends one message whole.
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError>;

    /// The next bytes from the modem, at least one; `None` where none came in time, and after that time whatever came:
    /// a modem that never stops talking does not keep anybody.
    ///
    /// They need be neither one message nor whole messages.
    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError>;

    /// The longest message that the port carries, in bytes.
    fn longest(&self) -> usize;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The port took nothing until the deadline.
    #[error("the port takes no message")]
    Jammed,
    #[error("the modem left")]
    Gone,
    /// The process was asked to stop. Said once for each time that it was asked.
    #[error("stopped by a signal")]
    Interrupted,
    /// Bytes from the modem were lost; those that follow need not begin with a message.
    #[error("bytes from the modem were lost")]
    Lost,
    #[error("a message of {length} bytes is longer than the port's {longest}")]
    TooLong { length: usize, longest: usize },
    #[error("the port's {operation} failed: {errno}")]
    Io { operation: &'static str, errno: Errno },
}

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

/// Opens the node that must be this character device and no link to one, without blocking: after a replug, another
/// modem may have taken its name.
fn open_node(path: &Path, expected: DeviceNumber) -> Result<File, OpenError> {
    let io = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => OpenError::Gone(path.to_owned()),
        Some(Errno::EBUSY) => OpenError::InUse(path.to_owned()),
        _ => OpenError::Io { path: path.to_owned(), error },
    };
    let other = |found: String| OpenError::OtherNode { path: path.to_owned(), expected, found };
    let flags = O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY;
    let file = match OpenOptions::new().read(true).write(true).custom_flags(flags).open(path) {
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
    Ok(file)
}

/// Whether the descriptor became ready in time. `stops` counts the requests to stop that its port has told of.
fn ready(fd: BorrowedFd, events: PollFlags, by: Deadline, stops: &mut usize) -> Result<bool, LinkError> {
    match sys::wait(fd, events, by, *stops) {
        Ok(flags) if flags.contains(PollFlags::POLLHUP) => Err(LinkError::Gone),
        Ok(flags) => Ok(!flags.is_empty()),
        Err(Errno::EINTR) => {
            *stops += 1;
            Err(LinkError::Interrupted)
        }
        Err(errno) => Err(LinkError::Io { operation: "poll", errno }),
    }
}

/// What a read or write came to, with the number of its error.
fn errno(result: io::Result<usize>) -> Result<usize, Errno> {
    result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_device_is_opened() {
        let null = DeviceNumber { major: 1, minor: 3 };
        assert!(open_node(Path::new("/dev/null"), null).is_ok());
        let refused = |path: &str, number| open_node(Path::new(path), number).unwrap_err().to_string();
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
