//! The machine that the program runs on: files, clock, journal and kernel interfaces.

pub(crate) mod clock;
pub mod deadline;
pub(crate) mod init;
pub mod journal;
pub(crate) mod mounts;
pub(crate) mod paths;
pub(crate) mod rfkill;
pub mod root;
pub mod sandbox;
pub mod smbios;
pub mod state;
pub mod sys;
