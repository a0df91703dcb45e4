//! The only `unsafe` of the project: calls that the libraries below cannot vouch for themselves.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd};

use rusb::{Context, DeviceHandle, UsbContext};

/// Hands an opened usbfs node to libusb. The caller keeps `node` open for as long as the handle lives: libusb neither
/// duplicates nor closes it (`libusb_wrap_sys_device`).
pub fn wrap_usb_node(context: &Context, node: BorrowedFd<'_>) -> rusb::Result<DeviceHandle<Context>> {
    // SAFETY: `node` is an open descriptor, and `link::usb::Node` drops the handle before it closes the descriptor.
    unsafe { context.open_device_with_fd(node.as_raw_fd()) }
}
