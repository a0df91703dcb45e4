//! A modem's tty for AT commands, as the option driver creates it.
//!
//! The driver sends a control transfer when the tty is opened, when its settings change, and when it is closed. If the
//! modem does not answer, each of them takes 5 s, and no signal interrupts it. For this reason, a child process does
//! all of them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::termios::{
    BaudRate, ControlFlags, FlushArg, SetArg, Termios, cfmakeraw, cfsetspeed, tcflush, tcgetattr, tcsetattr,
};

use super::stream::Stream;
use super::{OpenError, PromptClose, check_number, open_error, open_path};
use crate::host::deadline::Deadline;
use crate::host::sys::{self, Opened};
use crate::modem::device::DeviceNumber;

/// Opens the tty without echo, line discipline or flow control. Does not wait beyond the deadline. A child process
/// restores the settings after the stream is dropped.
///
/// # Errors
/// `NotReady` if the open does not end in time.
pub(crate) fn open(path: &Path, number: DeviceNumber, deadline: Deadline) -> Result<Stream, OpenError> {
    let opened = sys::open_abandonable(deadline, || RawTty::open(path, number));
    let Opened { file, keeper } = opened.map_err(|errno| match errno {
        Errno::ETIMEDOUT => OpenError::NotReady { path: path.to_owned(), source: errno.into() },
        Errno::EIO => OpenError::Gone { path: path.to_owned() },
        errno => open_error(path, errno.into()),
    })?;
    check_number(&file, path, number)?;
    Ok(Stream::with_keeper(file, keeper))
}

/// A tty whose settings are changed. On drop, it restores them.
struct RawTty {
    file: File,
    /// The original settings, and our settings as the kernel has stored them. `None` if the file is not the named
    /// device: its settings are not changed.
    settings: Option<(Termios, Termios)>,
    closing: PromptClose,
}

impl RawTty {
    fn open(path: &Path, number: DeviceNumber) -> io::Result<RawTty> {
        let file = open_path(path)?;
        let is_named = check_number(&file, path, number).is_ok();
        let settings = is_named.then(|| make_raw(&file)).transpose()?;
        Ok(RawTty { file, settings, closing: PromptClose::new()? })
    }
}

/// Returns the original settings and the new ones.
fn make_raw(file: &File) -> nix::Result<(Termios, Termios)> {
    let before = tcgetattr(file)?;
    let mut raw = before.clone();
    cfmakeraw(&mut raw);
    raw.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
    raw.control_flags &= !ControlFlags::CRTSCTS;
    // USB has no bit rate, but a rate of 0 would hang up.
    cfsetspeed(&mut raw, BaudRate::B115200)?;
    tcsetattr(file, SetArg::TCSANOW, &raw)?;
    tcflush(file, FlushArg::TCIOFLUSH)?;
    Ok((before, tcgetattr(file)?))
}

/// The number of control characters that the kernel sets (asm-generic/termbits.h). musl leaves the others unchanged.
const KERNEL_NCCS: usize = 19;

fn are_same(one: &Termios, other: &Termios) -> bool {
    let flags =
        |termios: &Termios| (termios.input_flags, termios.output_flags, termios.control_flags, termios.local_flags);
    flags(one) == flags(other)
        && one.control_chars.iter().zip(&other.control_chars).take(KERNEL_NCCS).all(|(a, b)| a == b)
}

impl AsRawFd for RawTty {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Drop for RawTty {
    fn drop(&mut self) {
        // The settings belong to the tty. Another program may have opened it, and changed them.
        let restored = self.settings.as_ref().map_or(Ok(()), |(before, ours)| match tcgetattr(&self.file)? {
            now if are_same(&now, ours) => tcsetattr(&self.file, SetArg::TCSANOW, before),
            _ => Ok(()),
        });
        if let Err(errno) = restored {
            log::debug!("the settings of the tty were not restored: {errno}");
        }
        self.closing.begin();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::soon;
    use crate::modem::link::{Link, LinkError};
    use nix::fcntl::OFlag;
    use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
    use nix::sys::termios::LocalFlags;
    use std::io::{Read, Write};
    use std::path::PathBuf;

    /// A modem and its tty.
    fn pty() -> (PtyMaster, PathBuf, DeviceNumber) {
        let modem = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&modem).unwrap();
        unlockpt(&modem).unwrap();
        let path = PathBuf::from(ptsname_r(&modem).unwrap());
        let number = DeviceNumber::of(&std::fs::metadata(&path).unwrap()).unwrap();
        (modem, path, number)
    }

    #[test]
    fn bytes_pass_unchanged_and_settings_are_restored() {
        let (mut modem, path, number) = pty();
        let watch = open_path(&path).unwrap();
        let before = tcgetattr(&watch).unwrap();
        let flags =
            |termios: &Termios| (termios.input_flags, termios.output_flags, termios.control_flags, termios.local_flags);
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        let mut tty = open(&path, number, soon()).unwrap();
        tty.send(b"at\r", soon()).unwrap();
        let mut came = [0; 3];
        modem.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"at\r");
        modem.write_all(b"\r\nOK\r\n").unwrap();
        let mut answer = Vec::<u8>::new();
        while answer.len() < 6 {
            answer.extend(tty.receive(soon()).unwrap().unwrap());
        }
        assert_eq!(answer, b"\r\nOK\r\n");
        drop(tty);
        // The child restores the settings.
        let by = soon();
        let after = loop {
            let after = tcgetattr(&watch).unwrap();
            if flags(&after) == flags(&before) || by.has_passed() {
                break after;
            }
            std::thread::yield_now();
        };
        assert_eq!(flags(&after), flags(&before));
        assert_eq!(after.control_chars[..KERNEL_NCCS], before.control_chars[..KERNEL_NCCS]);
    }

    #[test]
    fn settings_of_another_program_are_kept() {
        let (_modem, path, number) = pty();
        let other = open_path(&path).unwrap();
        // Without a child, which would restore the settings later.
        let tty = RawTty::open(&path, number).unwrap();
        let mut own = tcgetattr(&other).unwrap();
        own.control_flags |= ControlFlags::CSTOPB;
        tcsetattr(&other, SetArg::TCSANOW, &own).unwrap();
        drop(tty);
        let now = tcgetattr(&other).unwrap();
        assert_eq!((now.control_flags, now.local_flags), (own.control_flags, own.local_flags));
    }

    #[test]
    fn a_modem_that_leaves_is_gone() {
        let (modem, path, number) = pty();
        // Without a child, which would inherit the modem's end.
        let tty = RawTty::open(&path, number).unwrap();
        let mut stream = Stream::over(tty.file.try_clone().unwrap());
        drop(modem);
        assert_eq!(stream.receive(soon()), Err(LinkError::Gone));
    }

    #[test]
    fn another_device_is_refused_and_its_settings_are_kept() {
        let (_modem, path, number) = pty();
        let watch = open_path(&path).unwrap();
        let other = DeviceNumber { minor: number.minor + 1, ..number };
        assert!(matches!(open(&path, other, soon()), Err(OpenError::WrongDevice { .. })));
        assert!(tcgetattr(&watch).unwrap().local_flags.contains(LocalFlags::ECHO));
    }
}
