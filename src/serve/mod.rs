//! The pipeline from event to result, one stage per file.

pub mod error;
pub mod event;
pub mod plan;
pub mod run;
pub mod systemd;
