//! The ports of a modem that accept commands.

use std::path::Path;

use super::node::{ControlPort, is_cdc_wdm, is_tty, is_wwan_port};
use super::{Device, DeviceError, unless_missing};
use crate::bus::Bus;

impl Device {
    /// The `cdc-wdm` ports of a USB device, or the WWAN ports of a PCI device, in the order of their names.
    pub(crate) fn control_ports(&self) -> Result<Vec<ControlPort>, DeviceError> {
        if self.id.bus == Bus::Pci {
            return self.wwan_ports();
        }
        let mut ports = Vec::new();
        for name in self.interface_directories()? {
            let class = Path::new(&name).join("usbmisc");
            for port in self.list(&class).unwrap_or_default().into_iter().filter(|port| is_cdc_wdm(port)) {
                let number = self.number(&class.join(&port).join("dev").display().to_string());
                let Some(number) = unless_missing(number)? else { continue };
                let driver = self.driver(Path::new(&name));
                ports.push(ControlPort { driver, wwan_type: None, name: port, number });
            }
        }
        ports.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(ports)
    }

    fn wwan_ports(&self) -> Result<Vec<ControlPort>, DeviceError> {
        // The modem is down, or no driver has created a port yet.
        let Some(directory) = self.wwan_directory() else { return Ok(Vec::new()) };
        self.wwan_ports_in(&directory, self.bound_driver())
    }

    /// The WWAN ports of a USB device. Since Linux 5.14, each of them is another node for a `cdc-wdm` port, and only
    /// one of the two can be open.
    pub(crate) fn usb_wwan_ports(&self) -> Result<Vec<ControlPort>, DeviceError> {
        let mut ports = Vec::new();
        for name in self.interface_directories()? {
            let class = Path::new(&name).join("wwan");
            for device in self.list(&class).unwrap_or_default() {
                let found = self.wwan_ports_in(&class.join(device), self.driver(Path::new(&name)));
                ports.extend(unless_missing(found)?.unwrap_or_default());
            }
        }
        Ok(ports)
    }

    fn wwan_ports_in(&self, directory: &Path, driver: Option<String>) -> Result<Vec<ControlPort>, DeviceError> {
        let mut ports = Vec::new();
        for name in self.list(directory)?.into_iter().filter(|name| is_wwan_port(name)) {
            let attribute = |attribute| directory.join(&name).join(attribute).display().to_string();
            let Some(wwan_type) = unless_missing(self.attribute(&attribute("type")))? else { continue };
            let Some(number) = unless_missing(self.number(&attribute("dev")))? else { continue };
            ports.push(ControlPort { name, driver: driver.clone(), wwan_type: Some(wwan_type), number });
        }
        ports.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(ports)
    }

    /// The tty of interface `number`. `None` if no driver has created one.
    pub fn tty(&self, number: u8) -> Result<Option<ControlPort>, DeviceError> {
        Ok(self.ttys_of(|interface| interface == number)?.into_iter().next())
    }

    /// The ttys of all interfaces.
    pub(crate) fn ttys(&self) -> Result<Vec<ControlPort>, DeviceError> {
        self.ttys_of(|_| true)
    }

    /// The ttys of the wanted interfaces, at most one for each interface.
    fn ttys_of(&self, is_wanted: impl Fn(u8) -> bool) -> Result<Vec<ControlPort>, DeviceError> {
        let mut ttys = Vec::new();
        for name in self.interface_directories()? {
            let interface = Path::new(&name);
            let found = self.attribute(&format!("{name}/bInterfaceNumber"));
            let Some(found) = unless_missing(found)? else { continue };
            if !u8::from_str_radix(&found, 16).is_ok_and(&is_wanted) {
                continue;
            }
            // usb-serial has a directory for the port between the interface and the class. cdc-acm does not.
            let serial = self.list(interface)?.into_iter().filter(|name| is_tty(name)).map(|name| interface.join(name));
            for directory in serial.chain([interface.to_owned()]) {
                let class = directory.join("tty");
                let names = self.list(&class).unwrap_or_default();
                let Some(name) = names.into_iter().find(|name| is_tty(name)) else { continue };
                let number = self.number(&class.join(&name).join("dev").display().to_string());
                let Some(number) = unless_missing(number)? else { break };
                ttys.push(ControlPort { driver: self.driver(interface), wwan_type: None, name, number });
                break;
            }
        }
        Ok(ttys)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::root::tests::TempRoot;
    use crate::modem::device::DeviceNumber;

    #[test]
    fn ttys_are_found_wherever_their_driver_puts_them() {
        let root = TempRoot::new("ttys");
        for (path, text) in [
            ("idVendor", "1199\n"),
            ("idProduct", "9071\n"),
            ("1-1:1.3/bInterfaceNumber", "03\n"),
            ("1-1:1.3/ttyUSB1/tty/ttyUSB1/dev", "188:1\n"),
            ("1-1:1.2/bInterfaceNumber", "02\n"),
            ("1-1:1.2/ttyUSB0/tty/ttyUSB0/dev", "188:0\n"),
            ("1-1:1.4/bInterfaceNumber", "04\n"),
            ("1-1:1.4/tty/ttyACM0/dev", "166:0\n"),
            ("1-1:1.8/bInterfaceNumber", "08\n"),
        ] {
            root.write(&format!("/sys/devices/usb1/1-1/{path}"), text);
        }
        symlink("/sys/bus/usb/drivers/qcserial", root.at("/sys/devices/usb1/1-1/1-1:1.3/driver")).unwrap();
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        let found = [2, 3, 4, 8, 9].map(|number| device.tty(number));
        let tty = |name: &str, driver: Option<&str>, major, minor| {
            let number = DeviceNumber { major, minor };
            let (name, driver) = (name.to_owned(), driver.map(str::to_owned));
            Some(ControlPort { name, driver, wwan_type: None, number })
        };
        let expected = [
            tty("ttyUSB0", None, 188, 0),
            tty("ttyUSB1", Some("qcserial"), 188, 1),
            tty("ttyACM0", None, 166, 0),
            None,
            None,
        ];
        assert_eq!(found.map(Result::unwrap), expected);
    }

    /// The kernel creates `type` before `dev`. The event of one port must not fail because of the next port.
    #[test]
    fn a_port_that_is_not_complete_yet_is_skipped() {
        let root = TempRoot::new("incomplete");
        for (path, text) in [
            ("pci0000:00/0000:08:00.0/vendor", "0x1eac\n"),
            ("pci0000:00/0000:08:00.0/device", "0x1007\n"),
            ("pci0000:00/0000:08:00.0/mhi0/wwan/wwan0/wwan0at0/type", "AT\n"),
            ("pci0000:00/0000:08:00.0/mhi0/wwan/wwan0/wwan0at0/dev", "240:0\n"),
            ("pci0000:00/0000:08:00.0/mhi0/wwan/wwan0/wwan0mbim0/type", "MBIM\n"),
            ("usb1/1-1/idVendor", "1199\n"),
            ("usb1/1-1/idProduct", "9071\n"),
            ("usb1/1-1/1-1:1.2/bInterfaceNumber", "02\n"),
            ("usb1/1-1/1-1:1.2/ttyUSB0/tty/ttyUSB0/dev", "188:0\n"),
            ("usb1/1-1/1-1:1.3/bInterfaceNumber", "03\n"),
            ("usb1/1-1/1-1:1.8/bInterfaceNumber", "08\n"),
            ("usb1/1-1/1-1:1.8/usbmisc/cdc-wdm0/dev", "180:0\n"),
        ] {
            root.write(&format!("/sys/devices/{path}"), text);
        }
        for directory in [
            "pci0000:00/0000:08:00.0/mhi0/wwan/wwan0/wwan0qcdm0",
            "usb1/1-1/1-1:1.3/ttyUSB1/tty/ttyUSB1",
            "usb1/1-1/1-1:1.9",
            "usb1/1-1/1-1:1.10/usbmisc/cdc-wdm1",
        ] {
            fs::create_dir_all(root.at("/sys/devices").join(directory)).unwrap();
        }
        let device = |path: &str| Device::at_devpath(&root, path).unwrap();
        let (pci, usb) = (device("/devices/pci0000:00/0000:08:00.0"), device("/devices/usb1/1-1"));
        let names = |ports: Result<Vec<ControlPort>, DeviceError>| {
            ports.unwrap().into_iter().map(|port| port.name).collect::<Vec<String>>()
        };
        assert_eq!(names(pci.control_ports()), ["wwan0at0"]);
        assert_eq!(names(usb.control_ports()), ["cdc-wdm0"]);
        assert_eq!(names(usb.ttys()), ["ttyUSB0"]);
        assert_eq!(usb.interfaces().unwrap().iter().map(|found| found.number).collect::<Vec<u8>>(), [2, 3, 8]);
        // Without the device, there is no result.
        fs::remove_dir_all(usb.path()).unwrap();
        assert!(matches!(usb.control_ports(), Err(DeviceError::Gone { .. })));
    }
}
