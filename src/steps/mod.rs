//! The steps that a plan is made of. Each is idempotent, leaves the modem as it found it when it fails, and says
//! which of a few things happened.

pub mod composition;
pub mod configure;
pub mod fcc_auth;
pub mod switch;

use std::fmt;

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The step did its work; what it did, in words.
    Done(String),
    /// The modem stood already as it should, or the step does not concern it; why.
    Nothing(String),
    /// The modem did not answer in time, and may yet: worth carrying on with later.
    Unfinished(Trouble),
    /// The step failed.
    Failed(Trouble),
}

/// Why a step did not do its work, and what a person can do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: String,
    pub cure: String,
}

impl Trouble {
    pub fn new(cause: impl Into<String>, cure: impl Into<String>) -> Trouble {
        Trouble { cause: cause.into(), cure: cure.into() }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.cause, self.cure)
    }
}
