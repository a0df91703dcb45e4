use super::*;
use crate::database::quirks::{ByteOrder, Gtfcclock, Number, StateCommand};
use crate::host::deadline::clock::StoppedClock;
use crate::modem::device::{ControlPort, DeviceNumber};
use crate::modem::link::Link;
use crate::modem::link::scripted::{Face, Modem};
use crate::modem::wire::qmi::{ctl, dms};
use std::path::Path;
use std::time::Duration;

const BUDGET: Duration = Duration::from_millis(600);
/// The time for cleanup transfers after the deadline.
const SLACK: Duration = Duration::from_millis(5);
const FACES: [Face; 2] = [Face::Qmi, Face::Mbim];

/// Unlocks the modem within the budget, and checks that no CID or session is left on it.
fn unlock(modem: &mut Modem) -> Outcome {
    unlock_within(modem, BUDGET)
}

fn unlock_within(modem: &mut Modem, budget: Duration) -> Outcome {
    unlock_by(&Procedure::Sierra, None, modem, budget)
}

fn unlock_by(procedure: &Procedure, stays_off: Option<&str>, modem: &mut Modem, budget: Duration) -> Outcome {
    let protocol = match modem.face {
        Face::Qmi => Protocol::Qmi,
        Face::Mbim => Protocol::Mbim,
    };
    let clock = StoppedClock::stop();
    let proxied = modem.behind_proxy.map(Path::new);
    let transport = Transport { port: modem, protocol, proxied };
    let outcome = run(transport, procedure, Keys::none(), stays_off, Deadline::after(budget));
    let took = clock.elapsed();
    assert!(took < budget + SLACK, "{took:?} of {budget:?}: {outcome:?}");
    if modem.gone_at.is_none() {
        assert!(modem.cids.is_empty(), "CIDs {:?} not released: {outcome:?}", modem.cids);
        assert!(!modem.is_open, "MBIM session not closed: {outcome:?}");
    }
    outcome
}

/// Unlocks a modem with each face, prepared by `with`. Both outcomes must be the same.
#[track_caller]
fn both(with: impl Fn(&mut Modem)) -> Outcome {
    let unlocked = |face| {
        let mut modem = Modem::locked(face);
        with(&mut modem);
        unlock(&mut modem)
    };
    let (qmi, mbim) = (unlocked(Face::Qmi), unlocked(Face::Mbim));
    assert_eq!(qmi, mbim);
    qmi
}

fn online() -> Outcome {
    Outcome::Online { text: "unlocked; the radio is online".to_owned(), unlocked: true }
}

#[track_caller]
fn assert_trouble(outcome: Outcome, unfinished: bool, words: &str) {
    let (trouble, as_expected) = match &outcome {
        Outcome::Unfinished(trouble) => (trouble, unfinished),
        Outcome::Failed(trouble) => (trouble, !unfinished),
        _ => panic!("{outcome:?}"),
    };
    assert!(as_expected && trouble.reason.contains(words) && !trouble.remedy.is_empty(), "{outcome:?}");
}

#[track_caller]
fn assert_not_off(outcome: Outcome, words: &str) {
    let Outcome::NotOff(trouble) = &outcome else { panic!("{outcome:?}") };
    assert!(trouble.reason.contains(words) && !trouble.remedy.is_empty(), "{outcome:?}");
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
        assert_eq!(unlock(&mut modem), online_already());
        assert_eq!(modem.count(0x555f), 0);
    }
}

#[test]
fn modes_that_were_chosen_on_purpose_are_left_alone() {
    for (mode, name) in
        [(2, "factory-test"), (3, "offline"), (4, "reset"), (5, "shutting-down"), (99, "operating mode 99")]
    {
        for face in FACES {
            let mut modem = Modem::locked(face);
            modem.mode = mode;
            let Outcome::Unchanged(why) = unlock(&mut modem) else { panic!("mode {mode}") };
            assert!(why.contains(name), "{why}");
            assert_eq!(modem.count(0x555f), 0);
        }
    }
}

#[test]
fn a_modem_that_stays_in_low_power_is_unlocked() {
    let Outcome::StillOff(what) = both(|modem| modem.looks_until_online = usize::MAX) else { panic!("not unlocked") };
    assert!(what.starts_with("unlocked; the radio stays in low power until ModemManager"), "{what}");
}

#[test]
fn no_effect_means_unlocked_before() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.auth_error = 26;
        let Outcome::SwitchedOff(why) = unlock(&mut modem) else { panic!("not reported as unlocked before") };
        assert!(why.starts_with("the modem was already unlocked; the radio stays in low power"), "{why}");
        assert_eq!(modem.count(0x2d), 2);
    }
}

#[test]
fn the_hardware_switch_is_distinguished() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.switched_off = true;
        let clock = StoppedClock::stop();
        let Outcome::Done(what) = unlock(&mut modem) else { panic!("not unlocked") };
        assert!(what.starts_with("unlocked; a hardware switch holds the radio off"), "{what}");
        assert_eq!(modem.count(0x555f), 1);
        assert!(clock.elapsed() < BUDGET / 2, "waited although the radio cannot go online");
    }
    assert_trouble(both(|modem| modem.auth_error = 83), false, "hardware switch");
}

#[test]
fn refusals_are_distinguished() {
    for (error, name) in
        [(34, "AuthenticationFailed (34)"), (82, "AccessDenied (82)"), (3, "Internal (3)"), (777, "error 777")]
    {
        assert_trouble(
            both(|modem| modem.auth_error = error),
            false,
            &format!("DMS Set FCC Authentication returned QMI error {name}"),
        );
    }
    assert_trouble(both(|modem| modem.has_no_cid = true), false, "ClientIdsExhausted (5)");
}

/// Generic modules have the same ID as locked ones.
#[test]
fn a_modem_without_such_a_lock_is_not_unlocked() {
    #[track_caller]
    fn assert_nothing(outcome: Outcome, reason: &str) {
        let Outcome::NoLock(why) = &outcome else { panic!("{outcome:?}") };
        assert!(why.starts_with(reason) && why.contains("the radio stays in low power"), "{why}");
    }
    // The firmware does not know the message.
    for error in [25, 57, 71, 94] {
        assert_nothing(both(|modem| modem.auth_error = error), NO_SUCH_LOCK);
    }
    for face in FACES {
        assert_nothing(unlock_by(&foxc(), None, &mut Modem::locked(face), BUDGET), NO_SUCH_LOCK);
    }
    // MBIM without the service of QMI or Quectel, with the radio off, on, or switched off by hardware.
    for procedure in [Procedure::Sierra, foxc(), Procedure::Quectel] {
        let generic = |radio| {
            let mut modem = Modem::locked(Face::Mbim);
            (modem.has_no_qmi, modem.mbim_radio) = (true, Some(radio));
            modem
        };
        let run = |mut modem| unlock_by(&procedure, None, &mut modem, BUDGET);
        assert_nothing(run(generic([1, 0])), NO_SUCH_LOCK);
        assert_eq!(run(generic([1, 1])), online_already());
        let Outcome::NoLock(why) = run(generic([0, 1])) else { panic!() };
        assert!(why.contains("a hardware switch"), "{why}");
    }
    // The modem is in its QMI composition.
    let outcome = unlock_by(&Procedure::Quectel, None, &mut Modem::locked(Face::Qmi), BUDGET);
    assert_nothing(outcome, "the lock is part of the MBIM composition");
    let mut modem = Modem::locked(Face::Qmi);
    modem.mode = 0;
    assert_eq!(unlock_by(&Procedure::Quectel, None, &mut modem, BUDGET), online_already());
}

#[test]
fn a_modem_that_cannot_go_online_was_not_switched_off() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        (modem.auth_error, modem.offline_reason) = (26, 0x01);
        let Outcome::Unchanged(why) = unlock(&mut modem) else { panic!("changed") };
        let expected = "the modem was already unlocked; the modem cannot go online (host image misconfiguration)";
        assert!(why.starts_with(expected), "{why}");
        let mut modem = Modem::locked(face);
        (modem.looks_until_online, modem.offline_reason) = (usize::MAX, 0x06);
        let Outcome::Done(what) = unlock(&mut modem) else { panic!("not unlocked") };
        assert!(what.contains("(PRI image misconfiguration, PRI version incompatible)"), "{what}");
    }
    assert_eq!(OfflineReason(0x100).to_string(), "offline reason 0x100");
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
    assert_eq!(modem.seen.last(), Some(&2), "a session that may have been opened late was not closed");
    assert_trouble(both(|modem| modem.jammed = true), true, "the port did not accept the message in time");
}

#[test]
fn an_unanswered_cleanup_does_not_outlast_the_deadline() {
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
fn a_modem_that_answers_every_request_late_is_unlocked() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.answers_after = Duration::from_millis(450);
        modem.looks_until_online = 0;
        let outcome = unlock_within(&mut modem, Duration::from_secs(9));
        let is_unlocked = matches!(outcome, Outcome::Done(_) | Outcome::Online { unlocked: true, .. });
        assert!(is_unlocked, "{outcome:?}");
        assert_eq!(modem.allocations, 1, "the allocation was repeated");
    }
}

#[test]
fn a_slow_modem_gets_each_change_once() {
    let slow = |mut modem: Modem, procedure: &Procedure, changes: &[u16]| {
        modem.answers_after = Duration::from_millis(700);
        modem.looks_until_online = 0;
        let outcome = unlock_by(procedure, None, &mut modem, Duration::from_secs(60));
        assert_eq!(outcome, online(), "{:x?}", modem.seen);
        for change in changes {
            assert_eq!(modem.count(*change), 1, "{change:x} in {:x?}", modem.seen);
        }
    };
    for face in FACES {
        slow(Modem::locked(face), &Procedure::Sierra, &[0x22, 0x555f]);
        slow(foxconn(2, face), &foxc(), &[0x22, 0x5571]);
        let mut modem = Modem::locked(face);
        modem.behind_proxy = Some("/dev/cdc-wdm0");
        slow(modem, &Procedure::Sierra, &[0xff00, 0x22, 0x555f]);
    }
    slow(quectel(4), &Procedure::Quectel, &[0x9001]);
}

#[test]
fn a_change_whose_reply_is_lost_is_sent_again() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        (modem.loses, modem.looks_until_online) = (Some(0x555f), usize::MAX);
        let Outcome::StillOff(_) = unlock_within(&mut modem, Duration::from_secs(10)) else { panic!("not unlocked") };
        assert_eq!(modem.count(0x555f), 2);
        let mut modem = Modem::locked(face);
        (modem.quiet_on, modem.looks_until_online) = (vec![0x555f], usize::MAX);
        assert_trouble(unlock_within(&mut modem, Duration::from_secs(60)), true, "no answer to DMS Set FCC");
        assert_eq!(modem.count(0x555f), 3, "not sent three times");
    }
    let mut modem = quectel(4);
    modem.loses = Some(0x9001);
    assert_eq!(unlock_by(&Procedure::Quectel, None, &mut modem, Duration::from_secs(10)), online());
    assert_eq!(modem.count(0x9001), 2);
}

#[test]
fn a_cid_that_arrives_too_late_is_released() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        // Arrives after the time for work, but within the time for the release.
        modem.allocates_after = BUDGET - Duration::from_millis(110);
        assert_trouble(unlock(&mut modem), true, "no answer to CTL Allocate CID");
        assert_eq!((modem.allocations, modem.count(0x23)), (1, 1));
    }
}

#[test]
fn a_cid_of_an_earlier_run_is_released() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.cids.insert(0x33);
        (modem.noise, modem.noise_at) = (late_cid(face), Some(dms::GET_OPERATING_MODE.id));
        assert_eq!(unlock(&mut modem), online());
    }
}

#[test]
fn replies_behind_those_to_an_earlier_host_are_read() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.looks_until_online = 0;
        modem.held = std::iter::repeat_n(late_cid(face), 2).collect();
        assert_eq!(unlock_within(&mut modem, 3 * BUDGET), online(), "{face:?}");
        assert_eq!(modem.allocations, 1);
    }
}

#[test]
fn fragments_for_an_earlier_host_are_flushed() {
    use crate::modem::wire::mbim::{Body, Message, Uuid, fragments};
    let body = Body::CommandDone { service: Uuid::BASIC_CONNECT, cid: 1, status: Status::SUCCESS, buffer: &[7; 160] };
    let stale = fragments(&Message { tid: 0, body }.emit(), 64);
    assert_eq!(stale.len(), 5);
    let time_with = |held: &[Vec<u8>]| {
        let mut modem = Modem::locked(Face::Mbim);
        modem.looks_until_online = 0;
        modem.held = held.iter().cloned().collect();
        let clock = StoppedClock::stop();
        assert_eq!(unlock_within(&mut modem, Duration::from_secs(10)), online());
        clock.elapsed()
    };
    // The earlier host read some of the fragments, or none.
    for read in 0..stale.len() {
        let (fragments, whole) = (&stale[read..], vec![late_cid(Face::Mbim); stale.len() - read]);
        let (time, expected) = (time_with(fragments), time_with(&whole));
        assert!(time < expected + Duration::from_millis(100), "{read} read: {time:?}, {expected:?}");
    }
}

#[test]
fn a_modem_that_was_left_open_is_closed_and_opened() {
    for stale_tid in [None, Some(0), Some(77)] {
        let mut modem = Modem::locked(Face::Mbim);
        modem.left_open = Some(stale_tid);
        modem.looks_until_online = 0;
        let clock = StoppedClock::stop();
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.seen[..3], [1, 2, 1]);
        assert!(clock.elapsed() < Duration::from_millis(50), "{:?}", clock.elapsed());
    }
    // CLOSE does not help, or is ignored. At most one CLOSE is sent for each OPEN.
    for mute_to in [vec![], vec![2]] {
        let mut modem = Modem::locked(Face::Mbim);
        (modem.left_open, modem.stays_left_open, modem.mute_to) = (Some(None), true, mute_to);
        let outcome = unlock_within(&mut modem, Duration::from_secs(10));
        assert_trouble(outcome, true, "no answer to MBIM open");
        assert!(modem.count(2) < 12, "{:x?}", modem.seen);
    }
}

#[test]
fn a_close_done_for_an_earlier_host_does_not_close_our_session() {
    use crate::modem::wire::mbim::{Body, Message};
    let close_done = |tid| Message { tid, body: Body::CloseDone(Status::SUCCESS) }.emit();
    // Either each reply releases one of the others, or all are available at once, delayed or not.
    for (is_held, milliseconds) in [(true, 0), (false, 0), (false, 700)] {
        for count in 1..4 {
            let mut modem = Modem::locked(Face::Mbim);
            modem.looks_until_online = 0;
            modem.answers_after = Duration::from_millis(milliseconds);
            for tid in 0..count {
                match is_held {
                    true => modem.held.push_back(close_done(tid)),
                    false => modem.send_late(close_done(tid)),
                }
            }
            let _clock = StoppedClock::stop();
            assert_eq!(
                unlock_within(&mut modem, Duration::from_secs(30)),
                online(),
                "{is_held} {milliseconds} {count}"
            );
            assert!(!modem.is_open && modem.cids.is_empty());
        }
    }
}

#[test]
fn an_allocation_whose_reply_is_lost_is_repeated() {
    let mut modem = Modem::locked(Face::Qmi);
    modem.loses = Some(ctl::ALLOCATE_CID.id);
    let transport = Transport { port: &mut modem, protocol: Protocol::Qmi, proxied: None };
    let _clock = StoppedClock::stop();
    let outcome = run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(Duration::from_secs(10)));
    assert_eq!(outcome, online());
    // No host knows the other CID.
    assert_eq!((modem.allocations, modem.cids.len()), (2, 1));
}

/// A late reply to an allocation.
fn late_cid(face: Face) -> Vec<u8> {
    use crate::modem::wire::mbim::{Body, Message, Uuid};
    use crate::modem::wire::qmi::{Kind, from_modem};
    // No host uses TID 0.
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
fn unrelated_messages_are_ignored() {
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
fn split_replies_are_reassembled() {
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
fn garbage_is_skipped_and_reported_if_nothing_else_arrives() {
    let noise = vec![0x00, 0x01, 0xff, 0xff, 0x55, 0x01, 0x01, 0x00, 0x80, 0xee];
    assert_eq!(both(|modem| modem.noise = noise.clone()), online());

    struct Garbling(Modem);
    impl Link for Garbling {
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
        let transport = Transport { port: &mut garbling, protocol, proxied: None };
        let _clock = StoppedClock::stop();
        let outcome = run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(BUDGET));
        assert_trouble(outcome, true, "bytes that are not part of the protocol");
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
                Outcome::Left => {}
                outcome => {
                    assert_eq!(outcome, online());
                    break;
                }
            }
        }
    }
}

#[test]
fn a_run_that_is_stopped_at_any_transfer_cleans_up() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        unlock(&mut modem);
        for at in 0..modem.transfers {
            let mut modem = Modem::locked(face);
            modem.interrupted_at = Some(at);
            let clock = StoppedClock::stop();
            match unlock_within(&mut modem, Duration::from_secs(60)) {
                Outcome::Unfinished(trouble) => assert_eq!(trouble.reason, "stopped by a signal"),
                // Only the cleanup was left, and it continues.
                outcome => assert_eq!(outcome, online()),
            }
            assert!(clock.elapsed() < Duration::from_millis(500));
        }
    }
}

#[test]
fn an_empty_budget_changes_nothing() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        unlock_within(&mut modem, Duration::ZERO);
        assert_eq!(modem.count(0x22), 0);
        assert_eq!(modem.count(0x555f), 0);
    }
}

#[test]
fn the_driver_or_the_wwan_type_determines_the_protocol() {
    let protocol = |driver: &str, wwan_type: Option<&str>| {
        Protocol::of_port(&ControlPort {
            name: String::new(),
            driver: Some(driver.to_owned()),
            wwan_type: wwan_type.map(str::to_owned),
            number: DeviceNumber { major: 0, minor: 0 },
        })
    };
    assert_eq!(protocol("qmi_wwan", None), Some(Protocol::Qmi));
    assert_eq!(protocol("cdc_mbim", None), Some(Protocol::Mbim));
    assert_eq!(protocol("huawei_cdc_ncm", None), None);
    assert_eq!(protocol("mhi-pci-generic", Some("MBIM")), Some(Protocol::Mbim));
    assert_eq!(protocol("mtk_t7xx", Some("AT")), Some(Protocol::At));
    assert_eq!(protocol("mhi-pci-generic", Some("QCDM")), None);
    assert_eq!(protocol("qmi_wwan", Some("FIREHOSE")), None);
}

#[test]
fn a_radio_that_the_user_switched_off_goes_off_again() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        let Outcome::Done(what) = unlock_by(&Procedure::Sierra, Some("rfkill0 is blocked"), &mut modem, BUDGET) else {
            panic!("not unlocked")
        };
        assert_eq!(what, "unlocked; the radio was set back to low power: rfkill0 is blocked");
        assert_eq!(modem.mode, 1);
    }
}

/// A modem that is off after the unlock may go online later.
#[test]
fn a_radio_that_must_stay_off_is_set_to_low_power_even_if_it_is_off() {
    let why = Some("rfkill0 is blocked");
    let done = Outcome::Done("unlocked; the radio was set back to low power: rfkill0 is blocked".to_owned());
    let late = |face| {
        let mut modem = Modem::locked(face);
        modem.looks_until_online = usize::MAX;
        modem
    };
    for face in FACES {
        // Some modems answer that the request has no effect.
        for error in [0, 26] {
            let mut modem = late(face);
            modem.mode_error = error;
            assert_eq!(unlock_by(&Procedure::Sierra, why, &mut modem, BUDGET), done);
            assert_eq!(modem.count(0x2e), 1);
        }
        for mut modem in [foxconn(2, face), foxconn(1, face)] {
            modem.looks_until_online = usize::MAX;
            assert_eq!(unlock_by(&foxc(), why, &mut modem, BUDGET), done);
            assert_eq!(modem.count(0x2e), 1);
        }
        let mut modem = late(face);
        modem.mode_error = 3;
        let not_off = "the radio was not set to low power (rfkill0 is blocked): DMS Set Operating Mode returned";
        assert_not_off(unlock_by(&Procedure::Sierra, why, &mut modem, BUDGET), not_off);
        let mut modem = late(face);
        modem.quiet_on = vec![0x2e];
        assert_not_off(unlock_by(&Procedure::Sierra, why, &mut modem, BUDGET), "no answer to DMS Set Operating");
        // A hardware switch holds the radio off.
        let mut modem = late(face);
        modem.switched_off = true;
        let Outcome::Done(_) = unlock_by(&Procedure::Sierra, why, &mut modem, BUDGET) else { panic!("not unlocked") };
        assert_eq!(modem.count(0x2e), 0);
    }
    let mut modem = intel(1, 0);
    modem.mbim_radio = Some([1, 0]);
    let Outcome::Done(what) = unlock_intel_off(&mut modem, why, &mut Vec::new(), BUDGET) else { panic!() };
    assert!(what.ends_with("the radio was set back to low power: rfkill0 is blocked"), "{what}");
    assert_eq!(modem.count(0x9002), 1);
    // The modem does not accept the request.
    assert_not_off(unlock_intel_off(&mut intel(1, 0), why, &mut Vec::new(), BUDGET), "not set to low power");
    // Unlocked by a key of an earlier run.
    let mut modem = intel(1, 1);
    modem.mbim_radio = Some([1, 0]);
    unlock_intel_off(&mut modem, why, &mut vec![1], BUDGET);
    assert_eq!(modem.count(0x9002), 1);
}

#[test]
fn a_radio_that_must_stay_off_is_set_to_low_power_even_if_its_state_is_unknown() {
    let silence = || SessionError::NoAnswer { request: "Get Operating Mode" };
    let conclude = |radio, stays_off| {
        let mut set = 0;
        let switch_off = |set: &mut u32| {
            *set += 1;
            Ok(())
        };
        let concluded = super::conclude(&mut set, "unlocked", radio, stays_off, switch_off, |_| Ok(Radio::Off));
        (concluded, set)
    };
    let why = Some("rfkill0 is blocked");
    let text = "unlocked; the radio was set back to low power: rfkill0 is blocked";
    for error in [silence(), LinkError::Contended.into(), LinkError::Interrupted.into()] {
        let (concluded, set) = conclude(Err(error), why);
        assert_eq!((concluded.unwrap(), set), (Outcome::Done(text.to_owned()), 1));
    }
    let (concluded, set) = conclude(Err(silence()), None);
    assert!(matches!(concluded, Ok(Outcome::Done(text)) if text.contains("is unknown")) && set == 0);
    let (concluded, set) = conclude(Err(LinkError::Gone.into()), why);
    assert!(matches!(concluded, Err(SessionError::Link(_))) && set == 0);
}

fn foxconn(version: u8, face: Face) -> Modem {
    let mut modem = Modem::locked(face);
    modem.foxconn = Some(version);
    modem.looks_until_online = 0;
    modem
}

fn foxc() -> Procedure {
    Procedure::Foxconn { service: Service::DMS, magic: "foxc".to_owned() }
}

#[test]
fn foxconn_is_unlocked_by_the_version_that_it_accepts() {
    for face in FACES {
        for (version, messages) in [(2, &[0x555e, 0x555e, 0x25, 0x5571][..]), (1, &[0x555e, 0x5571])] {
            let mut modem = foxconn(version, face);
            assert_eq!(unlock_by(&foxc(), None, &mut modem, BUDGET), online());
            let dms: Vec<_> = modem.seen.iter().copied().filter(|id| *id == 0x25 || *id >= 0x5550).collect();
            assert_eq!(dms, messages);
        }
        let mut modem = foxconn(2, face);
        modem.mode = 0;
        assert_eq!(unlock_by(&foxc(), None, &mut modem, BUDGET), online_already());
        assert_eq!(modem.count(0x5571), 0);
    }
}

#[test]
fn foxconns_refusals_are_reported() {
    for face in FACES {
        // Version 1 is refused as malformed. The error of version 2 is reported.
        let mut modem = foxconn(2, face);
        modem.auth_error = 34;
        assert_trouble(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "AuthenticationFailed (34)");
        assert_eq!(modem.count(0x5571), 2);
        let wrong = Procedure::Foxconn { service: Service::DMS, magic: "FDE1".to_owned() };
        assert_trouble(unlock_by(&wrong, None, &mut foxconn(2, face), BUDGET), false, "AuthenticationFailed (34)");
        let mut modem = foxconn(1, face);
        modem.auth_error = 82;
        assert_trouble(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "AccessDenied (82)");
        let mut modem = foxconn(2, face);
        modem.auth_error = 83;
        assert_trouble(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "a hardware switch");
        assert_eq!(modem.count(0x5571), 1);
    }
}

const FOX_SERVICES: [(Service, &str); 2] = [(Service::FOX, "FDE1"), (Service::FOXAP, "FDE2")];

fn fox(service: Service, state: u8, face: Face) -> Modem {
    let mut modem = Modem::locked(face);
    modem.fox = Some((service, state));
    modem.looks_until_online = 0;
    modem
}

fn unlock_fox(service: Service, magic: &str, modem: &mut Modem) -> Outcome {
    unlock_by(&Procedure::Foxconn { service, magic: magic.to_owned() }, None, modem, BUDGET)
}

#[test]
fn foxconns_services_are_queried_first_and_unlocked_if_locked() {
    for (face, (service, magic)) in FACES.into_iter().flat_map(|face| FOX_SERVICES.map(|service| (face, service))) {
        let mut modem = fox(service, 1, face);
        assert_eq!(unlock_fox(service, magic, &mut modem), online());
        assert_eq!(modem.fox, Some((service, 0)));
        let own: Vec<_> = modem.seen.iter().copied().filter(|id| *id == 0x25 || *id >= 0x5550).collect();
        assert_eq!(own, [0x5570, 0x555e, 0x555e, 0x25, 0x5571, 0x5570]);
        assert_eq!(modem.allocations, if service == Service::FOX { 2 } else { 3 });
        for (state, words) in
            [(0, "the modem was already unlocked; the"), (7, "the modem reports an unknown lock state: 7")]
        {
            let mut modem = fox(service, state, face);
            let (Outcome::Unchanged(why) | Outcome::SwitchedOff(why)) = unlock_fox(service, magic, &mut modem) else {
                panic!("state {state}")
            };
            assert!(why.starts_with(words), "{why}");
            assert_eq!(modem.count(0x5571), 0);
        }
        let mut modem = fox(service, 1, face);
        modem.mode = 0;
        assert_eq!(unlock_fox(service, magic, &mut modem), online_already());
        assert_eq!(modem.allocations, 1);
    }
}

#[test]
fn foxconns_services_refuse_and_fail_in_several_ways() {
    for (face, (service, magic)) in FACES.into_iter().flat_map(|face| FOX_SERVICES.map(|service| (face, service))) {
        let trouble = |with: &dyn Fn(&mut Modem), unfinished, words: &str| {
            let mut modem = fox(service, 1, face);
            with(&mut modem);
            assert_trouble(unlock_fox(service, magic, &mut modem), unfinished, words);
        };
        trouble(&|modem| modem.auth_error = 1, false, "MalformedMessage (1)");
        trouble(&|modem| modem.auth_error = 83, false, "a hardware switch");
        trouble(&|modem| modem.stays_locked = true, false, "still reports that it is locked");
        trouble(&|modem| modem.mute_to = vec![0x5570], true, "no answer to FOX");
        trouble(&|modem| modem.mute_to = vec![0x555e], true, "no answer to FOX Get Firmware Version");
        trouble(&|modem| modem.quiet_on = vec![0x5571], true, "no answer to FOX");
        trouble(&|modem| modem.has_no_cid = true, false, "no client ID left");
        assert_trouble(unlock_fox(service, "FDE3", &mut fox(service, 1, face)), false, "AuthenticationFailed (34)");
        // Firmware without the service, or without the message.
        let other = FOX_SERVICES.map(|(service, _)| service).into_iter().find(|other| *other != service);
        for without in [None, other] {
            let mut modem = fox(service, 1, face);
            modem.fox = without.map(|other| (other, 1));
            let Outcome::NoLock(why) = unlock_fox(service, magic, &mut modem) else { panic!("has a lock") };
            assert!(why.starts_with("the modem's firmware has no lock of this kind"), "{why}");
        }
        // The modem forgets its clients, and replies to other clients arrive in between.
        let mut modem = fox(service, 1, face);
        (modem.chatters, modem.forgets_at) = (true, Some(3));
        assert_eq!(unlock_fox(service, magic, &mut modem), online());
    }
}

fn quectel(state: u32) -> Modem {
    let mut modem = Modem::locked(Face::Mbim);
    modem.quectel = Some(state);
    modem
}

fn unlock_quectel(modem: &mut Modem) -> Outcome {
    unlock_by(&Procedure::Quectel, None, modem, BUDGET)
}

#[test]
fn quectel_is_queried_first_and_unlocked_if_locked() {
    let mut modem = quectel(4);
    assert_eq!(unlock_quectel(&mut modem), online());
    assert_eq!(modem.quectel, Some(1));
    assert_eq!(unlock_quectel(&mut quectel(1)), online_already());
    for (state, words) in
        [(0, "the modem was already unlocked; the"), (9, "the modem reports an unknown radio state: 9")]
    {
        let mut modem = quectel(state);
        let (Outcome::Unchanged(why) | Outcome::SwitchedOff(why)) = unlock_quectel(&mut modem) else {
            panic!("state {state}")
        };
        assert!(why.starts_with(words), "{why}");
        assert_eq!((modem.quectel, modem.count(0x9001)), (Some(state), 0));
    }
    let mut modem = quectel(4);
    modem.switched_off = true;
    let Outcome::Done(what) = unlock_quectel(&mut modem) else { panic!("not unlocked") };
    assert!(what.contains("hardware switch"), "{what}");
    let mut modem = quectel(4);
    unlock_by(&Procedure::Quectel, Some("rfkill0 is blocked"), &mut modem, BUDGET);
    assert_eq!((modem.quectel, modem.count(0x9002)), (Some(0), 1));
}

#[test]
fn quectels_refusals_are_reported() {
    let mut modem = quectel(4);
    modem.auth_error = 28;
    assert_trouble(unlock_quectel(&mut modem), false, "OperationNotAllowed (28)");
    let mut modem = quectel(4);
    modem.stays_locked = true;
    assert_trouble(unlock_quectel(&mut modem), false, "still reports that it is locked");
    let gtfcclock = Procedure::Gtfcclock(Gtfcclock {
        interface: Some(3),
        byte_order: ByteOrder::BigEndian,
        number: Number::Hex,
        state: StateCommand::Gtfcceffstatus,
        oem_strings: Vec::new(),
    });
    let mut modem = Modem::locked(Face::Qmi);
    assert_trouble(unlock_by(&gtfcclock, None, &mut modem, BUDGET), false, "cannot run over QMI");
    assert_eq!(modem.transfers, 0);
}

const LENOVO: &str = "KHOIHGIUCCHHII";

fn intel(mode: u32, state: u32) -> Modem {
    let mut modem = Modem::locked(Face::Mbim);
    modem.intel = Some([mode, state]);
    modem
}

fn unlock_intel(modem: &mut Modem, oem_strings: &[&str], tried: &mut Vec<u32>, budget: Duration) -> Outcome {
    unlock_intel_by(modem, oem_strings, None, tried, budget)
}

fn unlock_intel_off(modem: &mut Modem, stays_off: Option<&str>, tried: &mut Vec<u32>, budget: Duration) -> Outcome {
    unlock_intel_by(modem, &[LENOVO], stays_off, tried, budget)
}

fn unlock_intel_by(
    modem: &mut Modem,
    oem_strings: &[&str],
    stays_off: Option<&str>,
    tried: &mut Vec<u32>,
    budget: Duration,
) -> Outcome {
    let oem_strings: Vec<String> = oem_strings.iter().map(|text| (*text).to_owned()).collect();
    let before = tried.clone();
    let procedure = Procedure::Intel { oem_strings };
    let keys = Keys::new(&[], &procedure, &before, |note| note.apply(tried));
    let clock = StoppedClock::stop();
    let transport = Transport { port: modem, protocol: Protocol::Mbim, proxied: None };
    let outcome = run(transport, &procedure, keys, stays_off, Deadline::after(budget));
    assert!(clock.elapsed() < budget + SLACK, "{outcome:?}");
    assert!(modem.gone_at.is_some() || !modem.is_open, "{outcome:?}");
    outcome
}

#[test]
fn intels_lock_is_queried_first_and_its_challenge_is_answered() {
    let mut modem = intel(1, 0);
    let Outcome::StillOff(what) = unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET) else {
        panic!("not unlocked")
    };
    assert!(what.starts_with("unlocked with the key of OEM string 1 of the quirk; the radio stays"), "{what}");
    let seen: Vec<u16> = modem.seen.iter().copied().filter(|id| *id >= 0x9000).collect();
    assert_eq!(seen, [0x9100, 0x9101, 0x9102, 0x9100]);
    // No lock, unlocked before, and the high bytes of both words.
    for (mode, state) in [(0, 0), (1, 1), (0x100, 0), (2, 0xff)] {
        let mut modem = intel(mode, state);
        let Outcome::SwitchedOff(why) = unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET) else {
            panic!("mode {mode}, state {state}")
        };
        assert!(why.starts_with("the modem was already unlocked; the"), "{why}");
        assert_eq!(modem.count(0x9101), 0);
    }
    let mut modem = intel(1, 0);
    modem.mbim_radio = Some([1, 1]);
    assert_eq!(unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET), online_already());
    let Outcome::NoLock(why) = unlock_intel(&mut Modem::locked(Face::Mbim), &[LENOVO], &mut Vec::new(), BUDGET) else {
        panic!("not passed over")
    };
    assert!(why.starts_with("the modem's firmware has no lock of this kind"), "{why}");
}

#[test]
fn intels_lock_gets_each_key_once() {
    let mut tried = Vec::new();
    let failed = unlock_intel(&mut intel(1, 0), &["WRONG", "OTHER"], &mut tried, BUDGET);
    assert_trouble(failed, false, "every known key: OEM string 1 of the quirk, OEM string 2 of the quirk");
    assert_eq!(tried.len(), 2);
    let mut modem = intel(1, 0);
    let failed = unlock_intel(&mut modem, &["WRONG", "OTHER"], &mut tried, BUDGET);
    assert_trouble(failed, false, "every known key since its power-up");
    assert_eq!(modem.count(0x9101), 0);
    let Outcome::StillOff(what) = unlock_intel(&mut intel(1, 0), &["WRONG", LENOVO], &mut tried, BUDGET) else {
        panic!("not unlocked")
    };
    assert!(what.starts_with("unlocked with the key of OEM string 2 of the quirk;"), "{what}");
    // Unlocked by a key whose verdict came too late for an earlier run.
    let Outcome::StillOff(what) = unlock_intel(&mut intel(1, 1), &[LENOVO], &mut tried, BUDGET) else {
        panic!("not unlocked")
    };
    assert!(what.starts_with("unlocked; "), "{what}");
    // An error counts as a refusal.
    let mut modem = intel(1, 0);
    modem.auth_error = 2;
    assert_trouble(unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET), false, "refused every known key");
    // No key is used if too little time is left.
    let (mut modem, mut tried) = (intel(1, 0), Vec::new());
    modem.answers_after = Duration::from_millis(70);
    assert_trouble(unlock_intel(&mut modem, &[LENOVO], &mut tried, BUDGET), true, "too little time is left");
    assert!(tried.is_empty());
}

/// A modem may count wrong responses permanently.
#[test]
fn intels_response_is_sent_once_even_if_its_reply_is_lost() {
    let long = Duration::from_secs(60);
    for (oem_string, quiet) in [(LENOVO, false), ("WRONG", false), (LENOVO, true)] {
        let (mut modem, mut tried) = (intel(1, 0), Vec::new());
        if quiet {
            modem.quiet_on = vec![0x9102];
        } else {
            modem.loses = Some(0x9102);
        }
        let clock = StoppedClock::stop();
        let outcome = unlock_intel(&mut modem, &[oem_string], &mut tried, long);
        assert_trouble(outcome, true, "no answer to Intel FCC lock response");
        assert_eq!(modem.count(0x9102), 1);
        assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());
        // The next run queries the lock, and does not use the key again.
        match unlock_intel(&mut modem, &[oem_string], &mut tried, long) {
            Outcome::StillOff(what) => assert!(oem_string == LENOVO && what.starts_with("unlocked; "), "{what}"),
            refused => assert_trouble(refused, false, "every known key since its power-up"),
        }
        assert_eq!(modem.count(0x9102), 1);
    }
}

#[test]
fn a_modem_with_intels_lock_may_leave_or_be_stopped_at_any_transfer() {
    let mut modem = intel(1, 0);
    unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
    for at in 0..modem.transfers {
        let mut modem = intel(1, 0);
        modem.gone_at = Some(at);
        let outcome = unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
        assert!(matches!(&outcome, Outcome::Left | Outcome::StillOff(_)), "{at}: {outcome:?}");
        let mut modem = intel(1, 0);
        modem.interrupted_at = Some(at);
        unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
        assert!(!modem.is_open);
    }
}

#[test]
fn every_procedure_goes_through_a_proxy_that_can_carry_it() {
    let path = "/dev/cdc-wdm0";
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.behind_proxy = Some(path);
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.seen.first(), Some(&0xff00));
        let mut modem = foxconn(2, face);
        modem.behind_proxy = Some(path);
        assert_eq!(unlock_by(&foxc(), None, &mut modem, BUDGET), online());
    }
    let mut modem = quectel(4);
    modem.behind_proxy = Some(path);
    assert_eq!(unlock_quectel(&mut modem), online());
}

#[test]
fn a_proxy_that_hangs_up_does_not_mean_that_the_modem_left() {
    for face in FACES {
        let mut modem = Modem::locked(face);
        modem.behind_proxy = Some("/dev/cdc-wdm0");
        modem.gone_at = Some(6);
        assert_trouble(unlock(&mut modem), true, "the proxy");
    }
}

#[track_caller]
fn asked(procedure: Option<&Procedure>, mut modem: Modem) -> Said {
    let protocol = if modem.face == Face::Qmi { Protocol::Qmi } else { Protocol::Mbim };
    let mode = modem.mode;
    let transport = Transport { port: &mut modem, protocol, proxied: None };
    let _clock = StoppedClock::stop();
    let said = ask(transport, procedure, Deadline::after(BUDGET)).unwrap();
    assert!(modem.cids.is_empty() && !modem.is_open && modem.mode == mode);
    assert!(!modem.seen.contains(&0x555f), "{:x?}", modem.seen);
    said
}

#[test]
fn a_query_reports_the_radio_and_changes_nothing() {
    let said = |operating_mode, locked| Said { operating_mode, locked };
    for face in FACES {
        let locked = Modem::locked(face);
        assert_eq!(asked(Some(&Procedure::Sierra), locked), said(OperatingMode::LowPower, None));
        let mut online = Modem::locked(face);
        online.mode = 0;
        assert_eq!(asked(None, online), said(OperatingMode::Online, Some(false)));
    }
    for (face, (service, magic)) in FACES.into_iter().flat_map(|face| FOX_SERVICES.map(|service| (face, service))) {
        let procedure = Procedure::Foxconn { service, magic: magic.to_owned() };
        assert_eq!(asked(Some(&procedure), fox(service, 1, face)), said(OperatingMode::LowPower, Some(true)));
        assert_eq!(asked(Some(&procedure), fox(service, 0, face)), said(OperatingMode::LowPower, Some(false)));
    }
    let procedure = Procedure::Intel { oem_strings: Vec::new() };
    assert_eq!(asked(Some(&procedure), intel(1, 0)).locked, Some(true));
    assert_eq!(asked(Some(&procedure), intel(1, 1)).locked, Some(false));
    assert_eq!(asked(Some(&procedure), Modem::locked(Face::Mbim)).locked, None);
    for (state, locked) in [(4, true), (0, false)] {
        let mut modem = Modem::locked(Face::Mbim);
        modem.quectel = Some(state);
        assert_eq!(asked(Some(&Procedure::Quectel), modem).locked, Some(locked));
    }
}
