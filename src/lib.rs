//! wwan-quirks makes a WWAN modem on USB or PCI work by the time it is plugged in: out of install mode, in the right USB
//! configuration, with its radio unlocked.
//!
//! One event comes in, one result goes out:
//!
//! ```text
//! event ──> match ──> snapshot ──> plan ──> execute ──> report
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
