//! What USB and PCI devices have in common: an ID, and a location on the bus.

mod id;
mod port;

use std::fmt;

use serde::Serialize;

pub use id::DeviceId;
pub(crate) use id::hex;
pub use port::Port;

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
