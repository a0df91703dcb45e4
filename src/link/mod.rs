//! How bytes travel to a modem. Each way is a small trait with one real and one scripted implementation.

pub mod usb;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::device::DeviceNumber;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path} is gone")]
    Gone { path: PathBuf },
    #[error("cannot open {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not the device that sysfs names: it must be the character device {major}:{minor}")]
    Another { path: PathBuf, major: u64, minor: u64 },
}

/// Opens a device node for reading and writing, without blocking. Refused is whatever is not the character device
/// `number`: a link, a file, or the node of another device.
pub fn open_node(path: &Path, number: DeviceNumber) -> Result<File, OpenError> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags.bits()).open(path);
    let file = opened.map_err(|source| match source.raw_os_error().map(nix::Error::from_raw) {
        Some(nix::Error::ENOENT | nix::Error::ENODEV | nix::Error::ENXIO) => OpenError::Gone { path: path.to_owned() },
        _ => OpenError::Io { path: path.to_owned(), source },
    })?;
    let metadata = file.metadata().map_err(|source| OpenError::Io { path: path.to_owned(), source })?;
    let found =
        DeviceNumber { major: nix::sys::stat::major(metadata.rdev()), minor: nix::sys::stat::minor(metadata.rdev()) };
    if !metadata.file_type().is_char_device() || found != number {
        let DeviceNumber { major, minor } = number;
        return Err(OpenError::Another { path: path.to_owned(), major, minor });
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_character_device_is_opened() {
        let null = DeviceNumber { major: 1, minor: 3 };
        assert!(open_node(Path::new("/dev/null"), null).is_ok());
        let other = open_node(Path::new("/dev/zero"), null).unwrap_err();
        assert!(matches!(other, OpenError::Another { .. }), "{other}");
        assert!(matches!(open_node(Path::new("/dev/no-such"), null), Err(OpenError::Gone { .. })));
        let link = std::env::temp_dir().join(format!("wwan-quirks-link-{}", std::process::id()));
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let refused = open_node(&link, null);
        std::fs::remove_file(&link).unwrap();
        assert!(matches!(refused, Err(OpenError::Io { .. })));
    }
}
