//! The lock of Intel's XMM7360 (Fibocom L850-GL on PCI): a challenge over RPC.
//!
//! Facts: ModemManager's script 8086:7360 and its Intel plugin, xmm7360-pci (rpc/rpc.py), and logs in its issues. The
//! RPC port does not report the radio state: a locked modem replies to no other request.

use std::time::Duration;

use super::keys::{self, ChallengeLock, Key, Keys};
use super::radio::RadioState;
use crate::database::quirks::ByteOrder;
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::xmm::Rpc;
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::OperatingMode;
use crate::modem::wire::xmm::{Call, FCC_LOCK_CHALLENGE, FCC_LOCK_QUERY, FCC_LOCK_RESPONSE};
use crate::outcome::Outcome;

pub(super) fn unlock(port: &mut dyn Link, mut keys: Keys, deadline: Deadline) -> Result<Outcome, SessionError> {
    let mut rpc = Rpc::new(port, deadline);
    if !is_locked(&mut rpc)? {
        return Ok(match keys.were_used() {
            true => Outcome::Done("unlocked; ModemManager switches the radio on".to_owned()),
            false => Outcome::Unchanged("the modem is not locked".to_owned()),
        });
    }
    let outcome = keys::unlock(&mut Lock(rpc), &mut keys)?;
    Ok(outcome.unwrap_or_else(|| Outcome::Done(format!("{}; ModemManager switches the radio on", keys.success()))))
}

pub(super) fn query(port: &mut dyn Link, deadline: Deadline) -> Result<RadioState, SessionError> {
    let locked = is_locked(&mut Rpc::new(port, deadline))?;
    let operating_mode = if locked { OperatingMode::LowPower } else { OperatingMode::UNKNOWN };
    Ok(RadioState { operating_mode, locked: Some(locked) })
}

struct Lock<'p>(Rpc<'p>);

impl ChallengeLock for Lock<'_> {
    fn remaining(&self) -> Duration {
        self.0.work_deadline().remaining()
    }

    fn challenge(&mut self) -> Result<u32, SessionError> {
        let answer = self.0.request(FCC_LOCK_CHALLENGE, 0)?;
        // The first integer is the result.
        answer.get(1).copied().ok_or_else(|| missing(FCC_LOCK_CHALLENGE, "challenge"))
    }

    fn respond(&mut self, challenge: u32, key: &Key) -> Result<Option<bool>, SessionError> {
        let answer = self.0.request(FCC_LOCK_RESPONSE, key.answer(challenge, ByteOrder::LittleEndian))?;
        let verdict = answer.last().ok_or_else(|| missing(FCC_LOCK_RESPONSE, "verdict"))?;
        Ok(Some(*verdict == 1))
    }
}

/// Mode 0 means that the modem has no lock. The first integer is the result.
fn is_locked(rpc: &mut Rpc) -> Result<bool, SessionError> {
    match rpc.query(FCC_LOCK_QUERY)?.as_slice() {
        [_, state, mode, ..] => Ok(*mode != 0 && *state == 0),
        _ => Err(missing(FCC_LOCK_QUERY, "lock state and mode")),
    }
}

fn missing(call: Call, field: &'static str) -> SessionError {
    SessionError::Malformed { request: call.name, malformed: Malformed::Missing { field } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::quirks::Procedure;
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::{Modem, Port};
    use crate::modem::transport::{Protocol, Transport};
    use crate::modem::wire::xmm;
    use crate::steps::fcc_auth::run;
    use ::modem::radio::Lock;

    const LENOVO: &str = "KHOIHGIUCCHHII";
    const BUDGET: Duration = Duration::from_millis(1500);
    /// The names of the requests.
    const ALL: [&str; 3] = ["FCC lock query", "FCC lock challenge", "FCC lock response"];

    /// An L850-GL that accepts Lenovo's key. Its own messages come in between.
    fn locked() -> Modem {
        Modem::with_lock(Protocol::XmmRpc, Lock::Xmm).with("indications garbage split=5")
    }

    fn unlocked() -> Modem {
        let mut modem = locked();
        modem.locked = false;
        modem
    }

    fn unlock_with(modem: &mut Modem, oem_strings: &[&str], tried: &mut Vec<u32>) -> Outcome {
        let oem_strings: Vec<String> = oem_strings.iter().map(|text| (*text).to_owned()).collect();
        let before = tried.clone();
        let procedure = Procedure::Xmm { oem_strings, keys: Vec::new() };
        let keys = Keys::new(&[], &procedure, &before, |note| note.apply(tried));
        let clock = StoppedClock::stop();
        let transport = Transport { port: modem, protocol: Protocol::XmmRpc, proxied: None };
        let outcome = run(transport, &procedure, keys, None, Deadline::after(BUDGET));
        assert!(clock.elapsed() <= BUDGET, "{:?}: {outcome:?}", clock.elapsed());
        outcome
    }

    #[track_caller]
    fn assert_contains(outcome: Outcome, expected: &str) {
        assert!(format!("{outcome:?}").contains(expected), "{outcome:?}");
    }

    #[test]
    fn the_lock_is_queried_first_and_the_challenge_is_answered() {
        let mut modem = locked();
        let done = "Done(\"unlocked with the key of OEM string 1 of the quirk; ModemManager switches the radio on\")";
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), done);
        assert_eq!(modem.seen, ALL);
        for mut modem in [unlocked(), locked().with("unlocked-for-good"), unlocked().with("unlocked-for-good")] {
            assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), "Unchanged(\"the modem is not locked");
            assert_eq!(modem.seen, ALL[..1]);
        }
        assert_contains(unlock_with(&mut unlocked(), &[LENOVO], &mut vec![1]), "Done(\"unlocked; ModemManager");
    }

    /// The replies in the logs of xmm7360-pci's issues 171, 190, 225 and 229, and not those of the simulator.
    #[test]
    fn real_modems_are_unlocked() {
        use crate::modem::wire::hex;
        let state = |state: u32| {
            format!("25000000 020400000025 02040000018f 11000101 020411000101 020100 0204{state:08x} 020400000002")
        };
        let ask = |state: &str, challenge: u32| {
            let (mut sent, mut tried) = (Vec::new(), Vec::new());
            let mut port = Port::replying(Protocol::XmmRpc, |message: &[u8]| {
                sent.push(message.to_vec());
                let reply = match message[15] {
                    0x8e => state.to_owned(),
                    0x90 => {
                        format!("1f000000 02040000001f 020400000191 11000101 020411000101 020100 0204{challenge:08x}")
                    }
                    _ => "1c000000 02040000001c 020400000193 11000101 020411000101 020400000001".to_owned(),
                };
                vec![hex("16000000 020400000016 0204000007d1 11000101 020400000000"), hex(&reply)]
            });
            let _clock = StoppedClock::stop();
            let procedure = Procedure::Xmm { oem_strings: vec![LENOVO.to_owned()], keys: Vec::new() };
            let keys = Keys::new(&[], &procedure, &[], |note| note.apply(&mut tried));
            let transport = Transport { port: &mut port, protocol: Protocol::XmmRpc, proxied: None };
            let outcome = run(transport, &procedure, keys, None, Deadline::after(BUDGET));
            drop(port);
            (outcome, sent)
        };
        for (challenge, response) in
            [(0xbcc1_19b8, 0x4c6b_98b3_u32), (0xc588_bfd2, 0xb3cb_544d), (0x7aab_3134, 0x5e9c_e009)]
        {
            let (outcome, sent) = ask(&state(0), challenge);
            assert_contains(outcome, "Done(\"unlocked with the key of OEM string 1 of the quirk;");
            assert_eq!(sent.last().unwrap()[28..], response.to_be_bytes());
        }
        let (outcome, sent) = ask(&state(1), 0);
        assert_contains(outcome, "Unchanged(\"the modem is not locked");
        assert_eq!(sent.len(), 1);
    }

    #[test]
    fn each_key_is_used_once() {
        let mut tried = Vec::new();
        assert_contains(
            unlock_with(&mut locked(), &["WRONG"], &mut tried),
            "Failed(Failure { reason: \"the modem refused",
        );
        assert_contains(
            unlock_with(&mut locked(), &["WRONG", LENOVO], &mut tried),
            "key of OEM string 2 of the quirk;",
        );
        let mut modem = locked();
        modem.oem_string = "OTHER".to_owned();
        assert_contains(
            unlock_with(&mut modem, &["WRONG", LENOVO], &mut tried),
            "refused every known key: OEM string 2",
        );
        modem.seen.clear();
        assert_contains(unlock_with(&mut modem, &["WRONG", LENOVO], &mut tried), "no known key since its power-up");
        assert_eq!(modem.seen, ALL[..1]);
    }

    #[test]
    fn missing_replies_are_reported_with_their_requests() {
        let from = |number: usize, fault: &str| locked().with(fault).with(&format!("at-reply={number}-"));
        for (number, request) in [(1, "query"), (2, "challenge"), (3, "response")] {
            let mute = format!("Unfinished(Failure {{ reason: \"no answer to XMM FCC lock {request}");
            let mut modem = from(number, "mute");
            assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), &mute);
            // A query is repeated, other requests are not.
            assert_eq!(modem.seen.len() > number, number == 1, "{:?}", modem.seen);
            assert_contains(unlock_with(&mut from(number, "short"), &[LENOVO], &mut Vec::new()), &mute[..20]);
        }
        for (number, outcome) in [
            (1, "is malformed: lock state and mode is missing"),
            (2, "is malformed: challenge is missing"),
            (3, "is malformed: verdict is missing"),
        ] {
            assert_contains(unlock_with(&mut from(number, "no-values"), &[LENOVO], &mut Vec::new()), outcome);
        }
    }

    #[test]
    fn a_flood_of_other_messages_ends_with_the_deadline() {
        let mut modem = locked();
        modem.flood = xmm::emit(0x5e, 3, &[0; 100]);
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), "no answer to XMM FCC lock query");
    }

    #[test]
    fn no_key_is_used_without_time_for_the_verdict() {
        let mut tried = Vec::new();
        let mut modem = locked().with("late=600");
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut tried), "Unfinished");
        assert!(tried.is_empty());
        let mut modem = locked().with("late=300");
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut tried), "Done(\"unlocked with");
    }

    #[test]
    fn the_modem_may_leave_at_any_transfer() {
        let mut modem = locked();
        unlock_with(&mut modem, &["WRONG", LENOVO], &mut Vec::new());
        for at in 0..modem.transfers {
            let mut modem = locked();
            modem.gone_at = Some(at);
            assert_eq!(unlock_with(&mut modem, &["WRONG", LENOVO], &mut Vec::new()), Outcome::Left);
        }
    }

    #[test]
    fn a_query_reports_whether_the_modem_is_locked() {
        let _clock = StoppedClock::stop();
        let state = query(&mut locked(), Deadline::after(BUDGET)).unwrap();
        assert_eq!((state.locked, state.operating_mode), (Some(true), OperatingMode::LowPower));
        let state = query(&mut unlocked(), Deadline::after(BUDGET)).unwrap();
        assert_eq!((state.locked, state.operating_mode.to_string().as_str()), (Some(false), "unknown"));
    }
}
