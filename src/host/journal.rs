//! One line for each decision, sent to the journal, to syslog, or to standard error.
//!
//! udev discards the standard error of a helper, so the journal's socket comes first. Entries have structured fields
//! (`WWAN_QUIRKS_PORT`, `_ID`, `_STEP`, `_OUTCOME`, `MESSAGE_ID`) for monitoring. The format is the journal's native
//! protocol: `FIELD=value` lines in one datagram. A value that contains a newline is preceded by its length.

use std::fmt::{Display, Write as _};
use std::io::{self, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use log::Level;
use nix::errno::Errno;
use nix::unistd::write;

use crate::host::root::Root;
use crate::outcome::StepResult;

pub(crate) const IDENTIFIER: &str = "wwan-quirks";
/// Longer messages are truncated. A modem's strings have at most 126 characters, and there is no other external input.
const MESSAGE_LIMIT: usize = 1500;

/// The severity numbers of syslog, which the journal uses as well (RFC 5424, table 2).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// The destination of lines.
#[derive(Debug)]
pub(crate) enum Journal {
    Native(UnixDatagram),
    Syslog(UnixDatagram),
    Stderr,
}

impl Journal {
    /// Opens the first of the journal, syslog and standard error that exists. Sockets are looked up below `root`: no
    /// process listens below a root that is not the running system.
    pub(crate) fn open(root: &Root) -> Journal {
        let connect = |path: &str| {
            let socket = UnixDatagram::unbound().ok()?;
            socket.connect(root.at(path)).ok()?;
            // A journal that is stopped or overloaded must not delay a modem.
            socket.set_nonblocking(true).ok()?;
            Some(socket)
        };
        if let Some(socket) = connect("/run/systemd/journal/socket") {
            return Journal::Native(socket);
        }
        connect("/dev/log").map_or(Journal::Stderr, Journal::Syslog)
    }

    /// Whether lines go to standard error because neither the journal nor syslog exists.
    pub(crate) fn is_stderr(&self) -> bool {
        matches!(self, Journal::Stderr)
    }

    /// Writes one result. `fields` have upper-case names of journal fields. Their values, and `message`, may contain
    /// any text.
    pub(crate) fn send(&self, result: StepResult, message: &str, fields: &[(&str, &str)]) {
        let own = [("MESSAGE_ID", result.message_id()), ("WWAN_QUIRKS_OUTCOME", result.name())];
        self.write(result.level(), message, &[&own[..], fields].concat());
    }

    fn write(&self, level: Level, message: &str, fields: &[(&str, &str)]) {
        let message = printable(message);
        let sent = match self {
            Journal::Native(socket) => write(socket, &native(level, &message, fields)),
            Journal::Syslog(socket) => {
                // Facility 3 is "system daemons".
                let line = format!("<{}>{IDENTIFIER}[{}]: {message}", 3 * 8 + priority(level), std::process::id());
                write(socket, line.as_bytes())
            }
            Journal::Stderr => Err(Errno::ENOTCONN),
        };
        if sent.is_err() {
            print_error(format_args!("{IDENTIFIER}: {message}"));
        }
    }
}

/// Messages of the `log` crate have the same destination as results.
impl log::Log for Journal {
    fn enabled(&self, metadata: &log::Metadata) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &log::Record) {
        if self.enabled(record.metadata()) {
            self.write(record.level(), &record.args().to_string(), &[]);
        }
    }

    fn flush(&self) {}
}

fn native(level: Level, message: &str, fields: &[(&str, &str)]) -> Vec<u8> {
    let mut datagram = Vec::with_capacity(512);
    let priority = priority(level).to_string();
    let own = [("MESSAGE", message), ("PRIORITY", priority.as_str()), ("SYSLOG_IDENTIFIER", IDENTIFIER)];
    for (name, value) in own.iter().chain(fields) {
        datagram.extend(name.bytes());
        if value.contains('\n') {
            datagram.push(b'\n');
            datagram.extend((value.len() as u64).to_le_bytes());
        } else {
            datagram.push(b'=');
        }
        datagram.extend(value.bytes());
        datagram.push(b'\n');
    }
    datagram
}

/// Prints a line to standard error. `eprintln!` would panic if standard error is closed or full, and a message must not
/// keep a modem from being handled.
pub(crate) fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Like [`print_error`], but prints nothing if only errors are wanted.
pub(crate) fn warn(line: impl Display) {
    if log::log_enabled!(Level::Warn) {
        print_error(line);
    }
}

/// Returns `text` as one line, with control characters escaped, and truncated if it is far too long. Strings from a
/// modem are untrusted data.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if line.len() >= MESSAGE_LIMIT {
            line.push('…');
            break;
        }
        if is_unprintable(character) {
            // Writing to a `String` never fails.
            let _ = write!(line, "\\u{{{:x}}}", u32::from(character));
        } else {
            line.push(character);
        }
    }
    line
}

/// Control characters, and characters that reorder or hide the text around them.
pub(crate) fn is_unprintable(character: char) -> bool {
    let is_invisible =
        matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
    character.is_control() || is_invisible
}

/// Like [`printable`], for a path.
pub(crate) fn printable_path(path: &Path) -> String {
    printable(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn every_result_is_documented() {
        let page = include_str!("../../docs/journal.md");
        for result in StepResult::ALL {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", result.name())));
            assert!(row.is_some_and(|row| row.contains(result.message_id())), "{}", result.name());
        }
    }

    #[test]
    fn an_entry_reaches_the_journal_with_its_fields() {
        let root = TempRoot::new("journal");
        std::fs::create_dir_all(root.at("/run/systemd/journal")).unwrap();
        let listener = UnixDatagram::bind(root.at("/run/systemd/journal/socket")).unwrap();
        let journal = Journal::open(&root);
        journal.send(
            StepResult::Done,
            "1-1: online",
            &[("WWAN_QUIRKS_PORT", "1-1"), ("WWAN_QUIRKS_NAME", "two\nlines")],
        );
        let mut buffer = [0; 1024];
        let length = listener.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        for line in
            ["MESSAGE=1-1: online\n", "PRIORITY=6\n", "SYSLOG_IDENTIFIER=wwan-quirks\n", "WWAN_QUIRKS_PORT=1-1\n"]
        {
            assert!(text.contains(line), "{line:?} in {text:?}");
        }
        assert!(text.contains("WWAN_QUIRKS_NAME\n\u{9}\0\0\0\0\0\0\0two\nlines\n"), "{text:?}");
    }

    #[test]
    fn a_string_of_a_modem_cannot_forge_a_line() {
        assert_eq!(printable("a\nb\u{1b}[31m\u{202e}"), "a\\u{a}b\\u{1b}[31m\\u{202e}");
        for code in [0x7f, 0x9b, 0x200b, 0x200f, 0x2028, 0x2029, 0x2060, 0x2066, 0x206f, 0xfeff] {
            let character = char::from_u32(code).unwrap();
            assert_eq!(printable(&character.to_string()), format!("\\u{{{code:x}}}"));
        }
        assert!(printable(&"x".repeat(9000)).len() < 2000);
    }
}
