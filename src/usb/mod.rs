//! The vocabulary of the bus: what a device is called, where it is plugged in, what it offers, and how it is asked.

mod function;
mod id;
mod port;
mod setup;

pub use function::Function;
pub use id::{NoUsbId, UsbId};
pub use port::Port;
pub use setup::Setup;
