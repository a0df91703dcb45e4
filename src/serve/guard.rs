//! The guard against loops: whether an action may run. `docs/architecture.md` says what the guard can see.

use std::time::Duration;

use crate::host::clock::now;
use crate::host::deadline::Deadline;
use crate::host::state::{ATTEMPTS, Attempt, Identity, Results, numbers_elsewhere};
use crate::modem::device::{Device, DeviceError};
use crate::outcome::{Failure, Outcome, StepKind, StepResult};
use crate::serve::conclusion::{Conclusion, conclude};
use crate::serve::locked_run::LockedRun;
use crate::serve::plan::{Action, PlanStep};
use crate::serve::run::Run;
use crate::serve::trigger::Trigger;

/// If no state can be kept, a guarded run acts only on a device that has been connected for this long.
/// This slows down a loop that the guard cannot count.
const SETTLED: Duration = Duration::from_secs(5);
/// How often a waiting run checks whether the device is still connected.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(100);

/// What the guard decides about an action.
pub(super) enum Verdict {
    /// `returned`: the device has returned from an earlier attempt.
    Act { returned: bool },
    /// The action does not run, for this reason.
    Leave(Conclusion),
    /// The action does not run, and this device was already reported.
    Reported,
}

/// Identifies the device for the guard. Reads the serial number, whose attribute may block, only if the plan acts.
pub(super) fn identity(run: &Run, plan: &[PlanStep]) -> Result<Identity, DeviceError> {
    let acts = plan.iter().any(|step| matches!(step, PlanStep::Run(_)));
    Ok(Identity {
        id: run.device.id,
        serial: if acts { run.device.serial_by(run.deadline)? } else { None },
        enumeration: run.device.enumeration_id(),
        number: run.device.bus_number(),
    })
}

impl LockedRun<'_, '_> {
    /// Records an attempt of `action`, and decides whether it runs. May wait before that, but not beyond `deadline`.
    pub(super) fn judge(&mut self, action: &Action, deadline: Deadline) -> Verdict {
        let Run { device, trigger, .. } = self.run;
        let step = action.kind();
        let elsewhere = || numbers_on_other_ports(&self.run);
        match self.state.memory().attempts.record(step, &self.identity, now(), !trigger.is_guarded(), elsewhere) {
            // A drive whose driver is attached again has a new SCSI event.
            Attempt::Repeat { .. } if step == StepKind::Switch && trigger == Trigger::Uevent => Verdict::Reported,
            // The refusal made the kernel set the earlier configuration again, and its port has a new event.
            Attempt::Repeat { .. } if trigger == Trigger::Unit && was_refused(action, self.state.results()) => {
                Verdict::Reported
            }
            Attempt::GiveUp { is_reported: true } => Verdict::Reported,
            Attempt::GiveUp { is_reported: false } => {
                let text = format!(
                    "the device came back in the same state {ATTEMPTS} times in a row; `wwan-quirks apply {}` tries again",
                    device.port
                );
                Verdict::Leave(Conclusion::new(StepResult::LeftAlone, text))
            }
            attempt => self
                .settle(step, deadline)
                .map_or_else(Verdict::Leave, |()| Verdict::Act { returned: attempt.returned() }),
        }
    }

    /// Saves the attempt first: it counts even if the modem brings down this process. If it cannot be saved, waits until
    /// the device has been connected for a while. Fails if the device is left to the unit.
    fn settle(&mut self, step: StepKind, deadline: Deadline) -> Result<(), Conclusion> {
        let Run { device, trigger, .. } = self.run;
        self.state.keep();
        if self.state.is_kept() {
            return Ok(());
        }
        // Without state, the process that continues cannot know that the event has sent the switch message.
        let is_for_successor = step == StepKind::Switch && trigger.is_event();
        match settling(trigger, device.connected_for()).filter(|_| !is_for_successor) {
            Some(wait) => {
                wait_while_present(device, deadline.at_most(wait));
                Ok(())
            }
            None => {
                let reason = "the state of the port cannot be saved";
                let failure = Failure::new(reason, "see the earlier warning for the cause");
                Err(conclude(Outcome::Unfinished(failure), self.successor))
            }
        }
    }
}

/// Ends when the device leaves: while the unit of this port is active, the next device cannot start it.
fn wait_while_present(device: &Device, until: Deadline) {
    while !until.has_passed() && device.is_present() {
        until.sleep(PRESENCE_INTERVAL);
    }
}

/// The numbers of the devices on other ports of the bus. A device that keeps coming back there may be away.
fn numbers_on_other_ports(run: &Run) -> Vec<u16> {
    let port = &run.device.port;
    let mut numbers = numbers_elsewhere(run.root, port);
    let is_elsewhere = |other: &Device| other.port.shares_bus(port) && other.port != *port;
    let devices = Device::all(run.root).into_iter().flatten().filter(is_elsewhere);
    numbers.extend(devices.filter_map(|device| device.bus_number()));
    numbers
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
    matches!(action, Action::Configure { from: Some(_), .. }) && results.has_failed(StepKind::Configuration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::StoppedClock;
    use crate::host::root::tests::TempRoot;
    use crate::serve::event::Scope;

    #[test]
    fn the_numbers_of_devices_on_other_ports_of_the_bus_are_known() {
        let root = TempRoot::new("numbers");
        for (bus, port, number) in [(1, "1-1", "7"), (1, "1-2", "8"), (1, "1-3.1", "9"), (2, "2-1", "10")] {
            let device = format!("/sys/devices/usb{bus}/{port}");
            for (name, text) in [("idVendor", "1199"), ("idProduct", "9071"), ("devnum", number)] {
                root.write(&format!("{device}/{name}"), format!("{text}\n"));
            }
            let link = root.at(format!("/sys/bus/usb/devices/{port}"));
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(format!("../../../devices/usb{bus}/{port}"), link).unwrap();
        }
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        let (scope, deadline) = (Scope::Device, Deadline::after(Duration::ZERO));
        let run = Run { root: &root, device: &device, scope: &scope, trigger: Trigger::Uevent, deadline };
        assert_eq!(numbers_on_other_ports(&run), [8, 9]);
    }

    #[test]
    fn a_wait_ends_when_the_device_leaves() {
        let root = TempRoot::new("settles");
        let device = Device::on_port(&root, "1199", "0fff");
        let waited = || {
            let clock = StoppedClock::stop();
            wait_while_present(&device, Deadline::after(SETTLED));
            clock.elapsed()
        };
        assert_eq!(waited(), SETTLED);
        std::fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
        assert_eq!(waited(), Duration::ZERO);
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
