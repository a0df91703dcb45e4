//! Quectel's procedure: the radio state in Quectel's own MBIM service.

use std::time::Duration;

use super::mbim_radio;
use super::radio::{
    NO_SUCH_LOCK, Radio, RadioState, UNLOCKED, finish_unlock, no_lock, online_already, still_locked, unknown_state,
    unlocked_before,
};
use crate::modem::session::SessionError;
use crate::modem::session::mbim::{Command, Session};
use crate::modem::wire::mbim::{CommandType, Uuid};
use crate::outcome::Outcome;

pub(super) const QUERY: Command =
    Command { service: Uuid::QUECTEL, cid: 1, kind: CommandType::Query, name: "Quectel radio state query" };
pub(super) const SET: Command = Command { kind: CommandType::Set, name: "Quectel radio state set", ..QUERY };

const OFF: u32 = 0;
pub(super) const ON: u32 = 1;
const FCC_LOCKED: u32 = 4;

/// How long a modem may take to report its new state.
const WATCH: Duration = Duration::from_secs(1);
/// The interval between queries, and the time reserved for the reply to the last one.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) fn unlock(session: &mut Session, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    let reported = mbim_radio::read(session)?;
    if reported == Some(Radio::On) {
        return Ok(online_already());
    }
    let radio = reported.unwrap_or(Radio::Off);
    match state(session) {
        Ok(FCC_LOCKED) => {}
        // The modem may report this while the radio is off.
        Ok(ON) => return Ok(reported.map_or_else(online_already, unlocked_before)),
        Ok(OFF) => return Ok(unlocked_before(radio)),
        Ok(other) => return Ok(unknown_state("radio", other)),
        Err(error) if error.is_unsupported() => return Ok(no_lock(NO_SUCH_LOCK, radio)),
        Err(error) => return Err(error),
    }
    session.command(SET, &ON.to_le_bytes())?;
    match is_unlocked(session) {
        Ok(false) => Ok(still_locked()),
        unlocked => {
            let radio = unlocked.and_then(|_| read_radio(session));
            finish_unlock(session, UNLOCKED, radio, stays_off, mbim_radio::switch_off, read_radio)
        }
    }
}

pub(super) fn query(session: &mut Session) -> Result<RadioState, SessionError> {
    let locked = match state(session) {
        Err(error) if error.is_unsupported() => false,
        state => state? == FCC_LOCKED,
    };
    Ok(read_radio(session)?.state(Some(locked)))
}

/// Whether the modem reports in time that it is unlocked.
fn is_unlocked(session: &mut Session) -> Result<bool, SessionError> {
    let until = session.work_deadline().minus(PAUSE).at_most(WATCH);
    while state(session)? == FCC_LOCKED {
        if until.has_passed() {
            return Ok(false);
        }
        session.pause(until.at_most(PAUSE))?;
    }
    Ok(true)
}

fn state(session: &mut Session) -> Result<u32, SessionError> {
    let [state] = session.words(QUERY, &[], ["Quectel radio state"])?;
    Ok(state)
}

/// The radio state that all MBIM modems report. If the modem refuses that query, the state of Quectel's service.
fn read_radio(session: &mut Session) -> Result<Radio, SessionError> {
    match mbim_radio::read(session)? {
        Some(radio) => Ok(radio),
        None if state(session)? == ON => Ok(Radio::On),
        None => Ok(Radio::Off),
    }
}
