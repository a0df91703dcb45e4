//! What every entry point of the program does first.

use log::LevelFilter;

use crate::host::journal::Journal;
use crate::host::root::Root;
use crate::host::sandbox;

/// Who reads the program's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// No one reads standard error, as with udev and ModemManager: messages go to the journal.
    Journal,
    /// A person at a terminal, up to this level.
    Person(LevelFilter),
}

/// Bounds the process, and directs its messages to their audience.
///
/// A verb that starts other programs, or writes long files, passes `is_bounded = false`.
pub fn init(root: &Root, audience: Audience, is_bounded: bool) {
    if is_bounded {
        sandbox::limit();
    }
    match audience {
        Audience::Journal => {
            // Fails only if there is a logger already.
            if log::set_boxed_logger(Box::new(Journal::open(root))).is_ok() {
                log::set_max_level(LevelFilter::Warn);
            }
        }
        Audience::Person(level) => {
            env_logger::Builder::new().filter_level(level).format_timestamp(None).init();
        }
    }
}
