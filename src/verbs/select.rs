//! Finds the devices that the command line names.

use crate::database::load;
use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::serve::error::Error;
use crate::serve::lookup::{MatchedDevice, lookup};

/// Printed if no device was named, and none has a quirk.
pub(crate) const NO_MODEM: &str = "no known modem is plugged in";

pub(crate) type Devices<'a> = Box<dyn Iterator<Item = Result<Device, DeviceError>> + 'a>;

/// The devices that `names` select, without duplicates. Without names, all devices that are plugged in. Each device is
/// opened when the iterator reaches it: a process may not have as many open files as a machine has devices. A named
/// device that has left in the meantime is an error.
pub(crate) fn devices<'a>(root: &'a Root, names: &[String]) -> Result<Devices<'a>, Error> {
    if names.is_empty() {
        return Ok(Box::new(Device::all(root)?.map(Ok)));
    }
    let mut ports = Vec::new();
    for name in names {
        for port in Device::ports_named(root, name)? {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    let open = |port| match Device::at_port(root, port) {
        Err(DeviceError::NotFound(port)) => Err(DeviceError::Gone { port }),
        opened => opened,
    };
    Ok(Box::new(ports.into_iter().map(open)))
}

/// A device, and what the database says about it.
pub(crate) struct Found {
    pub device: Device,
    pub matched: Option<MatchedDevice>,
    /// All files that concern the device are valid.
    pub complete: bool,
}

/// Looks up a device. Adds the errors to `errors`. `None` if the device cannot be opened.
pub(crate) fn look_up(root: &Root, device: Result<Device, DeviceError>, errors: &mut Vec<Error>) -> Option<Found> {
    let device = device.map_err(|error| errors.push(error.into())).ok()?;
    let (matched, more) = lookup(root, &device);
    let complete = more.is_empty();
    errors.extend(more);
    Some(Found { device, matched, complete })
}

/// Why no quirk can apply to any device: the database is missing or empty.
pub(crate) fn without_database(root: &Root) -> Vec<Error> {
    let (quirks, errors) = load::installed(root);
    errors.into_iter().filter(|_| quirks.is_empty()).map(Error::from).collect()
}

/// The error for a device that was named, and that no quirk applies to.
pub(crate) fn no_quirk(device: &Device) -> Error {
    Error::NoQuirk(format!("{} {}", device.port, device.id))
}
