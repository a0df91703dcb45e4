//! Records the results of a run in the journal and in the state of the port, and returns them to the caller.

use serde::Serialize;

use crate::bus::DeviceId;
use crate::host::clock::awake;
use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox;
use crate::host::state::{self, LastResult, PortState, Results};
use crate::modem::device::Device;
use crate::outcome::{Message, StepKind, StepResult};
use crate::serve::conclusion::Conclusion;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::execute::LEFT;
use crate::serve::run::APPLY;
use crate::serve::trigger::Trigger;

/// How one step ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct StepReport {
    pub step: StepKind,
    #[serde(rename = "outcome")]
    pub result: StepResult,
    #[serde(flatten)]
    pub message: Message,
}

impl StepReport {
    /// The line about this step in the journal and on the terminal. `name` is the name of `device`.
    pub(crate) fn line(&self, device: &Device, name: &str) -> String {
        format!("{} {} {name}: {}: {}: {}", device.port, device.id, self.step, self.result.words(), self.message)
    }
}

/// How a run on one device ended.
#[derive(Debug, Default)]
pub(crate) struct RunReport {
    /// The name in the database; `None` if no quirk applies, or if a file that concerns the device is invalid.
    pub name: Option<String>,
    pub steps: Vec<StepReport>,
    /// Why the run ended early.
    pub errors: Vec<Error>,
}

impl RunReport {
    /// The exit status for this result.
    pub(crate) fn exit(&self, scope: &Scope, trigger: Trigger) -> Exit {
        let of_step = |report: &StepReport| match report.result {
            StepResult::Failed | StepResult::Busy => Exit::Failed,
            StepResult::Invalid => Exit::Invalid,
            StepResult::Unfinished => match trigger {
                _ if trigger.is_event() => Exit::Success,
                // After sleep, a modem that does not answer is reported, but does not make the unit fail.
                Trigger::Unit if *scope == Scope::Unlock => Exit::Success,
                _ => Exit::Failed,
            },
            StepResult::NotAuthorized if trigger.is_explicit() => Exit::Failed,
            // ModemManager takes success to mean that the modem is unlocked.
            StepResult::Suppressed if trigger == Trigger::ModemManager => Exit::Failed,
            // Nothing of an explicit request was carried out.
            StepResult::Suppressed if trigger == Trigger::Named && self.is_suppressed() => Exit::Failed,
            _ => Exit::Success,
        };
        let errors = self.errors.iter().map(Error::exit);
        errors.chain(self.steps.iter().map(of_step)).max().unwrap_or(Exit::Success)
    }

    /// Whether every step was suppressed.
    fn is_suppressed(&self) -> bool {
        self.steps.iter().all(|report| report.result == StepResult::Suppressed)
    }

    /// The result for the udev rules. A step that another process must continue comes first.
    pub(crate) fn result(&self) -> Option<StepResult> {
        [StepResult::Unfinished, StepResult::NotAuthorized, StepResult::LeftAlone, StepResult::Suppressed]
            .into_iter()
            .chain([StepResult::Done, StepResult::Unchanged])
            .find(|wanted| self.steps.iter().any(|report| report.result == *wanted))
    }
}

pub(crate) struct Recorder<'a> {
    journal: &'a Journal,
    device: &'a Device,
    trigger: Trigger,
    /// What the device becomes after a switch, if known.
    becomes: Option<String>,
    name: String,
    steps: Vec<StepReport>,
    errors: Vec<Error>,
}

impl<'a> Recorder<'a> {
    pub(crate) fn new(journal: &'a Journal, device: &'a Device, name: &str, trigger: Trigger) -> Recorder<'a> {
        let name = name.to_owned();
        Recorder { journal, device, trigger, becomes: None, name, steps: Vec::new(), errors: Vec::new() }
    }

    /// Sets what the device becomes, for the report of a switch.
    pub(crate) fn set_becomes(&mut self, becomes: Option<String>) {
        self.becomes = becomes;
    }

    /// Records how a step ended. A run without the lock of the port passes no state.
    pub(crate) fn report(&mut self, state: Option<&mut PortState>, step: StepKind, ended: Conclusion) {
        let Conclusion { result, mut message, has_left, is_online, .. } = ended;
        if let Some(state) = state.filter(|_| !has_left) {
            state.results().record(step, self.device.id, result, message.clone(), is_online);
        }
        if let (Some(becomes), StepKind::Switch, StepResult::Done) = (&self.becomes, step, result) {
            message.text += &format!("; it becomes {becomes}");
        }
        let report = StepReport { step, result, message };
        let line = report.line(self.device, &self.name);
        self.send(result, &line, Some(step));
        self.steps.push(report);
    }

    /// Records once that the device returned from a switch.
    pub(crate) fn report_return(&mut self, state: &mut PortState) {
        let is_new = |last: &LastResult| last.confirmed.is_none();
        if !state.results().last.get(&StepKind::Switch).is_some_and(is_new) {
            return;
        }
        if let Some(before) = came_from(self.device, state.results()) {
            let text = format!("{before} came back as {}, {}", self.device.id, self.name);
            let result = state.results().came_back(LEFT);
            self.report(None, StepKind::Switch, Conclusion::new(result, text));
        }
    }

    /// Records why the run ended early.
    pub(crate) fn error(&mut self, error: Error) {
        let message = format!("{} {}: {}", self.device.port, self.device.id, first_line(&error.chain()));
        self.send(kind(&error), &message, None);
        self.errors.push(error);
    }

    /// Records that files that concern the device are invalid, or that a string which they name could not be read.
    /// Nothing is done, because one of them may say to leave the device alone.
    pub(crate) fn invalid(self, errors: Vec<Error>) -> RunReport {
        for error in &errors {
            let text = first_line(&error.chain()).to_owned();
            let remedy = if matches!(error, Error::Device(_)) { APPLY } else { "fix the database or policy first" };
            let message = format!("{} {}: {text}; no action: {remedy}", self.device.port, self.device.id);
            self.send(kind(error), &message, None);
        }
        RunReport { errors, ..RunReport::default() }
    }

    pub(crate) fn finish(self) -> RunReport {
        RunReport { name: Some(self.name), steps: self.steps, errors: self.errors }
    }

    fn send(&self, result: StepResult, message: &str, step: Option<StepKind>) {
        // A person at a terminal reads the same line on standard output.
        if self.trigger.is_verb() && self.journal.is_stderr() {
            return;
        }
        let id = self.device.id.to_string();
        let mut fields = vec![("WWAN_QUIRKS_PORT", self.device.port.as_str()), ("WWAN_QUIRKS_ID", &id)];
        fields.extend(step.map(|step| ("WWAN_QUIRKS_STEP", step.name())));
        fields.extend(sandbox::level().map(|level| ("WWAN_QUIRKS_SANDBOX", level)));
        self.journal.send(result, message, &fields);
    }
}

/// The results for `device`, read without the lock of its port.
pub(crate) fn results(root: &Root, device: &Device) -> Results {
    let mut results = state::peek(root, &device.port);
    drop_earlier(device, &mut results);
    results
}

/// Drops what `results`, which are those of its port, contain about devices before `device`.
pub(crate) fn drop_earlier(device: &Device, results: &mut Results) {
    let connected = connected_at(device).unwrap_or_else(awake);
    results.drop_earlier(device.enumeration_id(), device.id, connected);
}

/// The ID that `device` had before it returned from a switch. `results` are those of its port.
pub(crate) fn came_from(device: &Device, results: &Results) -> Option<DeviceId> {
    // A device may leave only after the run that sent the message has ended.
    let was_sent =
        |last: &&LastResult| matches!(last.result, StepResult::Done | StepResult::Unfinished | StepResult::Failed);
    let switch = results.last.get(&StepKind::Switch).filter(was_sent)?;
    let id = switch.id.filter(|id| *id != device.id)?;
    // A device that was connected much later than the switch is another device.
    let is_another = connected_at(device).is_some_and(|at| !switch.may_have_connected(at));
    (!is_another).then_some(id)
}

/// When `device` was connected, on the clock of [`awake`]. `None`: without power management, the kernel does not report
/// that.
fn connected_at(device: &Device) -> Option<i64> {
    Some(awake().saturating_sub_unsigned(device.connected_for()?.as_secs()))
}

fn kind(error: &Error) -> StepResult {
    if error.exit() == Exit::Invalid { StepResult::Invalid } else { StepResult::Failed }
}

/// A journal entry has one line. People at a terminal also see the source line and the caret.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modem_manager_gets_a_failure_for_a_modem_that_was_not_unlocked() {
        let exit = |result, trigger| {
            let report = StepReport { step: StepKind::FccAuth, result, message: Message::default() };
            RunReport { steps: vec![report], ..RunReport::default() }.exit(&Scope::Unlock, trigger)
        };
        for result in StepResult::ALL {
            let is_fine = exit(result, Trigger::ModemManager) == Exit::Success;
            assert_eq!(is_fine, result.is_success() || result == StepResult::LeftAlone, "{result:?}");
        }
    }

    #[test]
    fn a_named_request_fails_if_every_step_is_suppressed() {
        let exit = |results: &[StepResult], trigger| {
            let report = |result: &StepResult| StepReport {
                step: StepKind::FccAuth,
                result: *result,
                message: Message::default(),
            };
            let steps = results.iter().map(report).collect();
            RunReport { steps, ..RunReport::default() }.exit(&Scope::All, trigger)
        };
        let suppressed = StepResult::Suppressed;
        assert_eq!(exit(&[suppressed, suppressed], Trigger::Named), Exit::Failed);
        for result in [StepResult::Done, StepResult::Unchanged] {
            assert_eq!(exit(&[result, suppressed], Trigger::Named), Exit::Success, "{result:?}");
        }
        for trigger in [Trigger::Command, Trigger::Unit, Trigger::Uevent] {
            assert_eq!(exit(&[suppressed], trigger), Exit::Success, "{trigger:?}");
        }
    }

    #[test]
    fn a_step_that_another_process_continues_is_no_failure() {
        let exit = |scope, trigger| {
            let report =
                StepReport { step: StepKind::FccAuth, result: StepResult::Unfinished, message: Message::default() };
            RunReport { steps: vec![report], ..RunReport::default() }.exit(&scope, trigger)
        };
        for trigger in [Trigger::Uevent, Trigger::Coldplug, Trigger::Requested] {
            assert_eq!(exit(Scope::Device, trigger), Exit::Success, "{trigger:?}");
        }
        // After sleep, a mute modem leaves no failed unit.
        assert_eq!(exit(Scope::Unlock, Trigger::Unit), Exit::Success);
        for trigger in [Trigger::Unit, Trigger::Command, Trigger::Named] {
            assert_eq!(exit(Scope::All, trigger), Exit::Failed, "{trigger:?}");
        }
    }
}
