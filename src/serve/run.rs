//! The values that all stages of a run share.

use std::time::Duration;

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::event::Scope;
use crate::serve::trigger::Trigger;

/// The remedy if no other process continues.
pub(crate) const APPLY: &str = "run `wwan-quirks apply`";

/// How long a lookup or a preview waits for a driver that holds the device's lock while probing.
pub(crate) const LONGEST_PROBE: Duration = Duration::from_secs(30);

/// One run on one device.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub root: &'a Root,
    pub device: &'a Device,
    pub scope: &'a Scope,
    pub trigger: Trigger,
    pub deadline: Deadline,
}
