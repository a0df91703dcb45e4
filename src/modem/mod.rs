//! The modem: its sysfs directory, its ports, and the protocols on them.

pub mod access;
pub mod device;
pub mod link;
pub(crate) mod session;
pub mod transport;
pub mod wire;
