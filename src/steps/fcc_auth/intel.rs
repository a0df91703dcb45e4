//! Intel Mutual Authentication: an MBIM service with a challenge.
//!
//! Facts: libmbim (service intel-mutual-authentication), ModemManager merge requests 1496, 1499 and 1501, and traces by
//! others of Lenovo's unlock library (github.com/twh/wwan-unlock, `fcc_unlock_lte_5g`).

use std::time::Duration;

use super::keys::{self, ChallengeLock, Key, Keys};
use super::mbim_radio;
use super::radio::{
    NO_SUCH_LOCK, Radio, RadioState, UNLOCKED, finish_unlock, no_lock, online_already, unlocked_before,
};
use crate::database::quirks::ByteOrder;
use crate::host::deadline::Deadline;
use crate::modem::session::SessionError;
use crate::modem::session::mbim::{Command, Session};
use crate::modem::wire::mbim::{CommandType, Uuid};
use crate::outcome::Outcome;

pub(super) const QUERY: Command = Command {
    service: Uuid::INTEL_MUTUAL_AUTHENTICATION,
    cid: 1,
    kind: CommandType::Query,
    name: "Intel FCC lock query",
};
pub(super) const CHALLENGE: Command = Command { kind: CommandType::Set, name: "Intel FCC lock challenge", ..QUERY };
pub(super) const RESPONSE: Command = Command { kind: CommandType::Set, name: "Intel FCC lock response", ..QUERY };

/// How long a modem may take to report its new state after it accepted a response.
const WATCH: Duration = Duration::from_secs(1);
/// The interval between queries, and the time reserved for the reply to the last one.
const PAUSE: Duration = Duration::from_millis(50);

/// The buffer that requests a challenge.
pub(super) const NO_RESPONSE: [u8; 8] = [0; 8];

pub(super) fn unlock(session: &mut Session, mut keys: Keys, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    let radio = mbim_radio::read(session)?;
    if radio == Some(Radio::On) {
        return Ok(online_already());
    }
    let radio = radio.unwrap_or(Radio::Off);
    match is_locked(session) {
        Ok(true) => {}
        // The verdict on a key may have come too late for the run that used the key.
        Ok(false) if keys.were_used() => {
            return finish_unlock(session, UNLOCKED, Ok(radio), stays_off, mbim_radio::switch_off, read_radio);
        }
        Ok(false) => return Ok(unlocked_before(radio)),
        Err(error) if error.is_unsupported() => return Ok(no_lock(NO_SUCH_LOCK, radio)),
        Err(error) => return Err(error),
    }
    match keys::unlock(&mut Lock(session), &mut keys)? {
        None => {
            let radio = read_radio(session);
            finish_unlock(session, &keys.success(), radio, stays_off, mbim_radio::switch_off, read_radio)
        }
        Some(outcome) => Ok(outcome),
    }
}

pub(super) fn query(session: &mut Session) -> Result<RadioState, SessionError> {
    let locked = match is_locked(session) {
        Err(error) if error.is_unsupported() => None,
        locked => Some(locked?),
    };
    Ok(read_radio(session)?.state(locked))
}

struct Lock<'a, 'p>(&'a mut Session<'p>);

impl ChallengeLock for Lock<'_, '_> {
    fn remaining(&self) -> Duration {
        self.0.work_deadline().remaining()
    }

    fn challenge(&mut self) -> Result<u32, SessionError> {
        let [_, challenge] = self.0.words(CHALLENGE, &NO_RESPONSE, ["challenge flag", "challenge"])?;
        Ok(challenge)
    }

    /// Only the state of the lock counts. A modem that accepts the response replies with eight bytes 0 (xmm7360/
    /// xmm7360-usb-modeswitch, issue 23), and may need time until it reports the new state.
    fn respond(&mut self, challenge: u32, key: &Key) -> Result<Option<bool>, SessionError> {
        // The byte order of the challenge on the wire, in which the digest is computed and sent.
        let response = key.answer(challenge, ByteOrder::LittleEndian);
        let buffer = [1_u32.to_le_bytes(), response.to_le_bytes()].concat();
        let is_accepted = match self.0.command_once(RESPONSE, &buffer) {
            Err(error @ SessionError::Mbim { .. }) if !error.is_transient() => false,
            reply => reply?.first() == Some(&0),
        };
        Ok(if is_accepted { None } else { Some(false) })
    }

    fn is_open(&mut self, is_refused: bool) -> Result<bool, SessionError> {
        let (watch, until) = (Deadline::after(WATCH), self.0.work_deadline().minus(PAUSE));
        while is_locked(self.0)? {
            if is_refused || watch.has_passed() {
                return Ok(false);
            }
            // The next run finds out whether the key was right.
            if until.has_passed() {
                return Err(SessionError::NoAnswer { request: RESPONSE.name });
            }
            self.0.pause(until.at_most(PAUSE))?;
        }
        Ok(true)
    }
}

/// Mode 0 means that the modem has no lock.
fn is_locked(session: &mut Session) -> Result<bool, SessionError> {
    let [mode, state] = session.words(QUERY, &[], ["lock mode", "lock state"])?.map(|word| word & 0xff);
    Ok(mode != 0 && state == 0)
}

fn read_radio(session: &mut Session) -> Result<Radio, SessionError> {
    Ok(mbim_radio::read(session)?.unwrap_or(Radio::Off))
}
