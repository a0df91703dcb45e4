//! Software WWAN modems for tests, on the kernel's `vhci_hcd` and on the PCI module in `tests/pci-modem`. They
//! enumerate, leave install mode, answer QMI, MBIM and AT, record what they saw, and fail on request.
//!
//! A test that is not a Rust program runs `modem` and uses its control socket. A Rust program takes a row of
//! [`models`], creates a [`radio::Modem`] from it, sets [`faults`], and serves it with [`device::Device::run`] (USB) or
//! [`pci::Device::run`]:
//!
//! ```no_run
//! use std::sync::mpsc;
//! use modem::{device::Device, models, radio::Modem};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let model = models::row("em7455-qmi").ok_or("no such model")?.model();
//! let mut modem = Modem::of(&model);
//! modem.faults.set("late=700")?;
//! let (sender, events) = mpsc::channel();
//! // Keep a clone of the sender: `Event::Control` unplugs, resets and queries the modem.
//! Device::new(model, modem, false, None, sender).run(&events)?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/plug.rs` is a complete program. A test without a bus uses [`port::Port`]: bytes in, replies out.

mod at;
pub mod challenge;
pub mod composition;
mod descriptors;
pub mod device;
mod digest;
mod family;
pub mod faults;
pub mod install;
mod mbim;
pub mod models;
pub mod pci;
pub mod port;
pub mod qmi;
pub mod radio;
mod rndis;
mod storage;
pub mod timers;
pub mod transcript;
mod wdm;
mod xmm;
