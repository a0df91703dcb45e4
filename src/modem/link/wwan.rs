//! A port of the kernel's WWAN subsystem, such as `/dev/wwan0mbim0`. The drivers mhi_wwan_ctrl, iosm and mtk_t7xx
//! create such ports.
//!
//! Properties of the kernel's `drivers/net/wwan/wwan_core.c`:
//! - One write is one message.
//! - A read returns at most one message. The next read returns the rest of it.
//! - Several processes can open a port. The first reader takes a reply.
//! - The first open starts the port's channel to the modem, and the last close stops it. Over MHI both wait for the
//!   modem, 8 to 50 s depending on its model, and no signal interrupts them. For this reason, a child process opens
//!   the port, and is the last to close it.

use std::path::Path;

use nix::errno::Errno;

use super::stream::Stream;
use super::{OpenError, check_number, open_error, open_path};
use crate::host::deadline::Deadline;
use crate::host::sys::{self, Opened};
use crate::modem::device::DeviceNumber;

/// Opens the node. Does not wait beyond the deadline.
///
/// # Errors
/// `NotReady` if the modem refuses the open, or the open does not end in time.
pub(crate) fn open(path: &Path, number: DeviceNumber, deadline: Deadline) -> Result<Stream, OpenError> {
    let opened = sys::open_abandonable(deadline, || open_path(path));
    let Opened { file, keeper } = opened.map_err(|errno| match errno {
        // MHI and iosm return these errors while the modem's firmware is not in its operating mode, or does not reply.
        Errno::EIO | Errno::ENOTCONN | Errno::EAGAIN | Errno::ETIMEDOUT => {
            OpenError::NotReady { path: path.to_owned(), source: errno.into() }
        }
        errno => open_error(path, errno.into()),
    })?;
    check_number(&file, path, number)?;
    Ok(Stream::with_keeper(file, keeper))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::soon;
    use crate::modem::link::Link;

    const NULL: DeviceNumber = DeviceNumber { major: 1, minor: 3 };

    #[test]
    fn only_the_named_character_device_is_opened() {
        let mut port = open(Path::new("/dev/null"), NULL, soon()).unwrap();
        assert_eq!(port.send(b"at\r", soon()), Ok(()));
        assert_eq!(port.longest(), 4096);
        let wrong = open(Path::new("/dev/zero"), NULL, soon());
        assert!(matches!(wrong, Err(OpenError::WrongDevice { .. })), "{wrong:?}");
        let absent = open(Path::new("/dev/wwan99mbim99"), NULL, soon());
        assert!(matches!(absent, Err(OpenError::Missing { .. })), "{absent:?}");
    }
}
