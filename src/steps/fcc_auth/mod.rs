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
#[cfg(test)]
mod tests;
mod xmm;

pub use keys::{Key, KeyUse, Keys};
pub use messages::messages;

use std::fmt;

use crate::database::quirks::{Procedure, StateCommand};
use crate::host::deadline::Deadline;
use crate::modem::link::LinkError;
use crate::modem::session::mbim;
use crate::modem::session::qmi::QmuxTransport;
use crate::modem::session::{SessionError, uninterrupted};
use crate::modem::transport::{Protocol, Transport, open_mbim, over_qmi};
use crate::modem::wire::mbim::Status;
use crate::modem::wire::qmi::{ErrorCode, OfflineReason, OperatingMode, Service};
use crate::outcome::{Failure, Outcome};

const TRY_AGAIN: &str = "`wwan-quirks apply` tries again";
const NO_SUCH_LOCK: &str = "the modem's firmware has no lock of this kind";
const UNLOCKED: &str = "unlocked";

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
    match ended {
        Err(SessionError::Link(LinkError::Gone)) if proxied => {
            Outcome::Unfinished(Failure::new("the proxy that holds the port closed the connection", TRY_AGAIN))
        }
        // The proxy has not opened the port yet, and may be unable to until the modem replies.
        Err(error @ SessionError::Mbim { request: mbim::OPEN | mbim::PROXY, .. }) if proxied => {
            Outcome::Unfinished(Failure::new(format!("the proxy refused the connection: {error}"), TRY_AGAIN))
        }
        ended => ended.unwrap_or_else(outcome_of),
    }
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

/// What a modem reports about its radio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadioState {
    pub(crate) operating_mode: OperatingMode,
    /// Whether the radio is locked. `None` if only an unlock would show that, as for a Sierra modem in low power.
    pub locked: Option<bool>,
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

/// The state of the radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Radio {
    On,
    Off,
    /// A hardware switch or the slot's W_DISABLE pin keeps the radio off.
    SwitchedOff,
    /// The modem cannot go online, usually because it has no matching firmware image.
    Misconfigured(OfflineReason),
}

impl fmt::Display for Radio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Radio::On => "the radio is online",
            Radio::Off => {
                "the radio stays in low power until ModemManager, or `mmcli --modem=any --enable`, switches it on"
            }
            Radio::SwitchedOff => {
                "a hardware switch holds the radio off (W_DISABLE pin): turn on the laptop's radio switch"
            }
            Radio::Misconfigured(reason) => {
                return write!(
                    f,
                    "the modem cannot go online ({reason}): install the firmware image for its network operator"
                );
            }
        })
    }
}

impl Radio {
    /// The state in the terms of the device management service.
    fn state(self, locked: Option<bool>) -> RadioState {
        let mode = if self == Radio::On { OperatingMode::Online } else { OperatingMode::LowPower };
        RadioState { operating_mode: mode, locked }
    }
}

fn online_already() -> Outcome {
    Outcome::Online { text: "the radio is already online".to_owned(), unlocked: false }
}

/// The outcome of an unlock, after the query of the radio. `how` begins with "unlocked".
///
/// If the radio must stay off, it is set to low power even if it is off, or if the query failed: the modem may be about to
/// go online. That is part of the cleanup: it is done even if another program has opened the port, or the process was
/// stopped. An unlock counts even if the query failed, unless the modem left.
fn finish_unlock<S>(
    session: &mut S,
    how: &str,
    radio: Result<Radio, SessionError>,
    stays_off: Option<&str>,
    mut switch_off: impl FnMut(&mut S) -> Result<(), SessionError>,
    mut look: impl FnMut(&mut S) -> Result<Radio, SessionError>,
) -> Result<Outcome, SessionError> {
    let radio = match radio {
        Err(error) if stays_off.is_some() && error != SessionError::Link(LinkError::Gone) => Ok(Radio::Off),
        radio => radio,
    };
    let concluded = radio.and_then(|radio| match stays_off {
        Some(why) if matches!(radio, Radio::On | Radio::Off) => {
            uninterrupted(|| switch_off(session))?;
            Ok(match uninterrupted(|| look(session))? {
                Radio::On => not_off(how, why, "the modem stays online"),
                _ => Outcome::Done(format!("{how}; the radio was set back to low power: {why}")),
            })
        }
        _ => {
            let text = format!("{how}; {radio}");
            Ok(match radio {
                Radio::On => Outcome::Online { text, unlocked: true },
                Radio::Off => Outcome::StillOff(text),
                _ => Outcome::Done(text),
            })
        }
    });
    match (concluded, stays_off) {
        (concluded @ (Ok(_) | Err(SessionError::Link(LinkError::Gone | LinkError::Interrupted))), _) => concluded,
        (Err(error), Some(why)) => Ok(not_off(how, why, &error.to_string())),
        (Err(error), None) => Ok(Outcome::Done(format!("{how}; the radio state is unknown: {error}"))),
    }
}

fn not_off(how: &str, why: &str, problem: &str) -> Outcome {
    Outcome::NotOff(Failure::new(
        format!("{how}; the radio was not set to low power ({why}): {problem}"),
        "set it to low power with `mmcli --modem=any --set-power-state-low`",
    ))
}

fn unlocked_before(radio: Radio) -> Outcome {
    let text = format!("the modem was already unlocked; {radio}");
    match radio {
        Radio::On => Outcome::Online { text, unlocked: false },
        Radio::Off => Outcome::SwitchedOff(text),
        _ => Outcome::Unchanged(text),
    }
}

/// The modem does not have the lock that its quirk names: it has generic firmware, or a composition without the lock.
fn no_lock(why: &str, radio: Radio) -> Outcome {
    if radio == Radio::On { online_already() } else { Outcome::NoLock(format!("{why}; {radio}")) }
}

/// `what`: the lock or the radio.
fn unknown_state(what: &str, state: impl fmt::Display) -> Outcome {
    Outcome::Failed(Failure::new(
        format!("the modem reports an unknown {what} state: {state}"),
        "report a bug with the output of `wwan-quirks report`",
    ))
}

fn still_locked() -> Outcome {
    Outcome::Failed(Failure::new(
        "the modem accepted the unlock, but still reports that it is locked",
        "power it off and on; if that does not help, report a bug with the output of `wwan-quirks report`",
    ))
}

/// The outcome for an error.
fn outcome_of(error: SessionError) -> Outcome {
    let failed = |reason: String, remedy: &str| Outcome::Failed(Failure::new(reason, remedy));
    let unfinished = |reason: String, remedy: &str| Outcome::Unfinished(Failure::new(reason, remedy));
    match &error {
        SessionError::Link(LinkError::Gone) => Outcome::Left,
        SessionError::Link(LinkError::Interrupted) => {
            unfinished("stopped by a signal".to_owned(), "run `wwan-quirks apply` to continue")
        }
        SessionError::Link(LinkError::Contended) => unfinished(error.to_string(), TRY_AGAIN),
        SessionError::NoAnswer { .. } | SessionError::Garbage { .. } | SessionError::Link(LinkError::WriteTimeout) => {
            unfinished(
                error.to_string(),
                "the modem may still be starting; if the problem persists, power it off and on",
            )
        }
        SessionError::Link(_) => failed(error.to_string(), "check the kernel log for messages about the port"),
        error if error.is_transient() => unfinished(format!("the modem is busy: {error}"), TRY_AGAIN),
        SessionError::Qmi { error: ErrorCode::CLIENT_IDS_EXHAUSTED, .. } => failed(
            format!("the modem has no client ID left: {error}"),
            "power it off and on; programs that were killed have not released their client IDs",
        ),
        SessionError::Qmi { error: ErrorCode::HARDWARE_RESTRICTED, .. } => failed(
            format!("a hardware switch holds the radio off: {error}"),
            "turn on the laptop's radio switch; without a switch, check the slot's W_DISABLE pin",
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
