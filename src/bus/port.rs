//! The location of a device on its bus.

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

use super::id::Bus;

/// The location of a device, in the kernel's notation. USB: the bus, then the port on every hub (`1-1.2`). PCI: domain,
/// bus, device and function (`0000:08:00.0`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    bus: Bus,
    name: String,
}

impl Port {
    /// `text` as a port, if it has the form of a USB port or of a PCI address.
    pub fn new(text: &str) -> Option<Port> {
        let bus = if is_usb_port(text) {
            Bus::Usb
        } else if is_pci_address(text) {
            Bus::Pci
        } else {
            return None;
        };
        Some(Port { bus, name: text.to_owned() })
    }

    pub fn bus(&self) -> Bus {
        self.bus
    }

    /// Whether `other` is on the same USB bus, which numbers its devices in sequence.
    pub(crate) fn shares_bus(&self, other: &Port) -> bool {
        let number = |port: &Port| port.name.split_once('-').map(|(number, _)| number.to_owned());
        self.bus == Bus::Usb && number(self) == number(other)
    }

    pub fn as_str(&self) -> &str {
        &self.name
    }
}

fn is_usb_port(text: &str) -> bool {
    // Buses and ports are numbered from 1, and the kernel writes no leading zero.
    let is_decimal = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()) && !part.starts_with('0');
    let number = |part: &str| (1..=3).contains(&part.len()) && is_decimal(part);
    let is_path = |path: &str| path.split('.').count() <= 7 && path.split('.').all(number);
    text.split_once('-').is_some_and(|(bus, path)| number(bus) && is_path(path))
}

/// The kernel writes `%04x:%02x:%02x.%d`. A domain behind a controller of its own (VMD) has five digits.
fn is_pci_address(text: &str) -> bool {
    let is_hex = |part: &str, lengths: RangeInclusive<usize>| {
        lengths.contains(&part.len()) && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let parts: Vec<&str> = text.split(':').collect();
    let [domain, bus, slot] = parts.as_slice() else { return false };
    let (device, function) = slot.split_once('.').unwrap_or_default();
    is_hex(domain, 4..=8) && is_hex(bus, 2..=2) && is_hex(device, 2..=2) && matches!(function.as_bytes(), [b'0'..=b'7'])
}

impl Serialize for Port {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_port_determines_its_bus() {
        for text in ["1-1", "1-1.2", "12-3.4.5.6.7.8.9"] {
            assert_eq!(Port::new(text).map(|port| port.bus()), Some(Bus::Usb), "{text}");
        }
        for text in ["0000:08:00.0", "10000:e1:00.0", "0001:08:1f.7"] {
            assert_eq!(Port::new(text).map(|port| port.bus()), Some(Bus::Pci), "{text}");
            assert_eq!(Port::new(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn malformed_ports_are_refused() {
        for text in [
            "",
            "1",
            "usb1",
            "1-",
            "-1",
            "1-0050",
            "01-1",
            "1-01",
            "1-1.02",
            "1-0",
            "0-1",
            "1-1:1.0",
            "1-1/2",
            "1-1.2.3.4.5.6.7.8",
            "08:00.0",
            "0000:08:00",
            "0000:08:00.8",
            "0000:08:00.0.0",
            "0000.08:00:0",
            "0000:8:00.0",
            "0000:08:00.00",
            "0000:0G:00.0",
            "0:0:0:0",
            "000000000:08:00.0",
            "pci0000:00",
            "0000:08:00.0:pcie001",
        ] {
            assert_eq!(Port::new(text), None, "{text}");
        }
    }
}
