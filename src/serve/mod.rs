//! The pipeline from event to result, one stage per file:
//!
//! ```text
//! event ──> lookup ──> snapshot ──> plan ──> execute ──> record
//! ```
//!
//! [`serve`] runs the stages for one device, and [`run::Run`] is what they share. [`hand_off`] passes on the work that an event has no time for.

pub(crate) mod ask;
pub(crate) mod composition;
pub(crate) mod ended;
pub(crate) mod error;
pub mod event;
pub(crate) mod execute;
pub(crate) mod hand_off;
pub(crate) mod lookup;
pub(crate) mod plan;
mod preview;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod trigger;

use std::time::Duration;

use crate::database::policy::Resolved;
use crate::database::quirks::Quirk;
use crate::host::deadline::Deadline;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox::{self, GRACE};
use crate::host::state::{
    ATTEMPTS, Attempt, Holder, Identity, LastResult, PortState, Results, StateError, WINDOW, now, numbers_elsewhere,
};
use crate::host::sys;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::{Failure, Outcome, StepKind, StepResult};
use crate::serve::ended::{Ended, conclude, to_report};
use crate::serve::error::Error;
use crate::serve::event::Scope;
use crate::serve::hand_off::Successor;
use crate::serve::lookup::{MatchedDevice, lookup_by, name_after_switch};
use crate::serve::plan::{AUTHORIZE, Action, PlanStep, plan};
pub(crate) use crate::serve::preview::{NO_ACTION, planned, preview, preview_lines};
use crate::serve::record::Recorder;
pub(crate) use crate::serve::record::{Served, StepReport};
use crate::serve::run::{APPLY, Run};
use crate::serve::snapshot::snapshot;
use crate::serve::trigger::Trigger;

/// If no state can be kept, a run that the guard applies to acts only on a device that has been connected for this long.
/// This slows down a loop that the guard cannot count.
const SETTLED: Duration = Duration::from_secs(5);

/// The name of a device that has none in the database and states none.
pub(crate) const UNNAMED: &str = "unnamed device";

/// Carries out what the quirk and the policy say for `device` in this scope.
pub(crate) fn serve(root: &Root, journal: &Journal, device: &Device, scope: &Scope, trigger: Trigger) -> Served {
    let start = Deadline::after(Duration::ZERO);
    // The budget of the policy is not known yet.
    let budget = trigger.budget(&Resolved::default());
    let _watchdog = sandbox::watchdog(budget + GRACE);
    let prepare = || {
        Successor::prepare(root, device, trigger, || {
            serve(root, &Journal::open(root), device, &Scope::All, Trigger::Unit);
        })
    };
    let (matched, errors) = lookup_by(root, device, start.plus(budget));
    if let (true, [Error::Device(held @ DeviceError::Held { .. })]) = (trigger.is_event(), errors.as_slice()) {
        let (mut recorder, successor) = (Recorder::new(journal, device, UNNAMED, trigger), prepare());
        let step = if scope.is_unlock() { StepKind::FccAuth } else { StepKind::Switch };
        recorder.report(None, step, conclude(unfinished(held), &successor));
        successor.go_on();
        return recorder.finish();
    }
    if !errors.is_empty() {
        return record::invalid(journal, device, trigger, errors);
    }
    let Some(mut matched) = matched else {
        return if trigger == Trigger::Unit { returned(root, journal, device) } else { Served::default() };
    };
    matched.policy.fcc_auth.value |= trigger.overrides_policy();
    let budget = trigger.budget(&matched.policy);
    let _watchdog = sandbox::watchdog(budget + GRACE);
    let mut recorder = Recorder::new(journal, device, matched.quirk.name_of(device.id), trigger);
    let successor = prepare();
    let run = Run { root, device, scope, trigger, deadline: start.plus(budget) };
    match run.serve(&matched, &mut recorder, &successor) {
        Ok(()) => {}
        // A modem that left is served when it comes back. Only a person who named it waits for a result.
        Err(Error::Device(DeviceError::Gone { .. })) if !trigger.is_named() => {}
        Err(error) => recorder.error(error),
    }
    let served = recorder.finish();
    if served.steps.iter().any(|report| report.result == StepResult::Unfinished) {
        successor.go_on();
    }
    served
}

fn unfinished(held: &DeviceError) -> Outcome {
    Outcome::Unfinished(Failure::new(held.to_string(), APPLY))
}

/// Reports a device without a quirk that returned from a switch before the unit started, which was to watch the switch.
fn returned(root: &Root, journal: &Journal, device: &Device) -> Served {
    let Some(before) = record::came_from(device, &record::results(root, device)) else { return Served::default() };
    let holder = Holder { enumeration: device.enumeration_id(), scope: Scope::All.name().to_owned() };
    let deadline = Deadline::after(Trigger::Unit.budget(&Resolved::default()));
    let Ok(mut state) = PortState::lock(root, &device.port, &holder, deadline) else { return Served::default() };
    record::concern(device, state.results());
    let name = name_after_switch(root, before, device.id).or_else(|| device.attribute("product").ok());
    let mut recorder = Recorder::new(journal, device, name.as_deref().unwrap_or(UNNAMED), Trigger::Unit);
    recorder.report_return(&mut state);
    recorder.finish()
}

/// What is left of a plan that was carried out.
#[derive(Default)]
struct Carried {
    /// A child process continues: it may still set the configuration, or open a tty or a WWAN port.
    has_child: bool,
    /// The configuration was planned, and not set because of an earlier attempt.
    keeps_configuration: bool,
}

impl Run<'_> {
    fn planned(&self, MatchedDevice { quirk, policy, .. }: &MatchedDevice) -> Result<Vec<PlanStep>, DeviceError> {
        Ok(plan(self.scope, &snapshot(self, quirk)?, quirk, policy))
    }

    fn serve(&self, matched: &MatchedDevice, recorder: &mut Recorder, successor: &Successor) -> Result<(), Error> {
        let MatchedDevice { quirk, policy, .. } = matched;
        // Most ports of a modem carry no unlock. Their events do not wait for the lock.
        let of_port = matches!(self.scope, Scope::Port(_)).then(|| self.planned(matched)).transpose()?;
        if of_port.as_ref().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        let Some(mut state) = self.lock(quirk, recorder, successor) else { return Ok(()) };
        record::concern(self.device, state.results());
        recorder.report_return(&mut state);
        // With another message from the policy, the device becomes something else.
        if policy.huawei.value.method().is_none() {
            recorder.expect(quirk.becomes(self.device.id));
        }
        if !quirk.is_install_mode() {
            state.record().arrived(StepKind::Switch);
        }
        let planned = of_port.map_or_else(|| self.planned(matched), Ok);
        // Without its serial number, the guard would take the device for another one.
        let (identity, planned) = match planned.and_then(|planned| Ok((self.identity(&planned)?, planned))) {
            Ok(found) => found,
            Err(gone @ DeviceError::Gone { .. }) => return self.end_without_device(gone, &mut state, recorder),
            Err(held @ DeviceError::Held { .. }) => {
                recorder.report(Some(&mut state), self.first_step(quirk), conclude(unfinished(&held), successor));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut carried = self.carry_out(planned, quirk, &identity, &mut state, recorder, successor);
        if carried.keeps_configuration && *self.scope == Scope::All {
            // The modem keeps its ports, which have no new events.
            let unlock = Run { scope: &Scope::Unlock, ..*self };
            let planned = unlock.planned(matched)?;
            carried = unlock.carry_out(planned, quirk, &identity, &mut state, recorder, successor);
        }
        state.keep();
        if carried.has_child {
            state.leave_to_child();
        }
        Ok(())
    }

    /// Ends the run on a device that has left. If an event sent the switch message, and this process was to watch the
    /// device, the switch is done.
    fn end_without_device(
        &self,
        gone: DeviceError,
        state: &mut PortState,
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let enumeration = self.device.enumeration_id();
        let is_sent = state.record().switched.as_ref().is_some_and(|sent| sent.enumeration == enumeration);
        if self.trigger != Trigger::Unit || !is_sent {
            return Err(gone.into());
        }
        let left = Ended::new(StepResult::Done, execute::LEFT.to_owned());
        recorder.report(Some(state), StepKind::Switch, left);
        Ok(())
    }

    /// Takes the lock of the port. `None` if another run has it, which is reported. If that run has another task, the
    /// successor of an event waits for the lock.
    fn lock(&self, quirk: &Quirk, recorder: &mut Recorder, successor: &Successor) -> Option<PortState> {
        let holder = Holder { enumeration: self.device.enumeration_id(), scope: self.scope.name().to_owned() };
        match PortState::lock(self.root, &self.device.port, &holder, self.deadline) {
            Ok(state) => Some(state),
            Err(error @ (StateError::Busy { .. } | StateError::Interrupted)) => {
                // Only a run with the same task does the work of this event.
                let is_left = self.trigger.is_event() && matches!(error, StateError::Busy { same_task: false });
                let outcome = match error.to_string() {
                    text if is_left => Outcome::Unfinished(Failure::new(text, APPLY)),
                    text => Outcome::Busy(text),
                };
                recorder.report(None, self.first_step(quirk), conclude(outcome, successor));
                None
            }
            Err(error) => {
                log::warn!("{}: {error}; continuing without state", self.device.port);
                Some(PortState::forgetful(&self.device.port))
            }
        }
    }

    /// Carries out the plan, and reports each step.
    fn carry_out(
        &self,
        planned: Vec<PlanStep>,
        quirk: &Quirk,
        identity: &Identity,
        state: &mut PortState,
        recorder: &mut Recorder,
        successor: &Successor,
    ) -> Carried {
        let is_unlock = |planned: &PlanStep| matches!(planned, PlanStep::Run(Action::FccAuth { .. }));
        let mut unlocks_left = planned.iter().filter(|planned| is_unlock(planned)).count() as u32;
        // For a modem with several procedures: whether its lock was found, and the results of the procedures that were
        // tried.
        let (mut is_found, mut tried) = (self.is_unlocked(quirk, identity, state), Vec::new());
        let mut carried = Carried::default();
        for planned in planned {
            let step = planned.step();
            let configures = matches!(planned, PlanStep::Run(Action::Configure { .. }));
            let unlocks = is_unlock(&planned);
            if unlocks && is_found {
                continue;
            }
            let mut deadline = self.deadline;
            if unlocks {
                // Divide the remaining time equally among the remaining procedures.
                deadline = deadline.at_most(deadline.remaining() / unlocks_left);
                unlocks_left -= 1;
            }
            let ended = self.end(planned, identity, state, successor, deadline);
            let is_left = ended.as_ref().is_none_or(|ended| ended.result == StepResult::LeftAlone);
            carried.keeps_configuration |= configures && is_left;
            let Some(ended) = ended else { continue };
            let may_have_child = configures || unlocks;
            carried.has_child |= may_have_child && ended.result == StepResult::Unfinished;
            if unlocks {
                // After a stop signal, no other procedure starts.
                is_found = !ended.may_be_another_lock || sys::stops() > 0;
                tried.push(ended);
            } else {
                recorder.report(Some(&mut *state), step, ended);
            }
        }
        for ended in to_report(tried) {
            recorder.report(Some(&mut *state), StepKind::FccAuth, ended);
        }
        carried
    }

    /// How a planned step ends. `None` if this device was already reported.
    fn end(
        &self,
        planned: PlanStep,
        identity: &Identity,
        state: &mut PortState,
        successor: &Successor,
        deadline: Deadline,
    ) -> Option<Ended> {
        Some(match planned {
            PlanStep::Satisfied { step, reason } => {
                state.record().arrived(step);
                Ended::new(StepResult::Unchanged, reason)
            }
            PlanStep::NoPort { reason, .. } if self.trigger.is_named() => Ended::new(StepResult::Failed, reason),
            PlanStep::Suppressed { reason, .. } | PlanStep::NoPort { reason, .. } => {
                Ended::new(StepResult::Suppressed, reason)
            }
            PlanStep::NotAuthorized { .. } => Ended::new(StepResult::NotAuthorized, AUTHORIZE.to_owned()),
            PlanStep::Infeasible { failure, .. } => Ended::new(StepResult::Failed, failure.to_string()),
            PlanStep::Run(action) => return self.act(&action, identity, state, successor, deadline),
        })
    }

    /// Whether this is a new port of a modem that was already unlocked over another port.
    fn is_unlocked(&self, quirk: &Quirk, identity: &Identity, state: &mut PortState) -> bool {
        let is_new_port = self.trigger == Trigger::Uevent && quirk.procedures().count() > 1;
        is_new_port && state.record().unlocked == Some(identity.enumeration)
    }

    /// Identifies the device for the guard. Reads the serial number, whose attribute may block, only if the plan acts.
    fn identity(&self, planned: &[PlanStep]) -> Result<Identity, DeviceError> {
        let acts = planned.iter().any(|planned| matches!(planned, PlanStep::Run(_)));
        Ok(Identity {
            id: self.device.id.to_string(),
            serial: if acts { self.device.serial_by(self.deadline)? } else { None },
            enumeration: self.device.enumeration_id(),
            number: self.device.bus_number(),
        })
    }

    /// The numbers of the devices on other ports of the bus. A device that keeps coming back there may be away.
    fn numbers_elsewhere(&self) -> Vec<u16> {
        let port = &self.device.port;
        let mut numbers = numbers_elsewhere(self.root, port);
        let is_elsewhere = |other: &Device| other.port.shares_bus(port) && other.port != *port;
        let devices = Device::all(self.root).into_iter().flatten().filter(is_elsewhere);
        numbers.extend(devices.filter_map(|device| device.bus_number()));
        numbers
    }

    fn first_step(&self, quirk: &Quirk) -> StepKind {
        if self.scope.is_unlock() {
            StepKind::FccAuth
        } else if quirk.is_install_mode() {
            StepKind::Switch
        } else {
            StepKind::Configuration
        }
    }

    /// Carries out one action. `None` if this device was already reported.
    fn act(
        &self,
        action: &Action,
        identity: &Identity,
        state: &mut PortState,
        successor: &Successor,
        deadline: Deadline,
    ) -> Option<Ended> {
        let step = action.step();
        let by_request = !self.trigger.is_guarded();
        let attempt = state.record().attempt(step, identity, now(), by_request, || self.numbers_elsewhere());
        match attempt {
            // A drive whose driver is attached again has a new SCSI event.
            Attempt::Repeat { .. } if step == StepKind::Switch && self.trigger == Trigger::Uevent => return None,
            // The refusal made the kernel set the earlier configuration again, and its port has a new event.
            Attempt::Repeat { .. } if self.trigger == Trigger::Unit && was_refused(action, state.results()) => {
                return None;
            }
            Attempt::GiveUp { is_reported: true } => return None,
            Attempt::GiveUp { is_reported: false } => {
                let text = format!(
                    "the device came back in the same state {ATTEMPTS} times within {WINDOW} seconds; \
                     `wwan-quirks apply {}` tries again",
                    self.device.port
                );
                return Some(Ended::new(StepResult::LeftAlone, text));
            }
            _ => {}
        }
        // Save the attempt first: it counts even if the modem brings down this process.
        state.keep();
        // Without state, the process that continues cannot know that the event has sent the switch message.
        let is_left = step == StepKind::Switch && self.trigger.is_event();
        if !state.is_kept() {
            let Some(wait) = settling(self.trigger, self.device.connected_for()).filter(|_| !is_left) else {
                let failure =
                    Failure::new("the state of the port cannot be saved", "see the earlier warning for the cause");
                return Some(conclude(Outcome::Unfinished(failure), successor));
            };
            std::thread::sleep(wait.min(deadline.remaining()));
        }
        let outcome = execute::execute(Run { deadline, ..*self }, action, attempt, state);
        Some(conclude(outcome, successor))
    }
}

/// How long a run without state waits before it acts. `None` if it leaves the device to the unit. `connected`: how long
/// the device has been connected. If the kernel does not count that, as on PCI, only the unit acts, and always waits.
fn settling(trigger: Trigger, connected: Option<Duration>) -> Option<Duration> {
    let missing = SETTLED.saturating_sub(connected.unwrap_or_default());
    match trigger {
        Trigger::Unit => Some(missing),
        _ if trigger.is_event() && !missing.is_zero() => None,
        _ => Some(Duration::ZERO),
    }
}

/// Whether the modem refused this configuration in an earlier run. A modem without a configuration always gets one.
fn was_refused(action: &Action, results: &Results) -> bool {
    let is_failure = |last: &LastResult| last.outcome == StepResult::Failed;
    matches!(action, Action::Configure { from: Some(_), .. })
        && results.last.get(&StepKind::Configuration).is_some_and(is_failure)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn write(root: &Root, path: &str, text: &str) {
        fs::create_dir_all(root.at(path).parent().unwrap()).unwrap();
        fs::write(root.at(path), text).unwrap();
    }

    #[test]
    fn a_person_who_named_a_modem_learns_that_it_disconnected() {
        let top = std::env::temp_dir().join(format!("wwan-quirks-gone-{}", std::process::id()));
        let root = Root::new(&top);
        let write = |path: &str, text: &str| write(&root, path, text);
        let quirks = "schema = 1\n[[device]]\nid = \"1199:68a2\"\nname = \"A\"\nsteps = [{ configuration = 2 }]\n";
        write("/etc/wwan-quirks/quirks.d/own.toml", quirks);
        let served = [Trigger::Named, Trigger::Command, Trigger::Unit].map(|trigger| {
            for (name, text) in [("idVendor", "1199\n"), ("idProduct", "68a2\n"), ("bConfigurationValue", "1\n")] {
                write(&format!("/sys/devices/usb1/1-1/{name}"), text);
            }
            let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
            fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
            serve(&root, &Journal::open(&root), &device, &Scope::All, trigger)
        });
        fs::remove_dir_all(top).unwrap();
        let errors = served.map(|served| served.errors.iter().map(Error::chain).collect::<Vec<String>>());
        assert_eq!(errors, [vec!["the device at 1-1 is gone".to_owned()], vec![], vec![]]);
    }

    #[test]
    fn a_process_that_continues_after_an_event_reports_a_device_that_left_meanwhile() {
        let top = std::env::temp_dir().join(format!("wwan-quirks-left-{}", std::process::id()));
        let root = Root::new(&top);
        let write = |path: &str, text: &str| write(&root, path, text);
        // Only one of the two switches needs the list of interfaces.
        let control = "{ control = { request-type = 0x40, request = 0x70, value = 4 } }";
        for (switch, is_sent) in [("\"detach\", ", true), ("\"detach\", ", false), ("", true), ("", false)] {
            let steps = format!("steps = [{{ switch = [{switch}{control}] }}]\n");
            let quirk = format!("schema = 1\n[[device]]\nid = \"1199:0fff\"\nname = \"A\"\n{steps}");
            write("/etc/wwan-quirks/quirks.d/own.toml", &quirk);
            write("/sys/devices/usb1/1-1/idVendor", "1199\n");
            write("/sys/devices/usb1/1-1/idProduct", "0fff\n");
            let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
            let enumeration = device.enumeration_id();
            let sent = enumeration + u64::from(!is_sent);
            let acted = format!(
                r#"{{"identity":{{"id":"1199:0fff","serial":"S","enumeration":{enumeration},"number":null}},
                   "until":{},"count":3,"returned":false,"gave_up":false}}"#,
                now() + WINDOW
            );
            let switched = format!(r#"{{"enumeration":{sent},"answer":""}}"#);
            write("/run/wwan-quirks/lock/1-1", &format!(r#"{{"switched":{switched},"acted":{{"switch":{acted}}}}}"#));
            fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
            let steps = serve(&root, &Journal::open(&root), &device, &Scope::All, Trigger::Unit).steps;
            let steps: Vec<_> = steps.into_iter().map(|step| (step.result, step.text)).collect();
            let left = (StepResult::Done, execute::LEFT.to_owned());
            assert_eq!(steps, is_sent.then_some(left).into_iter().collect::<Vec<_>>(), "{switch:?} {is_sent}");
            // The guard still counts this device.
            let record = fs::read_to_string(root.at("/run/wwan-quirks/lock/1-1")).unwrap();
            assert!(record.contains(r#""count":3"#) && record.contains(r#""serial":"S""#), "{record}");
        }
        fs::remove_dir_all(top).unwrap();
    }

    #[test]
    fn without_state_a_run_waits_or_leaves_the_device_to_the_unit() {
        let seconds = Duration::from_secs;
        for (trigger, connected, wait) in [
            (Trigger::Uevent, Some(seconds(1)), None),
            (Trigger::Coldplug, Some(seconds(9)), Some(0)),
            (Trigger::Unit, Some(seconds(1)), Some(4)),
            (Trigger::Unit, Some(seconds(9)), Some(0)),
            // On PCI, the time is not known.
            (Trigger::Uevent, None, None),
            (Trigger::Coldplug, None, None),
            (Trigger::Unit, None, Some(5)),
            // No guard applies.
            (Trigger::Named, None, Some(0)),
            (Trigger::ModemManager, Some(seconds(1)), Some(0)),
        ] {
            assert_eq!(settling(trigger, connected), wait.map(seconds), "{trigger:?} {connected:?}");
        }
    }
}
