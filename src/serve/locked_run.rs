//! A run that holds the lock of its port, as all parts of it know it.

use crate::database::quirks::Quirk;
use crate::host::state::{Identity, PortState};
use crate::serve::hand_off::Successor;
use crate::serve::record::Recorder;
use crate::serve::run::Run;

pub(super) struct LockedRun<'a, 'r> {
    pub(super) run: Run<'a>,
    pub(super) quirk: &'a Quirk,
    pub(super) identity: Identity,
    pub(super) state: PortState,
    pub(super) recorder: &'a mut Recorder<'r>,
    pub(super) successor: &'a Successor,
    /// The configuration was planned, and not set because of an earlier attempt.
    pub(super) keeps_configuration: bool,
    /// A child process continues: it may still set the configuration, or open a tty or a WWAN port.
    pub(super) has_child: bool,
}

impl LockedRun<'_, '_> {
    /// Saves the state, and unlocks the port unless a child process continues.
    pub(super) fn end(mut self) {
        self.state.keep();
        if self.has_child {
            self.state.leave_to_child();
        }
    }
}
