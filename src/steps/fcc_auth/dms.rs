//! The procedures over QMI, of Sierra and Foxconn.

use std::time::Duration;

use log::debug;
use md5::{Digest, Md5};

use super::radio::{
    NO_SUCH_LOCK, Radio, RadioState, UNLOCKED, finish_unlock, no_lock, online_already, still_locked, unknown_state,
    unlocked_before,
};
use crate::host::deadline::Deadline;
use crate::modem::session::SessionError;
use crate::modem::session::qmi::{Client, QmuxTransport};
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::{Call, ErrorCode, OfflineReason, OperatingMode, Service, dms, fox};
use crate::outcome::Outcome;

/// How long an unlocked modem is polled while it goes online, first at short and then at longer intervals.
const WATCH: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// How long a modem that accepted the unlock may still report the lock.
const UNLOCKS_WITHIN: Duration = Duration::from_secs(1);
/// The time reserved for the reply to the last query, and for switching the radio off.
const LAST_QUERY_RESERVE: Duration = Duration::from_millis(150);

/// An online radio is not locked. A radio in low power may be locked or switched off. No message distinguishes the two.
pub(super) fn query(qmux: &mut dyn QmuxTransport, deadline: Deadline) -> Result<RadioState, SessionError> {
    let Power { mode, .. } = Power::read(&mut Client::allocate(qmux, Service::DMS, deadline)?)?;
    let locked = (mode == OperatingMode::Online).then_some(false);
    Ok(RadioState { operating_mode: mode, locked })
}

pub(super) fn radio(qmux: &mut dyn QmuxTransport, deadline: Deadline) -> Result<Radio, SessionError> {
    read_radio(&mut Client::allocate(qmux, Service::DMS, deadline)?)
}

/// A Sierra modem goes online with the unlock, unless something else keeps it in low power, too.
pub(super) fn sierra(
    qmux: &mut dyn QmuxTransport,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let authenticate = |dms: &mut Client| dms.request(dms::SET_FCC_AUTHENTICATION, &[]).map(drop);
    unlock(qmux, stays_off, deadline, authenticate, watch)
}

/// Tries Foxconn's version 2 first: newer firmware accepts only this version, and older firmware refuses it without
/// harm.
pub(super) fn foxconn(
    qmux: &mut dyn QmuxTransport,
    magic: &str,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let (get_version, set) = (dms::FOXCONN_GET_FIRMWARE_VERSION, dms::FOXCONN_SET_FCC_AUTHENTICATION);
    let authenticate = |dms: &mut Client| {
        foxconn_authenticate(dms, get_version, set, magic).or_else(|refused| foxconn_version_1(dms, refused))
    };
    unlock(qmux, stays_off, deadline, authenticate, read_radio)
}

/// Unlocks a modem that is in low power. `radio` reads the state of the radio after the unlock.
fn unlock(
    qmux: &mut dyn QmuxTransport,
    stays_off: Option<&str>,
    deadline: Deadline,
    authenticate: impl FnOnce(&mut Client) -> Result<(), SessionError>,
    radio: impl FnOnce(&mut Client) -> Result<Radio, SessionError>,
) -> Result<Outcome, SessionError> {
    let mut dms = Client::allocate(qmux, Service::DMS, deadline)?;
    if let Some(why_not) = unless_in_low_power(&mut dms)? {
        return Ok(why_not);
    }
    match authenticate(&mut dms) {
        Ok(()) => {
            let radio = radio(&mut dms);
            finish_unlock(&mut dms, UNLOCKED, radio, stays_off, switch_off, read_radio)
        }
        Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => Ok(unlocked_before(read_radio(&mut dms)?)),
        Err(error @ SessionError::Qmi { .. }) if error.is_unsupported() => {
            Ok(no_lock(NO_SUCH_LOCK, read_radio(&mut dms)?))
        }
        Err(error) => Err(error),
    }
}

/// Foxconn's own services report the lock. Their messages are those of version 2.
pub(super) fn fox(
    qmux: &mut dyn QmuxTransport,
    service: Service,
    magic: &str,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
    if let Some(why_not) = unless_in_low_power(&mut client)? {
        return Ok(why_not);
    }
    match fox_lock(&mut client, service) {
        Ok(FOX_LOCKED) => {}
        Ok(FOX_UNLOCKED) => return Ok(unlocked_before(read_radio(&mut client)?)),
        Ok(other) => return Ok(unknown_state("lock", other)),
        Err(error) if error.is_unsupported() => return Ok(no_lock(NO_SUCH_LOCK, read_radio(&mut client)?)),
        Err(error) => return Err(error),
    }
    let set = fox::set_fcc_authentication(service);
    match foxconn_authenticate(&mut client, fox::GET_FIRMWARE_VERSION, set, magic) {
        Ok(()) => match fox_is_unlocked(&mut client, service) {
            Ok(false) => Ok(still_locked()),
            unlocked => {
                let radio = unlocked.and_then(|_| read_radio(&mut client));
                finish_unlock(&mut client, UNLOCKED, radio, stays_off, switch_off, read_radio)
            }
        },
        Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => Ok(unlocked_before(read_radio(&mut client)?)),
        Err(error) => Err(error),
    }
}

/// Unlike DMS, Foxconn's services distinguish a lock from a radio that the user switched off.
pub(super) fn query_fox(
    qmux: &mut dyn QmuxTransport,
    service: Service,
    deadline: Deadline,
) -> Result<RadioState, SessionError> {
    let mut client = Client::allocate(qmux, Service::DMS, deadline)?;
    let Power { mode, .. } = Power::read(&mut client)?;
    let locked = match fox_lock(&mut client, service) {
        Err(error) if error.is_unsupported() => false,
        lock => lock? == FOX_LOCKED,
    };
    Ok(RadioState { operating_mode: mode, locked: Some(locked) })
}

const FOX_UNLOCKED: u8 = 0;
const FOX_LOCKED: u8 = 1;

fn fox_lock(client: &mut Client, service: Service) -> Result<u8, SessionError> {
    client.request(fox::get_fcc_lock(service), &[])?.read(|tlvs| tlvs.u8(0x01, "FCC lock"))
}

/// Whether the modem reports in time that it is unlocked.
fn fox_is_unlocked(client: &mut Client, service: Service) -> Result<bool, SessionError> {
    let until = client.work_deadline().minus(LAST_QUERY_RESERVE).at_most(UNLOCKS_WITHIN);
    while fox_lock(client, service)? == FOX_LOCKED {
        if until.has_passed() {
            return Ok(false);
        }
        client.pause(until.at_most(FIRST_PAUSE))?;
    }
    Ok(true)
}

fn foxconn_authenticate(client: &mut Client, get_version: Call, set: Call, magic: &str) -> Result<(), SessionError> {
    const MCFG: u8 = 0;
    const APPS: u8 = 2;
    let mut version =
        |of: u8| client.request(get_version, &[(0x01, &[of])])?.read(|tlvs| tlvs.string(0x01, "firmware version"));
    let (firmware, apps) = (version(MCFG)?, version(APPS)?);
    let imei = client.request(dms::GET_IDS, &[])?.read(|tlvs| tlvs.string(0x11, "IMEI"))?;
    let proof = foxconn_proof(SALT, &firmware, &apps, &imei, magic);
    // The modem expects the TLVs in this order.
    client.request(set, &[(0x01, proof.as_bytes()), (0x02, b"0")])?;
    Ok(())
}

/// `refused` is the error of version 2. It is reported if version 1 is refused, too, unless the modem does not know
/// version 2 at all.
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

/// The salt can be any four characters.
const SALT: &str = "salt";

/// The salt, followed by the MD5 (in hex) over firmware, apps version, IMEI, salt and magic. The last two fields of the
/// firmware version are left out.
fn foxconn_proof(salt: &str, firmware: &str, apps: &str, imei: &str, magic: &str) -> String {
    let firmware = firmware.rsplitn(3, '.').nth(2).unwrap_or_default();
    let digest = Md5::new().chain_update(firmware).chain_update(apps).chain_update(imei);
    let digest = digest.chain_update(salt).chain_update(magic).finalize();
    format!("{salt}{:032x}", u128::from_be_bytes(digest.into()))
}

/// The outcome for a modem that is not in low power: it is online and therefore not locked, or it is in a mode that was
/// chosen on purpose. `None` if the modem is in low power.
fn unless_in_low_power(dms: &mut Client) -> Result<Option<Outcome>, SessionError> {
    Ok(match Power::read(dms)?.mode {
        OperatingMode::Online => Some(online_already()),
        mode if mode.is_low_power() => None,
        mode => Some(Outcome::Unchanged(format!("the modem is in mode {mode}, not in low power"))),
    })
}

/// Polls the radio until it is on, until it cannot go on, or until the time is up.
fn watch(dms: &mut Client) -> Result<Radio, SessionError> {
    let until = dms.work_deadline().minus(LAST_QUERY_RESERVE).at_most(WATCH);
    let mut pause = FIRST_PAUSE;
    loop {
        let radio = read_radio(dms)?;
        if radio != Radio::Off || until.remaining() < pause {
            return Ok(radio);
        }
        dms.pause(until.at_most(pause))?;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn read_radio(dms: &mut Client) -> Result<Radio, SessionError> {
    Ok(match Power::read(dms)? {
        Power { mode: OperatingMode::Online, .. } => Radio::On,
        Power { is_switched_off: true, .. } => Radio::SwitchedOff,
        Power { offline_reason: OfflineReason(0), .. } => Radio::Off,
        Power { offline_reason, .. } => Radio::Misconfigured(offline_reason),
    })
}

/// The reply to DMS Get Operating Mode.
struct Power {
    mode: OperatingMode,
    offline_reason: OfflineReason,
    /// Whether a hardware switch keeps the radio off.
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

fn switch_off(dms: &mut Client) -> Result<(), SessionError> {
    match dms.request(dms::SET_OPERATING_MODE, &[(0x01, &[OperatingMode::LowPower.into()])]) {
        // The modem is in low power.
        Ok(_) | Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_matches_that_of_the_modem() {
        // Computed with md5sum.
        let proof = foxconn_proof("salt", "T99W175.F0.1.0.0.9.GC.004.079.A1", "01.00.00.01", "359072060000001", "foxc");
        assert_eq!(proof, "salt9845966bd27f97813370fdbad8bc6ad7");
        for (magic, digest) in [
            ("foxc", "786de4d1f7eac87e5805cab26ad95878"),
            ("FDE1", "827cd884a919747e1dad46238e46fd89"),
            ("FDE2", "633bc0e8d9175b6e166e283a134dd9f6"),
        ] {
            let proof = foxconn_proof("abcd", "FDE.F0.3.2.0.3.TO.002", "020", "490154203237518", magic);
            assert_eq!(proof, format!("abcd{digest}"));
        }
    }
}
