//! The pipeline from event to result, one stage per file:
//!
//! ```text
//! event ──> lookup ──> snapshot ──> plan ──> execute ──> record
//! ```
//!
//! [`serve`] runs the stages for one device, and [`run::Run`] is what they share. It plans while the port is locked,
//! because the run that had the lock before may have changed the modem. Then [`carry_out`] asks the [`guard`] before it
//! executes each action. It plans again if the unlock must follow a configuration in the same run. [`hand_off`]
//! hands over the work for which an event has no time.

pub(crate) mod before_sleep;
mod carry_out;
pub(crate) mod composition;
pub(crate) mod conclusion;
pub(crate) mod error;
pub mod event;
pub(crate) mod execute;
mod guard;
pub(crate) mod hand_off;
mod locked_run;
pub(crate) mod lookup;
pub(crate) mod plan;
pub(crate) mod preview;
pub(crate) mod query;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod snapshot;
pub(crate) mod trigger;

use std::time::Duration;

use crate::database::policy::Resolved;
use crate::database::quirks::{Quirk, Step};
use crate::host::deadline::Deadline;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox::{self, GRACE};
use crate::host::state::{AFTER_OTHER_RUN, Holder, PortState, StateError, Task};
use crate::modem::device::{Device, DeviceError};
use crate::outcome::{Failure, Outcome, StepKind, StepResult};
use crate::serve::conclusion::{Conclusion, conclude};
use crate::serve::error::Error;
use crate::serve::event::Scope;
use crate::serve::hand_off::Successor;
use crate::serve::locked_run::LockedRun;
use crate::serve::lookup::{MatchedDevice, lookup_by, name_after_switch};
use crate::serve::plan::{PlanStep, plan};
use crate::serve::record::{Recorder, RunReport};
use crate::serve::run::{APPLY, Run};
use crate::serve::snapshot::{snapshot, unlock_ports};
use crate::serve::trigger::Trigger;

/// The name of a device that has none in the database and states none.
pub(crate) const UNNAMED: &str = "unnamed device";

/// Carries out what the quirk and the policy say for `device` in this scope.
pub(crate) fn serve(root: &Root, journal: &Journal, device: &Device, scope: &Scope, trigger: Trigger) -> RunReport {
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
        recorder.report(None, step, conclude(unfinished(held), successor.name()));
        successor.continue_run();
        return recorder.finish();
    }
    if !errors.is_empty() {
        return Recorder::new(journal, device, UNNAMED, trigger).invalid(errors);
    }
    let Some(mut matched) = matched else {
        return if trigger == Trigger::Unit { returned(root, journal, device) } else { RunReport::default() };
    };
    matched.policy.fcc_auth.value |= trigger.overrides_policy();
    let budget = trigger.budget(&matched.policy);
    let _watchdog = sandbox::watchdog(budget + GRACE);
    let mut recorder = Recorder::new(journal, device, matched.quirk.name_of(device.id), trigger);
    let successor = prepare();
    let run = Run { root, device, scope, trigger, deadline: start.plus(budget) };
    match run.plan_and_carry_out(&matched, &mut recorder, successor.name()) {
        Ok(()) => {}
        // A modem that left is handled when it comes back. Only a person who named it waits for a result.
        Err(Error::Device(DeviceError::Gone { .. })) if !trigger.is_named() => {}
        Err(error) => recorder.error(error),
    }
    let report = recorder.finish();
    if report.steps.iter().any(|step| step.result == StepResult::Unfinished) {
        successor.continue_run();
    }
    report
}

fn unfinished(held: &DeviceError) -> Outcome {
    Outcome::Unfinished(Failure::new(held.to_string(), APPLY))
}

/// Reports a device without a quirk that returned from a switch before the unit started to watch it.
fn returned(root: &Root, journal: &Journal, device: &Device) -> RunReport {
    let Some(before) = record::came_from(device, &record::results(root, device)) else { return RunReport::default() };
    let holder = Holder { enumeration: device.enumeration_id(), task: Task::All };
    let deadline = Deadline::after(Trigger::Unit.budget(&Resolved::default()));
    let Ok(mut state) = PortState::lock(root, &device.port, &holder, deadline) else { return RunReport::default() };
    record::drop_earlier(device, state.results());
    let name = name_after_switch(root, before, device.id).or_else(|| device.attribute("product").ok());
    let mut recorder = Recorder::new(journal, device, name.as_deref().unwrap_or(UNNAMED), Trigger::Unit);
    recorder.report_return(&mut state);
    recorder.finish()
}

impl Run<'_> {
    /// The plan for a device.
    pub(crate) fn plan(&self, MatchedDevice { quirk, policy }: &MatchedDevice) -> Result<Vec<PlanStep>, DeviceError> {
        Ok(plan(self.scope, &snapshot(self, quirk)?, quirk, policy))
    }

    /// Takes the lock of the port, plans, and carries out the plan.
    fn plan_and_carry_out(
        &self,
        matched: &MatchedDevice,
        recorder: &mut Recorder,
        successor: Option<&str>,
    ) -> Result<(), Error> {
        let MatchedDevice { quirk, policy } = matched;
        // Most ports of a modem carry no unlock. Their events do not wait for the lock.
        if let Scope::Port(name) = self.scope {
            if !unlock_ports(self.device, quirk)?.iter().any(|port| port.name == *name) {
                return Ok(());
            }
        }
        let Some(mut state) = self.lock(quirk, recorder, successor) else { return Ok(()) };
        record::drop_earlier(self.device, state.results());
        recorder.report_return(&mut state);
        // With another message from the policy, the device becomes something else.
        if policy.huawei.value.method().is_none() {
            recorder.set_becomes(quirk.becomes(self.device.id));
        }
        if !quirk.is_install_mode() {
            state.memory().attempts.clear(StepKind::Switch);
        }
        let plan = self.plan(matched);
        // Without its serial number, the guard would take the device for another one.
        let (identity, plan) = match plan.and_then(|plan| Ok((guard::identity(self, &plan)?, plan))) {
            Ok(found) => found,
            Err(gone @ DeviceError::Gone { .. }) => return self.end_without_device(gone, &mut state, recorder),
            Err(held @ DeviceError::Held { .. }) => {
                recorder.report(Some(&mut state), self.first_step(quirk), conclude(unfinished(&held), successor));
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let mut locked = LockedRun {
            run: *self,
            quirk,
            identity,
            state,
            recorder,
            successor,
            configuration: None,
            has_child: false,
        };
        locked.carry_out(plan);
        locked.unlock_after_configuration(matched)?;
        locked.end();
        Ok(())
    }

    /// Takes the lock of the port. `None` if another run has it, which is reported. If that run has another task, the
    /// successor of an event waits for the lock.
    fn lock(&self, quirk: &Quirk, recorder: &mut Recorder, successor: Option<&str>) -> Option<PortState> {
        let holder = Holder { enumeration: self.device.enumeration_id(), task: self.scope.task() };
        // The process that continues after an event waits: the other run may not have seen the port of the event.
        let waits = self.trigger == Trigger::Unit;
        match PortState::lock_or_in_memory(self.root, &self.device.port, &holder, self.deadline, waits) {
            Ok(state) => Some(state),
            Err(error) => {
                // Only a run with the same task does the work of this event.
                let is_for_successor =
                    self.trigger.is_event() && matches!(error, StateError::Busy { same_task: false });
                let outcome = match error.to_string() {
                    text if is_for_successor => Outcome::Unfinished(Failure::new(text, APPLY)),
                    text if self.trigger.is_verb() => Outcome::Busy(Failure::new(text, AFTER_OTHER_RUN).into()),
                    text => Outcome::Busy(text.into()),
                };
                recorder.report(None, self.first_step(quirk), conclude(outcome, successor));
                None
            }
        }
    }

    fn first_step(&self, quirk: &Quirk) -> StepKind {
        if self.scope.is_unlock() {
            StepKind::FccAuth
        } else {
            quirk.steps.first().map_or(StepKind::Configuration, Step::kind)
        }
    }

    /// Ends the run on a device that has left. If an event sent the switch message, and this process had to watch the
    /// device, the switch is done.
    fn end_without_device(
        &self,
        gone: DeviceError,
        state: &mut PortState,
        recorder: &mut Recorder,
    ) -> Result<(), Error> {
        let enumeration = self.device.enumeration_id();
        let is_sent = state.memory().switched.as_ref().is_some_and(|sent| sent.enumeration == enumeration);
        if self.trigger != Trigger::Unit || !is_sent {
            return Err(gone.into());
        }
        let left = Conclusion::new(StepResult::Done, execute::LEFT.to_owned());
        recorder.report(Some(state), StepKind::Switch, left);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::clock::now;
    use crate::host::root::tests::TempRoot;
    use crate::host::state::WINDOW;
    use std::fs;

    #[test]
    fn a_person_who_named_a_modem_learns_that_it_disconnected() {
        let root = TempRoot::new("gone");
        let quirks = "schema = 1\n[[device]]\nid = \"1199:68a2\"\nname = \"A\"\nsteps = [{ configuration = 2 }]\n";
        root.write("/etc/wwan-quirks/quirks.d/own.toml", quirks);
        let reports = [Trigger::Named, Trigger::Command, Trigger::Unit].map(|trigger| {
            for (name, text) in [("idVendor", "1199\n"), ("idProduct", "68a2\n"), ("bConfigurationValue", "1\n")] {
                root.write(&format!("/sys/devices/usb1/1-1/{name}"), text);
            }
            let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
            fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
            serve(&root, &Journal::open(&root), &device, &Scope::All, trigger)
        });
        let errors = reports.map(|report| report.errors.iter().map(Error::chain).collect::<Vec<String>>());
        assert_eq!(errors, [vec!["the device at 1-1 is gone".to_owned()], vec![], vec![]]);
    }

    #[test]
    fn a_process_that_continues_after_an_event_reports_a_device_that_left_meanwhile() {
        let root = TempRoot::new("left");
        // Only one of the two switches needs the list of interfaces.
        let control = "{ control = { request-type = 0x40, request = 0x70, value = 4 } }";
        for (switch, is_sent) in [("\"detach\", ", true), ("\"detach\", ", false), ("", true), ("", false)] {
            let steps = format!("steps = [{{ switch = [{switch}{control}] }}]\n");
            let quirk = format!("schema = 1\n[[device]]\nid = \"1199:0fff\"\nname = \"A\"\n{steps}");
            root.write("/etc/wwan-quirks/quirks.d/own.toml", &quirk);
            let device = Device::on_port(&root, "1199", "0fff");
            let enumeration = device.enumeration_id();
            let sent = enumeration + u64::from(!is_sent);
            let acted = format!(
                r#"{{"identity":{{"id":"1199:0fff","serial":"S","enumeration":{enumeration},"number":null}},
                   "until":{},"count":3,"returned":false,"gave_up":false}}"#,
                (now() + WINDOW).as_secs_f64()
            );
            let switched = format!(r#"{{"enumeration":{sent},"answer":""}}"#);
            root.write(
                "/run/wwan-quirks/lock/1-1",
                format!(r#"{{"switched":{switched},"acted":{{"switch":{acted}}}}}"#),
            );
            fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
            let steps = serve(&root, &Journal::open(&root), &device, &Scope::All, Trigger::Unit).steps;
            let steps: Vec<_> = steps.into_iter().map(|step| (step.result, step.message.text)).collect();
            let left = (StepResult::Done, execute::LEFT.to_owned());
            assert_eq!(steps, is_sent.then_some(left).into_iter().collect::<Vec<_>>(), "{switch:?} {is_sent}");
            // The guard still counts this device.
            let record = fs::read_to_string(root.at("/run/wwan-quirks/lock/1-1")).unwrap();
            assert!(record.contains(r#""count":3"#) && record.contains(r#""serial":"S""#), "{record}");
        }
    }

    #[test]
    fn a_port_that_carries_no_unlock_has_no_result_and_takes_no_lock() {
        let root = TempRoot::new("other-port");
        let quirks = "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = \"sierra\" }]\n";
        root.write("/etc/wwan-quirks/quirks.d/own.toml", quirks);
        root.write("/etc/wwan-quirks/config.toml", "fcc-auth = false\n");
        root.write("/run/systemd/system/unit", "");
        root.write("/sys/devices/usb1/1-1/1-1:1.8/usbmisc/cdc-wdm0/dev", "180:0\n");
        let device = Device::on_port(&root, "1199", "9071");
        let event = |port: &str| {
            let steps =
                serve(&root, &Journal::open(&root), &device, &Scope::Port(port.to_owned()), Trigger::Uevent).steps;
            let results: Vec<StepResult> = steps.iter().map(|step| step.result).collect();
            (results, root.at("/run/wwan-quirks/lock/1-1").exists())
        };
        assert_eq!(event("ttyUSB2"), (vec![], false));
        assert_eq!(event("cdc-wdm0"), (vec![StepResult::Suppressed], true));
    }

    #[test]
    fn an_event_that_waited_for_the_lock_acts_on_the_ports_that_the_other_run_left() {
        let root = TempRoot::new("waited");
        let quirks = "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = \"sierra\" }]\n";
        root.write("/etc/wwan-quirks/quirks.d/own.toml", quirks);
        root.write("/etc/wwan-quirks/config.toml", "[timeouts]\nhook = 30\n");
        root.write("/run/systemd/system/unit", "");
        let port = "/sys/devices/usb1/1-1/1-1:1.8/usbmisc/cdc-wdm0";
        root.write(&format!("{port}/dev"), "180:0\n");
        let device = Device::on_port(&root, "1199", "9071");
        let scope = Scope::Port("cdc-wdm0".to_owned());
        let event = || serve(&root, &Journal::open(&root), &device, &scope, Trigger::Uevent).steps;
        assert_eq!(event().len(), 1);

        let deadline = Deadline::after(Duration::from_secs(30));
        let holder = Holder { enumeration: device.enumeration_id(), task: Task::All };
        let lock = PortState::lock(&root, &device.port, &holder, deadline).unwrap();
        let waits = || {
            let opened =
                fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
            opened.filter(|path| *path == root.at("/run/wwan-quirks/lock/1-1")).count() == 2
        };
        let steps = std::thread::scope(|threads| {
            let event = threads.spawn(event);
            while !waits() {
                assert!(!deadline.has_passed() && !event.is_finished());
                std::thread::yield_now();
            }
            fs::remove_dir_all(root.at(port)).unwrap();
            drop(lock);
            event.join().unwrap()
        });
        assert_eq!(steps, []);
    }
}
