//! The device nodes of the ports that accept commands: names and numbers.

use std::fs::Metadata;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::stat;

/// The number of a device node, major and minor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceNumber {
    pub(crate) major: u64,
    pub(crate) minor: u64,
}

impl DeviceNumber {
    pub(super) fn parse(text: &str) -> Option<DeviceNumber> {
        let (major, minor) = text.split_once(':')?;
        Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    /// The number of a character device.
    pub fn of(metadata: &Metadata) -> Option<DeviceNumber> {
        let (major, minor) = (stat::major(metadata.rdev()), stat::minor(metadata.rdev()));
        metadata.file_type().is_char_device().then_some(DeviceNumber { major, minor })
    }
}

/// A character device of a modem that accepts commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlPort {
    /// `cdc-wdm0`, `ttyUSB1`, `wwan0mbim0`.
    pub name: String,
    /// The driver of the USB interface or of the PCI device.
    pub driver: Option<String>,
    /// The protocol of a WWAN port, as the kernel names it (`MBIM`, `AT`). `None` for other kinds of ports.
    pub wwan_type: Option<String>,
    pub number: DeviceNumber,
}

/// `cdc-wdm` and a number, such as `cdc-wdm0`.
pub(crate) fn is_cdc_wdm(name: &str) -> bool {
    name.strip_prefix("cdc-wdm").is_some_and(is_number)
}

/// `wwan`, a number, the type in lower case, and a number, such as `wwan0mbim0`.
pub(crate) fn is_wwan_port(name: &str) -> bool {
    let Some(rest) = name.strip_prefix("wwan") else { return false };
    let Some(start) = rest.find(|c: char| c.is_ascii_lowercase()) else { return false };
    let (device, port) = rest.split_at(start);
    let end = port.find(|c: char| !c.is_ascii_lowercase()).unwrap_or(port.len());
    let (kind, number) = port.split_at(end);
    is_number(device) && kind.len() <= 16 && is_number(number)
}

/// `ttyUSB` or `ttyACM` and a number.
pub(crate) fn is_tty(name: &str) -> bool {
    name.strip_prefix("ttyUSB").or_else(|| name.strip_prefix("ttyACM")).is_some_and(is_number)
}

pub(super) fn is_number(digits: &str) -> bool {
    (1..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
}
