//! The procedures of the device management service: Sierra's and Foxconn's.

use super::{
    NO_SUCH_LOCK, Radio, Said, after_unlock, no_lock, online_already, unlocked, unlocked_and_off_again, unlocked_before,
};
use crate::host::deadline::Deadline;
use crate::modem::session::SessionError;
use crate::modem::session::qmi::{Client, QmuxTransport};
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::{ErrorCode, OfflineReason, OperatingMode, Service, dms};
use crate::outcome::Outcome;
use log::debug;
use md5::{Digest, Md5};
use std::time::Duration;

/// How long an unlocked modem is watched on its way online, at first in short steps and then in longer ones.
const WATCH: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// What the last look is given to be answered in.
const LAST_LOOK: Duration = Duration::from_millis(50);

/// An online radio is not locked; one in low power may be, or somebody switched it off: no message tells which.
pub fn ask(qmux: &mut dyn QmuxTransport, deadline: Deadline) -> Result<Said, SessionError> {
    let Power { mode, .. } = Power::read(&mut Client::allocate(qmux, Service::DMS, deadline)?)?;
    let locked = (mode == OperatingMode::Online).then_some(false);
    Ok(Said { operating_mode: mode, locked })
}

pub fn radio(qmux: &mut dyn QmuxTransport, deadline: Deadline) -> Result<Radio, SessionError> {
    look(&mut Client::allocate(qmux, Service::DMS, deadline)?)
}

/// A Sierra modem goes online by itself with the unlock, unless somebody else holds it in low power too.
pub fn sierra(
    qmux: &mut dyn QmuxTransport,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut dms = Client::allocate(qmux, Service::DMS, deadline)?;
    if let Some(why_not) = unless_in_low_power(&mut dms)? {
        return Ok(why_not);
    }
    match dms.request(dms::SET_FCC_AUTHENTICATION, &[]) {
        Ok(_) => after_unlock(watch(&mut dms).and_then(|radio| conclude(&mut dms, radio, stays_off))),
        Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => Ok(unlocked_before(look(&mut dms)?)),
        Err(error @ SessionError::Qmi { .. }) if error.is_unsupported() => Ok(no_lock(NO_SUCH_LOCK, look(&mut dms)?)),
        Err(error) => Err(error),
    }
}

/// Foxconn's second version first, as newer firmware takes nothing else and older refuses it without harm.
pub fn foxconn(
    qmux: &mut dyn QmuxTransport,
    magic: &str,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut dms = Client::allocate(qmux, Service::DMS, deadline)?;
    if let Some(why_not) = unless_in_low_power(&mut dms)? {
        return Ok(why_not);
    }
    match foxconn_version_2(&mut dms, magic).or_else(|refused| foxconn_version_1(&mut dms, refused)) {
        Ok(()) => after_unlock(look(&mut dms).and_then(|radio| conclude(&mut dms, radio, stays_off))),
        Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => Ok(unlocked_before(look(&mut dms)?)),
        Err(error @ SessionError::Qmi { .. }) if error.is_unsupported() => Ok(no_lock(NO_SUCH_LOCK, look(&mut dms)?)),
        Err(error) => Err(error),
    }
}

fn foxconn_version_2(dms: &mut Client, magic: &str) -> Result<(), SessionError> {
    const MCFG: u8 = 0;
    const APPS: u8 = 2;
    let mut version = |of: u8| {
        dms.request(dms::FOXCONN_GET_FIRMWARE_VERSION, &[(0x01, &[of])])?
            .read(|tlvs| tlvs.string(0x01, "firmware version"))
    };
    let (firmware, apps) = (version(MCFG)?, version(APPS)?);
    let imei = dms.request(dms::GET_IDS, &[])?.read(|tlvs| tlvs.string(0x11, "IMEI"))?;
    let proof = foxconn_proof(&firmware, &apps, &imei, magic);
    // The modem reads them in this order.
    dms.request(dms::FOXCONN_SET_FCC_AUTHENTICATION, &[(0x01, proof.as_bytes()), (0x02, b"0")])?;
    Ok(())
}

/// `refused` is what came of version 2; it is what a person is told where version 1 is refused too, unless the modem
/// does not know version 2 at all.
fn foxconn_version_1(dms: &mut Client, refused: SessionError) -> Result<(), SessionError> {
    let SessionError::Qmi { error: code, .. } = &refused else { return Err(refused) };
    if matches!(*code, ErrorCode::NO_EFFECT | ErrorCode::HARDWARE_RESTRICTED) || code.is_transient() {
        return Err(refused);
    }
    debug!("version 2: {refused}");
    match dms.request(dms::FOXCONN_SET_FCC_AUTHENTICATION, &[(0x01, &[0])]) {
        Ok(_) => Ok(()),
        Err(SessionError::Qmi { error, .. }) if error != ErrorCode::NO_EFFECT && !code.is_unsupported() => {
            debug!("version 1: {error}");
            Err(refused)
        }
        Err(error) => Err(error),
    }
}

/// The salt, which may be any four characters, and the MD5 in hex of firmware, apps version, IMEI, salt and magic. Of
/// the firmware's version the last two fields do not count.
fn foxconn_proof(firmware: &str, apps: &str, imei: &str, magic: &str) -> String {
    const SALT: &str = "salt";
    let firmware = firmware.rsplitn(3, '.').nth(2).unwrap_or_default();
    let digest = Md5::new().chain_update(firmware).chain_update(apps).chain_update(imei);
    let digest = digest.chain_update(SALT).chain_update(magic).finalize();
    format!("{SALT}{:032x}", u128::from_be_bytes(digest.into()))
}

/// What to say of a modem that is not in low power, and so not locked, or in a mode that somebody chose.
fn unless_in_low_power(dms: &mut Client) -> Result<Option<Outcome>, SessionError> {
    Ok(match Power::read(dms)?.mode {
        OperatingMode::Online => Some(online_already()),
        mode if mode.is_low_power() => None,
        mode => Some(Outcome::Unchanged(format!("left alone: the modem is in mode {mode}, not in low power"))),
    })
}

/// Reads how the radio stands until it is on, or cannot be, or the time is up.
fn watch(dms: &mut Client) -> Result<Radio, SessionError> {
    let until = dms.work_deadline().minus(LAST_LOOK).at_most(WATCH);
    let mut pause = FIRST_PAUSE;
    loop {
        let radio = look(dms)?;
        if radio != Radio::Off || until.remaining() < pause {
            return Ok(radio);
        }
        dms.pause(until.at_most(pause))?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn look(dms: &mut Client) -> Result<Radio, SessionError> {
    Ok(match Power::read(dms)? {
        Power { mode: OperatingMode::Online, .. } => Radio::On,
        Power { is_switched_off: true, .. } => Radio::SwitchedOff,
        Power { offline_reason: OfflineReason(0), .. } => Radio::Off,
        Power { offline_reason, .. } => Radio::Misconfigured(offline_reason),
    })
}

/// The answer to DMS Get Operating Mode.
struct Power {
    mode: OperatingMode,
    offline_reason: OfflineReason,
    /// A hardware switch holds the radio off.
    is_switched_off: bool,
}

impl Power {
    fn read(dms: &mut Client) -> Result<Power, SessionError> {
        fn optional<T: Default>(value: Result<T, Malformed>) -> Result<T, Malformed> {
            match value {
                Err(Malformed::Missing { .. }) => Ok(T::default()),
                value => value,
            }
        }
        dms.request(dms::GET_OPERATING_MODE, &[])?.read(|tlvs| {
            Ok(Power {
                mode: tlvs.u8(0x01, "operating mode")?.into(),
                offline_reason: OfflineReason(optional(tlvs.u16(0x10, "offline reason"))?),
                is_switched_off: optional(tlvs.u8(0x11, "hardware restriction"))? != 0,
            })
        })
    }
}

fn conclude(dms: &mut Client, radio: Radio, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    match stays_off {
        Some(why) if radio == Radio::On => {
            dms.request(dms::SET_OPERATING_MODE, &[(0x01, &[OperatingMode::LowPower.into()])])?;
            Ok(unlocked_and_off_again(why))
        }
        _ => Ok(unlocked(radio, stays_off)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against `printf %s T99W175.F0.1.0.0.9.GC.004 01.00.00.01 359072060000001 salt foxc | md5sum`.
    #[test]
    fn the_proof_is_what_the_modem_computes() {
        let proof = foxconn_proof("T99W175.F0.1.0.0.9.GC.004.079.A1", "01.00.00.01", "359072060000001", "foxc");
        assert_eq!(proof, "salt9845966bd27f97813370fdbad8bc6ad7");
        assert_eq!(proof.len(), 36);
    }
}
