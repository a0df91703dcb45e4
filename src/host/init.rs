//! The first actions of every entry point.

use log::LevelFilter;
use nix::sys::stat::{Mode, umask};

use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox::Limits;

/// Who reads the program's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// No person reads standard error, for example under udev and ModemManager. Messages go to the journal.
    Journal,
    /// A person at a terminal sees messages up to this level.
    Person(LevelFilter),
}

/// Sets the limits and the umask of the process, and directs its messages to the audience.
pub(crate) fn init(root: &Root, audience: Audience, limits: Limits) {
    limits.set();
    // All users may read the results in /run/wwan-quirks, whatever umask the shell of root has.
    if limits != Limits::None {
        umask(Mode::from_bits_truncate(0o022));
    }
    match audience {
        Audience::Journal => {
            // Fails only if a logger is already set.
            if log::set_boxed_logger(Box::new(Journal::open(root))).is_ok() {
                log::set_max_level(LevelFilter::Warn);
            }
        }
        Audience::Person(level) => {
            env_logger::Builder::new().filter_level(level).format_timestamp(None).init();
        }
    }
}
