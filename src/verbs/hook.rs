//! `hook`: handles one udev event, described by its environment.

use std::io::Write;

use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::StepResult;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Event;
use crate::serve::{record, serve};

/// Serves the event. Prints the properties that the udev rules import, `WWAN_QUIRKS` and `WWAN_QUIRKS_PORT`, if there
/// is a result. Errors that occur before the modem is known also go to the journal, because udev discards standard
/// error.
pub(crate) fn run(root: &Root, out: &mut impl Write) -> Result<Exit, Error> {
    let journal = Journal::open(root);
    let (event, device) = match find(root) {
        Ok(Some(found)) => found,
        // The event is not for us, or the device has already left. If it returns, its next event serves it.
        Ok(None) | Err(Error::Device(DeviceError::Gone { .. })) => return Ok(Exit::Success),
        Err(error) => {
            if !journal.is_stderr() {
                journal.send(StepResult::Failed, &format!("hook: {}", error.chain()), &[]);
            }
            return Err(error);
        }
    };
    let served = serve(root, &journal, &device, &event.scope, event.trigger);
    let result = served.result();
    if let Some(result) = result {
        // udev may have given up on this event.
        let _ = write!(out, "WWAN_QUIRKS={}\nWWAN_QUIRKS_PORT={}\n", result.name(), device.port);
    }
    Ok(match result {
        // udev discards the output of a program that fails, and the unit must continue. The journal has the failure.
        Some(StepResult::Unfinished) => Exit::Success,
        _ => served.exit(&event.scope, event.trigger),
    })
}

fn find(root: &Root) -> Result<Option<(Event, Device)>, Error> {
    let Some(event) = Event::from_environment()? else { return Ok(None) };
    let device = Device::at_devpath(root, &event.devpath)?;
    let is_ours = !event.only_if_blocked || record::results(root, &device).is_blocked();
    Ok(is_ours.then_some((event, device)))
}
