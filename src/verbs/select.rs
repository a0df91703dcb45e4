//! Finds the devices that the command line names.

use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::Error;

/// The devices that `names` select, without duplicates. Without names, all devices that are plugged in, each opened
/// when the iterator reaches it.
pub(crate) fn devices<'a>(root: &'a Root, names: &[String]) -> Result<Box<dyn Iterator<Item = Device> + 'a>, Error> {
    if names.is_empty() {
        return Ok(Box::new(Device::all(root)?));
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        for device in Device::named(root, name)? {
            if devices.iter().all(|known| known.port != device.port) {
                devices.push(device);
            }
        }
    }
    Ok(Box::new(devices.into_iter()))
}
