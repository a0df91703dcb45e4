//! wwan-quirks makes a USB WWAN modem work by the time it is plugged in: out of install mode, in the right
//! USB configuration, radio unlocked.
//!
//! One event comes in, one outcome goes out:
//!
//! ```text
//! event ──> device ──> quirk ──> plan ──> steps ──> outcome
//! ```

pub mod deadline;
pub mod device;
pub mod id;
pub mod link;
pub mod policy;
pub mod quirks;
pub mod root;
pub mod session;
pub mod steps;
pub mod sys;
pub mod wire;
