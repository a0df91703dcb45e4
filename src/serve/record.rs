//! Where the results of a run go: the journal, the state of the port, and the caller.

use crate::host::journal::Journal;
use crate::host::sandbox;
use crate::host::state::PortState;
use crate::modem::device::Device;
use crate::outcome::{StepKind, StepResult};
use crate::serve::error::{Error, Exit};
use crate::serve::trigger::Trigger;
use crate::serve::{Served, StepReport};

pub struct Recorder<'a> {
    journal: &'a Journal,
    device: &'a Device,
    trigger: Trigger,
    served: Served,
}

impl<'a> Recorder<'a> {
    pub fn new(journal: &'a Journal, device: &'a Device, name: &str, trigger: Trigger) -> Recorder<'a> {
        let served = Served { name: Some(name.to_owned()), ..Served::default() };
        Recorder { journal, device, trigger, served }
    }

    /// Records how a step ended. A run without the lock of the port passes no state.
    pub fn report(&mut self, state: Option<&mut PortState>, step: StepKind, result: StepResult, text: String) {
        if let Some(state) = state {
            state.results().record(step, result, &text);
        }
        self.write(step, result, &text);
        self.served.steps.push(StepReport { step, result, text });
    }

    /// Records why the run ended early.
    pub fn error(&mut self, error: Error) {
        let message = format!("{} {}: {}", self.device.port, self.device.id, first_line(&error.chain()));
        send(self.journal, self.device, self.trigger, kind(&error), &message, None);
        self.served.errors.push(error);
    }

    pub fn finish(self) -> Served {
        self.served
    }

    fn write(&self, step: StepKind, result: StepResult, text: &str) {
        let name = self.served.name.as_deref().unwrap_or_default();
        let message = format!("{} {} {name}: {step}: {}: {text}", self.device.port, self.device.id, result.words());
        send(self.journal, self.device, self.trigger, result, &message, Some(step));
    }
}

/// Records that files which concern `device` are invalid: nothing is done, because one of them may say so.
pub fn invalid(journal: &Journal, device: &Device, trigger: Trigger, errors: Vec<Error>) -> Served {
    for error in &errors {
        let text = first_line(&error.chain()).to_owned();
        let message = format!("{} {}: {text}; no action: fix the database or policy first", device.port, device.id);
        send(journal, device, trigger, kind(error), &message, None);
    }
    Served { errors, ..Served::default() }
}

fn kind(error: &Error) -> StepResult {
    if error.exit() == Exit::Invalid { StepResult::Invalid } else { StepResult::Failed }
}

fn send(
    journal: &Journal,
    device: &Device,
    trigger: Trigger,
    result: StepResult,
    message: &str,
    step: Option<StepKind>,
) {
    // A person at a terminal reads the same line on standard output.
    if trigger == Trigger::Command && journal.is_stderr() {
        return;
    }
    let id = device.id.to_string();
    let mut fields = vec![("WWAN_QUIRKS_PORT", device.port.as_str()), ("WWAN_QUIRKS_ID", &id)];
    fields.extend(step.map(|step| ("WWAN_QUIRKS_STEP", step.name())));
    fields.extend(sandbox::level().map(|level| ("WWAN_QUIRKS_SANDBOX", level)));
    journal.send(result, message, &fields);
}

/// A journal entry has one line. People at a terminal also see the source line and the caret.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}
