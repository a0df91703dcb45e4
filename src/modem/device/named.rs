//! The devices that a person names on the command line.

use super::node::{is_cdc_wdm, is_tty, is_wwan_port};
use super::{Device, DeviceError};
use crate::bus::{Bus, DeviceId, Port};
use crate::host::root::Root;

impl Device {
    /// The ports of the devices that `text` names: a port, an ID, the node of a command port, or a usbfs node.
    ///
    /// # Errors
    /// `NoSuchForm` if `text` is none of these, `NotFound` if no device has that name, and `OnPci` if only a PCI device has
    /// that ID.
    pub fn ports_named(root: &Root, text: &str) -> Result<Vec<Port>, DeviceError> {
        let ports_of = |is_meant: &dyn Fn(&Device) -> bool| -> Result<Vec<Port>, DeviceError> {
            Ok(Device::all(root)?.filter(is_meant).map(|device| device.port).collect())
        };
        let not_found = || DeviceError::NotFound(text.to_owned());
        let found = if let Some(port) = Port::new(text) {
            vec![Device::at_port(root, port)?.port]
        } else if let Ok(id) = text.parse::<DeviceId>() {
            let found = ports_of(&|device| device.id == id)?;
            if found.is_empty() && !ports_of(&|device| device.id == id.on_pci())?.is_empty() {
                return Err(DeviceError::OnPci(id));
            }
            found
        } else if let Some((name, class)) = text.strip_prefix("/dev/").and_then(|name| Some((name, class_of(name)?))) {
            let real = root.at(class).join(name).canonicalize().map_err(|_| not_found())?;
            let sys = root.at("/sys").canonicalize().map_err(|_| not_found())?;
            let relative = real.strip_prefix(&sys).map_err(|_| not_found())?;
            vec![Device::at_devpath(root, &format!("/{}", relative.display()))?.port]
        } else if let Some(numbers) = text.strip_prefix("/dev/bus/usb/") {
            let (bus, device) = numbers.split_once('/').ok_or_else(|| DeviceError::NoSuchForm(text.to_owned()))?;
            let wanted = (bus.parse::<u16>().ok(), device.parse::<u16>().ok());
            let here = |device: &Device| (device.decimal("busnum").ok(), device.decimal("devnum").ok());
            let is_usb = |device: &Device| device.id.bus == Bus::Usb;
            ports_of(&|device| is_usb(device) && here(device) == wanted)?
        } else {
            return Err(DeviceError::NoSuchForm(text.to_owned()));
        };
        if found.is_empty() { Err(not_found()) } else { Ok(found) }
    }

    /// The only device that `text` names.
    pub(crate) fn one_named(root: &Root, text: &str) -> Result<Device, DeviceError> {
        match Device::ports_named(root, text)?.as_slice() {
            [port] => Device::at_port(root, port.clone()),
            ports => {
                let ports = ports.iter().map(Port::to_string).collect();
                Err(DeviceError::Ambiguous { name: text.to_owned(), ports })
            }
        }
    }
}

/// The class of a port with this name.
fn class_of(name: &str) -> Option<&'static str> {
    if is_cdc_wdm(name) {
        Some("/sys/class/usbmisc")
    } else if is_tty(name) {
        Some("/sys/class/tty")
    } else if is_wwan_port(name) {
        Some("/sys/class/wwan")
    } else {
        None
    }
}
