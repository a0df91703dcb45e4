//! USB transfers over a usbfs node.
//!
//! The node has the name and the device number that sysfs gives. It belongs to the device as long as the device's sysfs
//! directory exists. The bus is not scanned, no thread is started, and interfaces are detached or claimed only on
//! request.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout};
use rusb::{Context, DeviceHandle};

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::host::sys;
use crate::modem::device::{Device, DeviceError};
use crate::modem::link::{OpenError, open_node};
use crate::usb::Setup;

/// Why a transfer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UsbError {
    #[error("the modem refused the transfer (STALL)")]
    Stall,
    /// The status in the CSW.
    #[error("the modem reported that the command failed")]
    Refused,
    #[error("the modem did not answer in time")]
    TimedOut,
    #[error("the modem is gone")]
    Gone,
    #[error("the transfer failed ({0})")]
    Other(rusb::Error),
}

impl From<rusb::Error> for UsbError {
    fn from(error: rusb::Error) -> UsbError {
        match error {
            rusb::Error::Pipe => UsbError::Stall,
            rusb::Error::Timeout => UsbError::TimedOut,
            rusb::Error::NoDevice => UsbError::Gone,
            other => UsbError::Other(other),
        }
    }
}

/// Transfers to one device. Endpoints are identified by `bEndpointAddress`, interfaces by `bInterfaceNumber`.
pub trait Usb {
    /// A control transfer with data to the device. Returns the number of bytes sent.
    fn control_out(&mut self, setup: Setup, data: &[u8], timeout: Duration) -> Result<usize, UsbError>;
    /// A control transfer with data from the device. Returns the number of bytes received.
    fn control_in(&mut self, setup: Setup, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError>;
    fn bulk_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError>;
    fn bulk_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError>;
    fn interrupt_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError>;
    fn interrupt_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError>;
    /// Clears the halt of an endpoint after a STALL.
    fn clear_halt(&mut self, endpoint: u8) -> Result<(), UsbError>;
    /// Claims an interface for transfers on its endpoints.
    fn claim(&mut self, interface: u8) -> Result<(), UsbError>;
    fn release(&mut self, interface: u8) -> Result<(), UsbError>;
    /// Detaches the kernel's driver from an interface. Returns whether there was one.
    fn detach(&mut self, interface: u8) -> Result<bool, UsbError>;
    /// Attaches the kernel's driver again.
    fn attach(&mut self, interface: u8) -> Result<(), UsbError>;
    #[doc(alias = "SET_INTERFACE")]
    fn set_alternate(&mut self, interface: u8, alternate: u8) -> Result<(), UsbError>;
    /// Resets the port of the device.
    fn reset(&mut self) -> Result<(), UsbError>;
    /// Waits until the device has left the bus. Returns whether it has.
    fn wait_until_gone(&mut self, deadline: Deadline) -> bool;
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("libusb cannot use {path}: {source}")]
    Libusb { path: PathBuf, source: rusb::Error },
}

impl NodeError {
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            NodeError::Open(error) => error.remedy(),
            NodeError::Device(_) | NodeError::Libusb { .. } => "see `wwan-quirks doctor`",
        }
    }
}

/// The usbfs node of one device, opened for transfers.
pub(crate) struct Node {
    // Fields drop in this order. libusb must release the node before the node is closed.
    handle: DeviceHandle<Context>,
    node: File,
}

impl Node {
    /// Opens the node of `device` below `root`.
    pub(crate) fn open(root: &Root, device: &Device) -> Result<Node, NodeError> {
        let (path, number) = device.node(root)?;
        let node = open_node(&path, number)?;
        // If the device is still present after the open, the node belongs to this device.
        if !device.is_present() {
            return Err(OpenError::Gone { path: path.clone() }.into());
        }
        let libusb = |source| match UsbError::from(source) {
            UsbError::Gone => NodeError::Open(OpenError::Gone { path: path.clone() }),
            _ => NodeError::Libusb { path: path.clone(), source },
        };
        rusb::disable_device_discovery().map_err(libusb)?;
        let context = Context::new().map_err(libusb)?;
        let handle = sys::wrap_usb_node(&context, node.as_fd()).map_err(libusb)?;
        Ok(Node { handle, node })
    }
}

impl Usb for Node {
    fn control_out(&mut self, setup: Setup, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
        let Setup { request_type, request, value, index } = setup;
        Ok(self.handle.write_control(request_type, request, value, index, data, timeout)?)
    }

    fn control_in(&mut self, setup: Setup, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
        let Setup { request_type, request, value, index } = setup;
        Ok(self.handle.read_control(request_type, request, value, index, data, timeout)?)
    }

    fn bulk_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
        Ok(self.handle.write_bulk(endpoint, data, timeout)?)
    }

    fn bulk_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
        Ok(self.handle.read_bulk(endpoint, data, timeout)?)
    }

    fn interrupt_out(&mut self, endpoint: u8, data: &[u8], timeout: Duration) -> Result<usize, UsbError> {
        Ok(self.handle.write_interrupt(endpoint, data, timeout)?)
    }

    fn interrupt_in(&mut self, endpoint: u8, data: &mut [u8], timeout: Duration) -> Result<usize, UsbError> {
        Ok(self.handle.read_interrupt(endpoint, data, timeout)?)
    }

    fn clear_halt(&mut self, endpoint: u8) -> Result<(), UsbError> {
        Ok(self.handle.clear_halt(endpoint)?)
    }

    fn claim(&mut self, interface: u8) -> Result<(), UsbError> {
        Ok(self.handle.claim_interface(interface)?)
    }

    fn release(&mut self, interface: u8) -> Result<(), UsbError> {
        Ok(self.handle.release_interface(interface)?)
    }

    fn detach(&mut self, interface: u8) -> Result<bool, UsbError> {
        let bound = self.handle.kernel_driver_active(interface)?;
        if bound {
            self.handle.detach_kernel_driver(interface)?;
        }
        Ok(bound)
    }

    fn attach(&mut self, interface: u8) -> Result<(), UsbError> {
        Ok(self.handle.attach_kernel_driver(interface)?)
    }

    fn set_alternate(&mut self, interface: u8, alternate: u8) -> Result<(), UsbError> {
        Ok(self.handle.set_alternate_setting(interface, alternate)?)
    }

    fn reset(&mut self) -> Result<(), UsbError> {
        Ok(self.handle.reset()?)
    }

    fn wait_until_gone(&mut self, deadline: Deadline) -> bool {
        loop {
            // usbfs reports POLLHUP when the device has left, even if no events were requested (Linux
            // drivers/usb/core/devio.c).
            let mut wait = [PollFd::new(self.node.as_fd(), PollFlags::empty())];
            let timeout = PollTimeout::try_from(deadline.remaining()).unwrap_or(PollTimeout::ZERO);
            match nix::poll::poll(&mut wait, timeout) {
                Ok(0) => return false,
                Ok(_) => return true,
                Err(nix::Error::EINTR) if !deadline.has_passed() => {}
                Err(_) => return false,
            }
        }
    }
}
