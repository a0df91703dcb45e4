//! Quectel's: the radio state of a vendor's MBIM service.

use super::{Radio, Said, after_unlock, online_already, unlocked, unlocked_and_off_again, unlocked_before};
use crate::modem::session::SessionError;
use crate::modem::session::mbim::{Command, Session};
use crate::modem::wire::mbim::{CommandType, Uuid};
use crate::modem::wire::{Fields, Malformed};
use crate::outcome::{Failure, Outcome};
use std::time::Duration;

pub const QUERY: Command =
    Command { service: Uuid::QUECTEL, cid: 1, kind: CommandType::Query, name: "Quectel radio state query" };
pub const SET: Command = Command { kind: CommandType::Set, name: "Quectel radio state set", ..QUERY };
const RADIO_QUERY: Command =
    Command { service: Uuid::BASIC_CONNECT, cid: 3, kind: CommandType::Query, name: "MBIM radio state query" };
const RADIO_SET: Command = Command { kind: CommandType::Set, name: "MBIM radio state set", ..RADIO_QUERY };

const OFF: u32 = 0;
pub const ON: u32 = 1;
const FCC_LOCKED: u32 = 4;

/// How long a modem may take to be what it was told to be.
const WATCH: Duration = Duration::from_secs(1);
/// Between two looks, and what the last of them is given to be answered in.
const PAUSE: Duration = Duration::from_millis(50);

pub fn unlock(session: &mut Session, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    match state(session)? {
        FCC_LOCKED => {}
        ON => return Ok(online_already()),
        OFF => return Ok(unlocked_before(look(session)?)),
        other => return Ok(Outcome::Unchanged(format!("left alone: the modem's radio state is {other}"))),
    }
    session.command(SET, &ON.to_le_bytes())?;
    after_unlock(conclude(session, stays_off))
}

pub fn ask(session: &mut Session) -> Result<Said, SessionError> {
    let locked = state(session)? == FCC_LOCKED;
    Ok(look(session)?.said(Some(locked)))
}

fn conclude(session: &mut Session, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    let until = session.work_deadline().minus(PAUSE).at_most(WATCH);
    while state(session)? == FCC_LOCKED {
        if until.has_passed() {
            return Ok(Outcome::Failed(Failure::new(
                "the modem took the unlock, and says that it is locked still",
                "power it off and on; if it stays so, send in what `wwan-quirks report` prints",
            )));
        }
        session.pause(until.at_most(PAUSE))?;
    }
    match (look(session)?, stays_off) {
        (Radio::On, Some(why)) => {
            session.command(RADIO_SET, &OFF.to_le_bytes())?;
            Ok(unlocked_and_off_again(why))
        }
        (radio, _) => Ok(unlocked(radio, stays_off)),
    }
}

fn state(session: &mut Session) -> Result<u32, SessionError> {
    let answer = session.command(QUERY, &[])?;
    read(QUERY, Fields(&answer).u32("Quectel radio state"))
}

/// How the radio stands, as all MBIM modems tell it, and else as Quectel's do.
fn look(session: &mut Session) -> Result<Radio, SessionError> {
    let answer = match session.command(RADIO_QUERY, &[]) {
        Err(SessionError::Mbim { .. }) if state(session)? == ON => return Ok(Radio::On),
        Err(SessionError::Mbim { .. }) => return Ok(Radio::Off),
        answered => answered?,
    };
    let mut states = Fields(&answer);
    let hardware = read(RADIO_QUERY, states.u32("hardware radio state"))?;
    let software = read(RADIO_QUERY, states.u32("software radio state"))?;
    Ok(match (hardware, software) {
        (OFF, _) => Radio::SwitchedOff,
        (_, OFF) => Radio::Off,
        _ => Radio::On,
    })
}

fn read<T>(command: Command, field: Result<T, Malformed>) -> Result<T, SessionError> {
    field.map_err(|malformed| SessionError::Malformed { request: command.name, malformed })
}
