//! The errors that end a verb early, and the exit status of the program.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use crate::database::diagnostic::LoadError;
use crate::database::layers::FileError;
use crate::modem::device::DeviceError;
use crate::serve::event::EventError;

/// The exit status of the program. udev logs a warning for every status except 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// Done, or nothing to do.
    Success = 0,
    /// A step failed.
    Failed = 1,
    /// Wrong usage.
    Usage = 2,
    /// Database or policy invalid.
    Invalid = 3,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("no known modem is plugged in: name the device")]
    NoModem,
    #[error("several modems are plugged in: name one of the ports {}", .0.join(", "))]
    SeveralModems(Vec<String>),
    /// For a device or an ID that the command line names.
    #[error("{0}: no quirk applies (see `wwan-quirks list`)")]
    NoQuirk(String),
    #[error("{path}: the directory has no configuration file")]
    NoFiles { path: PathBuf },
    #[error("stopped by a signal: the remaining modems were not handled")]
    Stopped,
    /// An error in the installed database or policy.
    #[error(transparent)]
    Database(#[from] LoadError),
    /// An error in a file named on the command line.
    #[error(transparent)]
    NamedFile(#[from] FileError),
    /// A file or a directory that a verb writes.
    #[error("{path}: cannot write: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot write the output: {0}")]
    Output(#[from] io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Error::Event(_) | Error::NoModem | Error::SeveralModems(_) => Exit::Usage,
            Error::Device(
                DeviceError::BadPath(_)
                | DeviceError::NoDevice(_)
                | DeviceError::NoSuchForm(_)
                | DeviceError::NotFound(_)
                | DeviceError::OnPci(_)
                | DeviceError::Ambiguous { .. },
            ) => Exit::Usage,
            Error::NamedFile(error) if error.is_missing() => Exit::Usage,
            Error::Database(_) => Exit::Invalid,
            Error::NoQuirk(_)
            | Error::NoFiles { .. }
            | Error::Stopped
            | Error::NamedFile(_)
            | Error::Device(_)
            | Error::Write { .. }
            | Error::Output(_)
            | Error::Json(_) => Exit::Failed,
        }
    }

    /// The error and all its causes, in one line.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}
