//! The state of the radio, and the outcomes that the procedures share.

use std::fmt;

use crate::modem::link::LinkError;
use crate::modem::session::{SessionError, uninterrupted};
use crate::modem::wire::qmi::{OfflineReason, OperatingMode};
use crate::outcome::{Failure, Outcome};

pub(super) const TRY_AGAIN: &str = "`wwan-quirks apply` tries again";
pub(super) const NO_SUCH_LOCK: &str = "the modem's firmware has no lock of this kind";
pub(super) const UNLOCKED: &str = "unlocked";

/// What a modem reports about its radio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RadioState {
    pub(crate) operating_mode: OperatingMode,
    /// Whether the radio is locked. `None` if only an unlock would show that, as for a Sierra modem in low power.
    pub locked: Option<bool>,
}

/// The state of the radio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Radio {
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
                "the radio stays in low power until ModemManager enables the modem (`mmcli --modem=any --enable`)"
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
    pub(super) fn state(self, locked: Option<bool>) -> RadioState {
        let mode = if self == Radio::On { OperatingMode::Online } else { OperatingMode::LowPower };
        RadioState { operating_mode: mode, locked }
    }
}

pub(super) fn online_already() -> Outcome {
    Outcome::Online { text: "the radio is already online".to_owned(), unlocked: false }
}

/// The outcome of an unlock, after the query of the radio. `how` begins with "unlocked".
///
/// If the radio must stay off, it is set to low power even if it is off, or if the query failed: the modem may be about to
/// go online. That is part of the cleanup: it is done even if another program has opened the port, or the process was
/// stopped. An unlock counts even if the query failed, unless the modem left.
pub(super) fn finish_unlock<S>(
    session: &mut S,
    how: &str,
    radio: Result<Radio, SessionError>,
    stays_off: Option<&str>,
    mut switch_off: impl FnMut(&mut S) -> Result<(), SessionError>,
    mut read_radio: impl FnMut(&mut S) -> Result<Radio, SessionError>,
) -> Result<Outcome, SessionError> {
    let radio = match radio {
        Err(error) if stays_off.is_some() && error != SessionError::Link(LinkError::Gone) => Ok(Radio::Off),
        radio => radio,
    };
    let concluded = radio.and_then(|radio| match stays_off {
        Some(why) if matches!(radio, Radio::On | Radio::Off) => {
            uninterrupted(|| switch_off(session))?;
            Ok(match uninterrupted(|| read_radio(session))? {
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

pub(super) fn unlocked_before(radio: Radio) -> Outcome {
    let text = format!("the modem was already unlocked; {radio}");
    match radio {
        Radio::On => Outcome::Online { text, unlocked: false },
        Radio::Off => Outcome::SwitchedOff(text),
        _ => Outcome::Unchanged(text),
    }
}

/// The modem does not have the lock that its quirk names: it has generic firmware, or a composition without the lock.
pub(super) fn no_lock(why: &str, radio: Radio) -> Outcome {
    if radio == Radio::On { online_already() } else { Outcome::NoLock(format!("{why}; {radio}")) }
}

/// `what`: the lock or the radio.
pub(super) fn unknown_state(what: &str, state: impl fmt::Display) -> Outcome {
    Outcome::Failed(Failure::new(
        format!("the modem reports an unknown {what} state: {state}"),
        "report a bug with the output of `wwan-quirks report`",
    ))
}

pub(super) fn still_locked() -> Outcome {
    Outcome::Failed(Failure::new(
        "the modem accepted the unlock, but still reports that it is locked",
        "power it off and on; if that does not help, report a bug with the output of `wwan-quirks report`",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_radio_that_must_stay_off_is_set_to_low_power_even_if_its_state_is_unknown() {
        let silence = || SessionError::NoAnswer { request: "Get Operating Mode" };
        let finish_unlock = |radio, stays_off| {
            let mut set = 0;
            let switch_off = |set: &mut u32| {
                *set += 1;
                Ok(())
            };
            let concluded =
                super::finish_unlock(&mut set, "unlocked", radio, stays_off, switch_off, |_| Ok(Radio::Off));
            (concluded, set)
        };
        let why = Some("rfkill0 is blocked");
        let text = "unlocked; the radio was set back to low power: rfkill0 is blocked";
        for error in [silence(), LinkError::Contended.into(), LinkError::Interrupted.into()] {
            let (concluded, set) = finish_unlock(Err(error), why);
            assert_eq!((concluded.unwrap(), set), (Outcome::Done(text.to_owned()), 1));
        }
        let (concluded, set) = finish_unlock(Err(silence()), None);
        assert!(matches!(concluded, Ok(Outcome::Done(text)) if text.contains("is unknown")) && set == 0);
        let (concluded, set) = finish_unlock(Err(LinkError::Gone.into()), why);
        assert!(matches!(concluded, Err(SessionError::Link(_))) && set == 0);
    }
}
