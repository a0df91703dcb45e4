//! Quirks, policy and compositions from the configuration files, with the location of each value.

pub mod audit;
pub mod compositions;
pub mod diagnostic;
pub mod layers;
mod list;
pub mod load;
pub mod policy;
pub mod quirks;
pub(crate) mod udev_rules;
