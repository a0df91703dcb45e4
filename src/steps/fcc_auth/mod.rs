//! Unlocks the radio. A modem with an FCC lock keeps its radio off until the host sends a vendor-specific
//! authentication message.
//!
//! A [`Procedure`] defines the messages, and a [`Transport`] is the connection to the modem. Every procedure runs on
//! every transport that can carry it.

mod dms;
mod gtfcclock;
mod intel;
mod keys;
mod mbim_radio;
mod messages;
mod quectel;
mod radio;
#[cfg(test)]
mod tests;
mod xmm;

pub use keys::{Key, KeyUse, Keys};
pub use messages::messages;
pub use radio::RadioState;

use nix::errno::Errno;

use crate::database::quirks::{Procedure, StateCommand};
use crate::host::deadline::Deadline;
use crate::modem::link::LinkError;
use crate::modem::session::SessionError;
use crate::modem::session::mbim;
use crate::modem::session::qmi::QmuxTransport;
use crate::modem::transport::{Protocol, Transport, open_mbim, over_qmi};
use crate::modem::wire::mbim::{ProtocolError, Status};
use crate::modem::wire::qmi::{ErrorCode, Service};
use crate::outcome::{Failure, Outcome};
use radio::{NO_SUCH_LOCK, Radio, TRY_AGAIN, no_lock};

/// Unlocks the radio of a locked modem. Other modems are not changed. `keys` are for procedures that need a key.
///
/// Does not switch the radio on: ModemManager does that. Some modems go online with the unlock. If the user has
/// switched the radio off, `stays_off` says how, and the radio is set to low power.
///
/// The CID is released and the MBIM session is closed before `deadline`.
pub fn run(
    transport: Transport,
    procedure: &Procedure,
    keys: Keys,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Outcome {
    let protocol = transport.protocol;
    let proxied = transport.proxied.is_some();
    let without_lock = |radio| no_lock(NO_SUCH_LOCK, radio);
    let ended = match (procedure, protocol) {
        (Procedure::Sierra, Protocol::Qmi | Protocol::Mbim) => {
            over_dms(transport, deadline, without_lock, |qmux| dms::sierra(qmux, stays_off, deadline))
        }
        (Procedure::Foxconn { service: Service::DMS, magic }, Protocol::Qmi | Protocol::Mbim) => {
            over_dms(transport, deadline, without_lock, |qmux| dms::foxconn(qmux, magic, stays_off, deadline))
        }
        (Procedure::Foxconn { service, magic }, Protocol::Qmi | Protocol::Mbim) => {
            over_dms(transport, deadline, without_lock, |qmux| dms::fox(qmux, *service, magic, stays_off, deadline))
        }
        (Procedure::Quectel, Protocol::Mbim) => {
            open_mbim(transport, deadline).and_then(|mut session| quectel::unlock(&mut session, stays_off))
        }
        (Procedure::Quectel, Protocol::Qmi) => over_qmi(transport, deadline, |qmux| {
            let radio = dms::radio(qmux, deadline)?;
            Ok(no_lock("the lock is part of the MBIM composition, but the modem is in the QMI composition", radio))
        }),
        (Procedure::Gtfcclock(gtfcclock), Protocol::At) => {
            gtfcclock::unlock(transport.port, gtfcclock, keys, stays_off, deadline)
        }
        (Procedure::Intel { .. }, Protocol::Mbim) => {
            open_mbim(transport, deadline).and_then(|mut session| intel::unlock(&mut session, keys, stays_off))
        }
        (Procedure::Xmm { .. }, Protocol::XmmRpc) => xmm::unlock(transport.port, keys, deadline),
        (procedure, protocol) => Ok(Outcome::Failed(Failure::new(
            format!("the procedure {procedure} cannot run over {protocol}"),
            "correct the modem's quirk (`wwan-quirks explain` names its file)",
        ))),
    };
    ended.unwrap_or_else(|error| outcome_of(error, proxied))
}

/// Talks to the device management service, or to a service of Foxconn. An MBIM modem without the QMI service
/// has no lock of this kind: `without` then derives the result from the state of its radio.
fn over_dms<T>(
    transport: Transport,
    deadline: Deadline,
    without: impl FnOnce(Radio) -> T,
    talk: impl FnOnce(&mut dyn QmuxTransport) -> Result<T, SessionError>,
) -> Result<T, SessionError> {
    if transport.protocol != Protocol::Mbim {
        return over_qmi(transport, deadline, talk);
    }
    let mut session = open_mbim(transport, deadline)?;
    match talk(&mut session) {
        Err(SessionError::Mbim { status: Status::NO_DEVICE_SUPPORT, .. }) => {
            Ok(without(mbim_radio::read(&mut session)?.unwrap_or(Radio::Off)))
        }
        ended => ended,
    }
}

/// Queries the state of the radio, and changes nothing. `procedure` is the procedure that would unlock it, if there is
/// one.
///
/// The CID is released and the MBIM session is closed before `deadline`.
pub fn query(
    transport: Transport,
    procedure: Option<&Procedure>,
    deadline: Deadline,
) -> Result<RadioState, SessionError> {
    match (procedure, transport.protocol) {
        (Some(Procedure::Gtfcclock(gtfcclock)), Protocol::At) => {
            gtfcclock::query(transport.port, gtfcclock.state, deadline)
        }
        (_, Protocol::At) => gtfcclock::query(transport.port, StateCommand::default(), deadline),
        (_, Protocol::XmmRpc) => xmm::query(transport.port, deadline),
        (Some(Procedure::Intel { .. }), Protocol::Mbim) => intel::query(&mut open_mbim(transport, deadline)?),
        (Some(Procedure::Quectel), Protocol::Mbim) => quectel::query(&mut open_mbim(transport, deadline)?),
        (Some(Procedure::Foxconn { service, .. }), _) if *service != Service::DMS => {
            over_dms(transport, deadline, |radio| radio.state(None), |qmux| dms::query_fox(qmux, *service, deadline))
        }
        _ => over_dms(transport, deadline, |radio| radio.state(None), |qmux| dms::query(qmux, deadline)),
    }
}

/// The outcome for an error. `proxied` is whether a proxy holds the port.
fn outcome_of(error: SessionError, proxied: bool) -> Outcome {
    let failed = |reason: String, remedy: &str| Outcome::Failed(Failure::new(reason, remedy));
    let unfinished = |reason: String, remedy: &str| Outcome::Unfinished(Failure::new(reason, remedy));
    match &error {
        SessionError::Link(LinkError::Gone) if proxied => {
            unfinished("the proxy that holds the port closed the connection".to_owned(), TRY_AGAIN)
        }
        // The proxy has not opened the port yet, and may be unable to until the modem replies.
        SessionError::Mbim { request: mbim::OPEN | mbim::PROXY, .. } if proxied => {
            unfinished(format!("the proxy refused the connection: {error}"), TRY_AGAIN)
        }
        // The modem lost power. A proxy that has not noticed this answers OPEN itself.
        SessionError::Function { error: ProtocolError::NOT_OPENED, .. } if proxied => {
            unfinished(format!("the modem has closed the session of the proxy: {error}"), TRY_AGAIN)
        }
        SessionError::Link(LinkError::Gone) => Outcome::Left,
        SessionError::Link(LinkError::Interrupted) => {
            unfinished("stopped by a signal".to_owned(), "run `wwan-quirks apply` to continue")
        }
        SessionError::Link(LinkError::Contended) => unfinished(error.to_string(), TRY_AGAIN),
        // The port accepted no bytes of a message in time, or only a part of them.
        SessionError::NoAnswer { .. }
        | SessionError::Garbage { .. }
        | SessionError::Link(LinkError::WriteTimeout | LinkError::Io { errno: Errno::ETIMEDOUT, .. }) => unfinished(
            error.to_string(),
            "the modem may still be starting; if the problem persists, power it off and on",
        ),
        SessionError::Link(_) => failed(error.to_string(), "check the kernel log for messages about the port"),
        error if error.is_transient() => unfinished(format!("the modem is busy: {error}"), TRY_AGAIN),
        SessionError::Qmi { error: ErrorCode::CLIENT_IDS_EXHAUSTED, .. } => failed(
            format!("the modem has no client ID left: {error}"),
            "power it off and on; programs that were killed have not released their client IDs",
        ),
        SessionError::Qmi { error: ErrorCode::HARDWARE_RESTRICTED, .. } => failed(
            format!("a hardware switch holds the radio off: {error}"),
            "turn on the laptop's radio switch, or without a switch, check the slot's W_DISABLE pin; then run `wwan-quirks apply`",
        ),
        error if error.is_unsupported() => failed(
            format!("the modem does not support the request: {error}"),
            "its quirk may be wrong; report a bug with the output of `wwan-quirks report`",
        ),
        SessionError::Qmi { .. } | SessionError::Mbim { .. } | SessionError::At { .. } => failed(
            format!("the modem refused the request: {error}"),
            "its firmware may need another procedure; report a bug with the output of `wwan-quirks report`",
        ),
        SessionError::Function { .. } => {
            failed(format!("the modem refused the request: {error}"), "check whether another program uses the port")
        }
        SessionError::Malformed { .. } => {
            failed(error.to_string(), "report a bug with the output of `wwan-quirks report`")
        }
    }
}
