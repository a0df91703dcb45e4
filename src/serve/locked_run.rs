//! A run that holds the lock of its port.

use crate::database::quirks::Quirk;
use crate::host::state::{Identity, PortState};
use crate::serve::record::Recorder;
use crate::serve::run::Run;

pub(super) struct LockedRun<'a, 'r> {
    pub run: Run<'a>,
    pub quirk: &'a Quirk,
    pub identity: Identity,
    pub state: PortState,
    pub recorder: &'a mut Recorder<'r>,
    /// The name of the process that continues, if there is one.
    pub successor: Option<&'a str>,
    /// What happened to a planned configuration, if the unlock must follow in this run.
    pub configuration: Option<Configuration>,
    /// A child process continues: it may still set the configuration, or open a tty or a WWAN port.
    pub has_child: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Configuration {
    /// It was not set because of an earlier attempt: the modem keeps its ports, which have no new events.
    Kept,
    /// The unit set it: the events of the new ports may have given up waiting for the lock, and cannot start the unit
    /// again while it runs.
    New,
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
