//! Software USB devices on the kernel's virtual host controller, `vhci_hcd`.
//!
//! [`plug`] attaches a high-speed device to a port of the controller. The kernel then enumerates the device and binds
//! drivers to it, as it does with hardware. It sends [`Command`]s: URBs to complete, and URBs to unlink. The device
//! completes URBs through its [`Link`], at once or when it has data for them.
//!
//! The crate sends no reply on its own, not even to standard requests: the program decides what the device says,
//! including invalid data. `examples/vendor.rs` is the minimum that a kernel accepts.
//!
//! Needs root, and `modprobe vhci-hcd`. Isochronous transfers and SuperSpeed are not supported.

mod link;
mod port;
mod usbip;

pub use link::Link;
pub use port::plug;
pub use usbip::{Command, Submit};
