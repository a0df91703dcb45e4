//! The radio state in MBIM's Basic Connect service, which every MBIM modem has.

use super::radio::Radio;
use crate::modem::session::SessionError;
use crate::modem::session::mbim::{Command, Session};
use crate::modem::wire::mbim::{CommandType, Uuid};

pub(super) const QUERY: Command =
    Command { service: Uuid::BASIC_CONNECT, cid: 3, kind: CommandType::Query, name: "MBIM radio state query" };
const SET: Command = Command { kind: CommandType::Set, name: "MBIM radio state set", ..QUERY };

const OFF: u32 = 0;
const ON: u32 = 1;

/// `None` if the modem refuses the query, as some modems do while they are locked.
pub(super) fn read(session: &mut Session) -> Result<Option<Radio>, SessionError> {
    let states = match session.words(QUERY, &[], ["hardware radio state", "software radio state"]) {
        Err(SessionError::Mbim { .. }) => return Ok(None),
        states => states?,
    };
    Ok(Some(match states {
        [OFF, _] => Radio::SwitchedOff,
        [_, ON] => Radio::On,
        _ => Radio::Off,
    }))
}

pub(super) fn switch_off(session: &mut Session) -> Result<(), SessionError> {
    session.command(SET, &OFF.to_le_bytes()).map(drop)
}
