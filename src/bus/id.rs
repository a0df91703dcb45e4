//! The buses, and the vendor and product IDs of their devices.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The bus that a modem is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    Usb,
    Pci,
}

impl fmt::Display for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bus::Usb => "USB",
            Bus::Pci => "PCI",
        })
    }
}

/// The prefix of the ID of a PCI device.
const PCI: &str = "pci:";

/// The vendor and product IDs of a device, written as four hex digits each: `1199:0fff` on USB, `pci:1eac:1001` on PCI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId {
    pub bus: Bus,
    pub vendor: u16,
    /// PCI calls this the device ID.
    pub product: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a device ID: write four hex digits, a colon, four hex digits, like \"1199:9071\", or \"pci:1eac:1001\" for PCI"
)]
pub struct NoDeviceId(pub String);

impl DeviceId {
    /// The PCI ID with the same numbers, for messages about a missing `pci:`.
    pub(crate) fn on_pci(self) -> DeviceId {
        DeviceId { bus: Bus::Pci, ..self }
    }

    /// The ID with its digits in lower case and in upper case. The name of the bus is always in lower case.
    pub(crate) fn forms(self) -> [String; 2] {
        let DeviceId { bus, vendor, product } = self;
        let prefix = if bus == Bus::Pci { PCI } else { "" };
        [format!("{prefix}{vendor:04x}:{product:04x}"), format!("{prefix}{vendor:04X}:{product:04X}")]
    }
}

impl FromStr for DeviceId {
    type Err = NoDeviceId;

    fn from_str(text: &str) -> Result<DeviceId, NoDeviceId> {
        let (bus, id) = text.strip_prefix(PCI).map_or((Bus::Usb, text), |id| (Bus::Pci, id));
        id.split_once(':')
            .and_then(|(vendor, product)| Some(DeviceId { bus, vendor: hex(vendor)?, product: hex(product)? }))
            .ok_or_else(|| NoDeviceId(text.to_owned()))
    }
}

impl Serialize for DeviceId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DeviceId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<DeviceId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lower, _] = self.forms();
        f.write_str(&lower)
    }
}

/// Exactly four hex digits.
pub(crate) fn hex(digits: &str) -> Option<u16> {
    let is_hex = digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        let id: DeviceId = "1199:0FFF".parse().unwrap();
        assert_eq!(id, DeviceId { bus: Bus::Usb, vendor: 0x1199, product: 0x0fff });
        assert_eq!(
            (id.to_string(), id.forms()),
            ("1199:0fff".to_owned(), ["1199:0fff", "1199:0FFF"].map(str::to_owned))
        );
        let id: DeviceId = "pci:1EAC:100d".parse().unwrap();
        assert_eq!(id, DeviceId { bus: Bus::Pci, vendor: 0x1eac, product: 0x100d });
        assert_eq!(id.forms(), ["pci:1eac:100d", "pci:1EAC:100D"]);
    }

    #[test]
    fn malformed_ids_are_refused() {
        for text in ["", "1199", "1199:", "1199:fff", "1199:+fff", "11990fff", "1199:0fff:1", "119g:0fff", "1199:00fff"]
        {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
            assert!(format!("pci:{text}").parse::<DeviceId>().is_err(), "pci:{text}");
        }
        for text in ["pci:", "PCI:1199:0fff", "usb:1199:0fff", "pci:pci:1199:0fff"] {
            assert!(text.parse::<DeviceId>().is_err(), "{text}");
        }
    }
}
