//! The reset of an unlocked modem that does not come online by itself.

use std::io::{self, Write};

use crate::bus::Port;

/// Resets the modem: the kernel unbinds its drivers, and configures it again. `authorized` is the open attribute of the
/// device.
pub(crate) fn run(mut authorized: impl Write) -> io::Result<()> {
    authorized.write_all(b"0\n")?;
    authorized.write_all(b"1\n")
}

/// How a person resets the modem on `port`.
pub(crate) fn by_hand(port: &Port) -> String {
    format!("reset the modem: write 0, then 1, to /sys/bus/usb/devices/{port}/authorized")
}
