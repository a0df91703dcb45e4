//! The run of `composition`. The plan decides only whether the conversation with the modem can start. The result of a
//! change is recorded like that of every other step.

use std::time::Duration;

use crate::database::compositions::Compositions;
use crate::database::policy::Policy;
use crate::database::quirks::Quirk;
use crate::host::deadline::Deadline;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::state::{Holder, PortState, Task};
use crate::modem::device::Device;
use crate::outcome::{Outcome, StepKind, StepResult};
use crate::serve::UNNAMED;
use crate::serve::conclusion::conclude;
use crate::serve::error::Error;
use crate::serve::lookup::lookup;
use crate::serve::plan::plan_composition;
use crate::serve::record::{self, Recorder, StepReport};
use crate::serve::trigger::Trigger;
use crate::steps::composition::{self, Exchange, Request};

/// How long a finished run waits for the lock of the port to record its result.
const RECORDING: Duration = Duration::from_secs(10);

/// One conversation with the modem.
pub(crate) struct CompositionReport {
    pub device: Device,
    /// The name in the database, or the modem's `product` string, or [`UNNAMED`].
    pub name: String,
    /// `None` if it failed.
    pub exchange: Option<Exchange>,
    /// `None` if the composition was only read.
    pub report: Option<StepReport>,
}

/// Shows the composition of `device`, or sets the requested one. Sets nothing if there are errors, because the file with
/// the error may be about this modem.
pub(crate) fn serve_composition(
    root: &Root,
    device: Device,
    request: &Request,
) -> (Vec<CompositionReport>, Vec<Error>) {
    let (compositions, errors) = Compositions::load(root);
    let mut errors: Vec<Error> = errors.into_iter().map(Error::from).collect();
    let (mut all, mut next) = (Vec::new(), Some(device));
    while let Some(device) = next.take() {
        let (matched, invalid) = lookup(root, &device);
        errors.extend(invalid);
        if matched.is_none() {
            // The lookup has read the policy only for a modem with a quirk.
            errors.extend(Policy::load(root).1.into_iter().map(Error::from));
        }
        if request.wanted.is_some() && !errors.is_empty() {
            break;
        }
        let product = || device.attribute("product").unwrap_or_else(|_| UNNAMED.to_owned());
        let quirk = matched.map(|matched| matched.quirk);
        let name = quirk.as_ref().map_or_else(product, |quirk| quirk.name_of(device.id).to_owned());
        let is_in_install_mode = quirk.is_some_and(|quirk| is_in_install_mode(&device, &quirk));
        let has_family = compositions.knows(device.id);
        let (exchange, outcome) = match plan_composition(device.id, &device.port, is_in_install_mode, has_family) {
            Ok(()) => composition::run(root, &device, &compositions, request),
            Err(failure) => (None, Some(Outcome::Failed(failure))),
        };
        let report = outcome.and_then(|outcome| match request.wanted {
            Some(_) => record(root, &device, &name, outcome),
            // A failed read says nothing about an earlier change, and concerns only the caller.
            None => {
                let ended = conclude(outcome, None);
                Some(StepReport { step: StepKind::Composition, result: ended.result, message: ended.message })
            }
        });
        let is_done = report.as_ref().is_some_and(|report| report.result == StepResult::Done);
        if is_done && exchange.as_ref().is_some_and(|exchange| exchange.is_intermediate) {
            match Device::at_port(root, device.port.clone()) {
                Ok(returned) => next = Some(returned),
                Err(error) => errors.push(error.into()),
            }
        }
        all.push(CompositionReport { device, name, exchange, report });
    }
    (all, errors)
}

/// Some modems have the same ID in modem mode, and then have ports.
fn is_in_install_mode(device: &Device, quirk: &Quirk) -> bool {
    let ports = [device.control_ports(), device.ttys()];
    quirk.is_install_mode() && ports.iter().all(|ports| ports.as_ref().is_ok_and(Vec::is_empty))
}

fn record(root: &Root, device: &Device, name: &str, outcome: Outcome) -> Option<StepReport> {
    let journal = Journal::open(root);
    let mut recorder = Recorder::new(&journal, device, name, Trigger::Named);
    let holder = Holder { enumeration: device.enumeration_id(), task: Task::Composition };
    let mut state = match outcome {
        // The run did not get the lock, and would wait for it again.
        Outcome::Busy(_) => None,
        _ => PortState::lock(root, &device.port, &holder, Deadline::after(RECORDING))
            .inspect_err(|error| {
                let port = &device.port;
                log::warn!(
                    "{port}: `wwan-quirks status` will not show this result: {error}; \
                     run `wwan-quirks composition {port}` to see which composition is set"
                );
            })
            .ok(),
    };
    // Events of a modem that has restarted may have recorded results.
    if let (Some(state), Ok(present)) = (&mut state, Device::at_port(root, device.port.clone())) {
        record::drop_earlier(&present, state.results());
    }
    recorder.report(state.as_mut(), StepKind::Composition, conclude(outcome, None));
    if let Some(mut state) = state {
        state.keep();
    }
    recorder.finish().steps.pop()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Port;
    use crate::host::root::tests::TempRoot;
    use crate::host::state::peek;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn the_results_of_the_present_device_are_kept_and_those_of_earlier_ones_are_dropped() {
        let root = TempRoot::new("composition");
        let directory = "/sys/devices/usb1/1-1";
        let plug = |product: &str| {
            // Keep the directory of the device before, so that the inode differs.
            let _ = fs::rename(root.at(directory), root.at("/sys/before"));
            root.write(&format!("{directory}/idVendor"), "2c7c\n");
            root.write(&format!("{directory}/idProduct"), product);
            Device::at_port(&root, Port::new("1-1").unwrap()).unwrap()
        };
        fs::create_dir_all(root.at("/sys/bus/usb/devices")).unwrap();
        symlink("../../../devices/usb1/1-1", root.at("/sys/bus/usb/devices/1-1")).unwrap();
        let before = plug("0125\n");
        let present = plug("6026\n");
        for (enumeration, left) in [(present.enumeration_id(), 2), (before.enumeration_id(), 1)] {
            let unlocked = r#"{"at":0,"outcome":"done","text":"unlocked","id":"2c7c:6026"}"#;
            root.write(
                "/run/wwan-quirks/state/1-1",
                format!(r#"{{"enumeration":{enumeration},"last":{{"fcc-auth":{unlocked}}}}}"#),
            );
            let report = record(&root, &before, "EC25", Outcome::Done("set".to_owned())).unwrap();
            assert_eq!(report.result, StepResult::Done);
            let last = peek(&root, &present.port).last;
            assert!(last.len() == left && last.contains_key(&StepKind::Composition), "{last:?}");
        }
    }
}
