//! The lock of Fibocom, Intel, MediaTek and Rolling modems: challenge and response over AT commands.
//!
//! Facts: ModemManager's script for the FM350-GL (14c3), chapter 17 of Fibocom's AT manual for the FM350, and traces by
//! others of Lenovo's unlock library for RW101R-GL, FM350-GL and L860-GL (github.com/twh/wwan-unlock).
//!
//! `+GTFCCEFFSTATUS: <mode>,<status>` is the effective state. Mode 0 means no lock, status 1 means unlocked now: `2,0`
//! is a locked FM350, `2,1` an unlocked one, `0,1` one without a lock. `+GTFCCLOCKVER: 1` accepts a response. For the
//! RW101R-GL, only the effective state counts. An XMM7560 (L860-GL) replies with bare numbers, and its state is that of
//! `at+gtfcclockstate`: 0 is locked. Commands that change the lock permanently (`GTFCCLOCKMODE`) are never sent.

use std::time::Duration;

use log::debug;

use super::keys::{self, ChallengeLock, Key, Keys};
use super::radio::{
    NO_SUCH_LOCK, Radio, RadioState, TRY_AGAIN, UNLOCKED, finish_unlock, no_lock, online_already, unlocked_before,
};
use crate::database::quirks::{Gtfcclock, Number, StateCommand};
use crate::host::deadline::Deadline;
use crate::modem::link::Link;
use crate::modem::session::SessionError;
use crate::modem::session::at::Conversation;
use crate::modem::wire::{Malformed, at};
use crate::outcome::{Failure, Outcome};

const RADIO: &str = "+CFUN";
const STATE: &str = "+GTFCCEFFSTATUS";
const LOCK_STATE: &str = "+GTFCCLOCKSTATE";
pub(super) const GET_LOCK_STATE: &str = "at+gtfcclockstate";
const CHALLENGE: &str = "+GTFCCLOCKGEN";
const VERDICT: &str = "+GTFCCLOCKVER";
/// The pause before a locked modem that sent no challenge is asked again. ModemManager's script waits as long.
const CHALLENGE_PAUSE: Duration = Duration::from_millis(500);
/// How often such a modem is asked. ModemManager's script asks as often.
const CHALLENGE_TRIES: usize = 9;

pub(super) fn unlock(
    port: &mut dyn Link,
    gtfcclock: &Gtfcclock,
    mut keys: Keys,
    stays_off: Option<&str>,
    deadline: Deadline,
) -> Result<Outcome, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = read_radio(&mut at)?;
    if radio == Radio::On {
        return Ok(online_already());
    }
    let state = is_unlocked(&mut at, gtfcclock.state)?;
    if state == Some(true) {
        // The verdict on a key may have come too late for the run that used the key.
        return match keys.were_used() {
            true => finish_unlock(&mut at, UNLOCKED, Ok(radio), stays_off, switch_off, read_radio),
            false => Ok(unlocked_before(radio)),
        };
    }
    let is_locked = state == Some(false);
    match keys::unlock(&mut Lock { at: &mut at, gtfcclock, is_locked }, &mut keys) {
        Ok(None) => {
            let radio = read_radio(&mut at);
            finish_unlock(&mut at, &keys.success(), radio, stays_off, switch_off, read_radio)
        }
        Ok(Some(outcome)) => Ok(outcome),
        Err(error) if is_locked && is_without_challenge(&error) => {
            let state = match is_unlocked(&mut at, gtfcclock.state) {
                Err(error @ SessionError::Link(_)) => return Err(error),
                state => state.unwrap_or_default(),
            };
            if state == Some(true) {
                let radio = read_radio(&mut at);
                return finish_unlock(&mut at, UNLOCKED, radio, stays_off, switch_off, read_radio);
            }
            let reason = format!("the modem reports that it is locked, but sends no challenge: {error}");
            let failure = Failure::new(reason, TRY_AGAIN);
            let has_time = !error.is_transient() && at.work_deadline().remaining() > CHALLENGE_PAUSE;
            Ok(if has_time { Outcome::Failed(failure) } else { Outcome::Unfinished(failure) })
        }
        Err(error) if error.is_unsupported() && !keys.were_used() => Ok(no_lock(NO_SUCH_LOCK, radio)),
        Err(error) => Err(error),
    }
}

/// Firmware that does not report the state may be locked.
pub(super) fn query(port: &mut dyn Link, state: StateCommand, deadline: Deadline) -> Result<RadioState, SessionError> {
    let mut at = Conversation::open(port, deadline)?;
    let radio = read_radio(&mut at)?;
    let locked = if radio == Radio::On { Some(false) } else { is_unlocked(&mut at, state)?.map(|unlocked| !unlocked) };
    Ok(radio.state(locked))
}

struct Lock<'a, 'p> {
    at: &'a mut Conversation<'p>,
    gtfcclock: &'a Gtfcclock,
    /// Whether the modem reports that it is locked.
    is_locked: bool,
}

impl Lock<'_, '_> {
    fn ask_challenge(&mut self) -> Result<u32, SessionError> {
        let lines = self.at.command(CHALLENGE, "at+gtfcclockgen")?;
        let malformed = Malformed::Missing { field: "challenge" };
        value(&lines, CHALLENGE).ok_or(SessionError::Malformed { request: CHALLENGE, malformed })
    }
}

impl ChallengeLock for Lock<'_, '_> {
    fn remaining(&self) -> Duration {
        self.at.work_deadline().remaining()
    }

    /// A modem that reports that it is locked is asked several times, unless another program opens the lock meanwhile.
    fn challenge(&mut self) -> Result<u32, SessionError> {
        for _ in 1..CHALLENGE_TRIES {
            match self.ask_challenge() {
                Err(error) if self.is_locked && is_without_challenge(&error) && self.remaining() > CHALLENGE_PAUSE => {
                    debug!("{error}");
                    self.pause(CHALLENGE_PAUSE)?;
                    if is_unlocked(self.at, self.gtfcclock.state)? == Some(true) {
                        return Err(error);
                    }
                }
                asked => return asked,
            }
        }
        self.ask_challenge()
    }

    /// An error other than that of a busy modem is a refusal.
    fn respond(&mut self, challenge: u32, key: &Key) -> Result<Option<bool>, SessionError> {
        let answer = key.answer(challenge, self.gtfcclock.byte_order);
        let answer = match self.gtfcclock.number {
            Number::Decimal => answer.to_string(),
            Number::Hex => format!("0x{answer:08x}"),
        };
        let lines = match self.at.command(VERDICT, &format!("at+gtfcclockver={answer}")) {
            Err(error @ SessionError::At { .. }) if !error.is_transient() => return Ok(Some(false)),
            answered => answered?,
        };
        Ok(value(&lines, VERDICT).map(|verdict| verdict == 1))
    }

    fn is_open(&mut self, is_refused: bool) -> Result<bool, SessionError> {
        match is_unlocked(self.at, self.gtfcclock.state)? {
            None if !is_refused => {
                let malformed = Malformed::Missing { field: "verdict" };
                Err(SessionError::Malformed { request: VERDICT, malformed })
            }
            state => Ok(state == Some(true)),
        }
    }

    fn pause(&mut self, time: Duration) -> Result<(), SessionError> {
        self.at.pause(self.at.work_deadline().at_most(time))
    }
}

/// Whether the modem has answered the request for a challenge, but without one.
fn is_without_challenge(error: &SessionError) -> bool {
    matches!(error, SessionError::At { request: CHALLENGE, .. } | SessionError::Malformed { request: CHALLENGE, .. })
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

fn read_radio(at: &mut Conversation) -> Result<Radio, SessionError> {
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
    use crate::modem::link::fake::{Modem, Port, simulated};
    use crate::modem::transport::{Protocol, Transport};
    use crate::steps::fcc_auth::run;
    use ::modem::challenge::{Number as SimulatedNumber, Order};
    use ::modem::radio::{Lock as SimulatedLock, ONLINE};

    const LENOVO: &str = "KHOIHGIUCCHHII";
    const DW5931E: &str = "DW5931EFCCLOCK";
    const BUDGET: Duration = Duration::from_millis(1500);

    fn modem(lock: SimulatedLock) -> Modem {
        Modem::with_lock(Protocol::At, lock).with("indications split=7")
    }

    /// The AT port of an FM350-GL that accepts Lenovo's key. Its own lines come in between.
    fn locked() -> Modem {
        modem(SimulatedLock::Gtfcclock { order: Order::Big, number: SimulatedNumber::Decimal, is_xmm: false })
    }

    fn unlocked() -> Modem {
        let mut modem = locked();
        modem.locked = false;
        modem
    }

    /// An RW101R-GL.
    fn rolling() -> Modem {
        modem(SimulatedLock::Gtfcclock { order: Order::Big, number: SimulatedNumber::Hex, is_xmm: false })
    }

    /// An L860-GL.
    fn l860() -> Modem {
        modem(SimulatedLock::Gtfcclock { order: Order::Little, number: SimulatedNumber::Decimal, is_xmm: true })
    }

    /// The same modem with these replies.
    fn saying(mut modem: Modem, answers: &[(&str, &str)]) -> Modem {
        modem.answers = answers.iter().map(|(command, answer)| ((*command).to_owned(), (*answer).to_owned())).collect();
        modem
    }

    fn fm350(oem_strings: &[&str]) -> Gtfcclock {
        let oem_strings = oem_strings.iter().map(|text| (*text).to_owned()).collect();
        let state = StateCommand::Gtfcceffstatus;
        let (byte_order, number) = (ByteOrder::BigEndian, Number::Decimal);
        Gtfcclock { interface: Some(6), byte_order, number, state, oem_strings, keys: Vec::new() }
    }

    fn run_with(modem: &mut Modem, oem_strings: &[&str], tried: &mut Vec<u32>, stays_off: Option<&str>) -> Outcome {
        run_within(modem, oem_strings, tried, stays_off, BUDGET)
    }

    fn run_within(
        modem: &mut Modem,
        oem_strings: &[&str],
        tried: &mut Vec<u32>,
        stays_off: Option<&str>,
        budget: Duration,
    ) -> Outcome {
        let mut gtfcclock = fm350(oem_strings);
        if let SimulatedLock::Gtfcclock { number: SimulatedNumber::Hex, .. } = modem.lock {
            gtfcclock.number = Number::Hex;
        }
        if let SimulatedLock::Gtfcclock { is_xmm: true, .. } = modem.lock {
            (gtfcclock.byte_order, gtfcclock.state) = (ByteOrder::LittleEndian, StateCommand::Gtfcclockstate);
        }
        let before = tried.clone();
        let procedure = Procedure::Gtfcclock(gtfcclock);
        let keys = Keys::new(&[], &procedure, &before, |note| note.apply(tried));
        let transport = Transport { port: modem, protocol: Protocol::At, proxied: None };
        let clock = StoppedClock::stop();
        let outcome = run(transport, &procedure, keys, stays_off, Deadline::after(budget));
        assert!(clock.elapsed() <= budget, "{:?}: {outcome:?}", clock.elapsed());
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
        for (mut modem, answer) in [(rolling(), "at+gtfcclockver=0x6a87f139"), (locked(), "at+gtfcclockver=1787294009")]
        {
            assert_contains(unlock(&mut modem), UNLOCKED);
            assert!(!modem.locked);
            assert_eq!(modem.seen, ["ate0", "AT+CFUN?", "AT+GTFCCEFFSTATUS?", "at+gtfcclockgen", answer, "AT+CFUN?"]);
        }
    }

    #[test]
    fn an_xmm7560_replies_with_bare_numbers() {
        let stateless = || saying(l860(), &[("at+gtfcclockstate", "ERROR")]);
        for (mut modem, second) in [(l860(), None), (stateless(), Some("AT+GTFCCEFFSTATUS?"))] {
            assert_contains(unlock(&mut modem), UNLOCKED);
            let mut expected = vec!["ate0", "AT+CFUN?", "at+gtfcclockstate"];
            expected.extend(second);
            expected.extend(["at+gtfcclockgen", "at+gtfcclockver=1075640449", "AT+CFUN?"]);
            assert_eq!(modem.seen, expected);
        }
        assert_contains(unlock_with(&mut l860(), &["WRONG", LENOVO], None), "(refused: OEM string 1 of the quirk)");
        assert_contains(unlock_with(&mut l860(), &["WRONG"], None), "refused every known key");
        // The state decides if there is no verdict.
        assert_contains(unlock(&mut l860().with(NO_VERDICT)), UNLOCKED);
        let mut modem = l860();
        modem.locked = false;
        assert_contains(unlock(&mut modem), "SwitchedOff(\"the modem was already unlocked");
        assert_eq!(modem.seen, ["ate0", "AT+CFUN?", "at+gtfcclockstate"]);
        // Firmware may reply with the name, or lack the lock.
        let named = [("at+gtfcclockver=1075640449", "+GTFCCLOCKVER: 1")];
        assert_contains(unlock(&mut saying(l860(), &named)), UNLOCKED);
        assert_contains(unlock(&mut l860().with("generic")), "NoLock(");
        for (mut modem, locked, expected) in
            [(l860(), true, Some(true)), (l860(), false, Some(false)), (stateless(), true, None)]
        {
            let _clock = StoppedClock::stop();
            modem.locked = locked;
            let state = query(&mut modem, StateCommand::Gtfcclockstate, Deadline::after(BUDGET)).unwrap();
            assert_eq!(state.locked, expected);
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
        let asking = |challenge: &str| {
            let mut modem = saying(locked(), &[("at+gtfcclockgen", challenge)]);
            modem.challenge = Some(0x1234_5678);
            modem
        };
        // Unsolicited lines are not taken for a challenge.
        for challenge in ["+CTZV: 0x99\r\n+GTFCCLOCKGEN: 0x12345678", "0x12345678"] {
            assert_contains(unlock(&mut asking(challenge)), UNLOCKED);
        }
        let malformed = "the answer to +GTFCCLOCKGEN is malformed: challenge is missing";
        for (challenge, reason) in [
            ("", malformed),
            ("+GTFCCLOCKGEN: 0xnonsense", malformed),
            ("+GTFCCLOCKGEN: 0x123456789", malformed),
            ("+CME ERROR: 3", "+GTFCCLOCKGEN returned \\\"+CME ERROR: 3"),
            ("ERROR", "+GTFCCLOCKGEN returned \\\"ERROR"),
        ] {
            let mut modem = asking(challenge);
            let locked = "Unfinished(Failure { reason: \"the modem reports that it is locked, but sends no challenge: ";
            assert_contains(unlock(&mut modem), &format!("{locked}{reason}"));
            assert_eq!((modem.count("gen"), modem.count("ver=")), (3, 0));
            // With more time, a permanent refusal ends the run.
            let mut modem = asking(challenge);
            let outcome = run_within(&mut modem, &[LENOVO], &mut Vec::new(), None, Duration::from_secs(60));
            assert_contains(outcome, &format!("{}{reason}", locked.replace("Unfinished", "Failed")));
            assert_eq!(modem.count("gen"), 9);
        }
        // A busy modem may need more time.
        let mut modem = asking("+CME ERROR: 14");
        let outcome = run_within(&mut modem, &[LENOVO], &mut Vec::new(), None, Duration::from_secs(60));
        assert_contains(outcome, "Unfinished(Failure { reason: \"the modem reports that it is locked, but");
        // Without a state, the modem may have no lock.
        for (challenge, outcome) in [
            ("", "Failed(Failure { reason: \"the answer to +GTFCCLOCKGEN is malformed"),
            ("+CME ERROR: 3", "Failed(Failure { reason: \"the modem refused the request"),
            ("ERROR", "NoLock("),
        ] {
            let mut modem = saying(locked(), &[("AT+GTFCCEFFSTATUS?", "ERROR"), ("at+gtfcclockgen", challenge)]);
            assert_contains(unlock(&mut modem), outcome);
            assert_eq!((modem.count("gen"), modem.count("ver=")), (1, 0));
        }
    }

    #[test]
    fn a_locked_modem_is_asked_again_for_a_challenge() {
        let opened = "StillOff(\"unlocked; the radio stays in low power";
        let (error, ok) = ("\r\nERROR\r\n", "\r\nOK\r\n");
        // Another program may open the lock meanwhile.
        for (refusal, opens, expected) in [(error, false, UNLOCKED), (ok, false, UNLOCKED), (error, true, opened)] {
            let lock = SimulatedLock::Gtfcclock { order: Order::Big, number: SimulatedNumber::Decimal, is_xmm: false };
            let (mut modem, mut refused) = (simulated(Protocol::At, lock, 0), false);
            let mut port = Port::replying(Protocol::At, |message: &[u8]| {
                if message.starts_with(b"at+gtfcclockgen") && !std::mem::replace(&mut refused, true) {
                    modem.modem.locked = !opens;
                    return vec![refusal.as_bytes().to_vec()];
                }
                modem.receive(message).1
            });
            let procedure = Procedure::Gtfcclock(fm350(&[LENOVO]));
            let keys = Keys::new(&[], &procedure, &[], |_| {});
            let transport = Transport { port: &mut port, protocol: Protocol::At, proxied: None };
            let clock = StoppedClock::stop();
            assert_contains(run(transport, &procedure, keys, None, Deadline::after(BUDGET)), expected);
            assert!((500..600).contains(&clock.elapsed().as_millis()), "{:?}", clock.elapsed());
        }
    }

    const NO_VERDICT: &str = "no-values at-message=ver=";

    #[test]
    fn the_effective_state_decides_if_there_is_no_verdict() {
        let stateless = || saying(locked(), &[("AT+GTFCCEFFSTATUS?", "+CME ERROR: 100")]);
        assert_contains(unlock(&mut locked().with(NO_VERDICT)), UNLOCKED);
        assert_contains(unlock(&mut stateless()), UNLOCKED);
        // Without a verdict and a state, the next run may use the key again.
        let (mut modem, mut tried) = (stateless().with(NO_VERDICT), Vec::new());
        let malformed = "Failed(Failure { reason: \"the answer to +GTFCCLOCKVER is malformed: verdict is missing";
        assert_contains(run_with(&mut modem, &[LENOVO], &mut tried, None), malformed);
        assert_eq!(tried.len(), 1);
    }

    #[test]
    fn a_refused_key_is_not_used_again_before_the_next_power_up() {
        let right = "unlocked with the key of OEM string 2 of the quirk (refused: OEM string 1 of the quirk)";
        assert_contains(unlock_with(&mut locked(), &["WRONG", LENOVO], None), right);
        let mut tried = Vec::new();
        let failed = "refused every known key: OEM string 1 of the quirk, OEM string 2 of the quirk";
        assert_contains(run_with(&mut locked(), &["WRONG", DW5931E], &mut tried, None), failed);
        let mut modem = locked();
        assert_contains(run_with(&mut modem, &["WRONG", DW5931E], &mut tried, None), "no known key since its power-up");
        assert_eq!(modem.count("gtfcclock"), 0, "{:?}", modem.seen);
        // A key that the administrator adds counts as not tried.
        assert_contains(
            run_with(&mut locked(), &["WRONG", LENOVO], &mut tried, None),
            "key of OEM string 2 of the quirk;",
        );
    }

    #[test]
    fn a_refused_key_is_not_used_again_if_the_state_is_unknown() {
        let (mut modem, mut tried) = (locked().with("mute at-reply=6-"), Vec::new());
        assert_contains(
            run_with(&mut modem, &["WRONG"], &mut tried, None),
            "Unfinished(Failure { reason: \"no answer to +GTFCCEFFSTATUS",
        );
        let mut modem = locked();
        assert_contains(run_with(&mut modem, &["WRONG"], &mut tried, None), "no known key since its power-up");
        assert_eq!(modem.count("ver="), 0);
    }

    /// The event has no time for another response. The unit sends one.
    #[test]
    fn a_key_without_a_verdict_is_used_again_at_most_twice() {
        for (fault, reason) in [("busy", "the modem is busy: +GTFCCLOCKVER"), ("mute", "no answer to +GTFCCLOCKVER")] {
            let refused = |modem: &mut Modem, tried: &mut Vec<u32>, sent: usize| {
                assert_contains(
                    run_with(modem, &[LENOVO], tried, None),
                    &format!("Unfinished(Failure {{ reason: \"{reason}"),
                );
                assert_eq!((modem.count("ver="), modem.challenges, tried.len()), (sent, sent, sent));
            };
            let (mut modem, mut tried) = (locked().with(fault).with("at-message=ver="), Vec::new());
            refused(&mut modem, &mut tried, 1);
            modem.faults.clear_one(fault);
            assert_contains(run_with(&mut modem, &[LENOVO], &mut tried, None), UNLOCKED);
            assert_eq!((modem.count("ver="), modem.challenges), (2, 2));
            let (mut modem, mut tried) = (locked().with(fault).with("at-message=ver="), Vec::new());
            for sent in 1..=3 {
                refused(&mut modem, &mut tried, sent);
            }
            let ended = run_with(&mut modem, &[LENOVO], &mut tried, None);
            assert_contains(ended, "Failed(Failure { reason: \"the modem has accepted no known key since its power-up");
            assert_eq!(modem.count("ver="), 3);
        }
        // With more time, one run sends the key again.
        let long = Duration::from_secs(60);
        for (busy, outcome) in [(2, UNLOCKED), (3, "Unfinished(Failure { reason: \"the modem is busy")] {
            let mut modem = locked().with(&format!("busy={busy} at-message=ver="));
            assert_contains(run_within(&mut modem, &[LENOVO], &mut Vec::new(), None, long), outcome);
            assert_eq!((modem.count("ver="), modem.challenges), (3, 3));
        }
    }

    #[test]
    fn a_refusal_is_the_verdict_or_an_error() {
        for verdict in ["+GTFCCLOCKVER: 0", "+CME ERROR: 0", "ERROR", ""] {
            let mut modem = saying(locked(), &[("at+gtfcclockver=1787294009", verdict)]);
            assert_contains(unlock(&mut modem), "refused every known key: OEM string 1");
        }
        // The modem accepts the response, and locks itself again.
        let mut modem = locked().with("stays-locked");
        assert_contains(unlock(&mut modem), UNLOCKED);
        modem.challenges = 0;
        assert_contains(unlock(&mut modem), UNLOCKED);
    }

    #[test]
    fn a_modem_that_is_not_locked_is_left_alone() {
        let mut modem = locked();
        modem.mode = ONLINE;
        assert_contains(unlock(&mut modem), "Online { text: \"the radio is already online");
        let mut modem = unlocked();
        assert_contains(unlock(&mut modem), "SwitchedOff(\"the modem was already unlocked");
        assert_eq!(modem.count("gtfcclock"), 0);
        // If this program unlocked the modem without hearing the verdict, the result is an unlock.
        assert_contains(run_with(&mut unlocked(), &[LENOVO], &mut vec![1], None), "StillOff(\"unlocked;");
    }

    #[test]
    fn a_query_reports_whether_the_modem_is_locked() {
        let query = |mut modem: Modem| {
            let _clock = StoppedClock::stop();
            let state = super::query(&mut modem, StateCommand::default(), Deadline::after(BUDGET)).unwrap();
            assert_eq!(modem.count("gtfcclock"), 0);
            state.locked
        };
        assert_eq!(query(locked()), Some(true));
        assert_eq!(query(unlocked()), Some(false));
        let mut online = locked();
        online.mode = ONLINE;
        assert_eq!(query(online), Some(false));
        assert_eq!(query(saying(locked(), &[("AT+GTFCCEFFSTATUS?", "+CME ERROR: 100")])), None);
    }

    #[test]
    fn a_radio_that_the_user_switched_off_goes_off_again() {
        let why = Some("rfkill0 is blocked");
        // A modem that is off gets the command, too: it may be about to go online.
        for mut modem in [locked().with("goes-online"), locked()] {
            assert_contains(unlock_with(&mut modem, &[LENOVO], why), "rfkill0 is blocked");
            assert!(!modem.locked && modem.mode != ONLINE);
            assert_eq!(modem.count("AT+CFUN=4"), 1, "{:?}", modem.seen);
        }
        let failed = "the radio was not set to low power (rfkill0 is blocked): no answer to +CFUN=4";
        assert_contains(unlock_with(&mut locked().with("mute at-reply=7-"), &[LENOVO], why), failed);
        assert_contains(
            unlock(&mut locked().with("goes-online")),
            "Online { text: \"unlocked with the key of OEM string 1 of the quirk; the radio is online",
        );
    }

    #[test]
    fn modems_without_the_lock_and_mute_ones_are_distinguished() {
        assert_contains(unlock(&mut locked().with("generic")), "NoLock(\"the modem's firmware has no lock");
        let mute = |reason: &str| format!("Unfinished(Failure {{ reason: \"no answer to {reason}");
        assert_contains(unlock(&mut locked().with("mute")), &mute("ATE0"));
        assert_contains(unlock(&mut locked().with("mute at-reply=1")), UNLOCKED);
        for (from, request) in [(2, "+CFUN"), (3, "+GTFCCEFFSTATUS"), (4, "+GTFCCLOCKGEN"), (5, "+GTFCCLOCKVER")] {
            assert_contains(unlock(&mut locked().with(&format!("mute at-reply={from}-"))), &mute(request));
            assert_contains(unlock(&mut locked().with(&format!("short at-reply={from}"))), &mute(request));
        }
    }

    #[test]
    fn no_key_is_used_without_time_for_the_verdict() {
        let mut tried = Vec::new();
        assert_contains(
            run_with(&mut locked().with("late=300"), &[LENOVO], &mut tried, None),
            "Unfinished(Failure { reason: \"too little time",
        );
        assert!(tried.is_empty());
        assert_contains(unlock(&mut locked().with("late=200")), "unlocked");
        // The first replies arrive after the command was repeated.
        let mut modem = locked().with("late=450");
        assert_contains(unlock(&mut modem), "Unfinished");
        assert_eq!(modem.count("ver="), 0);
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
            modem.queue(stale.as_bytes());
        }
        assert_contains(unlock(&mut modem), UNLOCKED);
    }

    #[test]
    fn the_modem_may_leave_and_the_run_may_be_stopped_at_any_transfer() {
        let mut modem = locked();
        unlock(&mut modem);
        for at in 0..modem.transfers {
            let mut modem = locked();
            modem.gone_at = Some(at);
            assert_eq!(unlock(&mut modem), Outcome::Left);
            let mut modem = locked();
            modem.interrupted_at = Some(at);
            assert_contains(unlock(&mut modem), "stopped by a signal");
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
        let query_modem = |answers: &[(&str, &str)]| {
            let _clock = StoppedClock::stop();
            query(&mut Modem::at("", answers), StateCommand::default(), Deadline::after(BUDGET)).unwrap()
        };
        let mut seen = Vec::new();
        for capture in captures.iter().filter(|capture| capture.modem.contains("FM350")) {
            for line in capture.dialogue.iter().flat_map(|(_, lines)| lines) {
                if line.starts_with(RADIO) {
                    let radio = query_modem(&[("AT+CFUN?", line)]).operating_mode;
                    seen.push(format!("the radio is {radio}"));
                } else if line.starts_with(STATE) {
                    // The lock is queried only while the radio is off.
                    let locked = query_modem(&[("AT+CFUN?", "+CFUN: 4"), ("AT+GTFCCEFFSTATUS?", line)]).locked;
                    seen.push(format!("locked: {locked:?}"));
                } else if let Some(challenge) = number(line) {
                    seen.push(format!("challenge {challenge:#x}"));
                }
            }
        }
        assert_eq!(seen, ["locked: Some(false)", "the radio is online", "locked: Some(false)", "challenge 0x5754cabc"]);
    }
}
