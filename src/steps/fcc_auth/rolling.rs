//! Rolling's: a challenge by AT commands.
//!
//! Facts: the RW101R-GL's own unlock library by Lenovo, as traced by others (github.com/twh/wwan-unlock,
//! `event_monitor_at_101r`). It asks for the challenge, answers in hex without changing any order of bytes, passes over
//! the verdict, and believes the effective status, of which it reads the second value: other than 0 is unlocked.
//! Fibocom's manual of the same commands (FM350) gives that status as mode and status, mode 0 being no lock at all, and
//! has `+GTFCCLOCKVER: 1` for the right answer; answers seen on FM350s are `0,1`, `2,0` while locked and `2,1` after.

use super::{
    NO_SUCH_LOCK, Radio, Said, after_unlock, no_lock, online_already, unlocked, unlocked_and_off_again, unlocked_before,
};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::{Malformed, at};
use crate::outcome::{Failure, Outcome};
use sha2::{Digest, Sha256};

const CHALLENGE: &str = "+GTFCCLOCKGEN";
const VERDICT: &str = "+GTFCCLOCKVER";
const STATUS: &str = "+GTFCCEFFSTATUS";

pub fn unlock(
    port: &mut dyn Link,
    oem_strings: &[String],
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = look(&mut at)?;
    if radio == Radio::On {
        return Ok(online_already());
    }
    if says_unlocked(&mut at)? {
        return Ok(unlocked_before(radio));
    }
    for oem in oem_strings {
        match answer_challenge(&mut at, oem) {
            Ok(true) => return after_unlock(conclude(&mut at, stays_off)),
            Ok(false) => {}
            Err(error) if error.is_unsupported() => return Ok(no_lock(NO_SUCH_LOCK, radio)),
            Err(error) => return Err(error),
        }
    }
    Ok(Outcome::Failed(Failure::new(
        "the modem refused the answer to its challenge",
        "its laptop's maker uses an OEM string that the quirk does not have; send in what `wwan-quirks report` prints",
    )))
}

/// Where the firmware does not tell the effective status, only an unlock would.
pub fn ask(port: &mut dyn Link, deadline: Deadline) -> Result<Said, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = look(&mut at)?;
    let unlocked = radio == Radio::On || says_unlocked(&mut at)?;
    Ok(radio.said(unlocked.then_some(false)))
}

fn answer_challenge(at: &mut Conversation, oem: &str) -> Result<bool, SessionError> {
    let lines = at.command(CHALLENGE, "at+gtfcclockgen")?;
    let challenge = lines
        .iter()
        .find_map(|line| challenge(line))
        .ok_or(SessionError::Malformed { request: CHALLENGE, malformed: Malformed::Missing { field: "challenge" } })?;
    let lines = match at.command(VERDICT, &format!("at+gtfcclockver=0x{:08x}", answer(challenge, oem))) {
        Err(SessionError::At { .. }) => return Ok(false),
        answered => answered?,
    };
    let right = lines.iter().filter_map(|line| at::values(line, VERDICT)).any(|verdict| verdict.first() == Some(&"1"));
    if right { Ok(true) } else { says_unlocked(at) }
}

/// `+GTFCCLOCKGEN: 0x1234abcd`, or the number alone.
fn challenge(line: &str) -> Option<u32> {
    let (_, digits) = line.split_once("0x")?;
    u32::from_str_radix(digits.trim(), 16).ok()
}

/// The first four bytes of SHA-256 over the challenge and the first four bytes of SHA-256 over the OEM's string.
fn answer(challenge: u32, oem: &str) -> u32 {
    let key = first_four(Sha256::digest(oem).into()).to_be_bytes();
    first_four(Sha256::new().chain_update(challenge.to_be_bytes()).chain_update(key).finalize().into())
}

fn first_four([a, b, c, d, ..]: [u8; 32]) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// By the effective status, `<mode>,<status>`. Not all firmware tells it.
fn says_unlocked(at: &mut Conversation) -> Result<bool, SessionError> {
    let lines = match at.command(STATUS, "AT+GTFCCEFFSTATUS?") {
        Err(SessionError::At { .. }) => return Ok(false),
        answered => answered?,
    };
    let told = lines.iter().find_map(|line| at::values(line, STATUS));
    Ok(matches!(told.as_deref(), Some(["0", ..] | [_, "1", ..])))
}

fn look(at: &mut Conversation) -> Result<Radio, SessionError> {
    let lines = match at.command("+CFUN?", "AT+CFUN?") {
        Err(SessionError::At { .. }) => return Ok(Radio::Off),
        answered => answered?,
    };
    let on = lines.iter().filter_map(|line| at::values(line, "+CFUN")).any(|values| values.first() == Some(&"1"));
    Ok(if on { Radio::On } else { Radio::Off })
}

fn conclude(at: &mut Conversation, stays_off: Option<&str>) -> Result<Outcome, SessionError> {
    match (look(at)?, stays_off) {
        (Radio::On, Some(why)) => {
            at.command("+CFUN=4", "AT+CFUN=4")?;
            Ok(unlocked_and_off_again(why))
        }
        (radio, _) => Ok(unlocked(radio, stays_off)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::quirks::Procedure;
    use crate::host::deadline::clock::{self, StoppedClock};
    use crate::modem::link::LinkError;
    use crate::modem::transport::{Protocol, Transport};
    use crate::steps::fcc_auth::run;
    use std::collections::VecDeque;
    use std::time::Duration;

    const LENOVO: &str = "KHOIHGIUCCHHII";

    /// The AT port of an RW101R-GL.
    #[derive(Default)]
    struct Modem {
        echoes: bool,
        online: bool,
        unlocked: bool,
        goes_online: bool,
        /// Says nothing of the effective status, or of the verdict.
        status_unknown: bool,
        verdict_unknown: bool,
        no_such_lock: bool,
        /// Does not hear so many commands.
        deaf_to: usize,
        gone_at: Option<usize>,
        interrupted_at: Option<usize>,
        transfers: usize,
        seen: Vec<String>,
        waiting: VecDeque<Vec<u8>>,
        read: Vec<u8>,
    }

    fn locked() -> Modem {
        Modem { echoes: true, ..Modem::default() }
    }

    impl Modem {
        fn transfer(&mut self) -> Result<(), LinkError> {
            let number = self.transfers;
            self.transfers += 1;
            match self.gone_at {
                Some(at) if number >= at => Err(LinkError::Gone),
                _ if self.interrupted_at == Some(number) => Err(LinkError::Interrupted),
                _ => Ok(()),
            }
        }

        fn answer(&mut self, command: &str) -> String {
            let flag = |set: bool| u8::from(set);
            match command.to_ascii_uppercase().as_str() {
                "ATE0" => {
                    self.echoes = false;
                    "OK".to_owned()
                }
                "AT+CFUN?" => format!("+CFUN: {},0\r\n\r\nOK", if self.online { 1 } else { 4 }),
                "AT+CFUN=4" => {
                    self.online = false;
                    "OK".to_owned()
                }
                _ if self.no_such_lock => "ERROR".to_owned(),
                "AT+GTFCCEFFSTATUS?" if self.status_unknown => "+CME ERROR: 100".to_owned(),
                "AT+GTFCCEFFSTATUS?" => format!("+GTFCCEFFSTATUS: 2,{}\r\n\r\nOK", flag(self.unlocked)),
                "AT+GTFCCLOCKGEN" => "+GTFCCLOCKGEN: 0x1234abcd\r\n\r\nOK".to_owned(),
                // Made by sha256sum.
                answer if answer.starts_with("AT+GTFCCLOCKVER=") => {
                    self.unlocked = command == "at+gtfcclockver=0xe7a19fc0";
                    self.online = self.unlocked && self.goes_online;
                    match self.verdict_unknown {
                        true => "OK".to_owned(),
                        false => format!("+GTFCCLOCKVER: {}\r\n\r\nOK", flag(self.unlocked)),
                    }
                }
                other => panic!("{other}"),
            }
        }
    }

    impl Link for Modem {
        fn send(&mut self, message: &[u8], _by: Deadline) -> Result<(), LinkError> {
            self.transfer()?;
            let command = std::str::from_utf8(message).unwrap().strip_suffix('\r').unwrap();
            self.seen.push(command.to_owned());
            if self.seen.len() <= self.deaf_to {
                return Ok(());
            }
            if self.echoes {
                self.waiting.push_back(message.to_vec());
            }
            let answer = format!("\r\n+CREG: 0\r\n\r\n{}\r\n", self.answer(command));
            self.waiting.extend(answer.into_bytes().chunks(7).map(<[u8]>::to_vec));
            Ok(())
        }

        fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
            self.transfer()?;
            let Some(read) = self.waiting.pop_front() else {
                clock::wait(by.remaining());
                return Ok(None);
            };
            self.read = read;
            Ok(Some(&self.read))
        }

        fn longest(&self) -> usize {
            4096
        }
    }

    fn unlock_with(modem: &mut Modem, oem_strings: &[&str], stays_off: Option<&str>) -> Outcome {
        let procedure =
            Procedure::Rolling { interface: 3, oem_strings: oem_strings.iter().map(|oem| (*oem).to_owned()).collect() };
        let transport = Transport { port: modem, protocol: Protocol::At, proxied: None };
        let _clock = StoppedClock::stop();
        run(transport, &procedure, stays_off, Deadline::after(Duration::from_millis(1500)))
    }

    fn unlock(modem: &mut Modem) -> Outcome {
        unlock_with(modem, &[LENOVO], None)
    }

    #[track_caller]
    fn assert_begins(outcome: Outcome, expected: &str) {
        assert!(format!("{outcome:?}").contains(expected), "{outcome:?}");
    }

    #[test]
    fn the_challenge_is_answered() {
        let mut modem = locked();
        assert_begins(unlock(&mut modem), "StillOff(\"unlocked; the radio stays in low-power");
        assert!(modem.unlocked);
        assert_eq!(
            modem.seen,
            ["ate0", "AT+CFUN?", "AT+GTFCCEFFSTATUS?", "at+gtfcclockgen", "at+gtfcclockver=0xe7a19fc0", "AT+CFUN?"]
        );
        // Numbers of fewer digits count as eight.
        assert_eq!(answer(7, LENOVO), 0xdc32_5c0f);
        assert_eq!(challenge("+GTFCCLOCKGEN: 0x7"), Some(7));
        assert_eq!(challenge("0x1234ABCD"), Some(0x1234_abcd));
        assert_eq!(challenge("+GTFCCLOCKGEN: 0x"), None);
    }

    #[test]
    fn the_status_decides_where_there_is_no_verdict() {
        let mut modem = Modem { verdict_unknown: true, ..locked() };
        assert_begins(unlock(&mut modem), "StillOff(\"unlocked");
        let mut modem = Modem { status_unknown: true, ..locked() };
        assert_begins(unlock(&mut modem), "StillOff(\"unlocked");
        let mut modem = Modem { status_unknown: true, verdict_unknown: true, ..locked() };
        assert_begins(unlock(&mut modem), "Failed");
    }

    #[test]
    fn each_oem_string_is_tried() {
        assert_begins(unlock_with(&mut locked(), &["WRONG"], None), "the modem refused the answer");
        assert_begins(unlock_with(&mut locked(), &["WRONG", LENOVO], None), "StillOff(\"unlocked");
    }

    #[test]
    fn one_that_is_not_locked_is_left_alone() {
        let mut modem = Modem { online: true, ..locked() };
        assert_begins(unlock(&mut modem), "Unchanged(\"the radio is online already");
        let mut modem = Modem { unlocked: true, ..locked() };
        assert_begins(unlock(&mut modem), "SwitchedOff(\"was unlocked already");
        assert!(!modem.seen.iter().any(|command| command.contains("gtfcclock")));
    }

    #[test]
    fn a_radio_that_was_switched_off_on_purpose_goes_off_again() {
        let mut modem = Modem { goes_online: true, ..locked() };
        assert_begins(unlock_with(&mut modem, &[LENOVO], Some("rfkill0 is blocked")), "rfkill0 is blocked");
        assert!(modem.unlocked && !modem.online);
        let mut modem = Modem { goes_online: true, ..locked() };
        assert_begins(unlock(&mut modem), "Done(\"unlocked; the radio is online");
    }

    #[test]
    fn other_ports_and_late_ones_are_told_apart() {
        assert_begins(unlock(&mut Modem { no_such_lock: true, ..locked() }), "Unchanged(\"its firmware has no lock");
        assert_begins(
            unlock(&mut Modem { deaf_to: usize::MAX, ..locked() }),
            "Unfinished(Failure { reason: \"no answer to ATE0",
        );
        assert_begins(unlock(&mut Modem { deaf_to: 1, ..locked() }), "StillOff(\"unlocked");
    }

    #[test]
    fn it_may_leave_or_be_stopped_at_any_transfer() {
        let mut modem = locked();
        unlock(&mut modem);
        for at in 0..modem.transfers {
            assert_begins(unlock(&mut Modem { gone_at: Some(at), ..locked() }), "Unchanged(\"the modem left");
            assert_begins(unlock(&mut Modem { interrupted_at: Some(at), ..locked() }), "stopped by a signal");
        }
    }
}
