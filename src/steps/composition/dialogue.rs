//! A conversation about the composition of a modem: [`Dialogue`], what it returns, and how it fails.

use std::collections::BTreeMap;

use crate::database::compositions::{Composition, Provenance, Wanted};
use crate::host::state::{AFTER_OTHER_RUN, StateError};
use crate::modem::access::PortUnavailable;
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::wire::qmi::ErrorCode;
use crate::outcome::Failure;

/// What the modem reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CompositionState {
    /// The protocol or command of the query: `QMI`, `QMI in MBIM`, or the AT command.
    pub by: String,
    pub family: Provenance,
    pub current: Composition,
    /// The compositions that the modem lists as supported.
    pub supported: Vec<Composition>,
    /// The requested composition, or a step towards it, if it is not in `supported` and may be set. An error says why
    /// it must not be set.
    pub other: Option<Result<Composition, Failure>>,
    /// Why no composition may be set. `None` if one may be set.
    pub read_only: Option<String>,
    pub restart: Restart,
    /// Other settings, by name.
    pub settings: BTreeMap<String, String>,
}

/// How the modem restarts with a new composition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Restart {
    OnRequest,
    /// The modem restarts when its composition is set.
    BySetting,
    /// No command for a restart is known.
    Unknown,
}

/// One way to read and set the composition of a modem.
pub(crate) trait Dialogue {
    /// Reads the current composition and the supported ones. `wanted` is for modems with too many possible values to
    /// list.
    fn read(&mut self, wanted: Option<&Wanted>) -> Result<CompositionState, CompositionError>;

    /// Sets the composition. If [`Restart`] is `BySetting`, the modem may restart before it replies.
    fn set(&mut self, composition: &Composition) -> Result<(), CompositionError>;

    /// Restarts the modem. The modem may leave before it replies.
    fn reset(&mut self) -> Result<(), CompositionError>;
}

/// Why a composition was not read or set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CompositionError {
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the modem refused the password")]
    Password,
    #[error("the modem supports none of the known composition commands ({0})")]
    NoCommand(String),
    #[error("the modem has no QMI, MBIM or AT port")]
    NoPort,
    #[error("{0}")]
    NotOpened(String),
    /// The lock of the port was not taken.
    #[error(transparent)]
    Busy(StateError),
    #[error(transparent)]
    Unavailable(#[from] PortUnavailable),
    #[error("refused: {}", .0.reason)]
    Refused(Failure),
    #[error("the modem refuses composition {value}: {answer}")]
    NotAccepted { value: String, answer: String },
    #[error("composition {value} is set, but the modem does not restart: {fault}")]
    NotReset { value: String, fault: Box<CompositionError> },
    #[error("composition {value} was sent, but not confirmed: {fault}")]
    Unconfirmed { value: String, fault: Box<CompositionError> },
}

impl CompositionError {
    /// Whether the modem reports that it does not support compositions on this port.
    pub(crate) fn is_unsupported(&self) -> bool {
        match self {
            CompositionError::Session(SessionError::At { .. }) => false,
            CompositionError::Session(error) => error.is_unsupported(),
            _ => false,
        }
    }

    /// Whether a request was sent, and its answer is not known.
    pub(super) fn is_lost_answer(&self) -> bool {
        match self {
            CompositionError::Session(SessionError::Link(error)) => {
                !matches!(error, LinkError::Contended | LinkError::WriteTimeout)
            }
            CompositionError::Session(error) => {
                matches!(error, SessionError::NoAnswer { .. } | SessionError::Garbage { .. })
            }
            _ => false,
        }
    }

    /// The fault as text, with a remedy.
    pub(crate) fn failure(self) -> Failure {
        let remedy = match &self {
            CompositionError::Refused(failure) => failure.remedy.clone(),
            CompositionError::NotReset { .. } => "power it off and on".to_owned(),
            CompositionError::Unconfirmed { .. } => {
                "`wwan-quirks composition DEVICE` shows which one is set".to_owned()
            }
            CompositionError::Password => "pass the correct password with --password".to_owned(),
            CompositionError::NoPort => {
                "check that the drivers qmi_wwan, cdc_mbim, qcserial, option and cdc_acm are loaded".to_owned()
            }
            CompositionError::Unavailable(PortUnavailable::Held { .. }) => {
                "stop that program, or keep ModemManager away with `mmcli --inhibit-device`, then try again".to_owned()
            }
            CompositionError::Unavailable(error) => error.remedy().to_owned(),
            CompositionError::NotOpened(_) => {
                "run the command as root; if that does not help, see the kernel log".to_owned()
            }
            CompositionError::Busy(_) => AFTER_OTHER_RUN.to_owned(),
            CompositionError::Session(SessionError::Link(LinkError::Interrupted)) => "run the command again".to_owned(),
            CompositionError::Session(SessionError::Qmi { error: ErrorCode::CLIENT_IDS_EXHAUSTED, .. }) => {
                "the modem has no client ID left: power it off and on".to_owned()
            }
            CompositionError::Session(
                SessionError::NoAnswer { .. } | SessionError::Garbage { .. } | SessionError::Link(_),
            ) => "the modem may still be starting: try again; if the problem persists, power it off and on".to_owned(),
            CompositionError::NoCommand(_) | CompositionError::Session(_) | CompositionError::NotAccepted { .. } => {
                "the modem's firmware may not support this; nothing was changed".to_owned()
            }
        };
        Failure::new(self.to_string(), remedy)
    }
}
