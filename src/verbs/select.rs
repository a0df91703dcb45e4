//! Finds the devices that the command line names.

use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::serve::error::Error;

pub(crate) type Devices<'a> = Box<dyn Iterator<Item = Result<Device, DeviceError>> + 'a>;

/// The devices that `names` select, without duplicates. Without names, all devices that are plugged in. Each device is
/// opened when the iterator reaches it: a process may not have as many open files as a machine has devices. A named
/// device that has left meanwhile is an error.
pub(crate) fn devices<'a>(root: &'a Root, names: &[String]) -> Result<Devices<'a>, Error> {
    if names.is_empty() {
        return Ok(Box::new(Device::all(root)?.map(Ok)));
    }
    let mut ports = Vec::new();
    for name in names {
        for port in Device::named(root, name)? {
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
