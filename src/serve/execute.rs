//! Carries out one action of a plan.

use std::fs::File;
use std::io;
use std::time::Duration;

use crate::bus::Bus;
use crate::database::quirks::{NeededReset, Procedure, Switch};
use crate::host::clock::now;
use crate::host::deadline::Deadline;
use crate::host::paths::has_systemd;
use crate::host::state::{EarlierConfiguration, PortState, SentSwitch, TriedKeys};
use crate::host::{rfkill, sandbox, smbios, sys};
use crate::modem::access::{self, PortUnavailable};
use crate::modem::device::{ControlPort, Device};
use crate::modem::link::OpenError;
use crate::modem::link::usb::{Node, Usb};
use crate::modem::transport::Protocol;
use crate::outcome::{Failure, Outcome, StepKind};
use crate::serve::event::Scope;
use crate::serve::plan::Action;
use crate::serve::run::{APPLY, Run};
use crate::serve::trigger::Trigger;
use crate::steps::fcc_auth::{KeyUse, Keys};
use crate::steps::switch::Reaction;
use crate::steps::{configure, fcc_auth, reset, switch};
use crate::usb::TransferTarget;

/// How long a run waits for a device to leave install mode. An event waits only briefly, because it holds up all other
/// events of the device. Other runs wait longer: the kernel may take many seconds to notice that a device left, for
/// example if its drive has a file system.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(1);
const LONG_LEAVE_TIMEOUT: Duration = Duration::from_secs(20);
/// The time needed for one transfer to a device in install mode. With less time left, an event sends nothing.
const TRANSFER: Duration = Duration::from_millis(300);
/// The result of a switch.
pub(crate) const LEFT: &str = "the device left install mode";
/// The remedy for a device that stays in install mode.
const PLUG_AGAIN: &str = "plug it in again, or run `wwan-quirks apply`";
/// How long to wait before another attempt to open a port that other programs use.
const REOPEN_INTERVAL: Duration = Duration::from_millis(500);
/// The time needed for an unlock.
const UNLOCK: Duration = Duration::from_secs(10);
const SWITCHED_OFF_BEFORE: &str = "it was off before the modem locked it again";

/// Carries out `action`. `returned` is whether the device has returned from an earlier attempt.
pub(super) fn execute(run: Run, action: &Action, returned: bool, state: &mut PortState) -> Outcome {
    let Run { device, trigger, deadline, .. } = run;
    match action {
        Action::Switch { switch, target } => match too_long(switch, deadline).filter(|_| trigger.is_event()) {
            Some(reason) => Outcome::Unfinished(Failure::new(reason, APPLY)),
            None => leave_install_mode(run, switch, target, returned, state),
        },
        Action::Configure { from, to, unconfigured } => {
            let enumeration = device.enumeration_id();
            // A run that was killed may have left the modem without its configuration.
            let earlier = state.memory().configured.filter(|earlier| earlier.enumeration == enumeration);
            let from = from.or(earlier.map(|earlier| earlier.value));
            state.memory().configured = from.map(|value| EarlierConfiguration { enumeration, value });
            state.keep();
            let outcome = configure::run(device, from, *to, *unconfigured, deadline);
            if !matches!(outcome, Outcome::Unfinished(_)) {
                state.memory().configured = None;
            }
            if matches!(outcome, Outcome::Done(_)) {
                state.memory().attempts.verified(StepKind::Configuration, now());
            }
            outcome
        }
        Action::FccAuth { port, protocol, procedure, reset } => {
            // Read it now: the sandbox denies access to the device's directory.
            let enumeration = device.enumeration_id();
            let reset = reset.map(|reset| (reset == NeededReset::Reset).then(|| device.open_authorized()));
            let outcome = unlock(run, port, *protocol, procedure, state);
            let is_plugged_in = match trigger {
                Trigger::Uevent => true,
                Trigger::Unit => *run.scope == Scope::All,
                _ => false,
            };
            remember(&outcome, is_plugged_in, device.id.bus, enumeration, state);
            match (outcome, reset) {
                (Outcome::StillOff(text), Some(authorized)) => {
                    Outcome::Done(reset_modem(device, enumeration, &text, authorized, state))
                }
                (outcome, _) => outcome,
            }
        }
    }
}

/// Why an event has too little time for `switch`.
fn too_long(switch: &Switch, deadline: Deadline) -> Option<String> {
    let pauses = switch.pauses();
    if pauses >= LEAVE_TIMEOUT {
        Some(format!("the switch takes {} s, which is too long for a udev event", pauses.as_secs_f32()))
    } else if switch.sets_configuration() {
        // The kernel may need seconds for that, and no signal interrupts it.
        Some("the switch sets a configuration, which may take too long for a udev event".to_owned())
    } else if deadline.remaining() < TRANSFER {
        Some("the udev event has too little time left".to_owned())
    } else {
        None
    }
}

fn leave_install_mode(
    run: Run,
    switch: &Switch,
    target: &TransferTarget,
    returned: bool,
    state: &mut PortState,
) -> Outcome {
    match Node::open(run.root, run.device) {
        Ok(mut node) => send_switch(run, &mut node, switch, target, returned, state),
        // The kernel may have switched the device first.
        Err(_) if !run.device.is_present() => Outcome::Done(LEFT.to_owned()),
        Err(error) => Outcome::Failed(Failure::new(error.to_string(), error.remedy())),
    }
}

/// Sends the messages in the sandbox, unless the process may serve more modems.
fn send_switch(
    run: Run,
    node: &mut dyn Usb,
    switch: &Switch,
    target: &TransferTarget,
    returned: bool,
    state: &mut PortState,
) -> Outcome {
    let Run { device, trigger, deadline, .. } = run;
    let enumeration = device.enumeration_id();
    let leaving = if trigger.is_event() { LEAVE_TIMEOUT } else { LONG_LEAVE_TIMEOUT };
    // A single control transfer ends within the time that an event waits for the device to leave.
    let is_short = !switch.needs_interfaces() && trigger.is_event();
    let deadline = if is_short { deadline.at_most(leaving) } else { deadline };
    let attribute = switch.sets_configuration().then(|| device.configuration_value());
    let mut configure = |value| match &attribute {
        Some(Ok(attribute)) => attribute.set(value).is_ok() && attribute.get().ok() == Some(Some(value)),
        _ => false,
    };
    // A verb may serve other modems after this one. The sandbox would not allow that.
    if !trigger.is_verb() {
        sandbox::enter();
    }
    let sent = state.memory().switched.clone().filter(|sent| sent.enumeration == enumeration);
    let reaction = match sent {
        // The event sent the message, and the device did not leave in time. Do not send it twice.
        Some(SentSwitch { answer, .. }) if trigger == Trigger::Unit => {
            match node.wait_until_gone(deadline.at_most(leaving)) {
                true => Reaction::Left,
                false => Reaction::Stays(answer),
            }
        }
        _ => {
            // Save this before sending the message: it counts even if the device brings down this process.
            state.memory().switched = Some(SentSwitch { enumeration, answer: "an earlier run ended early".to_owned() });
            state.keep();
            switch::run(node, switch, target, returned, &mut configure, leaving, deadline)
        }
    };
    outcome_of(reaction, trigger, enumeration, state)
}

/// The result of a switch. Records what the next run must know about the message.
fn outcome_of(reaction: Reaction, trigger: Trigger, enumeration: u64, state: &mut PortState) -> Outcome {
    // The unit sends a message that the device has not taken in the short time of an event.
    let is_taken = !matches!(reaction, Reaction::NotTaken(_));
    match reaction {
        Reaction::Left => {
            // Another process that waited for the lock does not report it again.
            state.memory().switched = None;
            Outcome::Done(LEFT.to_owned())
        }
        Reaction::Changed => Outcome::Done("the device changed its configuration in place".to_owned()),
        Reaction::Stays(answer) | Reaction::NotTaken(answer) if trigger.is_event() => {
            let reason = format!("{answer}, and the device has not left install mode yet");
            state.memory().switched = is_taken.then_some(SentSwitch { enumeration, answer });
            Outcome::Unfinished(Failure::new(reason, PLUG_AGAIN))
        }
        Reaction::Stays(answer) | Reaction::NotTaken(answer) => {
            // The next run sends the message again.
            state.memory().switched = None;
            Outcome::Failed(Failure::new(format!("{answer}, and the device is still in install mode"), PLUG_AGAIN))
        }
    }
}

/// Unlocks the modem over `port`. Tries again until the deadline if another program uses the port.
fn unlock(run: Run, port: &ControlPort, protocol: Protocol, procedure: &Procedure, state: &mut PortState) -> Outcome {
    let Run { root, device, trigger, deadline, .. } = run;
    // Another procedure has used the port, and this process can no longer open it.
    if trigger.is_event() && sandbox::level().is_some() {
        return Outcome::Unfinished(Failure::new("the modem may have another lock", APPLY));
    }
    // A signal must not prevent the cleanup of the modem.
    sys::defer_stop_signals(&device.port);
    // systemd starts the unit after the file systems are mounted.
    let waits_for_var = || match trigger {
        Trigger::Unit => !has_systemd(root) && deadline.remaining() > UNLOCK,
        trigger => trigger.is_event(),
    };
    loop {
        let outcome = if waits_for_var() && rfkill::is_unknown_yet(root) {
            Outcome::Unfinished(Failure::new("NetworkManager's state in /var/lib is not available yet", APPLY))
        } else {
            unlock_once(run, port, protocol, procedure, state)
        };
        // A proxy may be about to open the port, or another program may have opened it: try again. ModemManager closes
        // the ports of a modem that it has probed.
        let again = match outcome {
            Outcome::Unfinished(_) => trigger.may_reopen(),
            Outcome::InUse(_) => trigger.waits_for_port(),
            _ => false,
        };
        let again = again && sys::stop_requests() == 0;
        if !again || deadline.remaining() < 2 * REOPEN_INTERVAL {
            return outcome;
        }
        log::debug!("{}: {outcome:?}", device.port);
        deadline.sleep(REOPEN_INTERVAL);
    }
}

fn unlock_once(
    run: Run,
    port: &ControlPort,
    protocol: Protocol,
    procedure: &Procedure,
    state: &mut PortState,
) -> Outcome {
    let Run { root, device, trigger, deadline, .. } = run;
    // Read all of this now: the process cannot do so in the sandbox.
    let enumeration = device.enumeration_id();
    let was_off = !trigger.overrides_policy() && state.memory().switched_off == Some(enumeration);
    let stays_off = rfkill::wwan_is_blocked(root).or_else(|| was_off.then(|| SWITCHED_OFF_BEFORE.to_owned()));
    let laptop = if procedure.oem_strings().is_some() { smbios::fcc_types(root) } else { Vec::new() };
    let mut opened = match access::open(root, device, port, protocol, trigger.sharing(), deadline) {
        Ok(opened) => opened,
        Err(error) => return unavailable(&error, trigger),
    };
    if !trigger.may_reopen() {
        sandbox::enter();
    }
    // Without state, the next run cannot know which keys this run has sent.
    let only_laptop = !state.is_kept() && !trigger.is_verb();
    let (tried, is_settled) = state.memory().tried_keys.of(enumeration);
    let tried = tried.to_vec();
    let mut before = TriedKeys::default();
    let keys = Keys::new(&laptop, procedure, &tried, |note| {
        match note {
            KeyUse::Sending(key) => before = state.memory().tried_keys.add(enumeration, key),
            KeyUse::NotSent(_) => state.memory().tried_keys = std::mem::take(&mut before),
            KeyUse::Refused(key) => state.memory().tried_keys.refuse(enumeration, key),
            KeyUse::UsedUp(key) => state.memory().tried_keys.use_up(enumeration, key),
        }
        state.keep();
    });
    let keys = if is_settled { keys.settled() } else { keys };
    let keys = if only_laptop { keys.laptop_only() } else { keys };
    fcc_auth::run(opened.transport(), procedure, keys, stays_off.as_deref(), deadline)
}

/// The result of an unlock whose port cannot be opened.
fn unavailable(error: &PortUnavailable, trigger: Trigger) -> Outcome {
    // The call leaves the unlock to a process that waits for the port.
    let is_held = matches!(error, PortUnavailable::Held { .. } | PortUnavailable::Open(OpenError::InUse { .. }));
    let waits = trigger == Trigger::ModemManager && is_held;
    let remedy = if waits { "enable the modem again when it is unlocked" } else { error.remedy() };
    let failure = Failure::new(error.to_string(), remedy);
    match error {
        PortUnavailable::Left => Outcome::Left,
        // The node of a USB modem cannot be opened while its WWAN port is open.
        PortUnavailable::Held { .. }
        | PortUnavailable::Proxy { .. }
        | PortUnavailable::UntrustedProxy { .. }
        | PortUnavailable::Open(OpenError::InUse { .. })
            if !trigger.is_verb() =>
        {
            Outcome::InUse(failure)
        }
        PortUnavailable::Open(OpenError::NotReady { .. } | OpenError::Interrupted { .. }) => {
            Outcome::Unfinished(failure)
        }
        _ => Outcome::Failed(failure),
    }
}

/// Records what later runs need to know about the radio of this enumeration. `is_plugged_in`: the run serves a modem that
/// was just plugged in.
fn remember(outcome: &Outcome, is_plugged_in: bool, bus: Bus, enumeration: u64, state: &mut PortState) {
    let is_refused = state.results().has_failed(StepKind::Configuration);
    let memory = state.memory();
    match outcome {
        // An earlier event has unlocked it, and ModemManager has not switched it on yet.
        Outcome::SwitchedOff(_) if is_plugged_in && memory.unlocked == Some(enumeration) => {}
        Outcome::SwitchedOff(_) => memory.switched_off = Some(enumeration),
        Outcome::Unchanged(_) | Outcome::NoLock(_) | Outcome::Online { unlocked: false, .. } => {
            memory.switched_off = None;
        }
        Outcome::Done(_) | Outcome::StillOff(_) | Outcome::NotOff(_) | Outcome::Online { unlocked: true, .. } => {}
        Outcome::Failed(_) | Outcome::InUse(_) | Outcome::Busy(_) | Outcome::Left | Outcome::Unfinished(_) => return,
    }
    // The unit does not repeat a configuration that the modem has refused.
    if !is_refused {
        memory.attempts.clear(StepKind::Configuration);
    }
    // A modem on PCI may crash after an unlock that succeeded, so only a run that finds it unlocked clears the attempts.
    let was_unlocked =
        matches!(outcome, Outcome::Unchanged(_) | Outcome::SwitchedOff(_) | Outcome::Online { unlocked: false, .. });
    if bus == Bus::Usb || was_unlocked {
        memory.attempts.clear(StepKind::FccAuth);
    }
    if !matches!(outcome, Outcome::NoLock(_)) {
        memory.unlocked = Some(enumeration);
        memory.tried_keys.accept(enumeration);
    }
}

/// Resets an unlocked modem that does not come online by itself. Does not reset it if `authorized` was not opened for
/// that, or if this enumeration has had a reset before: the text then says how to reset it by hand.
fn reset_modem(
    device: &Device,
    enumeration: u64,
    text: &str,
    authorized: Option<io::Result<File>>,
    state: &mut PortState,
) -> String {
    let by_hand = format!("{text}; if that fails, {}", reset::by_hand(&device.port));
    let Some(authorized) = authorized else { return by_hand };
    if state.memory().reset.replace(enumeration) == Some(enumeration) {
        return by_hand;
    }
    match state.save().and(authorized).and_then(reset::run) {
        Ok(()) => "unlocked; the modem was reset so that it comes online".to_owned(),
        Err(error) => format!("{by_hand} (the reset failed: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Port;
    use crate::host::deadline::clock::StoppedClock;
    use crate::host::root::tests::TempRoot;
    use crate::host::state::{Attempt, Identity};
    use crate::outcome::StepResult;
    use crate::steps::switch::tests::Script;

    #[test]
    fn an_event_sends_nothing_without_time_for_a_transfer() {
        let _clock = StoppedClock::stop();
        let sierra = Switch::method("sierra").unwrap();
        for (left, is_too_long) in [(Duration::ZERO, true), (TRANSFER / 2, true), (TRANSFER, false)] {
            assert_eq!(too_long(&sierra, Deadline::after(left)).is_some(), is_too_long, "{left:?}");
        }
    }

    #[test]
    fn a_switch_is_sent_in_the_sandbox_unless_a_person_may_have_more_modems() {
        let (root, device) = Device::that_left("confined", "1199", "0fff");
        let sierra = Switch::method("sierra").unwrap();
        let is_confined = |trigger| {
            let deadline = Deadline::after(Duration::from_secs(60));
            let run = Run { root: &root, device: &device, scope: &Scope::All, trigger, deadline };
            let mut usb = Script::that_leaves();
            let mut state = PortState::in_memory(&device.port);
            let outcome = send_switch(run, &mut usb, &sierra, &TransferTarget::default(), false, &mut state);
            matches!(outcome, Outcome::Done(_)) && sandbox::level().is_some()
        };
        for trigger in [Trigger::Uevent, Trigger::Coldplug, Trigger::Requested, Trigger::Unit] {
            // A child enters the sandbox, and not the other tests.
            assert!(sys::in_parallel([trigger].into_iter(), is_confined), "{trigger:?}");
        }
        for trigger in [Trigger::Command, Trigger::Named] {
            assert!(!is_confined(trigger), "{trigger:?}");
        }
    }

    #[test]
    fn a_switch_that_failed_is_not_taken_for_one_in_progress() {
        let (root, device) = Device::that_left("stays", "1199", "0fff");
        let sierra = Switch::method("sierra").unwrap();
        for (mut usb, is_done) in [(Script::default(), false), (Script::that_leaves(), true)] {
            let _clock = StoppedClock::stop();
            let deadline = Deadline::after(Duration::from_secs(60));
            let run = Run { root: &root, device: &device, scope: &Scope::All, trigger: Trigger::Named, deadline };
            let mut state = PortState::in_memory(&device.port);
            let outcome = send_switch(run, &mut usb, &sierra, &TransferTarget::default(), false, &mut state);
            assert_eq!(matches!(outcome, Outcome::Done(_)), is_done, "{outcome:?}");
            assert!(state.memory().switched.is_none(), "{outcome:?}");
        }
    }

    #[test]
    fn a_port_that_is_in_use_is_a_failure_only_for_a_person() {
        let path = || "/dev/cdc-wdm0".into();
        for error in [
            PortUnavailable::Held { port: path(), users: Vec::new() },
            PortUnavailable::Open(OpenError::InUse { path: path() }),
        ] {
            for trigger in [Trigger::Uevent, Trigger::Unit, Trigger::ModemManager, Trigger::Named] {
                let outcome = unavailable(&error, trigger);
                let failure = match &outcome {
                    Outcome::InUse(failure) if trigger != Trigger::Named => failure,
                    Outcome::Failed(failure) if trigger == Trigger::Named => failure,
                    _ => panic!("{error} {trigger:?}: {outcome:?}"),
                };
                let enables = failure.remedy.starts_with("enable the modem again");
                assert_eq!(enables, trigger == Trigger::ModemManager, "{error} {trigger:?}: {}", failure.remedy);
            }
        }
    }

    #[test]
    fn a_key_that_opened_the_lock_is_not_refused_if_the_radio_stays_on() {
        let failure = || Failure::new("", "");
        for (outcome, kept) in [(Outcome::NotOff(failure()), &[1][..]), (Outcome::Failed(failure()), &[1, 2])] {
            let mut state = PortState::in_memory(&Port::new("1-1").unwrap());
            for key in [1, 2] {
                state.memory().tried_keys.add(7, key);
            }
            remember(&outcome, false, Bus::Pci, 7, &mut state);
            assert_eq!(state.memory().tried_keys.of(7).0, kept, "{outcome:?}");
        }
    }

    #[test]
    fn an_unlock_does_not_hide_that_the_modem_has_refused_its_configuration() {
        let id = "1199:9041".parse().unwrap();
        let identity = Identity { id, serial: None, enumeration: 7, number: None };
        for (result, attempted) in [(StepResult::Failed, true), (StepResult::Done, false)] {
            let mut state = PortState::in_memory(&Port::new("1-1").unwrap());
            let attempt = |state: &mut PortState| {
                let now = Duration::from_secs(1);
                state.memory().attempts.record(StepKind::Configuration, &identity, now, false, Vec::new)
            };
            attempt(&mut state);
            state.results().record(StepKind::Configuration, id, result, "", false);
            let online = Outcome::Online { text: String::new(), unlocked: true };
            remember(&online, false, Bus::Usb, 7, &mut state);
            assert_eq!(matches!(attempt(&mut state), Attempt::Repeat { .. }), attempted, "{result:?}");
        }
    }

    #[test]
    fn the_configuration_before_a_run_that_was_killed_is_the_earlier_one() {
        let root = TempRoot::new("killed");
        let value_file = "/sys/devices/usb1/1-1/bConfigurationValue";
        let device = &Device::on_port(&root, "1199", "9041");
        for (value, of_this, text) in [(1, true, "configuration 2 instead of 1"), (1, false, "2 instead of none")] {
            root.write(value_file, "\n");
            let mut state = PortState::in_memory(&device.port);
            let enumeration = device.enumeration_id() + u64::from(!of_this);
            state.memory().configured = Some(EarlierConfiguration { enumeration, value });
            let deadline = Deadline::after(Duration::from_secs(60));
            let run = Run { root: &root, device, scope: &Scope::All, trigger: Trigger::Unit, deadline };
            let action = Action::Configure { from: None, to: 2, unconfigured: None };
            let outcome = execute(run, &action, false, &mut state);
            assert!(matches!(&outcome, Outcome::Done(done) if done.contains(text)), "{outcome:?}");
            assert_eq!(state.memory().configured, None);
        }
    }

    /// The first event unlocked it, and ModemManager has not switched it on yet.
    #[test]
    fn a_radio_that_a_second_event_finds_off_was_not_switched_off_by_the_user() {
        for (is_plugged_in, unlocked, switched_off) in
            [(true, Some(7), None), (true, Some(6), Some(7)), (true, None, Some(7)), (false, Some(7), Some(7))]
        {
            let mut state = PortState::in_memory(&Port::new("1-1").unwrap());
            state.memory().unlocked = unlocked;
            remember(&Outcome::SwitchedOff(String::new()), is_plugged_in, Bus::Usb, 7, &mut state);
            assert_eq!(state.memory().switched_off, switched_off, "{is_plugged_in} {unlocked:?}");
        }
    }

    #[test]
    fn an_unlock_that_gets_no_answer_counts_for_the_guard() {
        let failure = || Failure::new("", "");
        for (outcome, bus, counts) in [
            (Outcome::Left, Bus::Usb, true),
            (Outcome::Left, Bus::Pci, true),
            (Outcome::Failed(failure()), Bus::Usb, true),
            (Outcome::Unfinished(failure()), Bus::Usb, true),
            (Outcome::InUse(failure()), Bus::Usb, true),
            (Outcome::Done(String::new()), Bus::Usb, false),
            (Outcome::Done(String::new()), Bus::Pci, true),
            (Outcome::NotOff(failure()), Bus::Usb, false),
            (Outcome::NotOff(failure()), Bus::Pci, true),
            (Outcome::Online { text: String::new(), unlocked: true }, Bus::Pci, true),
            (Outcome::Online { text: String::new(), unlocked: false }, Bus::Pci, false),
            (Outcome::NoLock(String::new()), Bus::Usb, false),
            (Outcome::Unchanged(String::new()), Bus::Pci, false),
            (Outcome::SwitchedOff(String::new()), Bus::Usb, false),
        ] {
            let mut state = PortState::in_memory(&Port::new("1-1").unwrap());
            for enumeration in 1..=4 {
                let id = "1199:68a2".parse().unwrap();
                let identity = Identity { id, serial: None, enumeration, number: None };
                let now = Duration::from_secs(1);
                let attempt = state.memory().attempts.record(StepKind::FccAuth, &identity, now, false, Vec::new);
                let gives_up = matches!(attempt, Attempt::GiveUp { .. });
                assert_eq!(gives_up, counts && enumeration == 4, "{outcome:?} {bus:?} {enumeration}");
                remember(&outcome, false, bus, enumeration, &mut state);
            }
            let is_unlocked = state.memory().unlocked == Some(4);
            let answers = matches!(
                outcome,
                Outcome::Done(_)
                    | Outcome::Unchanged(_)
                    | Outcome::SwitchedOff(_)
                    | Outcome::NotOff(_)
                    | Outcome::Online { .. }
            );
            assert_eq!(is_unlocked, answers, "{outcome:?}");
        }
    }
}
