//! What USB and PCI devices have in common: an ID, and a location on the bus.

mod id;
mod port;

pub(crate) use id::hex;
pub use id::{Bus, DeviceId};
pub use port::Port;
