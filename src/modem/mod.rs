//! The other end: a modem's sysfs directory, its ports, and what is said over them.

pub mod access;
pub mod device;
pub mod link;
pub(crate) mod session;
pub mod transport;
pub mod wire;
