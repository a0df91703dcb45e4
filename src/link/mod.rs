//! How bytes travel: each kind of port behind [`Port`].

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(test)]
pub(crate) mod scripted;
pub mod wdm;

use crate::deadline::Deadline;
use nix::errno::Errno;

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
