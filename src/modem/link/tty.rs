//! A modem's tty for AT commands, as the option driver creates it.

use super::stream::Stream;
use super::{Link, LinkError, OpenError, PromptClose, open_node};
use crate::host::deadline::Deadline;
use crate::modem::device::DeviceNumber;
use nix::errno::Errno;
use nix::sys::termios::{
    BaudRate, ControlFlags, FlushArg, SetArg, Termios, cfmakeraw, cfsetspeed, tcflush, tcgetattr, tcsetattr,
};
use std::fs::File;
use std::io;
use std::path::Path;

/// A tty without echo, line discipline or flow control. On drop, it restores the settings.
#[derive(Debug)]
pub(crate) struct Tty {
    stream: Stream,
    before: Termios,
    closing: PromptClose,
}

impl Tty {
    pub(crate) fn open(path: &Path, number: DeviceNumber) -> Result<Tty, OpenError> {
        let file = open_node(path, number)?;
        Tty::over(file).map_err(|errno| match errno {
            Errno::EIO | Errno::ENXIO | Errno::ENODEV => OpenError::Gone { path: path.to_owned() },
            errno => OpenError::Io { path: path.to_owned(), source: io::Error::from(errno) },
        })
    }

    fn over(file: File) -> nix::Result<Tty> {
        let before = tcgetattr(&file)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        raw.control_flags |= ControlFlags::CLOCAL | ControlFlags::CREAD;
        raw.control_flags &= !ControlFlags::CRTSCTS;
        // USB has no bit rate, but a rate of 0 would hang up.
        cfsetspeed(&mut raw, BaudRate::B115200)?;
        tcsetattr(&file, SetArg::TCSANOW, &raw)?;
        tcflush(&file, FlushArg::TCIOFLUSH)?;
        Ok(Tty { stream: Stream::over(file), before, closing: PromptClose::new()? })
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        if let Err(errno) = tcsetattr(self.stream.file(), SetArg::TCSANOW, &self.before) {
            log::debug!("the settings of the tty were not restored: {errno}");
        }
        self.closing.begin();
    }
}

impl Link for Tty {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        self.stream.send(message, by)
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.stream.receive(by)
    }

    fn longest(&self) -> usize {
        self.stream.longest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{OFlag, open};
    use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
    use nix::sys::stat::Mode;
    use nix::sys::termios::LocalFlags;
    use std::io::{Read, Write};
    use std::time::Duration;

    /// The number of control characters that the kernel sets (asm-generic/termbits.h). musl leaves the others
    /// unchanged.
    const KERNEL_NCCS: usize = 19;

    fn pty() -> (PtyMaster, File) {
        let modem = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
        grantpt(&modem).unwrap();
        unlockpt(&modem).unwrap();
        let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK;
        let tty = open(ptsname_r(&modem).unwrap().as_str(), flags, Mode::empty()).unwrap();
        (modem, File::from(tty))
    }

    #[test]
    fn bytes_pass_unchanged_and_settings_are_restored() {
        let (mut modem, file) = pty();
        let before = tcgetattr(&file).unwrap();
        let flags =
            |termios: &Termios| (termios.input_flags, termios.output_flags, termios.control_flags, termios.local_flags);
        assert!(before.local_flags.contains(LocalFlags::ECHO));
        let watch = file.try_clone().unwrap();
        let mut tty = Tty::over(file).unwrap();
        let soon = Deadline::after(Duration::from_secs(5));
        tty.send(b"at\r", soon).unwrap();
        let mut came = [0; 3];
        modem.read_exact(&mut came).unwrap();
        assert_eq!(&came, b"at\r");
        modem.write_all(b"\r\nOK\r\n").unwrap();
        let mut answer = Vec::<u8>::new();
        while answer.len() < 6 {
            answer.extend(tty.receive(soon).unwrap().unwrap());
        }
        assert_eq!(answer, b"\r\nOK\r\n");
        drop(tty);
        let after = tcgetattr(&watch).unwrap();
        assert_eq!(flags(&after), flags(&before));
        assert_eq!(after.control_chars[..KERNEL_NCCS], before.control_chars[..KERNEL_NCCS]);
    }

    #[test]
    fn a_modem_that_leaves_is_gone() {
        let (modem, file) = pty();
        let mut tty = Tty::over(file).unwrap();
        drop(modem);
        assert_eq!(tty.receive(Deadline::after(Duration::from_secs(5))), Err(LinkError::Gone));
    }
}
