//! wwan-quirks makes a USB WWAN modem work by the time it is plugged in: out of install mode, in the right
//! USB configuration, radio unlocked.
//!
//! One event comes in, one outcome goes out:
//!
//! ```text
//! event ──> device ──> quirk ──> plan ──> steps ──> outcome
//! ```

pub mod apply;
pub mod check;
pub mod cli;
pub mod composition;
pub mod deadline;
pub mod device;
pub mod doctor;
pub mod error;
pub mod event;
pub mod explain;
pub mod holders;
pub mod hook;
pub mod id;
pub mod import;
pub mod journal;
pub mod layers;
pub mod link;
pub mod list;
pub mod plan;
pub mod policy;
pub mod privileges;
pub mod quirks;
pub mod report;
pub mod rfkill;
pub mod root;
pub mod rules;
pub mod run;
pub mod session;
pub mod source;
pub mod state;
pub mod status;
pub mod steps;
pub mod sys;
pub mod systemd;
pub mod wire;
