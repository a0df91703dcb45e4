//! The machine that the program runs on: files, clock, journal and kernel interfaces.

pub mod deadline;
pub mod init;
pub mod journal;
pub mod paths;
pub mod rfkill;
pub mod root;
pub mod sandbox;
pub mod smbios;
pub mod state;
pub mod sys;
