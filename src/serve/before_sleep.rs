//! The run before sleep.

use crate::bus::Bus;
use crate::host::deadline::Deadline;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox;
use crate::host::state::{Holder, PortState, Task};
use crate::modem::access::Sharing;
use crate::modem::device::Device;
use crate::outcome::{StepKind, StepResult};
use crate::serve::conclusion::Conclusion;
use crate::serve::lookup::{MatchedDevice, lookup};
use crate::serve::query::query;
use crate::serve::record::Recorder;
use crate::serve::trigger::{BEFORE_SLEEP, Trigger};

/// Records whether the unlocked radio is off, so that it stays off after sleep. Sends no unlock.
///
/// Queries a modem on PCI only through a proxy. Otherwise, opening the port may block in the kernel for many seconds,
/// which would delay sleep and block the freezer.
pub(crate) fn before_sleep(root: &Root, journal: &Journal, device: &Device) {
    let deadline = Deadline::after(BEFORE_SLEEP);
    let _watchdog = sandbox::watchdog(2 * BEFORE_SLEEP);
    let (Some(MatchedDevice { quirk, .. }), errors) = lookup(root, device) else { return };
    if !errors.is_empty() || quirk.procedure().is_none() {
        return;
    }
    let is_pci = device.id.bus == Bus::Pci;
    let sharing = if is_pci { Sharing::Proxied } else { Sharing::Possible };
    let mut recorder = Recorder::new(journal, device, quirk.name_of(device.id), Trigger::Unit);
    let holder = Holder { enumeration: device.enumeration_id(), task: Task::BeforeSleep };
    let Ok(mut state) = PortState::lock(root, &device.port, &holder, deadline) else { return };
    if state.memory().unlocked != Some(device.enumeration_id()) {
        return;
    }
    // The modem has not crashed after the unlock. If it returns from sleep as a new device, that is no crash either.
    state.memory().attempts.clear(StepKind::FccAuth);
    match query(root, device, &quirk, sharing, deadline) {
        Ok(radio) if radio.operating_mode.is_low_power() => {
            state.memory().switched_off = Some(device.enumeration_id());
        }
        Ok(_) => state.memory().switched_off = None,
        Err(reason) if is_pci => log::debug!("{}: {reason}", device.port),
        Err(reason) => {
            let text = format!("the radio state could not be read before sleep: {reason}");
            recorder.report(None, StepKind::FccAuth, Conclusion::new(StepResult::Unfinished, text));
        }
    }
}
