use std::path::PathBuf;
use std::time::Duration;

use super::radio::online_already;
use super::*;
use crate::database::quirks::{ByteOrder, Gtfcclock, Number, StateCommand};
use crate::host::deadline::clock::StoppedClock;
use crate::host::state::MAX_SENDS;
use crate::modem::device::{ControlPort, DeviceNumber};
use crate::modem::link::fake::{Modem, Port, simulated};
use crate::modem::wire::qmi::{OfflineReason, OperatingMode};
use ::modem::qmi::Clients;
use ::modem::radio::{LOW_POWER, Lock, Modem as Simulated, ONLINE};

const BUDGET: Duration = Duration::from_millis(600);
/// The time for cleanup transfers after the deadline.
const SLACK: Duration = Duration::from_millis(5);
const PROTOCOLS: [Protocol; 2] = [Protocol::Qmi, Protocol::Mbim];

/// Unlocks the modem within the budget, and checks that no CID or session is left on it.
fn unlock(modem: &mut Modem) -> Outcome {
    unlock_within(modem, BUDGET)
}

fn unlock_within(modem: &mut Modem, budget: Duration) -> Outcome {
    unlock_by(&Procedure::Sierra, None, modem, budget)
}

fn unlock_by(procedure: &Procedure, stays_off: Option<&str>, modem: &mut Modem, budget: Duration) -> Outcome {
    let clock = StoppedClock::stop();
    let proxied = modem.faults.text("proxy").map(PathBuf::from);
    let transport = Transport { protocol: modem.protocol, port: modem, proxied: proxied.as_deref() };
    let outcome = run(transport, procedure, Keys::none(), stays_off, Deadline::after(budget));
    let took = clock.elapsed();
    assert!(took < budget + SLACK, "{took:?} of {budget:?}: {outcome:?}");
    if modem.gone_at.is_none() {
        assert_eq!(modem.clients.count(), 0, "CIDs not released: {outcome:?}");
        assert!(!modem.is_open(), "MBIM session not closed: {outcome:?}");
    }
    outcome
}

fn locked(protocol: Protocol) -> Modem {
    Modem::with_lock(protocol, Lock::Sierra)
}

/// Unlocks a modem with these faults over each protocol. Both outcomes must be the same.
#[track_caller]
fn both(faults: &str) -> Outcome {
    let [qmi, mbim] = PROTOCOLS.map(|protocol| unlock(&mut locked(protocol).with(faults)));
    assert_eq!(qmi, mbim);
    qmi
}

const AUTH: &str = "DMS Set FCC Authentication";

fn online() -> Outcome {
    Outcome::Online { text: "unlocked; the radio is online".to_owned(), unlocked: true }
}

#[track_caller]
fn assert_failure(outcome: Outcome, unfinished: bool, words: &str) {
    let (failure, as_expected) = match &outcome {
        Outcome::Unfinished(failure) => (failure, unfinished),
        Outcome::Failed(failure) => (failure, !unfinished),
        _ => panic!("{outcome:?}"),
    };
    assert!(as_expected && failure.reason.contains(words) && !failure.remedy.is_empty(), "{outcome:?}");
}

#[track_caller]
fn assert_not_off(outcome: Outcome, words: &str) {
    let Outcome::NotOff(failure) = &outcome else { panic!("{outcome:?}") };
    assert!(failure.reason.contains(words) && !failure.remedy.is_empty(), "{outcome:?}");
}

#[test]
fn a_locked_modem_goes_online() {
    for (protocol, mode) in PROTOCOLS.into_iter().flat_map(|protocol| [1, 6, 7].map(|mode| (protocol, mode))) {
        let mut modem = locked(protocol);
        modem.mode = mode;
        assert_eq!(unlock(&mut modem), online());
        assert_eq!((modem.mode, modem.unlocks), (ONLINE, (1, 0)));
    }
    let mut modem = locked(Protocol::Qmi);
    unlock(&mut modem);
    let look = "DMS Get Operating Mode";
    let [version, allocate, release] = ["CTL Get Version Info", "CTL Allocate CID", "CTL Release CID"];
    assert_eq!(modem.seen, [version, allocate, look, AUTH, look, look, look, release]);
}

#[test]
fn an_online_modem_is_not_touched() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        modem.mode = ONLINE;
        assert_eq!(unlock(&mut modem), online_already());
        let dms: Vec<_> = modem.seen.iter().filter(|name| name.starts_with("DMS ")).collect();
        assert_eq!(dms, ["DMS Get Operating Mode"]);
    }
}

#[test]
fn modes_that_were_chosen_on_purpose_are_left_alone() {
    for (mode, name) in
        [(2, "factory-test"), (3, "offline"), (4, "reset"), (5, "shutting-down"), (99, "operating mode 99")]
    {
        for protocol in PROTOCOLS {
            let mut modem = locked(protocol);
            modem.mode = mode;
            let Outcome::Unchanged(why) = unlock(&mut modem) else { panic!("mode {mode}") };
            assert!(why.contains(name), "{why}");
            assert_eq!(modem.count(AUTH), 0);
        }
    }
}

#[test]
fn a_modem_that_stays_in_low_power_is_unlocked() {
    let Outcome::StillOff(what) = both("stays-low") else { panic!("not unlocked") };
    assert!(what.starts_with("unlocked; the radio stays in low power until ModemManager"), "{what}");
}

#[test]
fn no_effect_means_unlocked_before() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        modem.locked = false;
        let Outcome::SwitchedOff(why) = unlock(&mut modem) else { panic!("not reported as unlocked before") };
        assert!(why.starts_with("the modem was already unlocked; the radio stays in low power"), "{why}");
        assert_eq!((modem.count(AUTH), modem.count("DMS Get Operating Mode")), (1, 2));
    }
}

#[test]
fn the_hardware_switch_is_distinguished() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with("hw-switch-off");
        let clock = StoppedClock::stop();
        let Outcome::Done(what) = unlock(&mut modem) else { panic!("not unlocked") };
        assert!(what.starts_with("unlocked; a hardware switch holds the radio off"), "{what}");
        assert_eq!(modem.count(AUTH), 1);
        assert!(clock.elapsed() < BUDGET / 2, "waited although the radio cannot go online");
    }
    assert_failure(both("refuse=83"), false, "hardware switch");
}

#[test]
fn refusals_are_distinguished() {
    for (error, name) in
        [(34, "AuthenticationFailed (34)"), (82, "AccessDenied (82)"), (3, "Internal (3)"), (777, "error 777")]
    {
        assert_failure(
            both(&format!("refuse={error}")),
            false,
            &format!("DMS Set FCC Authentication returned QMI error {name}"),
        );
    }
    assert_failure(both("cid-exhausted"), false, "ClientIdsExhausted (5)");
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
        assert_nothing(both(&format!("refuse={error}")), NO_SUCH_LOCK);
    }
    for protocol in PROTOCOLS {
        assert_nothing(unlock_by(&foxc(), None, &mut locked(protocol), BUDGET), NO_SUCH_LOCK);
    }
    // MBIM without the service of QMI or Quectel, with the radio off, on, or switched off by hardware.
    for procedure in [Procedure::Sierra, foxc(), Procedure::Quectel] {
        let run = |mode, faults: &str| {
            let mut modem = locked(Protocol::Mbim).with("no-qmi-service").with(faults);
            modem.mode = mode;
            unlock_by(&procedure, None, &mut modem, BUDGET)
        };
        assert_nothing(run(LOW_POWER, ""), NO_SUCH_LOCK);
        assert_eq!(run(ONLINE, ""), online_already());
        let Outcome::NoLock(why) = run(ONLINE, "hw-switch-off") else { panic!() };
        assert!(why.contains("a hardware switch"), "{why}");
    }
    // The modem is in its QMI composition.
    let outcome = unlock_by(&Procedure::Quectel, None, &mut locked(Protocol::Qmi), BUDGET);
    assert_nothing(outcome, "the lock is part of the MBIM composition");
    let mut modem = locked(Protocol::Qmi);
    modem.mode = ONLINE;
    assert_eq!(unlock_by(&Procedure::Quectel, None, &mut modem, BUDGET), online_already());
}

#[test]
fn a_modem_that_cannot_go_online_was_not_switched_off() {
    let Outcome::Unchanged(why) = both("refuse=26 offline-reason=1") else { panic!("changed") };
    let expected = "the modem was already unlocked; the modem cannot go online (host image misconfiguration)";
    assert!(why.starts_with(expected), "{why}");
    let Outcome::Done(what) = both("stays-low offline-reason=6") else { panic!("not unlocked") };
    assert!(what.contains("(PRI image misconfiguration, PRI version incompatible)"), "{what}");
    assert_eq!(OfflineReason(0x100).to_string(), "offline reason 0x100");
}

#[test]
fn a_busy_modem_is_asked_again_until_the_deadline() {
    assert_eq!(both("busy=2"), online());
    assert_failure(both("busy"), true, "DeviceNotReady (52)");
    for error in [52, 118] {
        assert_failure(both(&format!("refuse={error}")), true, "the modem is busy");
    }
    assert_eq!(unlock(&mut locked(Protocol::Mbim).with("mbim-busy=2")), online());
    assert_failure(unlock(&mut locked(Protocol::Mbim).with("mbim-busy")), true, "Busy (1)");
    // A request that changes the modem has not reached it.
    for change in ["Allocate CID", AUTH] {
        let mut modem = locked(Protocol::Mbim).with("mbim-busy=2");
        modem.fault(&format!("at-message={change}"));
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.count(change), 3);
    }
}

#[test]
fn silence_is_unfinished_at_each_request() {
    for request in ["CTL Get Version Info", "CTL Allocate CID", "DMS Get Operating Mode", "DMS Set FCC"] {
        let [qmi, mbim] = PROTOCOLS.map(|protocol| {
            let mut modem = locked(protocol).with("mute");
            modem.fault(&format!("at-message={request}"));
            unlock(&mut modem)
        });
        assert_eq!(qmi, mbim);
        assert_failure(qmi, true, &format!("no answer to {request}"));
    }
    let mut modem = locked(Protocol::Mbim).with("mute at-message=OPEN");
    assert_failure(unlock(&mut modem), true, "no answer to MBIM open");
    assert_eq!(modem.seen.last().unwrap(), "CLOSE", "a session that may have been opened late was not closed");
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        modem.jammed = true;
        assert_failure(unlock(&mut modem), true, "the port did not accept the message in time");
    }
}

#[test]
fn a_message_that_is_sent_in_part_is_unfinished() {
    for (errno, unfinished) in [(Errno::ETIMEDOUT, true), (Errno::EINVAL, false)] {
        let error = SessionError::Link(LinkError::Io { operation: "write", errno });
        assert_failure(outcome_of(error, false), unfinished, "write on the port failed");
    }
}

#[test]
fn an_unanswered_cleanup_does_not_outlast_the_deadline() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with("lost");
        modem.fault("at-message=Release CID|CLOSE");
        assert_eq!(unlock(&mut modem), online());
    }
}

#[test]
fn a_modem_that_wakes_up_late_is_waited_for() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with("mute at-reply=1-2");
        assert_eq!(unlock_within(&mut modem, Duration::from_millis(2500)), online());
        assert_eq!(modem.count("Allocate CID"), 1);
    }
}

#[test]
fn a_modem_that_answers_every_request_late_is_unlocked() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with("late=450 auth-delay=0");
        let outcome = unlock_within(&mut modem, Duration::from_secs(9));
        let is_unlocked = matches!(outcome, Outcome::Done(_) | Outcome::Online { unlocked: true, .. });
        assert!(is_unlocked, "{outcome:?}");
        assert_eq!(modem.count("Allocate CID"), 1, "the allocation was repeated");
    }
}

#[test]
fn a_slow_modem_gets_each_change_once() {
    let slow = |modem: Modem, procedure: &Procedure, changes: &[&str]| {
        let mut modem = modem.with("late=700 auth-delay=0");
        let outcome = unlock_by(procedure, None, &mut modem, Duration::from_secs(60));
        assert_eq!(outcome, online(), "{:?}", modem.seen);
        for change in changes {
            assert_eq!(modem.count(change), 1, "{change} in {:?}", modem.seen);
        }
    };
    for protocol in PROTOCOLS {
        slow(locked(protocol), &Procedure::Sierra, &["Allocate CID", AUTH]);
        slow(foxconn(2, protocol), &foxc(), &["Allocate CID", FOXCONN_AUTH]);
        slow(locked(protocol).with(PROXY), &Procedure::Sierra, &["proxy", "Allocate CID", AUTH]);
    }
    slow(quectel(), &Procedure::Quectel, &["quectel 1 set"]);
}

#[test]
fn a_change_whose_reply_is_lost_is_sent_again() {
    for protocol in PROTOCOLS {
        let losing = |faults: &str| {
            let mut modem = locked(protocol).with(faults);
            modem.fault(&format!("at-message={AUTH}"));
            modem
        };
        let mut modem = losing("lost=1 stays-locked");
        let Outcome::StillOff(_) = unlock_within(&mut modem, Duration::from_secs(10)) else { panic!("not unlocked") };
        assert_eq!(modem.count(AUTH), 2);
        let mut modem = losing("lost stays-low");
        assert_failure(unlock_within(&mut modem, Duration::from_secs(60)), true, "no answer to DMS Set FCC");
        assert_eq!(modem.count(AUTH), 3, "not sent three times");
    }
    let mut modem = quectel().with("lost=1");
    modem.fault("at-message=quectel 1 set");
    assert_eq!(unlock_by(&Procedure::Quectel, None, &mut modem, Duration::from_secs(10)), online());
    assert_eq!(modem.count("quectel 1 set"), 2);
}

#[test]
fn a_cid_that_arrives_too_late_is_released() {
    for protocol in PROTOCOLS {
        // Arrives after the time for work, but within the time for the release.
        let mut modem = locked(protocol).with(&format!("late={}", BUDGET.as_millis() - 110));
        modem.fault("at-message=Allocate CID");
        assert_failure(unlock(&mut modem), true, "no answer to CTL Allocate CID");
        assert_eq!((modem.count("Allocate CID"), modem.count("Release CID")), (1, 1));
    }
}

#[test]
fn a_cid_of_an_earlier_run_is_released() {
    for protocol in PROTOCOLS {
        let mut modem = simulated(protocol, Lock::Sierra, 4096);
        let mut late = Some(late_cid(&mut modem.modem, protocol));
        let mut port = Port::replying(protocol, |message: &[u8]| {
            let (_, mut reads) = modem.receive(message);
            let is_look = modem.modem.seen.last().is_some_and(|name| name == "DMS Get Operating Mode");
            reads.splice(0..0, late.take_if(|_| is_look));
            reads
        });
        let transport = Transport { port: &mut port, protocol, proxied: None };
        let _clock = StoppedClock::stop();
        let outcome = run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(BUDGET));
        assert_eq!((outcome, modem.modem.clients.count()), (online(), 0));
    }
}

#[test]
fn replies_behind_those_to_an_earlier_host_are_read() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with("auth-delay=0");
        modem.held = vec![late_cid(&mut modem, protocol); 2].into();
        modem.clients = Clients::default();
        assert_eq!(unlock_within(&mut modem, 3 * BUDGET), online(), "{protocol:?}");
        assert_eq!(modem.count("Allocate CID"), 1);
    }
}

#[test]
fn fragments_for_an_earlier_host_are_flushed() {
    use crate::modem::wire::mbim::{Body, Message, Uuid, fragments};
    let body = Body::CommandDone { service: Uuid::BASIC_CONNECT, cid: 1, status: Status::SUCCESS, buffer: &[7; 160] };
    let stale = fragments(&Message { tid: 0, body }.emit(), 64);
    assert_eq!(stale.len(), 5);
    let time_with = |held: &[Vec<u8>]| {
        let mut modem = locked(Protocol::Mbim).with("auth-delay=0");
        modem.held = held.to_vec().into();
        let clock = StoppedClock::stop();
        assert_eq!(unlock_within(&mut modem, Duration::from_secs(10)), online());
        clock.elapsed()
    };
    let late = late_cid(&mut locked(Protocol::Mbim), Protocol::Mbim);
    // The earlier host read some of the fragments, or none.
    for read in 0..stale.len() {
        let (fragments, whole) = (&stale[read..], vec![late.clone(); stale.len() - read]);
        let (time, expected) = (time_with(fragments), time_with(&whole));
        assert!(time < expected + Duration::from_millis(100), "{read} read: {time:?}, {expected:?}");
    }
}

#[test]
fn a_modem_that_was_left_open_is_closed_and_opened() {
    for fault in ["left-open", "left-open=0", "left-open=77"] {
        let mut modem = locked(Protocol::Mbim).with(fault).with("auth-delay=0");
        let clock = StoppedClock::stop();
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.seen[..3], ["OPEN", "CLOSE", "OPEN"]);
        assert!(clock.elapsed() < Duration::from_millis(50), "{:?}", clock.elapsed());
    }
    // CLOSE does not help, or is ignored. At most one CLOSE is sent for each OPEN.
    for faults in ["", "mute at-message=CLOSE"] {
        let mut modem = locked(Protocol::Mbim).with("left-open stays-left-open").with(faults);
        let outcome = unlock_within(&mut modem, Duration::from_secs(10));
        assert_failure(outcome, true, "no answer to MBIM open");
        assert!(modem.count("CLOSE") < 12, "{:?}", modem.seen);
    }
}

#[test]
fn a_close_done_for_an_earlier_host_does_not_close_our_session() {
    use crate::modem::wire::mbim::{Body, Message};
    let close_done = |tid| Message { tid, body: Body::CloseDone(Status::SUCCESS) }.emit();
    // Either each reply releases one of the others, or all are available at once, delayed or not.
    for (is_held, milliseconds) in [(true, 0), (false, 0), (false, 700)] {
        for count in 1..4 {
            let mut modem = locked(Protocol::Mbim).with(&format!("late={milliseconds} auth-delay=0"));
            for tid in 0..count {
                match is_held {
                    true => modem.held.push_back(close_done(tid)),
                    false => modem.queue(&close_done(tid)),
                }
            }
            let _clock = StoppedClock::stop();
            assert_eq!(
                unlock_within(&mut modem, Duration::from_secs(30)),
                online(),
                "{is_held} {milliseconds} {count}"
            );
        }
    }
}

#[test]
fn an_allocation_whose_reply_is_lost_is_repeated() {
    let mut modem = locked(Protocol::Qmi).with("lost=1");
    modem.fault("at-message=Allocate CID");
    let transport = Transport { port: &mut modem, protocol: Protocol::Qmi, proxied: None };
    let _clock = StoppedClock::stop();
    let outcome = run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(Duration::from_secs(10)));
    assert_eq!(outcome, online());
    // No host knows the other CID.
    assert_eq!((modem.count("Allocate CID"), modem.clients.count()), (2, 1));
}

/// The reply to an allocation of an earlier host.
fn late_cid(modem: &mut Simulated, protocol: Protocol) -> Vec<u8> {
    use crate::modem::wire::mbim::{Body, Message, Uuid};
    let request = [1, 15, 0, 0, 0, 0, 0, 1, 0x22, 0, 4, 0, 1, 1, 0, 2];
    let mut buffer = modem.answer_qmi(&request).unwrap();
    // No host uses TID 0.
    buffer[7] = 0;
    if protocol == Protocol::Qmi {
        return buffer;
    }
    let body = Body::CommandDone { service: Uuid::QMI, cid: 1, status: Status::SUCCESS, buffer: &buffer };
    Message { tid: 0, body }.emit()
}

#[test]
fn unrelated_messages_are_ignored() {
    assert_eq!(both("indications stale"), online());
    assert_eq!(both("indications stale merged"), online());
}

#[test]
fn split_replies_are_reassembled() {
    for length in [1, 2, 3, 7, 11, 13] {
        assert_eq!(both(&format!("indications stale split={length}")), online());
    }
}

#[test]
fn fragments_travel_both_ways() {
    let mut modem = Modem::with_longest(Protocol::Mbim, Lock::Sierra, 64).with("indications stale");
    assert_eq!(unlock(&mut modem), online());
}

#[test]
fn garbage_is_skipped_and_reported_if_nothing_else_arrives() {
    assert_eq!(both("garbage"), online());
    for protocol in PROTOCOLS {
        let mut modem = simulated(protocol, Lock::Sierra, 4096);
        let mut garbling = Port::replying(protocol, |message: &[u8]| {
            vec![b"\r\nNO CARRIER\r\n".to_vec(); modem.receive(message).1.len()]
        });
        let transport = Transport { port: &mut garbling, protocol, proxied: None };
        let _clock = StoppedClock::stop();
        let outcome = run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(BUDGET));
        assert_failure(outcome, true, "bytes that are not part of the protocol");
        assert!(!modem.is_open());
    }
}

#[test]
fn a_modem_that_never_stops_sending_cannot_exceed_the_deadline() {
    for (protocol, request) in [(Protocol::Qmi, "CTL Get Version Info"), (Protocol::Mbim, "MBIM open")] {
        let mut modem = locked(protocol);
        // CTL Sync.
        modem.flood = vec![0x01, 0x0b, 0x00, 0x80, 0x00, 0x00, 0x02, 0x00, 0x27, 0x00, 0x00, 0x00];
        assert_failure(unlock(&mut modem), true, &format!("no answer to {request}"));
    }
}

#[test]
fn a_modem_that_forgets_its_clients_is_asked_for_another_cid() {
    // The first three requests with a CID. OPEN is one more request.
    for (protocol, first) in [(Protocol::Qmi, 3), (Protocol::Mbim, 4)] {
        for number in first..first + 3 {
            let mut modem = locked(protocol).with(&format!("forget-cids={number}"));
            assert_eq!(unlock(&mut modem), online());
            assert_eq!(modem.count("Allocate CID"), 2);
        }
    }
}

#[test]
fn a_modem_that_was_closed_meanwhile_is_opened_once_more() {
    let mut modem = locked(Protocol::Mbim).with("closes=1");
    assert_eq!(unlock(&mut modem), online());
    assert_eq!(modem.count("OPEN"), 2);
    let mut modem = locked(Protocol::Mbim).with("closes");
    assert_failure(unlock(&mut modem), false, "NotOpened (5)");
    assert_eq!(modem.count("OPEN"), 2);
}

#[test]
fn a_modem_may_leave_at_any_transfer() {
    for protocol in PROTOCOLS {
        for at in 0.. {
            let mut modem = locked(protocol);
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
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        unlock(&mut modem);
        for at in 0..modem.transfers {
            let mut modem = locked(protocol);
            modem.interrupted_at = Some(at);
            let clock = StoppedClock::stop();
            match unlock_within(&mut modem, Duration::from_secs(60)) {
                Outcome::Unfinished(failure) => assert_eq!(failure.reason, "stopped by a signal"),
                // Only the cleanup was left, and it continues.
                outcome => assert_eq!(outcome, online()),
            }
            assert!(clock.elapsed() < Duration::from_millis(500));
        }
    }
}

#[test]
fn an_empty_budget_changes_nothing() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        unlock_within(&mut modem, Duration::ZERO);
        assert_eq!(modem.count("Allocate CID"), 0);
        assert_eq!(modem.count(AUTH), 0);
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
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol);
        let why = Some("rfkill0 is blocked");
        let Outcome::Done(what) = unlock_by(&Procedure::Sierra, why, &mut modem, BUDGET) else { panic!() };
        assert_eq!(what, "unlocked; the radio was set back to low power: rfkill0 is blocked");
        assert_eq!((modem.mode, modem.locked), (LOW_POWER, false));
    }
}

/// A modem that is off after the unlock may go online later.
#[test]
fn a_radio_that_must_stay_off_is_set_to_low_power_even_if_it_is_off() {
    const SET: &str = "DMS Set Operating Mode";
    const MBIM_SET: &str = "basic-connect 3 set";
    let why = Some("rfkill0 is blocked");
    let done = Outcome::Done("unlocked; the radio was set back to low power: rfkill0 is blocked".to_owned());
    for protocol in PROTOCOLS {
        let sierra = |modem: &mut Modem| unlock_by(&Procedure::Sierra, why, modem, BUDGET);
        let late = |faults: &str| locked(protocol).with("stays-low").with(faults);
        // Some modems answer that the request has no effect.
        for faults in ["", "low-power-error=26"] {
            let mut modem = late(faults);
            assert_eq!(sierra(&mut modem), done);
            assert_eq!(modem.count(SET), 1);
        }
        for modem in [foxconn(2, protocol), foxconn(1, protocol)] {
            let mut modem = modem.with("stays-low");
            assert_eq!(unlock_by(&foxc(), why, &mut modem, BUDGET), done);
            assert_eq!(modem.count(SET), 1);
        }
        let not_off = "the radio was not set to low power (rfkill0 is blocked): DMS Set Operating Mode returned";
        assert_not_off(sierra(&mut late("low-power-error=3")), not_off);
        let mut modem = late("lost");
        modem.fault("at-message=Set Operating Mode");
        assert_not_off(sierra(&mut modem), "no answer to DMS Set Operating");
        // A hardware switch holds the radio off.
        let mut modem = late("hw-switch-off");
        let Outcome::Done(_) = sierra(&mut modem) else { panic!("not unlocked") };
        assert_eq!(modem.count(SET), 0);
    }
    let mut modem = intel();
    let Outcome::Done(what) = unlock_intel_off(&mut modem, why, &mut Vec::new(), BUDGET) else { panic!() };
    assert!(what.ends_with("the radio was set back to low power: rfkill0 is blocked"), "{what}");
    assert_eq!(modem.count(MBIM_SET), 1);
    // The modem does not accept the request.
    let mut modem = intel().with("no-radio-state");
    assert_not_off(unlock_intel_off(&mut modem, why, &mut Vec::new(), BUDGET), "not set to low power");
    // Unlocked by a key of an earlier run.
    let mut modem = intel();
    modem.locked = false;
    unlock_intel_off(&mut modem, why, &mut vec![1], BUDGET);
    assert_eq!(modem.count(MBIM_SET), 1);
}

fn foxconn(version: u8, protocol: Protocol) -> Modem {
    let lock = if version == 1 { Lock::FoxconnV1 } else { Lock::FoxconnV2 };
    Modem::with_lock(protocol, lock).with("auth-delay=0")
}

const FOXCONN_AUTH: &str = "DMS Foxconn Set FCC Authentication";

fn foxc() -> Procedure {
    Procedure::Foxconn { service: Service::DMS, magic: "foxc".to_owned() }
}

#[test]
fn foxconn_is_unlocked_by_the_version_that_it_accepts() {
    const VERSION: &str = "DMS Foxconn Get Firmware Version";
    const IDS: &str = "DMS Get IDs";
    for protocol in PROTOCOLS {
        for (version, faults, messages) in [
            (2, "", &[VERSION, VERSION, IDS, FOXCONN_AUTH][..]),
            (1, "", &[VERSION, VERSION, IDS, FOXCONN_AUTH, FOXCONN_AUTH]),
            (1, "no-firmware-version", &[VERSION, FOXCONN_AUTH]),
        ] {
            let mut modem = foxconn(version, protocol).with(faults);
            assert_eq!(unlock_by(&foxc(), None, &mut modem, BUDGET), online());
            let own: Vec<_> = modem.seen.iter().filter(|name| *name == IDS || name.contains("Foxconn")).collect();
            assert_eq!(own, messages);
        }
        let mut modem = foxconn(2, protocol);
        modem.mode = ONLINE;
        assert_eq!(unlock_by(&foxc(), None, &mut modem, BUDGET), online_already());
        assert_eq!(modem.count(FOXCONN_AUTH), 0);
    }
}

#[test]
fn foxconns_refusals_are_reported() {
    for protocol in PROTOCOLS {
        // Version 1 is refused as malformed. The error of version 2 is reported.
        let mut modem = foxconn(2, protocol).with("refuse=34");
        assert_failure(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "AuthenticationFailed (34)");
        assert_eq!(modem.count(FOXCONN_AUTH), 2);
        let wrong = Procedure::Foxconn { service: Service::DMS, magic: "FDE1".to_owned() };
        assert_failure(unlock_by(&wrong, None, &mut foxconn(2, protocol), BUDGET), false, "AuthenticationFailed (34)");
        let mut modem = foxconn(1, protocol).with("no-firmware-version refuse=82");
        assert_failure(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "AccessDenied (82)");
        let mut modem = foxconn(2, protocol).with("refuse=83");
        assert_failure(unlock_by(&foxc(), None, &mut modem, BUDGET), false, "a hardware switch");
        assert_eq!(modem.count(FOXCONN_AUTH), 1);
    }
}

/// Foxconn's services, over each protocol.
fn fox_services() -> impl Iterator<Item = (Protocol, Service, &'static str)> {
    let services = [(Service::FOX, "FDE1"), (Service::FOXAP, "FDE2")];
    PROTOCOLS.into_iter().flat_map(move |protocol| services.map(|(service, magic)| (protocol, service, magic)))
}

fn fox(service: Service, protocol: Protocol) -> Modem {
    let magic = if service == Service::FOX { "FDE1" } else { "FDE2" };
    Modem::with_lock(protocol, Lock::Fox { service: service.0, magic }).with("auth-delay=0")
}

fn unlock_fox(service: Service, magic: &str, modem: &mut Modem) -> Outcome {
    unlock_by(&Procedure::Foxconn { service, magic: magic.to_owned() }, None, modem, BUDGET)
}

#[test]
fn foxconns_services_are_queried_first_and_unlocked_if_locked() {
    for (protocol, service, magic) in fox_services() {
        let name = if service == Service::FOX { "FOX" } else { "FOXAP" };
        let (query, set) = (format!("{name} Get FCC Lock"), format!("{name} Set FCC Authentication"));
        let mut modem = fox(service, protocol);
        assert_eq!(unlock_fox(service, magic, &mut modem), online());
        assert!(!modem.locked);
        let own: Vec<_> = modem.seen.iter().filter(|seen| seen.contains("FOX") || *seen == "DMS Get IDs").collect();
        let version = "FOX Get Firmware Version";
        assert_eq!(own, [&query, version, version, "DMS Get IDs", &set, &query]);
        assert_eq!(modem.count("Allocate CID"), if service == Service::FOX { 2 } else { 3 });
        for (locked, faults, words) in [
            (false, "", "the modem was already unlocked; the"),
            (true, "lock-state=7", "the modem reports an unknown lock state: 7"),
        ] {
            let mut modem = fox(service, protocol).with(faults);
            modem.locked = locked;
            let why = match unlock_fox(service, magic, &mut modem) {
                Outcome::SwitchedOff(why) if !locked => why,
                Outcome::Failed(failure) if locked => failure.reason,
                outcome => panic!("{faults}: {outcome:?}"),
            };
            assert!(why.starts_with(words), "{why}");
            assert_eq!(modem.count(&set), 0);
        }
        let mut modem = fox(service, protocol);
        modem.mode = ONLINE;
        assert_eq!(unlock_fox(service, magic, &mut modem), online_already());
        assert_eq!(modem.count("Allocate CID"), 1);
    }
}

#[test]
fn foxconns_services_refuse_and_fail_in_several_ways() {
    for (protocol, service, magic) in fox_services() {
        for (faults, message, unfinished, words) in [
            ("refuse=1", "", false, "MalformedMessage (1)"),
            ("refuse=83", "", false, "a hardware switch"),
            ("stays-locked", "", false, "still reports that it is locked"),
            ("mute", "Get FCC Lock", true, "no answer to FOX"),
            ("mute", "FOX Get Firmware Version", true, "no answer to FOX Get Firmware Version"),
            ("lost", "Set FCC Authentication", true, "no answer to FOX"),
            ("cid-exhausted", "", false, "no client ID left"),
        ] {
            let mut modem = fox(service, protocol).with(faults);
            modem.fault(&format!("at-message={message}"));
            assert_failure(unlock_fox(service, magic, &mut modem), unfinished, words);
        }
        assert_failure(unlock_fox(service, "FDE3", &mut fox(service, protocol)), false, "AuthenticationFailed (34)");
        // Firmware without the service, or without the message.
        let other = if service == Service::FOX { Service::FOXAP } else { Service::FOX };
        for mut modem in [fox(service, protocol).with("generic"), fox(other, protocol)] {
            let Outcome::NoLock(why) = unlock_fox(service, magic, &mut modem) else { panic!("has a lock") };
            assert!(why.starts_with("the modem's firmware has no lock of this kind"), "{why}");
        }
        // The modem forgets its clients, and replies to other clients arrive in between.
        let version = 6 + usize::from(protocol == Protocol::Mbim) + usize::from(service == Service::FOXAP);
        let mut modem = fox(service, protocol).with(&format!("indications stale forget-cids={version}"));
        assert_eq!(unlock_fox(service, magic, &mut modem), online());
    }
}

fn quectel() -> Modem {
    Modem::with_lock(Protocol::Mbim, Lock::Quectel).with("auth-delay=0")
}

fn unlock_quectel(modem: &mut Modem) -> Outcome {
    unlock_by(&Procedure::Quectel, None, modem, BUDGET)
}

#[test]
fn quectel_is_queried_first_and_unlocked_if_locked() {
    // Some modems do not report the state of their radio in Basic Connect.
    for faults in ["", "no-radio-state"] {
        let mut modem = quectel().with(faults);
        assert_eq!(unlock_quectel(&mut modem), online());
        assert_eq!((modem.locked, modem.mode), (false, ONLINE));
        let mut modem = quectel().with(faults);
        modem.unlocked_from_the_start();
        assert_eq!(unlock_quectel(&mut modem), online_already());
    }
    for (locked, faults, words) in [
        (false, "", "the modem was already unlocked; the radio stays in low power"),
        (false, "lock-state=1", "the modem was already unlocked; the radio stays in low power"),
        (true, "lock-state=9", "the modem reports an unknown radio state: 9"),
    ] {
        let mut modem = quectel().with(faults);
        modem.locked = locked;
        let why = match unlock_quectel(&mut modem) {
            Outcome::SwitchedOff(why) if !locked => why,
            Outcome::Failed(failure) if locked => failure.reason,
            outcome => panic!("{faults}: {outcome:?}"),
        };
        assert!(why.starts_with(words), "{why}");
        assert_eq!((modem.mode, modem.count("quectel 1 set")), (LOW_POWER, 0));
    }
    let mut modem = quectel().with("hw-switch-off");
    let Outcome::Done(what) = unlock_quectel(&mut modem) else { panic!("not unlocked") };
    assert!(what.contains("hardware switch"), "{what}");
    let mut modem = quectel();
    unlock_by(&Procedure::Quectel, Some("rfkill0 is blocked"), &mut modem, BUDGET);
    assert_eq!((modem.locked, modem.mode, modem.count("basic-connect 3 set")), (false, LOW_POWER, 1));
}

#[test]
fn quectels_refusals_are_reported() {
    assert_failure(unlock_quectel(&mut quectel().with("refuse=28")), false, "OperationNotAllowed (28)");
    assert_failure(unlock_quectel(&mut quectel().with("stays-locked")), false, "still reports that it is locked");
    let gtfcclock = Procedure::Gtfcclock(Gtfcclock {
        interface: Some(3),
        byte_order: ByteOrder::BigEndian,
        number: Number::Hex,
        state: StateCommand::Gtfcceffstatus,
        oem_strings: Vec::new(),
        keys: Vec::new(),
    });
    let mut modem = locked(Protocol::Qmi);
    assert_failure(unlock_by(&gtfcclock, None, &mut modem, BUDGET), false, "cannot run over QMI");
    assert_eq!(modem.transfers, 0);
}

const LENOVO: &str = "KHOIHGIUCCHHII";

fn intel() -> Modem {
    Modem::with_lock(Protocol::Mbim, Lock::Intel)
}

/// The number of responses to challenges.
fn responses(modem: &Modem) -> usize {
    modem.count("intel-mutual-authentication 1 set") - modem.challenges
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
    let procedure = Procedure::Intel { oem_strings, keys: Vec::new() };
    let keys = Keys::new(&[], &procedure, &before, |note| note.apply(tried));
    let clock = StoppedClock::stop();
    let transport = Transport { port: modem, protocol: Protocol::Mbim, proxied: None };
    let outcome = run(transport, &procedure, keys, stays_off, Deadline::after(budget));
    assert!(clock.elapsed() < budget + SLACK, "{outcome:?}");
    assert!(modem.gone_at.or(modem.contended_at).is_some() || !modem.is_open(), "{outcome:?}");
    outcome
}

#[test]
fn intels_lock_is_queried_first_and_its_challenge_is_answered() {
    // Some modems do not report the state of their radio.
    for faults in ["", "no-radio-state"] {
        let mut modem = intel().with(faults);
        let Outcome::StillOff(what) = unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET) else {
            panic!("not unlocked")
        };
        assert!(what.starts_with("unlocked with the key of OEM string 1 of the quirk; the radio stays"), "{what}");
        let own = |name: &String| name.strip_prefix("COMMAND intel-mutual-authentication 1 ").map(str::to_owned);
        assert_eq!(modem.seen.iter().filter_map(own).collect::<Vec<_>>(), ["query", "set", "set", "query"]);
        assert_eq!((modem.challenges, responses(&modem), modem.locked), (1, 1, false));
    }
    // No lock, unlocked before, and the high bytes of both words.
    for (mode, state) in [(0, 0), (1, 1), (0x100, 0), (2, 0xff)] {
        let mut modem = intel().with(&format!("lock-mode={mode} lock-state={state}"));
        let Outcome::SwitchedOff(why) = unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET) else {
            panic!("mode {mode}, state {state}")
        };
        assert!(why.starts_with("the modem was already unlocked; the"), "{why}");
        assert_eq!(modem.challenges, 0);
    }
    let mut modem = intel();
    modem.mode = ONLINE;
    assert_eq!(unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET), online_already());
    let Outcome::NoLock(why) = unlock_intel(&mut locked(Protocol::Mbim), &[LENOVO], &mut Vec::new(), BUDGET) else {
        panic!("not passed over")
    };
    assert!(why.starts_with("the modem's firmware has no lock of this kind"), "{why}");
}

#[test]
fn intels_lock_gets_a_refused_key_once() {
    let mut tried = Vec::new();
    let failed = unlock_intel(&mut intel(), &["WRONG", "OTHER"], &mut tried, BUDGET);
    assert_failure(failed, false, "every known key: OEM string 1 of the quirk, OEM string 2 of the quirk");
    let mut modem = intel();
    let failed = unlock_intel(&mut modem, &["WRONG", "OTHER"], &mut tried, BUDGET);
    assert_failure(failed, false, "no known key since its power-up");
    assert_eq!(modem.challenges, 0);
    let Outcome::StillOff(what) = unlock_intel(&mut intel(), &["WRONG", LENOVO], &mut tried, BUDGET) else {
        panic!("not unlocked")
    };
    assert!(what.starts_with("unlocked with the key of OEM string 2 of the quirk;"), "{what}");
    // Unlocked by a key whose verdict came too late for an earlier run.
    let mut modem = intel();
    modem.locked = false;
    let Outcome::StillOff(what) = unlock_intel(&mut modem, &[LENOVO], &mut tried, BUDGET) else {
        panic!("not unlocked")
    };
    assert!(what.starts_with("unlocked; "), "{what}");
    // An error counts as a refusal.
    let mut modem = intel().with("refuse=2");
    assert_failure(unlock_intel(&mut modem, &[LENOVO], &mut Vec::new(), BUDGET), false, "refused every known key");
    // The next run can use an accepted key again if the modem reports no state.
    for (oem_string, sends) in [("WRONG", MAX_SENDS), (LENOVO, 1)] {
        let (mut modem, mut tried) = (intel().with("mute at-reply=6-7"), Vec::new());
        let outcome = unlock_intel(&mut modem, &[oem_string], &mut tried, BUDGET);
        assert_failure(outcome, true, "no answer to Intel FCC lock query");
        assert_eq!(tried.len(), sends, "{oem_string}");
    }
    // A busy modem has not judged the key.
    let (mut modem, mut tried) = (intel().with("busy at-reply=5-"), Vec::new());
    assert_failure(unlock_intel(&mut modem, &[LENOVO], &mut tried, BUDGET), true, "the modem is busy");
    assert_eq!(tried.len(), 1);
    // No key is used if too little time is left.
    let (mut modem, mut tried) = (intel().with("late=70"), Vec::new());
    assert_failure(unlock_intel(&mut modem, &[LENOVO], &mut tried, BUDGET), true, "too little time is left");
    assert!(tried.is_empty());
}

#[test]
fn a_modem_with_intels_lock_may_report_its_new_state_late() {
    const LONG: Duration = Duration::from_secs(60);
    for (late, budget) in [(0, LONG), (3, LONG), (1000, LONG), (10, BUDGET)] {
        let (mut modem, mut queries, mut tried) = (simulated(Protocol::Mbim, Lock::Intel, 4096), 0, Vec::new());
        let mut port = Port::replying(Protocol::Mbim, |message: &[u8]| {
            let mut reads = modem.receive(message).1;
            let is_query = modem.modem.seen.last().is_some_and(|name| name.ends_with("authentication 1 query"));
            if is_query && !modem.modem.locked {
                queries += 1;
                // The state is the last word of the reply.
                let state = reads.last_mut().and_then(|reply| reply.last_chunk_mut()).unwrap();
                *state = u32::from(queries > late).to_le_bytes();
            }
            reads
        });
        let procedure = Procedure::Intel { oem_strings: vec![LENOVO.to_owned()], keys: Vec::new() };
        let keys = Keys::new(&[], &procedure, &[], |note| note.apply(&mut tried));
        let transport = Transport { port: &mut port, protocol: Protocol::Mbim, proxied: None };
        let clock = StoppedClock::stop();
        let outcome = run(transport, &procedure, keys, None, Deadline::after(budget));
        if budget == BUDGET {
            // The next run may find the modem unlocked.
            assert_failure(outcome, true, "no answer to Intel FCC lock response");
            assert_eq!(tried.len(), 1);
        } else if late == 1000 {
            assert_failure(outcome, false, "the modem refused every known key");
            assert!((1000..1100).contains(&clock.elapsed().as_millis()), "{:?}", clock.elapsed());
        } else {
            assert!(matches!(outcome, Outcome::StillOff(_)), "{outcome:?}");
            assert_eq!((queries, tried.len()), (late + 1, 1));
        }
    }
}

/// A modem may count wrong responses permanently.
#[test]
fn a_run_sends_intels_response_once_even_if_its_reply_is_lost() {
    let long = Duration::from_secs(60);
    for (oem_string, faults) in [(LENOVO, "lost=1"), ("WRONG", "lost=1"), (LENOVO, "lost")] {
        // OPEN, the radio, the lock, the challenge.
        let (mut modem, mut tried) = (intel().with(faults).with("at-reply=5"), Vec::new());
        let clock = StoppedClock::stop();
        let outcome = unlock_intel(&mut modem, &[oem_string], &mut tried, long);
        assert_failure(outcome, true, "no answer to Intel FCC lock response");
        assert_eq!(responses(&modem), 1);
        assert!(clock.elapsed() < Duration::from_secs(10), "{:?}", clock.elapsed());
        // The next run queries the lock, and uses the key again only if the modem is still locked.
        match unlock_intel(&mut modem, &[oem_string], &mut tried, long) {
            Outcome::StillOff(what) => assert!(oem_string == LENOVO && what.starts_with("unlocked; "), "{what}"),
            refused => {
                assert!(!format!("{refused:?}").contains("and others"), "{refused:?}");
                assert_failure(refused, false, "the modem refused every known key: OEM string 1");
            }
        }
        assert_eq!(responses(&modem), if oem_string == LENOVO { 1 } else { 2 });
    }
}

/// Another program opens the port before the query that is to bring the reply.
#[test]
fn intels_response_counts_as_sent_if_only_its_reply_is_missing() {
    let (mut modem, mut tried) = (intel().with("lost=1 at-reply=5"), Vec::new());
    modem.contended_at = Some(5);
    assert_failure(
        unlock_intel(&mut modem, &[LENOVO], &mut tried, BUDGET),
        true,
        "no answer to Intel FCC lock response",
    );
    assert_eq!((responses(&modem), tried.len()), (1, 1));
}

#[test]
fn a_radio_that_must_stay_off_is_set_to_low_power_although_another_program_opens_the_port() {
    for protocol in PROTOCOLS {
        let mut whole = locked(protocol);
        unlock_by(&Procedure::Sierra, Some("rfkill0 is blocked"), &mut whole, BUDGET);
        for at in 0..whole.sends {
            let mut modem = locked(protocol);
            modem.contended_at = Some(at);
            let _clock = StoppedClock::stop();
            let transport = Transport { protocol, port: &mut modem, proxied: None };
            let deadline = Deadline::after(BUDGET);
            let outcome = run(transport, &Procedure::Sierra, Keys::none(), Some("rfkill0 is blocked"), deadline);
            assert!(modem.mode == LOW_POWER, "{protocol:?} {at}: {outcome:?}");
            assert_eq!(modem.clients.count(), 0, "{protocol:?} {at}: {outcome:?}");
            // A CLOSE would end the session of the other program.
            assert_eq!(modem.count("CLOSE"), 0, "{protocol:?} {at}: {outcome:?}");
        }
    }
}

#[test]
fn a_modem_with_intels_lock_may_leave_or_be_stopped_at_any_transfer() {
    let mut modem = intel();
    unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
    for at in 0..modem.transfers {
        let mut modem = intel();
        modem.gone_at = Some(at);
        let outcome = unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
        assert!(matches!(&outcome, Outcome::Left | Outcome::StillOff(_)), "{at}: {outcome:?}");
        let mut modem = intel();
        modem.interrupted_at = Some(at);
        unlock_intel(&mut modem, &["WRONG", LENOVO], &mut Vec::new(), BUDGET);
        assert!(!modem.is_open());
    }
}

const PROXY: &str = "proxy=/dev/cdc-wdm0";

#[test]
fn every_procedure_goes_through_a_proxy_that_can_carry_it() {
    for (protocol, name) in PROTOCOLS.into_iter().zip(["proxy open", "COMMAND proxy 1 set"]) {
        let mut modem = locked(protocol).with(PROXY);
        assert_eq!(unlock(&mut modem), online());
        assert_eq!(modem.seen[0], name);
        assert_eq!(unlock_by(&foxc(), None, &mut foxconn(2, protocol).with(PROXY), BUDGET), online());
    }
    assert_eq!(unlock_quectel(&mut quectel().with(PROXY)), online());
}

#[test]
fn a_proxy_that_hangs_up_does_not_mean_that_the_modem_left() {
    for protocol in PROTOCOLS {
        let mut modem = locked(protocol).with(PROXY);
        modem.gone_at = Some(6);
        assert_failure(unlock(&mut modem), true, "the proxy");
    }
}

/// Some versions of mbim-proxy answer OPEN themselves, and do not notice that the modem lost power.
#[test]
fn a_session_that_a_proxy_does_not_open_again_can_be_opened_later() {
    let mut modem = locked(Protocol::Mbim).with(PROXY).with("closes");
    assert_failure(unlock(&mut modem), true, "NotOpened (5)");
}

#[track_caller]
fn asked(procedure: Option<&Procedure>, mut modem: Modem) -> RadioState {
    let mode = modem.mode;
    let transport = Transport { protocol: modem.protocol, port: &mut modem, proxied: None };
    let _clock = StoppedClock::stop();
    let said = query(transport, procedure, Deadline::after(BUDGET)).unwrap();
    assert!(modem.clients.count() == 0 && !modem.is_open() && modem.mode == mode);
    assert!(modem.count("Authentication") == 0 && modem.challenges == 0, "{:?}", modem.seen);
    said
}

#[test]
fn a_query_reports_the_radio_and_changes_nothing() {
    let said = |operating_mode, locked| RadioState { operating_mode, locked };
    let unlocked = |mut modem: Modem| {
        modem.locked = false;
        modem
    };
    for protocol in PROTOCOLS {
        assert_eq!(asked(Some(&Procedure::Sierra), locked(protocol)), said(OperatingMode::LowPower, None));
        let mut online = locked(protocol);
        online.mode = ONLINE;
        assert_eq!(asked(None, online), said(OperatingMode::Online, Some(false)));
    }
    for (mode, reported) in [(LOW_POWER, OperatingMode::LowPower), (ONLINE, OperatingMode::Online)] {
        let mut modem = locked(Protocol::Mbim).with("no-qmi-service");
        modem.mode = mode;
        assert_eq!(asked(None, modem), said(reported, None));
    }
    for (protocol, service, magic) in fox_services() {
        let procedure = Procedure::Foxconn { service, magic: magic.to_owned() };
        let modem = fox(service, protocol);
        assert_eq!(asked(Some(&procedure), modem), said(OperatingMode::LowPower, Some(true)));
        let modem = unlocked(fox(service, protocol));
        assert_eq!(asked(Some(&procedure), modem), said(OperatingMode::LowPower, Some(false)));
    }
    let procedure = Procedure::Intel { oem_strings: Vec::new(), keys: Vec::new() };
    assert_eq!(asked(Some(&procedure), intel()).locked, Some(true));
    assert_eq!(asked(Some(&procedure), unlocked(intel())).locked, Some(false));
    assert_eq!(asked(Some(&procedure), locked(Protocol::Mbim)).locked, None);
    assert_eq!(asked(Some(&Procedure::Quectel), quectel()).locked, Some(true));
    assert_eq!(asked(Some(&Procedure::Quectel), unlocked(quectel())).locked, Some(false));
}
