//! The results of a step. The journal, the state file, JSON and the exit status share one vocabulary.

use std::fmt;

use log::Level;
use serde::{Deserialize, Serialize};

/// A step on a modem's way from plug-in to online.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// Makes the modem leave install mode.
    Switch,
    /// Sets the USB configuration.
    Configuration,
    /// Unlocks the radio.
    FccAuth,
    /// Changes the composition that the modem stores.
    Composition,
}

impl StepKind {
    pub fn name(self) -> &'static str {
        match self {
            StepKind::Switch => "switch",
            StepKind::Configuration => "configuration",
            StepKind::FccAuth => "fcc-auth",
            StepKind::Composition => "composition",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The result of a step. Each has its own `MESSAGE_ID` in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepResult {
    Done,
    /// The modem was already in the wanted state, or the step does not apply to it.
    #[serde(rename = "nothing")]
    Unchanged,
    /// The policy, a program that uses the modem, or a missing port prevents the step.
    Suppressed,
    /// The event was too short: another process continues.
    Unfinished,
    Failed,
    /// The modem came back in the same state too often.
    LeftAlone,
    /// Database or policy is invalid.
    Invalid,
    /// Another run is using the port.
    Busy,
    /// The kernel is not allowed to use the device (USBGuard, `authorized_default`).
    NotAuthorized,
}

impl StepResult {
    #[cfg(test)]
    pub(crate) const ALL: [StepResult; 9] = [
        StepResult::Done,
        StepResult::Unchanged,
        StepResult::Suppressed,
        StepResult::Unfinished,
        StepResult::Failed,
        StepResult::LeftAlone,
        StepResult::Invalid,
        StepResult::Busy,
        StepResult::NotAuthorized,
    ];

    /// `MESSAGE_ID` of the journal entry.
    pub(crate) fn message_id(self) -> &'static str {
        match self {
            StepResult::Done => "5be2f10a6e254bd1a3e1b6ad1f4a6c01",
            StepResult::Unchanged => "5be2f10a6e254bd1a3e1b6ad1f4a6c02",
            StepResult::Unfinished => "5be2f10a6e254bd1a3e1b6ad1f4a6c03",
            StepResult::Failed => "5be2f10a6e254bd1a3e1b6ad1f4a6c04",
            StepResult::LeftAlone => "5be2f10a6e254bd1a3e1b6ad1f4a6c05",
            StepResult::Invalid => "5be2f10a6e254bd1a3e1b6ad1f4a6c06",
            StepResult::Suppressed => "5be2f10a6e254bd1a3e1b6ad1f4a6c07",
            StepResult::Busy => "5be2f10a6e254bd1a3e1b6ad1f4a6c08",
            StepResult::NotAuthorized => "5be2f10a6e254bd1a3e1b6ad1f4a6c09",
        }
    }

    /// The name in `WWAN_QUIRKS_OUTCOME`, in the state file and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            StepResult::Done => "done",
            StepResult::Unchanged => "nothing",
            StepResult::Suppressed => "suppressed",
            StepResult::Unfinished => "unfinished",
            StepResult::Failed => "failed",
            StepResult::LeftAlone => "left-alone",
            StepResult::Invalid => "invalid",
            StepResult::Busy => "busy",
            StepResult::NotAuthorized => "not-authorized",
        }
    }

    /// The result in a message for people.
    pub fn words(self) -> &'static str {
        match self {
            StepResult::Unchanged => "nothing to do",
            StepResult::Unfinished => "not finished",
            StepResult::LeftAlone => "left alone",
            StepResult::NotAuthorized => "not authorized",
            other => other.name(),
        }
    }

    pub fn level(self) -> Level {
        match self {
            StepResult::Done | StepResult::Unchanged | StepResult::Suppressed => Level::Info,
            StepResult::Unfinished | StepResult::LeftAlone | StepResult::Busy | StepResult::NotAuthorized => {
                Level::Warn
            }
            StepResult::Failed | StepResult::Invalid => Level::Error,
        }
    }

    /// Whether the modem is in the state that the step wants.
    pub(crate) fn is_success(self) -> bool {
        matches!(self, StepResult::Done | StepResult::Unchanged)
    }
}

/// Why a step did not do its work, and how a person can fix that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub reason: String,
    pub remedy: String,
}

impl Failure {
    pub fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Failure {
        Failure { reason: reason.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

/// A message about a result: what happened, and what to do about it, or which process does that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// The process that continues.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)?;
        if let Some(successor) = &self.successor {
            write!(f, "; {successor} continues")?;
        }
        self.remedy.as_ref().map_or(Ok(()), |remedy| write!(f, "; {remedy}"))
    }
}

impl From<&str> for Message {
    fn from(text: &str) -> Message {
        text.to_owned().into()
    }
}

impl From<String> for Message {
    fn from(text: String) -> Message {
        Message { text, ..Message::default() }
    }
}

impl From<Failure> for Message {
    fn from(Failure { reason, remedy }: Failure) -> Message {
        Message { text: reason, remedy: Some(remedy), successor: None }
    }
}

/// What an executor returns. The texts are messages for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The step did its work.
    Done(String),
    /// The modem was already in the wanted state, or the step does not apply to it.
    Unchanged(String),
    /// The radio is online. `unlocked`: this step unlocked it.
    Online {
        text: String,
        unlocked: bool,
    },
    /// The modem has no lock of the kind that this step opens.
    NoLock(String),
    /// The radio is unlocked now, but has not come online by itself.
    StillOff(String),
    /// The radio is unlocked now and must stay in low power, but it was not set to low power.
    NotOff(Failure),
    /// The radio was unlocked before and is off: the user switched it off.
    SwitchedOff(String),
    /// Another program uses the port.
    InUse(Failure),
    /// Another run of this program uses the port.
    Busy(Message),
    /// The modem disconnected during the step. Its next event handles it.
    Left,
    /// The modem did not answer in time. A later attempt may succeed.
    Unfinished(Failure),
    Failed(Failure),
}
