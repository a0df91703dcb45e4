//! The lock of Intel's XMM7360 (Fibocom L850-GL on PCI): a challenge over RPC.
//!
//! Facts: ModemManager's script 8086:7360 and its Intel plugin, and xmm7360-pci (rpc/rpc.py). The RPC port does not
//! report the radio state: a locked modem replies to no other request.

use super::Said;
use super::keys::{self, ChallengeLock, Key, Keys};
use crate::database::quirks::ByteOrder;
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::session::xmm::Rpc;
use crate::modem::session::{CLEANUP_RESERVE, SessionError};
use crate::modem::wire::Malformed;
use crate::modem::wire::qmi::OperatingMode;
use crate::modem::wire::xmm::{Call, FCC_LOCK_CHALLENGE, FCC_LOCK_QUERY, FCC_LOCK_RESPONSE};
use crate::outcome::Outcome;
use std::time::Duration;

pub(super) fn unlock(port: &mut dyn Link, mut keys: Keys, deadline: Deadline) -> Result<Outcome, SessionError> {
    let mut rpc = Rpc::new(port, deadline.minus(CLEANUP_RESERVE));
    if !is_locked(&mut rpc)? {
        return Ok(match keys.were_used() {
            true => Outcome::Done("unlocked; ModemManager switches the radio on".to_owned()),
            false => Outcome::Unchanged("the modem is not locked".to_owned()),
        });
    }
    let outcome = keys::unlock(&mut Lock(rpc), &mut keys)?;
    Ok(outcome.unwrap_or_else(|| Outcome::Done(format!("{}; ModemManager switches the radio on", keys.success()))))
}

pub(super) fn ask(port: &mut dyn Link, deadline: Deadline) -> Result<Said, SessionError> {
    let locked = is_locked(&mut Rpc::new(port, deadline.minus(CLEANUP_RESERVE)))?;
    let operating_mode = if locked { OperatingMode::LowPower } else { OperatingMode::UNKNOWN };
    Ok(Said { operating_mode, locked: Some(locked) })
}

struct Lock<'p>(Rpc<'p>);

impl ChallengeLock for Lock<'_> {
    fn remaining(&self) -> Duration {
        self.0.remaining()
    }

    fn challenge(&mut self) -> Result<u32, SessionError> {
        let answer = self.0.request(FCC_LOCK_CHALLENGE, 0)?;
        answer.first().copied().ok_or_else(|| missing(FCC_LOCK_CHALLENGE, "challenge"))
    }

    fn respond(&mut self, challenge: u32, key: &Key) -> Result<bool, SessionError> {
        let answer = self.0.request(FCC_LOCK_RESPONSE, key.answer(challenge, ByteOrder::LittleEndian))?;
        Ok(answer.last() == Some(&1))
    }
}

/// Mode 0 means that the modem has no lock.
fn is_locked(rpc: &mut Rpc) -> Result<bool, SessionError> {
    match rpc.query(FCC_LOCK_QUERY)?.as_slice() {
        [state, mode, ..] => Ok(*mode != 0 && *state == 0),
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
    use crate::modem::link::fake::{self, Port};
    use crate::modem::transport::{Protocol, Transport};
    use crate::modem::wire::xmm::{self, Message};
    use crate::steps::fcc_auth::run;

    const LENOVO: &str = "KHOIHGIUCCHHII";
    const BUDGET: Duration = Duration::from_millis(1500);
    const TID: u32 = 0x1100_0101;

    /// The RPC port of an L850-GL that accepts Lenovo's key.
    struct Modem {
        state: u32,
        mode: u32,
        /// Does not reply from this request on.
        mute_from: usize,
        /// Sends only half of each reply from this request on.
        truncates: usize,
        /// Replies without values from this request on.
        empties: usize,
        port: Port,
        seen: Vec<u32>,
    }

    fn locked() -> Modem {
        Modem {
            state: 0,
            mode: 1,
            mute_from: usize::MAX,
            truncates: usize::MAX,
            empties: usize::MAX,
            port: Port::default(),
            seen: Vec::new(),
        }
    }

    fn locked_behind(port: Port) -> Modem {
        Modem { port, ..locked() }
    }

    impl fake::Modem for Modem {
        fn port(&mut self) -> &mut Port {
            &mut self.port
        }

        fn take(&mut self, message: &[u8]) {
            let request = Message::parse(message).unwrap();
            assert_eq!((request.tid, request.body.len()), (TID, 12));
            let argument = request.body[8..].iter().fold(0, |value, byte| (value << 8) | u32::from(*byte));
            self.seen.push(request.code);
            let number = self.seen.len();
            let mut answer = vec![TID];
            match request.code {
                0x18e => answer.extend([self.state, self.mode]),
                0x190 => answer.push(0x1234_5678),
                0x192 => {
                    // From the test vectors.
                    self.state = u32::from(argument == 1_075_640_449);
                    answer.push(self.state);
                }
                other => panic!("{other:#x}"),
            }
            if number >= self.empties {
                answer.truncate(1);
            }
            if number >= self.mute_from {
                return;
            }
            let mut frame = xmm::emit(request.code + 1, TID, &answer);
            if number >= self.truncates {
                frame.truncate(frame.len() / 2);
            }
            for own in [xmm::emit(0x5e, 3, &[1, 2]), xmm::emit(2001, TID, &[TID]), vec![0xff; 3]] {
                self.port.say(&own, 5);
            }
            self.port.say(&frame, 11);
        }
    }

    fn unlock_with(modem: &mut Modem, oem_strings: &[&str], tried: &mut Vec<u32>) -> Outcome {
        let oem_strings: Vec<String> = oem_strings.iter().map(|text| (*text).to_owned()).collect();
        let before = tried.clone();
        let procedure = Procedure::Xmm { oem_strings };
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
        assert_eq!(modem.seen, [0x18e, 0x190, 0x192]);
        for (state, mode) in [(1, 1), (0, 0), (1, 0)] {
            let mut modem = Modem { state, mode, ..locked() };
            assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), "Unchanged(\"the modem is not locked");
            assert_eq!(modem.seen, [0x18e]);
        }
        let mut modem = Modem { state: 1, ..locked() };
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut vec![1]), "Done(\"unlocked; ModemManager");
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
        assert_contains(unlock_with(&mut modem, &["WRONG", LENOVO], &mut tried), "every known key since its power-up");
        assert_eq!(modem.seen, [0x18e]);
    }

    #[test]
    fn missing_replies_are_reported_with_their_requests() {
        for (number, request) in [(1, "query"), (2, "challenge"), (3, "response")] {
            let mute = format!("Unfinished(Failure {{ reason: \"no answer to XMM FCC lock {request}");
            let mut modem = Modem { mute_from: number, ..locked() };
            assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), &mute);
            // A query is repeated, other requests are not.
            assert_eq!(modem.seen.len() > number, number == 1, "{:?}", modem.seen);
            let mut modem = Modem { truncates: number, ..locked() };
            assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), &mute[..20]);
        }
        let missing = "is malformed: lock state and mode is missing";
        assert_contains(unlock_with(&mut Modem { empties: 1, ..locked() }, &[LENOVO], &mut Vec::new()), missing);
        let missing = "is malformed: challenge is missing";
        assert_contains(unlock_with(&mut Modem { empties: 2, ..locked() }, &[LENOVO], &mut Vec::new()), missing);
        let refused = "the modem refused every known key";
        assert_contains(unlock_with(&mut Modem { empties: 3, ..locked() }, &[LENOVO], &mut Vec::new()), refused);
    }

    #[test]
    fn a_flood_of_other_messages_ends_with_the_deadline() {
        let mut modem = locked_behind(Port::flooded(xmm::emit(0x5e, 3, &[0; 100])));
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut Vec::new()), "no answer to XMM FCC lock query");
    }

    #[test]
    fn no_key_is_used_without_time_for_the_verdict() {
        let mut tried = Vec::new();
        let mut modem = locked_behind(Port::late(Duration::from_millis(600)));
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut tried), "Unfinished");
        assert!(tried.is_empty());
        let mut modem = locked_behind(Port::late(Duration::from_millis(300)));
        assert_contains(unlock_with(&mut modem, &[LENOVO], &mut tried), "Done(\"unlocked with");
    }

    #[test]
    fn the_modem_may_leave_at_any_transfer() {
        let mut modem = locked();
        unlock_with(&mut modem, &["WRONG", LENOVO], &mut Vec::new());
        for at in 0..modem.port.transfers {
            let mut modem = locked_behind(Port::gone_at(at));
            assert_eq!(unlock_with(&mut modem, &["WRONG", LENOVO], &mut Vec::new()), Outcome::Left);
        }
    }

    #[test]
    fn a_query_reports_whether_the_modem_is_locked() {
        let _clock = StoppedClock::stop();
        let said = ask(&mut locked(), Deadline::after(BUDGET)).unwrap();
        assert_eq!((said.locked, said.operating_mode), (Some(true), OperatingMode::LowPower));
        let said = ask(&mut Modem { state: 1, ..locked() }, Deadline::after(BUDGET)).unwrap();
        assert_eq!((said.locked, said.operating_mode.to_string().as_str()), (Some(false), "unknown"));
    }
}
