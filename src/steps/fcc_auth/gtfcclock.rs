//! The lock of Fibocom, Intel, MediaTek and Rolling modems: a challenge by AT commands.
//!
//! Facts: ModemManager's script for the FM350-GL (14c3), chapter 17 of Fibocom's AT manual for the FM350, and traces by
//! others of Lenovo's unlock library for RW101R-GL, FM350-GL and L860-GL (github.com/twh/wwan-unlock).
//!
//! `+GTFCCEFFSTATUS: <mode>,<status>` is the effective state. Mode 0 means no lock, status 1 means unlocked now: `2,0`
//! is a locked FM350, `2,1` an unlocked one, `0,1` one without a lock. `+GTFCCLOCKVER: 1` accepts a response. For the
//! RW101R-GL, only the effective state counts. An XMM7560 (L860-GL) replies with bare numbers, and its state is that of
//! `at+gtfcclockstate`: 0 is locked. Commands that change the lock permanently (`GTFCCLOCKMODE`) are never sent.

use super::keys::{self, ChallengeLock, Key, Keys};
use super::{NO_SUCH_LOCK, Radio, Said, UNLOCKED, conclude, no_lock, online_already, unlocked_before};
use crate::database::quirks::{Gtfcclock, Number, StateCommand};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::{Malformed, at};
use crate::outcome::Outcome;
use std::time::Duration;

const RADIO: &str = "+CFUN";
const STATE: &str = "+GTFCCEFFSTATUS";
const LOCK_STATE: &str = "+GTFCCLOCKSTATE";
pub(super) const GET_LOCK_STATE: &str = "at+gtfcclockstate";
const CHALLENGE: &str = "+GTFCCLOCKGEN";
const VERDICT: &str = "+GTFCCLOCKVER";

pub(super) fn unlock(
    port: &mut dyn Link,
    gtfcclock: &Gtfcclock,
    mut keys: Keys,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = look(&mut at)?;
    if radio == Radio::On {
        return Ok(online_already());
    }
    if is_unlocked(&mut at, gtfcclock.state)? == Some(true) {
        // The verdict on a key may have come too late for the run that used the key.
        return match keys.were_used() {
            true => conclude(&mut at, UNLOCKED, Ok(radio), stays_off, switch_off, look),
            false => Ok(unlocked_before(radio)),
        };
    }
    match keys::unlock(&mut Lock { at: &mut at, gtfcclock }, &mut keys) {
        Ok(None) => {
            let radio = look(&mut at);
            conclude(&mut at, &keys.success(), radio, stays_off, switch_off, look)
        }
        Ok(Some(outcome)) => Ok(outcome),
        Err(error) if error.is_unsupported() && !keys.were_used() => Ok(no_lock(NO_SUCH_LOCK, radio)),
        Err(error) => Err(error),
    }
}

/// Firmware that does not report the state may be locked.
pub(super) fn ask(port: &mut dyn Link, state: StateCommand, deadline: Deadline) -> Result<Said, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = look(&mut at)?;
    let locked = if radio == Radio::On { Some(false) } else { is_unlocked(&mut at, state)?.map(|unlocked| !unlocked) };
    Ok(radio.said(locked))
}

struct Lock<'a, 'p> {
    at: &'a mut Conversation<'p>,
    gtfcclock: &'a Gtfcclock,
}

impl ChallengeLock for Lock<'_, '_> {
    fn remaining(&self) -> Duration {
        self.at.remaining()
    }

    fn challenge(&mut self) -> Result<u32, SessionError> {
        let lines = self.at.command(CHALLENGE, "at+gtfcclockgen")?;
        let malformed = Malformed::Missing { field: "challenge" };
        value(&lines, CHALLENGE).ok_or(SessionError::Malformed { request: CHALLENGE, malformed })
    }

    fn respond(&mut self, challenge: u32, key: &Key) -> Result<bool, SessionError> {
        let answer = key.answer(challenge, self.gtfcclock.byte_order);
        let answer = match self.gtfcclock.number {
            Number::Decimal => answer.to_string(),
            Number::Hex => format!("0x{answer:08x}"),
        };
        let lines = match self.at.command(VERDICT, &format!("at+gtfcclockver={answer}")) {
            Err(SessionError::At { .. }) => return Ok(false),
            answered => answered?,
        };
        Ok(value(&lines, VERDICT) == Some(1))
    }

    fn is_open(&mut self) -> Result<bool, SessionError> {
        Ok(is_unlocked(self.at, self.gtfcclock.state)? == Some(true))
    }
}

/// The number in the line with this name, or else in a line that is only a number.
fn value(lines: &[String], name: &str) -> Option<u32> {
    let named = lines.iter().find_map(|line| number(at::values(line, name)?.first()?));
    named.or_else(|| lines.iter().find_map(|line| number(line)))
}

/// Parses up to eight hex digits, with or without `0x`.
fn number(text: &str) -> Option<u32> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    let is_hex = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_hex.then(|| u32::from_str_radix(digits, 16).ok()).flatten()
}

/// Whether the state is unlocked. `None` if the firmware does not report it.
fn is_unlocked(at: &mut Conversation, state: StateCommand) -> Result<Option<bool>, SessionError> {
    if state == StateCommand::Gtfcclockstate {
        match at.command(LOCK_STATE, GET_LOCK_STATE) {
            // Other firmware may know the other command.
            Err(SessionError::At { .. }) => {}
            lines => return Ok(value(&lines?, LOCK_STATE).map(|state| state != 0)),
        }
    }
    let values = match at.read(STATE) {
        Err(SessionError::At { .. }) => return Ok(None),
        values => values?,
    };
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    Ok(match values.as_slice() {
        ["0", ..] | [_, "1", ..] => Some(true),
        [_, "0", ..] => Some(false),
        _ => None,
    })
}

fn look(at: &mut Conversation) -> Result<Radio, SessionError> {
    let values = match at.read(RADIO) {
        Err(SessionError::At { .. }) => return Ok(Radio::Off),
        values => values?,
    };
    Ok(if values.first().is_some_and(|mode| mode == "1") { Radio::On } else { Radio::Off })
}

fn switch_off(at: &mut Conversation) -> Result<(), SessionError> {
    at.command("+CFUN=4", "AT+CFUN=4").map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::quirks::{ByteOrder, Procedure};
    use crate::host::deadline::clock::StoppedClock;
    use crate::modem::link::fake::{self, AtModem, Port};
    use crate::modem::transport::{Protocol, Transport};
    use crate::steps::fcc_auth::run;

    const LENOVO: &str = "KHOIHGIUCCHHII";
    const DW5931E: &str = "DW5931EFCCLOCK";
    const BUDGET: Duration = Duration::from_millis(1500);

    /// The AT port of a modem that accepts Lenovo's key.
    #[derive(Default)]
    struct Modem {
        /// An RW101R-GL or an L860-GL if set, otherwise an FM350-GL.
        is_rolling: bool,
        is_l860: bool,
        echoes: bool,
        online: bool,
        unlocked: bool,
        goes_online: bool,
        /// Does not report the effective state, or the verdict.
        state_unknown: bool,
        verdict_unknown: bool,
        no_such_lock: bool,
        /// Locks itself again at once.
        relocks: bool,
        /// The reply to a challenge request instead of a number, and the reply to a response.
        challenge: Option<&'static str>,
        verdict: Option<&'static str>,
        /// Ignores this many commands at first. Does not reply from command `mute_from` on.
        deaf_to: usize,
        mute_from: Option<usize>,
        /// Sends only half of the reply to this command.
        truncates: Option<usize>,
        port: Port,
        seen: Vec<String>,
    }

    fn locked() -> Modem {
        Modem { echoes: true, ..Modem::default() }
    }

    fn locked_behind(port: Port) -> Modem {
        Modem { port, ..locked() }
    }

    impl Modem {
        fn answer(&mut self, command: &str) -> String {
            let flag = |set: bool| u8::from(set);
            // From the test vectors of the fact sheet, and computed with sha256sum.
            let (challenge, answer) = match (self.is_rolling, self.is_l860) {
                (true, _) => ("0x1234abcd", "0xe7a19fc0"),
                (_, true) => ("0x12345678", "1075640449"),
                _ => ("0x12345678", "1787294009"),
            };
            let named = |name: &str, value: String| match self.is_l860 {
                true => format!("{value}\r\n\r\nOK"),
                false => format!("+{name}: {value}\r\n\r\nOK"),
            };
            match command.to_ascii_uppercase().as_str() {
                "ATE0" | "ATE0Q0V1" => {
                    self.echoes = false;
                    "OK".to_owned()
                }
                "AT+CFUN?" => format!("+CFUN: {},0\r\n\r\nOK", if self.online { 1 } else { 4 }),
                "AT+CFUN=4" => {
                    self.online = false;
                    "OK".to_owned()
                }
                _ if self.no_such_lock => "ERROR".to_owned(),
                "AT+GTFCCEFFSTATUS?" if self.state_unknown => "+CME ERROR: 100".to_owned(),
                "AT+GTFCCEFFSTATUS?" if !self.is_l860 => {
                    format!("+GTFCCEFFSTATUS: 2,{}\r\n\r\nOK", flag(self.unlocked))
                }
                "AT+GTFCCLOCKSTATE" if self.state_unknown => "ERROR".to_owned(),
                "AT+GTFCCLOCKSTATE" if self.is_l860 => named("GTFCCLOCKSTATE", flag(self.unlocked).to_string()),
                "AT+GTFCCLOCKGEN" => match self.challenge {
                    Some(text) => text.to_owned(),
                    None => named("GTFCCLOCKGEN", challenge.to_owned()),
                },
                given if given.starts_with("AT+GTFCCLOCKVER=") => {
                    let right = command == format!("at+gtfcclockver={answer}");
                    self.unlocked = right && !self.relocks;
                    self.online = self.unlocked && self.goes_online;
                    match (self.verdict, self.verdict_unknown) {
                        (Some(text), _) => text.to_owned(),
                        (None, true) => "OK".to_owned(),
                        (None, false) => named("GTFCCLOCKVER", flag(right).to_string()),
                    }
                }
                other => panic!("{other}"),
            }
        }
    }

    impl fake::Modem for Modem {
        fn port(&mut self) -> &mut Port {
            &mut self.port
        }

        fn take(&mut self, message: &[u8]) {
            let command = std::str::from_utf8(message).unwrap().strip_suffix('\r').unwrap();
            self.seen.push(command.to_owned());
            let number = self.seen.len();
            if number <= self.deaf_to || self.mute_from.is_some_and(|from| number >= from) {
                return;
            }
            let mut answer = if self.echoes { format!("{command}\r") } else { String::new() };
            answer += &format!("\r\n+CREG: 0\r\n\r\n{}\r\n", self.answer(command));
            if self.truncates == Some(number) {
                answer.truncate(answer.len() / 2);
            }
            self.port.say(answer.as_bytes(), 7);
        }
    }

    fn fm350(oem_strings: &[&str]) -> Gtfcclock {
        let oem_strings = oem_strings.iter().map(|text| (*text).to_owned()).collect();
        let state = StateCommand::Gtfcceffstatus;
        Gtfcclock { interface: Some(6), byte_order: ByteOrder::BigEndian, number: Number::Decimal, state, oem_strings }
    }

    fn run_with(modem: &mut Modem, oem_strings: &[&str], tried: &mut Vec<u32>, stays_off: Option<&str>) -> Outcome {
        let number = if modem.is_rolling { Number::Hex } else { Number::Decimal };
        let mut gtfcclock = Gtfcclock { number, ..fm350(oem_strings) };
        if modem.is_l860 {
            (gtfcclock.byte_order, gtfcclock.state) = (ByteOrder::LittleEndian, StateCommand::Gtfcclockstate);
        }
        let before = tried.clone();
        let procedure = Procedure::Gtfcclock(gtfcclock);
        let keys = Keys::new(&[], &procedure, &before, |note| note.apply(tried));
        let transport = Transport { port: modem, protocol: Protocol::At, proxied: None };
        let clock = StoppedClock::stop();
        let outcome = run(transport, &procedure, keys, stays_off, Deadline::after(BUDGET));
        assert!(clock.elapsed() <= BUDGET, "{:?}: {outcome:?}", clock.elapsed());
        outcome
    }

    fn unlock_with(modem: &mut Modem, oem_strings: &[&str], stays_off: Option<&str>) -> Outcome {
        run_with(modem, oem_strings, &mut Vec::new(), stays_off)
    }

    fn unlock(modem: &mut Modem) -> Outcome {
        unlock_with(modem, &[LENOVO], None)
    }

    #[track_caller]
    fn assert_contains(outcome: Outcome, expected: &str) {
        assert!(format!("{outcome:?}").contains(expected), "{outcome:?}");
    }

    const UNLOCKED: &str =
        "StillOff(\"unlocked with the key of OEM string 1 of the quirk; the radio stays in low power";

    #[test]
    fn the_challenge_is_answered() {
        for (is_rolling, answer) in [(true, "at+gtfcclockver=0xe7a19fc0"), (false, "at+gtfcclockver=1787294009")] {
            let mut modem = Modem { is_rolling, ..locked() };
            assert_contains(unlock(&mut modem), UNLOCKED);
            assert!(modem.unlocked);
            assert_eq!(modem.seen, ["ate0", "AT+CFUN?", "AT+GTFCCEFFSTATUS?", "at+gtfcclockgen", answer, "AT+CFUN?"]);
        }
    }

    #[test]
    fn an_xmm7560_replies_with_bare_numbers() {
        let l860 = || Modem { is_l860: true, ..locked() };
        for state_unknown in [false, true] {
            let mut modem = Modem { state_unknown, ..l860() };
            assert_contains(unlock(&mut modem), UNLOCKED);
            let mut expected = vec!["ate0", "AT+CFUN?", "at+gtfcclockstate"];
            expected.extend(state_unknown.then_some("AT+GTFCCEFFSTATUS?"));
            expected.extend(["at+gtfcclockgen", "at+gtfcclockver=1075640449", "AT+CFUN?"]);
            assert_eq!(modem.seen, expected);
        }
        assert_contains(unlock_with(&mut l860(), &["WRONG", LENOVO], None), "(refused: OEM string 1 of the quirk)");
        assert_contains(unlock_with(&mut l860(), &["WRONG"], None), "refused every known key");
        // The state decides if there is no verdict.
        assert_contains(unlock(&mut Modem { verdict_unknown: true, ..l860() }), UNLOCKED);
        let mut modem = Modem { unlocked: true, ..l860() };
        assert_contains(unlock(&mut modem), "SwitchedOff(\"the modem was already unlocked");
        assert_eq!(modem.seen, ["ate0", "AT+CFUN?", "at+gtfcclockstate"]);
        // Firmware may reply with the name, or lack the lock.
        let named = "+GTFCCLOCKVER: 1\r\n\r\nOK";
        assert_contains(unlock(&mut Modem { verdict: Some(named), ..l860() }), UNLOCKED);
        assert_contains(unlock(&mut Modem { no_such_lock: true, ..l860() }), "NoLock(");
        for (unlocked, state_unknown, expected) in
            [(false, false, Some(true)), (true, false, Some(false)), (false, true, None)]
        {
            let _clock = StoppedClock::stop();
            let mut modem = Modem { unlocked, state_unknown, ..l860() };
            let said = ask(&mut modem, StateCommand::Gtfcclockstate, Deadline::after(BUDGET)).unwrap();
            assert_eq!(said.locked, expected);
        }
    }

    #[test]
    fn a_challenge_has_several_forms() {
        for (text, expected) in [
            ("0x7", Some(7)),
            ("0X1234ABCD", Some(0x1234_abcd)),
            ("c0ffee", Some(0x00c0_ffee)),
            ("0x", None),
            ("", None),
            ("0x123456789", None),
            ("0x12 34", None),
            ("+12", None),
        ] {
            assert_eq!(number(text), expected, "{text}");
        }
        // Unsolicited lines are not taken for a challenge.
        let chatty = "+CTZV: 0x99\r\n\r\n+GTFCCLOCKGEN: 0x12345678\r\n\r\nOK";
        assert_contains(unlock(&mut Modem { challenge: Some(chatty), ..locked() }), UNLOCKED);
        let bare = "0x12345678\r\n\r\nOK";
        assert_contains(unlock(&mut Modem { challenge: Some(bare), ..locked() }), UNLOCKED);
        let malformed = "Failed(Failure { reason: \"the answer to +GTFCCLOCKGEN is malformed: challenge is missing";
        for challenge in ["OK", "+GTFCCLOCKGEN: 0xnonsense\r\nOK", "+GTFCCLOCKGEN: 0x123456789\r\nOK"] {
            let mut modem = Modem { challenge: Some(challenge), ..locked() };
            assert_contains(unlock(&mut modem), malformed);
            assert!(!modem.seen.iter().any(|command| command.contains("ver=")));
        }
        let mut modem = Modem { challenge: Some("+CME ERROR: 3"), ..locked() };
        assert_contains(unlock(&mut modem), "the modem refused the request");
    }

    #[test]
    fn the_effective_state_decides_if_there_is_no_verdict() {
        let mut modem = Modem { verdict_unknown: true, ..locked() };
        assert_contains(unlock(&mut modem), UNLOCKED);
        let mut modem = Modem { state_unknown: true, ..locked() };
        assert_contains(unlock(&mut modem), UNLOCKED);
        let mut modem = Modem { state_unknown: true, verdict_unknown: true, ..locked() };
        assert_contains(unlock(&mut modem), "Failed");
    }

    #[test]
    fn each_key_is_used_once_for_each_power_up() {
        let right = "unlocked with the key of OEM string 2 of the quirk (refused: OEM string 1 of the quirk)";
        assert_contains(unlock_with(&mut locked(), &["WRONG", LENOVO], None), right);
        let mut tried = Vec::new();
        let failed = "refused every known key: OEM string 1 of the quirk, OEM string 2 of the quirk";
        assert_contains(run_with(&mut locked(), &["WRONG", DW5931E], &mut tried, None), failed);
        assert_eq!(tried.len(), 2);
        let mut modem = locked();
        assert_contains(
            run_with(&mut modem, &["WRONG", DW5931E], &mut tried, None),
            "every known key since its power-up",
        );
        assert!(!modem.seen.iter().any(|command| command.contains("gtfcclock")), "{:?}", modem.seen);
        // A key that the administrator adds counts as not tried.
        assert_contains(
            run_with(&mut locked(), &["WRONG", LENOVO], &mut tried, None),
            "key of OEM string 2 of the quirk;",
        );
    }

    #[test]
    fn a_refusal_is_the_verdict_or_an_error() {
        for verdict in ["+GTFCCLOCKVER: 0\r\n\r\nOK", "+CME ERROR: 0", "ERROR", "OK"] {
            let mut modem = Modem { verdict: Some(verdict), relocks: true, ..locked() };
            assert_contains(unlock(&mut modem), "refused every known key: OEM string 1");
        }
        // The modem accepts the response, and locks itself again.
        let mut modem = Modem { relocks: true, ..locked() };
        assert_contains(unlock(&mut modem), UNLOCKED);
        assert_contains(unlock(&mut modem), UNLOCKED);
    }

    #[test]
    fn a_modem_that_is_not_locked_is_left_alone() {
        let mut modem = Modem { online: true, ..locked() };
        assert_contains(unlock(&mut modem), "Online { text: \"the radio is already online");
        let mut modem = Modem { unlocked: true, ..locked() };
        assert_contains(unlock(&mut modem), "SwitchedOff(\"the modem was already unlocked");
        assert!(!modem.seen.iter().any(|command| command.contains("gtfcclock")));
        // If this program unlocked the modem without hearing the verdict, the result is an unlock.
        let mut modem = Modem { unlocked: true, ..locked() };
        assert_contains(run_with(&mut modem, &[LENOVO], &mut vec![1], None), "StillOff(\"unlocked;");
    }

    #[test]
    fn a_query_reports_whether_the_modem_is_locked() {
        let ask = |mut modem: Modem| {
            let _clock = StoppedClock::stop();
            let said = super::ask(&mut modem, StateCommand::default(), Deadline::after(BUDGET)).unwrap();
            assert!(!modem.seen.iter().any(|command| command.contains("gtfcclock")));
            said.locked
        };
        assert_eq!(ask(locked()), Some(true));
        assert_eq!(ask(Modem { unlocked: true, ..locked() }), Some(false));
        assert_eq!(ask(Modem { online: true, ..locked() }), Some(false));
        assert_eq!(ask(Modem { state_unknown: true, ..locked() }), None);
    }

    #[test]
    fn a_radio_that_the_user_switched_off_goes_off_again() {
        let mut modem = Modem { goes_online: true, ..locked() };
        assert_contains(unlock_with(&mut modem, &[LENOVO], Some("rfkill0 is blocked")), "rfkill0 is blocked");
        assert!(modem.unlocked && !modem.online);
        // A modem that is off gets the command, too: it may be about to go online.
        let mut modem = locked();
        assert_contains(unlock_with(&mut modem, &[LENOVO], Some("rfkill0 is blocked")), "rfkill0 is blocked");
        assert!(modem.seen.iter().any(|command| command == "AT+CFUN=4"), "{:?}", modem.seen);
        let mut modem = Modem { mute_from: Some(7), ..locked() };
        let failed = "the radio was not set to low power (rfkill0 is blocked): no answer to +CFUN=4";
        assert_contains(unlock_with(&mut modem, &[LENOVO], Some("rfkill0 is blocked")), failed);
        let mut modem = Modem { goes_online: true, ..locked() };
        assert_contains(
            unlock(&mut modem),
            "Online { text: \"unlocked with the key of OEM string 1 of the quirk; the radio is online",
        );
    }

    #[test]
    fn modems_without_the_lock_and_mute_ones_are_distinguished() {
        assert_contains(
            unlock(&mut Modem { no_such_lock: true, ..locked() }),
            "NoLock(\"the modem's firmware has no lock",
        );
        let mute = |reason: &str| format!("Unfinished(Failure {{ reason: \"no answer to {reason}");
        assert_contains(unlock(&mut Modem { deaf_to: usize::MAX, ..locked() }), &mute("ATE0"));
        assert_contains(unlock(&mut Modem { deaf_to: 1, ..locked() }), UNLOCKED);
        for (from, request) in [(2, "+CFUN"), (3, "+GTFCCEFFSTATUS"), (4, "+GTFCCLOCKGEN"), (5, "+GTFCCLOCKVER")] {
            assert_contains(unlock(&mut Modem { mute_from: Some(from), ..locked() }), &mute(request));
            assert_contains(unlock(&mut Modem { truncates: Some(from), ..locked() }), &mute(request));
        }
    }

    #[test]
    fn no_key_is_used_without_time_for_the_verdict() {
        let mut tried = Vec::new();
        let mut modem = locked_behind(Port::late(Duration::from_millis(300)));
        assert_contains(
            run_with(&mut modem, &[LENOVO], &mut tried, None),
            "Unfinished(Failure { reason: \"too little time",
        );
        assert!(tried.is_empty());
        assert_contains(unlock(&mut locked_behind(Port::late(Duration::from_millis(200)))), "unlocked");
        // The first replies arrive after the command was repeated.
        let mut modem = locked_behind(Port::late(Duration::from_millis(450)));
        assert_contains(unlock(&mut modem), "Unfinished");
        assert!(!modem.seen.iter().any(|command| command.contains("ver=")));
    }

    #[test]
    fn replies_to_an_earlier_run_are_ignored() {
        let mut modem = locked();
        for stale in [
            "\r\nERROR\r\n",
            "\r\n+GTFCCLOCKGEN: 0x99\r\n\r\nOK\r\n",
            "\r\n+GTFCCLOCKVER: 0\r\n\r\nOK\r\n",
            "\r\nERROR\r\n",
        ] {
            modem.port.say(stale.as_bytes(), usize::MAX);
        }
        assert_contains(unlock(&mut modem), UNLOCKED);
    }

    #[test]
    fn the_modem_may_leave_and_the_run_may_be_stopped_at_any_transfer() {
        let mut modem = locked();
        unlock(&mut modem);
        for at in 0..modem.port.transfers {
            assert_eq!(unlock(&mut locked_behind(Port::gone_at(at))), Outcome::Left);
            assert_contains(unlock(&mut locked_behind(Port::interrupted_at(at))), "stopped by a signal");
        }
    }

    #[derive(serde::Deserialize)]
    struct Capture {
        modem: String,
        dialogue: Vec<(String, Vec<String>)>,
    }

    #[test]
    fn captured_dialogues_are_parsed() {
        let captures: Vec<Capture> = serde_json::from_str(include_str!("../../../tests/corpus/at.json")).unwrap();
        let ask_modem = |answers: &[(&str, &str)]| {
            let _clock = StoppedClock::stop();
            ask(&mut AtModem::new("", answers), StateCommand::default(), Deadline::after(BUDGET)).unwrap()
        };
        let mut seen = Vec::new();
        for capture in captures.iter().filter(|capture| capture.modem.contains("FM350")) {
            for line in capture.dialogue.iter().flat_map(|(_, lines)| lines) {
                if line.starts_with(RADIO) {
                    let radio = ask_modem(&[("AT+CFUN?", line)]).operating_mode;
                    seen.push(format!("the radio is {radio}"));
                } else if line.starts_with(STATE) {
                    // The lock is queried only while the radio is off.
                    let locked = ask_modem(&[("AT+CFUN?", "+CFUN: 4"), ("AT+GTFCCEFFSTATUS?", line)]).locked;
                    seen.push(format!("locked: {locked:?}"));
                } else if let Some(challenge) = number(line) {
                    seen.push(format!("challenge {challenge:#x}"));
                }
            }
        }
        assert_eq!(seen, ["locked: Some(false)", "the radio is online", "locked: Some(false)", "challenge 0x5754cabc"]);
    }
}
