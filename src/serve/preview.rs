//! What `apply` would do, for `apply --dry-run`, `explain`, `report` and `status`. Acts on nothing.

use nix::unistd::geteuid;

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::modem::device::{Device, DeviceError};
use crate::serve::event::Scope;
use crate::serve::lookup::MatchedDevice;
use crate::serve::plan::{Action, PlanLine, PlanStep};
use crate::serve::run::{LONGEST_PROBE, Run};
use crate::serve::trigger::Trigger;
use crate::steps::fcc_auth;

const NO_ACTION: &str = "no action: fix the database or policy first (`wwan-quirks check`)";

/// The plan while a file that concerns the device is invalid, or cannot be read. Root can read all files.
pub(crate) fn no_action() -> String {
    let as_root = if geteuid().is_root() { "" } else { "; if a file cannot be read, run the command as root" };
    format!("{NO_ACTION}{as_root}")
}

impl<'a> Run<'a> {
    /// A run that only plans. Waits for a driver that holds the device.
    pub(crate) fn to_preview(root: &'a Root, device: &'a Device, scope: &'a Scope, trigger: Trigger) -> Run<'a> {
        Run { root, device, scope, trigger, deadline: Deadline::after(LONGEST_PROBE) }
    }

    /// The plan in words. With `verbose`, an unlock has its messages in hex; the text of a switch has them in any case.
    pub(crate) fn preview(&self, matched: &MatchedDevice, verbose: bool) -> Result<Vec<PlanLine>, DeviceError> {
        let line = |step: &PlanStep| match step {
            PlanStep::Run(Action::FccAuth { protocol, procedure, .. }) if verbose => {
                PlanLine { messages: fcc_auth::messages(procedure, *protocol), ..step.describe() }
            }
            step => step.describe(),
        };
        Ok(self.plan(matched)?.iter().map(line).collect())
    }
}

/// The lines of a preview for people. `complete`: all files that concern the device are valid.
pub(crate) fn preview_lines(complete: bool, plan: &[PlanLine]) -> Vec<String> {
    if complete { plan.iter().flat_map(PlanLine::lines).collect() } else { vec![no_action()] }
}
