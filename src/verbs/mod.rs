//! The command line, one verb per file.

pub mod apply;
pub mod check;
pub mod cli;
pub mod composition;
pub mod doctor;
pub mod explain;
pub mod fcc_unlock;
pub mod hook;
pub mod import;
pub mod list;
pub mod output;
pub mod report;
pub mod rules;
pub mod status;
