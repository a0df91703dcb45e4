//! Sessions with a modem. A session closes everything that it opened, also after an error.

#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

pub(crate) mod at;
pub(crate) mod mbim;
pub(crate) mod qmi;
pub(crate) mod xmm;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use log::debug;

use crate::host::deadline::Deadline;
use crate::modem::link::{Link, LinkError};
use crate::modem::wire::mbim::{ProtocolError, Status};
use crate::modem::wire::qmi::ErrorCode;
use crate::modem::wire::{self, Framer, Malformed};

/// The time reserved for releasing the CID and closing the MBIM session. A working modem answers within milliseconds.
const CLEANUP_RESERVE: Duration = Duration::from_millis(150);
/// The part of it that is reserved for CLOSE.
const CLOSE_RESERVE: Duration = Duration::from_millis(50);

/// How long a request waits for its answer before it is repeated: the first time, and at most.
const FIRST_WAIT: Duration = Duration::from_millis(400);
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// Shorter retry interval while replies to an earlier client are queued: each request lets the modem send one of them.
const STALE_REPLY_WAIT: Duration = Duration::from_millis(50);
/// How long to wait for the answer to a request that changes the modem after a later request was answered, and how
/// often such a request is sent at most. Each allocation takes one of about ten CIDs.
const LOSS_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_SENDS: usize = 3;
/// The pause before a busy modem is asked again: the first time, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    #[error("no answer to {request}")]
    NoAnswer { request: &'static str },
    /// The only bytes that arrived are not part of the protocol.
    #[error("no answer to {request}, only {bytes} bytes that are not part of the protocol")]
    Garbage { request: &'static str, bytes: usize },
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("{request} returned QMI error {error}")]
    Qmi { request: &'static str, error: ErrorCode },
    #[error("{request} returned MBIM status {status}")]
    Mbim { request: &'static str, status: Status },
    #[error("{request} returned MBIM function error {error}")]
    Function { request: &'static str, error: ProtocolError },
    #[error("{request} returned {error:?}")]
    At { request: &'static str, error: String },
    #[error("the answer to {request} is malformed: {malformed}")]
    Malformed { request: &'static str, malformed: Malformed },
}

impl SessionError {
    /// Whether a request to a modem that then restarts may fail in this way.
    pub(crate) fn is_departure(&self) -> bool {
        matches!(self, SessionError::NoAnswer { .. } | SessionError::Link(LinkError::Gone))
    }

    /// The error of a message that follows `request`, which was sent: if the message was not sent, only the answer to
    /// `request` is lost.
    fn after(self, request: &'static str) -> SessionError {
        match self {
            SessionError::Link(LinkError::Contended | LinkError::WriteTimeout) => SessionError::NoAnswer { request },
            error => error,
        }
    }

    /// Whether the request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            SessionError::Qmi { error, .. } => error.is_transient(),
            SessionError::Mbim { status, .. } => status.is_transient(),
            SessionError::At { error, .. } => wire::at::is_busy(error),
            _ => false,
        }
    }

    /// Whether the modem does not know the request or its service.
    pub(crate) fn is_unsupported(&self) -> bool {
        match self {
            SessionError::Qmi { error, .. } => error.is_unsupported(),
            SessionError::Mbim { status, .. } => *status == Status::NO_DEVICE_SUPPORT,
            SessionError::At { error, .. } => wire::at::is_unsupported(error),
            _ => false,
        }
    }
}

/// Whether the answer to a request that changes the modem is lost. Only then is the request sent again: the modem has
/// answered a later request, and has had time.
#[derive(Default)]
struct Loss {
    /// How often the request was sent.
    sends: usize,
    /// When the answer to the last send counts as lost, if it was overtaken.
    lost_after: Option<Deadline>,
    is_overtaken: bool,
}

impl Loss {
    fn sent(&mut self) {
        *self = Loss { sends: self.sends + 1, lost_after: Some(Deadline::after(LOSS_TIMEOUT)), is_overtaken: false };
    }

    /// The answer to a later request came first.
    fn overtaken(&mut self) {
        self.is_overtaken = true;
    }

    fn is_certain(&self) -> bool {
        self.is_overtaken && self.sends < MAX_SENDS && self.lost_after.is_some_and(Deadline::has_passed)
    }
}

/// Repeats an attempt until there is an answer, a permanent error, or the deadline (`None`).
///
/// `attempt` sends the request and waits for its answer until the given deadline. `pause` waits until the given deadline
/// before a busy modem is asked again.
fn retry_until<S, T>(
    session: &mut S,
    by: Deadline,
    mut attempt: impl FnMut(&mut S, Deadline) -> Result<Option<T>, SessionError>,
    mut pause: impl FnMut(&mut S, Deadline) -> Result<(), SessionError>,
) -> Result<Option<T>, SessionError> {
    let mut wait = FIRST_WAIT;
    let mut interval = FIRST_PAUSE;
    let mut last_busy = None;
    while !by.has_passed() {
        match attempt(session, by.at_most(wait)) {
            Ok(None) => wait = (wait * 2).min(LONGEST_WAIT),
            Err(busy) if busy.is_transient() => {
                debug!("{busy}");
                pause(session, by.at_most(interval))?;
                last_busy = Some(busy);
                interval = (interval * 2).min(LONGEST_PAUSE);
            }
            // The deadline passed while the request was repeated.
            Err(SessionError::Link(LinkError::WriteTimeout)) if last_busy.is_some() => break,
            done => return done,
        }
    }
    last_busy.map_or(Ok(None), Err)
}

/// Repeats a cleanup operation if a signal or another program interrupts it. Cleanup is short, and must be complete.
pub(crate) fn uninterrupted<T>(mut what: impl FnMut() -> Result<T, SessionError>) -> Result<T, SessionError> {
    loop {
        match what() {
            Err(SessionError::Link(LinkError::Interrupted | LinkError::Contended)) => {}
            done => return done,
        }
    }
}

/// Reads bytes from the port. Returns whether there were any before the deadline. After a loss of bytes, discards the
/// incomplete message.
fn fill(framer: &mut Framer, port: &mut dyn Link, by: Deadline) -> Result<bool, SessionError> {
    match port.receive(by) {
        Ok(Some(read)) => framer.push(read),
        Ok(None) => return Ok(false),
        Err(LinkError::Overrun) => framer.clear(),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
}

/// The error for an answer that did not come.
fn no_answer(request: &'static str, garbage: usize) -> SessionError {
    match garbage {
        0 => SessionError::NoAnswer { request },
        bytes => SessionError::Garbage { request, bytes },
    }
}

/// The first TID of a session. It is random, so that a late answer to an earlier process rarely matches.
fn first_tid() -> u32 {
    RandomState::new().build_hasher().finish() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tid_is_random() {
        let tids: std::collections::BTreeSet<u32> = (0..4).map(|_| first_tid()).collect();
        assert!(tids.len() > 1, "{tids:?}");
    }

    #[test]
    fn a_request_before_a_message_that_was_not_sent_has_no_answer() {
        for error in [LinkError::Contended, LinkError::WriteTimeout] {
            assert_eq!(SessionError::from(error).after("asking"), SessionError::NoAnswer { request: "asking" });
        }
        let left = SessionError::from(LinkError::Gone);
        assert_eq!(left.clone().after("asking"), left);
    }

    #[test]
    fn the_last_error_of_a_busy_modem_is_returned_if_the_next_request_is_not_sent_in_time() {
        let busy = || SessionError::Qmi { request: "asking", error: ErrorCode(52) };
        let mut answers = vec![SessionError::Link(LinkError::WriteTimeout), busy()];
        let by = Deadline::after(Duration::from_secs(10));
        let ended = retry_until(&mut answers, by, |answers, _| answers.pop().map_or(Ok(Some(())), Err), |_, _| Ok(()));
        assert_eq!(ended, Err(busy()));
    }
}
