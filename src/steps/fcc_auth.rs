//! Unlocking the radio: the maker of a laptop may tie it to a host that says a certain word, the FCC authentication.

use super::{Outcome, Trouble};
use crate::deadline::Deadline;
use crate::link::{LinkError, Port};
use crate::quirks::Procedure;
use crate::session::SessionError;
use crate::session::mbim::Session;
use crate::session::qmi::{Carrier, Client, Direct};
use crate::wire::Malformed;
use crate::wire::mbim::Status;
use crate::wire::qmi::{ErrorCode, OperatingMode, Service, dms};
use std::fmt;
use std::time::Duration;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Qmi,
    Mbim,
}

impl Protocol {
    /// By the driver that made the port.
    pub fn of_driver(driver: &str) -> Option<Protocol> {
        match driver {
            "qmi_wwan" => Some(Protocol::Qmi),
            "cdc_mbim" => Some(Protocol::Mbim),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Qmi => "QMI",
            Protocol::Mbim => "QMI inside MBIM",
        })
    }
}

/// How long an unlocked modem is watched on its way online, at first in short steps and then in longer ones.
const WATCH: Duration = Duration::from_secs(5);
const FIRST_LOOK: Duration = Duration::from_millis(20);
const LONGEST_LOOK: Duration = Duration::from_millis(400);

/// Unlocks the radio of the modem behind `port`, unless it is online or in a mode that somebody else chose.
///
/// It is not switched online: that is for ModemManager, or whoever uses the modem.
/// All is over by `deadline`, with the CID released and the MBIM session closed.
pub fn run(port: &mut dyn Port, protocol: Protocol, procedure: Procedure, deadline: Deadline) -> Outcome {
    let ended = match (procedure, protocol) {
        (Procedure::Sierra, Protocol::Qmi) => sierra(&mut Direct::new(port), deadline),
        (Procedure::Sierra, Protocol::Mbim) => {
            Session::open(port, deadline).and_then(|mut session| sierra(&mut session, deadline))
        }
    };
    ended.unwrap_or_else(outcome_of)
}

fn sierra(carrier: &mut dyn Carrier, deadline: Deadline) -> Result<Outcome, SessionError> {
    let mut dms = Client::allocate(carrier, Service::DMS, deadline)?;
    let radio = Radio::read(&mut dms)?;
    if radio.mode == OperatingMode::Online {
        return Ok(Outcome::Nothing("the radio is online already".to_owned()));
    }
    if !radio.mode.is_low_power() {
        return Ok(Outcome::Nothing(format!("left alone: the modem is in mode {}, not in low power", radio.mode)));
    }
    match dms.request(dms::SET_FCC_AUTHENTICATION, &[]) {
        Ok(_) => match watch(&mut dms) {
            Ok(radio) => Ok(Outcome::Done(format!("unlocked; {}", radio.describe()))),
            Err(SessionError::Link(error @ (LinkError::Gone | LinkError::Interrupted))) => Err(error.into()),
            Err(error) => Ok(Outcome::Done(format!("unlocked; how the radio stands is not known: {error}"))),
        },
        Err(SessionError::Qmi { error: ErrorCode::NO_EFFECT, .. }) => {
            Ok(Outcome::Nothing(format!("was unlocked already; {}", Radio::read(&mut dms)?.describe())))
        }
        Err(error) => Err(error),
    }
}

/// How the radio stands.
#[derive(Clone, Copy)]
struct Radio {
    mode: OperatingMode,
    /// The W_DISABLE pin, or a switch of the laptop on it, holds it off.
    switched_off: bool,
}

impl Radio {
    fn read(dms: &mut Client) -> Result<Radio, SessionError> {
        dms.request(dms::GET_OPERATING_MODE, &[])?.read(|tlvs| {
            let mode = tlvs.u8(0x01, "operating mode")?.into();
            let switched_off = match tlvs.u8(0x11, "hardware restriction") {
                Err(Malformed::Missing { .. }) => false,
                told => told? != 0,
            };
            Ok(Radio { mode, switched_off })
        })
    }

    fn describe(self) -> String {
        match self {
            Radio { mode: OperatingMode::Online, .. } => "the radio is online".to_owned(),
            Radio { switched_off: true, .. } => {
                "a hardware switch holds the radio off (W_DISABLE pin): turn it on at the laptop".to_owned()
            }
            Radio { mode, .. } => format!(
                "the radio stays in {mode} until ModemManager, or `qmicli --dms-set-operating-mode=online`, switches it on"
            ),
        }
    }
}

/// Reads how the radio stands until it is online, or cannot be, or the time is up.
fn watch(dms: &mut Client) -> Result<Radio, SessionError> {
    let until = dms.work_deadline().within(WATCH);
    let mut look = FIRST_LOOK;
    loop {
        let radio = Radio::read(dms)?;
        if radio.mode == OperatingMode::Online || radio.switched_off || until.remaining() < look {
            return Ok(radio);
        }
        dms.pause(until.within(look))?;
        look = (look * 2).min(LONGEST_LOOK);
    }
}

/// What an error means to a person.
fn outcome_of(error: SessionError) -> Outcome {
    let failed = |cause: String, cure: &str| Outcome::Failed(Trouble::new(cause, cure));
    let unfinished = |cause: String, cure: &str| Outcome::Unfinished(Trouble::new(cause, cure));
    match &error {
        SessionError::Link(LinkError::Gone) => {
            Outcome::Nothing("the modem left; when it is back, its own event carries on".to_owned())
        }
        SessionError::Link(LinkError::Interrupted) => {
            unfinished("stopped by a signal".to_owned(), "`wwan-quirks apply` carries on")
        }
        SessionError::NoAnswer { .. } | SessionError::Garbage { .. } | SessionError::Link(LinkError::Jammed) => {
            unfinished(error.to_string(), "it may still be starting; if it stays so, power the modem off and on")
        }
        SessionError::Link(_) => failed(error.to_string(), "see what the kernel's log says of the port"),
        error if error.is_transient() => {
            unfinished(format!("the modem is busy: {error}"), "`wwan-quirks apply` tries again")
        }
        SessionError::Qmi { error: ErrorCode::CLIENT_IDS_EXHAUSTED, .. } => failed(
            format!("the modem has no client ID left: {error}"),
            "power it off and on; programs that were killed while using it have taken them all",
        ),
        SessionError::Qmi { error: ErrorCode::HARDWARE_RESTRICTED, .. } => failed(
            format!("a hardware switch holds the radio off: {error}"),
            "turn it on at the laptop; where there is none, the slot's W_DISABLE pin does it",
        ),
        SessionError::Qmi { error: code, .. } if code.is_unsupported() => failed(
            format!("not supported by the modem: {error}"),
            "its quirk should not have this fcc-auth; send in what `wwan-quirks report` prints",
        ),
        SessionError::Qmi { .. } => failed(
            format!("refused by the modem: {error}"),
            "its firmware may want another procedure; send in what `wwan-quirks report` prints",
        ),
        SessionError::Mbim { status: Status::NO_DEVICE_SUPPORT, .. } => failed(
            format!("not supported over this port: {error}"),
            "if the modem has a QMI configuration too, ask for it by prefer = \"qmi\" in /etc/wwan-quirks/config.toml",
        ),
        SessionError::Mbim { .. } | SessionError::Function { .. } => {
            failed(format!("refused by the modem: {error}"), "see whether another program uses the port")
        }
        SessionError::Malformed { .. } => failed(error.to_string(), "send in what `wwan-quirks report` prints"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::scripted::{Face, Modem};
    use crate::wire::qmi::ctl;
    use std::time::Instant;

    const BUDGET: Duration = Duration::from_millis(400);
    /// What a loaded machine may add to a wait.
    const SLACK: Duration = Duration::from_millis(60);
    const FACES: [Face; 2] = [Face::Qmi, Face::Mbim];

    /// Unlocks the modem within the budget, and sees to it that nothing is left behind on it.
    fn unlock(modem: &mut Modem) -> Outcome {
        unlock_within(modem, BUDGET)
    }

    fn unlock_within(modem: &mut Modem, budget: Duration) -> Outcome {
        let protocol = match modem.face {
            Face::Qmi => Protocol::Qmi,
            Face::Mbim => Protocol::Mbim,
        };
        let began = Instant::now();
        let outcome = run(modem, protocol, Procedure::Sierra, Deadline::after(budget));
        let took = began.elapsed();
        assert!(took < budget + SLACK, "{took:?} of {budget:?}: {outcome:?}");
        if modem.gone_at.is_none() {
            assert!(modem.cids.is_empty(), "CIDs {:?} not released: {outcome:?}", modem.cids);
            assert!(!modem.is_open, "MBIM session not closed: {outcome:?}");
        }
        outcome
    }

    /// Runs a modem with both faces, each made by `with`, and returns the outcome, which must be the same.
    #[track_caller]
    fn both(with: impl Fn(&mut Modem) + Sync) -> Outcome {
        let unlocked = |face| {
            let mut modem = Modem::locked(face);
            with(&mut modem);
            unlock(&mut modem)
        };
        let (qmi, mbim) = std::thread::scope(|scope| {
            let qmi = scope.spawn(|| unlocked(Face::Qmi));
            (unlocked(Face::Mbim), qmi.join().unwrap())
        });
        assert_eq!(qmi, mbim);
        qmi
    }

    fn online() -> Outcome {
        Outcome::Done("unlocked; the radio is online".to_owned())
    }

    #[track_caller]
    fn assert_trouble(outcome: Outcome, unfinished: bool, words: &str) {
        let (trouble, as_expected) = match &outcome {
            Outcome::Unfinished(trouble) => (trouble, unfinished),
            Outcome::Failed(trouble) => (trouble, !unfinished),
            _ => panic!("{outcome:?}"),
        };
        assert!(as_expected && trouble.cause.contains(words) && !trouble.cure.is_empty(), "{outcome:?}");
    }

    #[test]
    fn a_locked_modem_goes_online() {
        for mode in [1, 6, 7] {
            assert_eq!(both(|modem| modem.mode = mode), online());
        }
        let mut modem = Modem::locked(Face::Qmi);
        unlock(&mut modem);
        assert_eq!(modem.seen, [0x21, 0x22, 0x2d, 0x555f, 0x2d, 0x2d, 0x2d, 0x23]);
    }

    #[test]
    fn an_online_modem_is_not_touched() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.mode = 0;
            assert_eq!(unlock(&mut modem), Outcome::Nothing("the radio is online already".to_owned()));
            assert_eq!(modem.count(0x555f), 0);
        }
    }

    #[test]
    fn modes_that_somebody_chose_are_left_alone() {
        for (mode, name) in
            [(2, "factory-test"), (3, "offline"), (4, "reset"), (5, "shutting-down"), (99, "operating mode 99")]
        {
            for face in FACES {
                let mut modem = Modem::locked(face);
                modem.mode = mode;
                let Outcome::Nothing(why) = unlock(&mut modem) else { panic!("mode {mode}") };
                assert!(why.contains(name), "{why}");
                assert_eq!(modem.count(0x555f), 0);
            }
        }
    }

    #[test]
    fn one_that_stays_in_low_power_is_unlocked_all_the_same() {
        let Outcome::Done(what) = both(|modem| modem.looks_until_online = usize::MAX) else { panic!("not unlocked") };
        assert!(what.starts_with("unlocked; the radio stays in low-power until ModemManager"), "{what}");
    }

    #[test]
    fn no_effect_means_done_before() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.auth_error = 26;
            let Outcome::Nothing(why) = unlock(&mut modem) else { panic!("not taken for done") };
            assert!(why.starts_with("was unlocked already; the radio stays in low-power"), "{why}");
            assert_eq!(modem.count(0x2d), 2);
        }
    }

    #[test]
    fn the_hardware_switch_is_told_apart() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.switched_off = true;
            let began = Instant::now();
            let Outcome::Done(what) = unlock(&mut modem) else { panic!("not unlocked") };
            assert!(what.starts_with("unlocked; a hardware switch holds the radio off"), "{what}");
            assert_eq!(modem.count(0x555f), 1);
            assert!(began.elapsed() < BUDGET / 2, "there is nothing to wait for");
        }
        assert_trouble(both(|modem| modem.auth_error = 83), false, "hardware switch");
    }

    #[test]
    fn refusals_are_told_apart() {
        for error in [25, 57, 71, 94] {
            assert_trouble(both(|modem| modem.auth_error = error), false, "not supported by the modem");
        }
        for (error, name) in
            [(34, "AuthenticationFailed (34)"), (82, "AccessDenied (82)"), (3, "Internal (3)"), (777, "error 777")]
        {
            assert_trouble(
                both(|modem| modem.auth_error = error),
                false,
                &format!("DMS Set FCC Authentication ended with QMI error {name}"),
            );
        }
        assert_trouble(both(|modem| modem.has_no_cid = true), false, "ClientIdsExhausted (5)");
        let mut modem = Modem::locked(Face::Mbim);
        modem.has_no_qmi = true;
        assert_trouble(unlock(&mut modem), false, "not supported over this port");
    }

    #[test]
    fn a_busy_modem_is_asked_again_until_the_deadline() {
        assert_eq!(both(|modem| modem.busy_for = 2), online());
        assert_trouble(both(|modem| modem.busy_for = usize::MAX), true, "DeviceNotReady (52)");
        for error in [52, 118] {
            assert_trouble(both(|modem| modem.auth_error = error), true, "the modem is busy");
        }
        let mut modem = Modem::locked(Face::Mbim);
        modem.mbim_busy_for = 2;
        assert_eq!(unlock(&mut modem), online());
        modem.mbim_busy_for = usize::MAX;
        assert_trouble(unlock(&mut modem), true, "Busy (1)");
    }

    #[test]
    fn silence_is_unfinished_at_each_request() {
        for (id, request) in [
            (0x21, "CTL Get Version Info"),
            (0x22, "CTL Allocate CID"),
            (0x2d, "DMS Get Operating Mode"),
            (0x555f, "DMS Set FCC"),
        ] {
            let words = format!("no answer to {request}");
            assert_trouble(both(|modem| modem.mute_to = vec![id]), true, &words);
        }
        let mut modem = Modem::locked(Face::Mbim);
        modem.mute_to = vec![1];
        assert_trouble(unlock(&mut modem), true, "no answer to MBIM open");
        assert_eq!(modem.seen.last(), Some(&2), "what may have been opened late is closed");
        assert_trouble(both(|modem| modem.jammed = true), true, "the port takes no message");
    }

    #[test]
    fn a_modem_that_does_not_answer_the_end_costs_no_time_beyond_the_deadline() {
        assert_eq!(both(|modem| modem.quiet_on = vec![0x23, 2]), online());
    }

    #[test]
    fn a_modem_that_wakes_up_late_is_waited_for() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.deaf_to = 2;
            assert_eq!(unlock_within(&mut modem, Duration::from_millis(2500)), online());
            assert_eq!(modem.allocations, 1);
        }
    }

    #[test]
    fn one_that_answers_every_request_late_is_understood() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.answers_after = Duration::from_millis(450);
            modem.looks_until_online = 0;
            let Outcome::Done(_) = unlock_within(&mut modem, Duration::from_secs(9)) else { panic!("not unlocked") };
            assert_eq!(modem.allocations, 1, "an allocation is never repeated");
        }
    }

    #[test]
    fn a_cid_that_comes_too_late_goes_back() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            // After the time for work, and before the time for the release is over.
            modem.allocates_after = BUDGET - Duration::from_millis(110);
            assert_trouble(unlock(&mut modem), true, "no answer to CTL Allocate CID");
            assert_eq!((modem.allocations, modem.count(0x23)), (1, 1));
        }
    }

    #[test]
    fn a_cid_of_an_earlier_run_goes_back() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.cids.insert(0x33);
            (modem.noise, modem.noise_at) = (late_cid(face), Some(dms::GET_OPERATING_MODE.id));
            assert_eq!(unlock(&mut modem), online());
        }
    }

    /// The answer to an allocation that nobody waits for any more.
    fn late_cid(face: Face) -> Vec<u8> {
        use crate::wire::mbim::{Body, Message, Uuid};
        use crate::wire::qmi::{Kind, from_modem};
        // TID 0, which nobody uses.
        let buffer = &from_modem(ctl::ALLOCATE_CID, 0, Kind::Response, 0, &[(2, &[0; 4]), (1, &[2, 0x33])]);
        match face {
            Face::Qmi => buffer.clone(),
            Face::Mbim => {
                let body = Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status::SUCCESS, buffer };
                Message { tid: 0, body }.emit()
            }
        }
    }

    #[test]
    fn what_others_say_meanwhile_is_passed_over() {
        assert_eq!(both(|modem| modem.chatters = true), online());
        assert_eq!(
            both(|modem| {
                modem.chatters = true;
                modem.reads_all = true;
            }),
            online()
        );
    }

    #[test]
    fn split_answers_are_put_together() {
        for length in [1, 2, 3, 7, 11, 13] {
            assert_eq!(
                both(|modem| {
                    modem.chatters = true;
                    modem.reads_of = Some(length);
                }),
                online()
            );
        }
    }

    #[test]
    fn fragments_travel_both_ways() {
        let mut modem = Modem::locked(Face::Mbim);
        modem.longest = 50;
        modem.chatters = true;
        assert_eq!(unlock(&mut modem), online());
    }

    #[test]
    fn garbage_is_passed_over_and_told_if_there_is_nothing_else() {
        let noise = vec![0x00, 0x01, 0xff, 0xff, 0x55, 0x01, 0x01, 0x00, 0x80, 0xee];
        assert_eq!(both(|modem| modem.noise = noise.clone()), online());

        struct Garbling(Modem);
        impl Port for Garbling {
            fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
                self.0.send(message, by)
            }
            fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
                Ok(self.0.receive(by)?.map(|_| &b"\r\nNO CARRIER\r\n"[..]))
            }
            fn longest(&self) -> usize {
                self.0.longest()
            }
        }
        for (face, protocol) in [(Face::Qmi, Protocol::Qmi), (Face::Mbim, Protocol::Mbim)] {
            let mut garbling = Garbling(Modem::locked(face));
            let outcome = run(&mut garbling, protocol, Procedure::Sierra, Deadline::after(BUDGET));
            assert_trouble(outcome, true, "bytes that make no sense");
            assert!(!garbling.0.is_open);
        }
    }

    #[test]
    fn a_modem_that_never_stops_talking_does_not_outlast_the_deadline() {
        assert_trouble(unlock(&mut flooding(Face::Qmi)), true, "no answer to CTL Get Version Info");
        assert_trouble(unlock(&mut flooding(Face::Mbim)), true, "no answer to MBIM open");
    }

    fn flooding(face: Face) -> Modem {
        let mut modem = Modem::locked(face);
        modem.floods = true;
        modem
    }

    #[test]
    fn a_modem_that_forgets_its_clients_is_asked_for_another_cid() {
        for at in 1..4 {
            for face in FACES {
                let mut modem = Modem::locked(face);
                modem.forgets_at = Some(at);
                assert_eq!(unlock(&mut modem), online());
                assert_eq!(modem.allocations, 2);
            }
        }
    }

    #[test]
    fn a_modem_that_was_closed_meanwhile_is_opened_once_more() {
        let mut modem = Modem::locked(Face::Mbim);
        modem.not_opened = 1;
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.count(1), 2);
        let mut modem = Modem::locked(Face::Mbim);
        modem.not_opened = usize::MAX;
        assert_trouble(unlock(&mut modem), false, "NotOpened (5)");
        assert_eq!(modem.count(1), 2);
    }

    #[test]
    fn a_modem_may_leave_at_any_transfer() {
        for face in FACES {
            for at in 0.. {
                let mut modem = Modem::locked(face);
                modem.gone_at = Some(at);
                match unlock(&mut modem) {
                    Outcome::Nothing(why) => assert!(why.starts_with("the modem left"), "{why}"),
                    outcome => {
                        assert_eq!(outcome, online());
                        break;
                    }
                }
            }
        }
    }

    #[test]
    fn stopped_at_any_transfer_it_puts_things_in_order() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            unlock(&mut modem);
            for at in 0..modem.transfers {
                let mut modem = Modem::locked(face);
                modem.interrupted_at = Some(at);
                let began = Instant::now();
                match unlock_within(&mut modem, Duration::from_secs(60)) {
                    Outcome::Unfinished(trouble) => assert_eq!(trouble.cause, "stopped by a signal"),
                    // All was done but for putting things in order, which goes on.
                    outcome => assert_eq!(outcome, online()),
                }
                assert!(began.elapsed() < Duration::from_millis(500));
            }
        }
    }

    #[test]
    fn a_budget_of_nothing_touches_nothing() {
        for face in FACES {
            let mut modem = Modem::locked(face);
            unlock_within(&mut modem, Duration::ZERO);
            assert_eq!(modem.count(0x22), 0);
            assert_eq!(modem.count(0x555f), 0);
        }
    }

    #[test]
    fn the_driver_tells_the_protocol() {
        assert_eq!(Protocol::of_driver("qmi_wwan"), Some(Protocol::Qmi));
        assert_eq!(Protocol::of_driver("cdc_mbim"), Some(Protocol::Mbim));
        assert_eq!(Protocol::of_driver("huawei_cdc_ncm"), None);
    }
}
