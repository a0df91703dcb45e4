//! Finds the devices that the command line names.

use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::Error;

/// The devices that `names` select, without duplicates. Without names, all devices that are plugged in. Each device is
/// opened when the iterator reaches it: a process may not have as many open files as a machine has devices.
pub(crate) fn devices<'a>(root: &'a Root, names: &[String]) -> Result<Box<dyn Iterator<Item = Device> + 'a>, Error> {
    if names.is_empty() {
        return Ok(Box::new(Device::all(root)?));
    }
    let mut ports = Vec::new();
    for name in names {
        for port in Device::named(root, name)? {
            if !ports.contains(&port) {
                ports.push(port);
            }
        }
    }
    // A device that has left meanwhile is skipped.
    let open = |port| Device::at_port(root, port).inspect_err(|error| log::warn!("{error}")).ok();
    Ok(Box::new(ports.into_iter().filter_map(open)))
}
