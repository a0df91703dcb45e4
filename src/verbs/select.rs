//! Which devices a person means.

use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::Error;
use crate::serve::lookup::lookup;

/// The devices that `names` mean, each once, or all that the database knows.
pub fn devices(root: &Root, names: &[String]) -> Result<Vec<Device>, Error> {
    if names.is_empty() {
        let is_known = |device: &Device| {
            let (matched, errors) = lookup(root, device);
            matched.is_some() || !errors.is_empty()
        };
        return Ok(Device::all(root)?.filter(is_known).collect());
    }
    let mut devices: Vec<Device> = Vec::new();
    for name in names {
        for device in Device::named(root, name)? {
            if devices.iter().all(|known| known.port != device.port) {
                devices.push(device);
            }
        }
    }
    Ok(devices)
}
