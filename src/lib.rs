//! wwan-quirks makes WWAN modems on USB and PCI work when they are plugged in: it takes them out of install mode, sets
//! the USB configuration, and unlocks the radio.
//!
//! One event comes in, one result goes out:
//!
//! ```text
//! event ──> lookup ──> snapshot ──> plan ──> execute ──> record
//! ```

pub mod bus;
pub mod database;
pub mod host;
pub mod modem;
pub mod outcome;
pub mod pci;
pub mod serve;
pub mod steps;
pub mod usb;
pub mod verbs;
