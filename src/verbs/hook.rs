//! `hook`: serves one udev event.

use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox;
use crate::modem::device::{Device, DeviceError};
use crate::outcome::StepResult;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Event;
use crate::serve::run::Run;

/// Serves the event that the environment describes. What goes wrong before the modem is known is told in the journal
/// as well as to the caller, for udev throws away what a helper says.
pub fn run(root: &Root) -> Result<Exit, Error> {
    sandbox::limit();
    let journal = Journal::open(root);
    let device = match device(root) {
        Ok(Some(found)) => found,
        // Not for us, or gone before we looked: its next event is its own.
        Ok(None) | Err(Error::Device(DeviceError::Gone { .. })) => return Ok(Exit::Fine),
        Err(error) => {
            if !matches!(journal, Journal::Stderr) {
                journal.send(StepResult::Failed, &format!("hook: {}", error.chain()), &[]);
            }
            return Err(error);
        }
    };
    let (event, device) = device;
    Ok(Run { root, journal, echo: None, by_hand: false, asked: event.asked, last: true, start: None, opted_in: None }
        .serve(&device, &event.occasion))
}

fn device(root: &Root) -> Result<Option<(Event, Device)>, Error> {
    let Some(event) = Event::from_environment()? else { return Ok(None) };
    let device = Device::at_devpath(root, &event.devpath)?;
    Ok(Some((event, device)))
}
