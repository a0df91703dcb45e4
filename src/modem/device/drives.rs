//! The drives of a device in install mode.

use std::path::{Path, PathBuf};

use super::Device;

/// A drive of a device in install mode, or one of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Drive {
    /// `sda1`
    pub name: String,
    /// The number of the node, `8:1`.
    pub number: String,
    /// Another block device, such as an encrypted volume, is on it.
    pub has_holders: bool,
}

impl Device {
    /// A text attribute of the first SCSI device on this device. `None` if there is no SCSI device, or not yet.
    pub(crate) fn scsi_attribute(&self, name: &str) -> Option<String> {
        let first = self.scsi_devices().into_iter().min()?;
        let text = self.attribute(&first.join(name).display().to_string()).ok()?;
        Some(text.trim_end().to_owned())
    }

    /// The directories of the SCSI devices, `1-1:1.0/host0/target0:0:0/0:0:0:0`.
    fn scsi_devices(&self) -> Vec<PathBuf> {
        let mut directories = vec![PathBuf::new()];
        for prefix in [&format!("{}:", self.port), "host", "target", ""] {
            let digit = |name: &String| name.as_bytes().get(prefix.len()).is_some_and(u8::is_ascii_digit);
            let below = |directory: &PathBuf| {
                let names = self.list(directory).unwrap_or_default().into_iter();
                let wanted = names.filter(|name| name.starts_with(prefix) && digit(name));
                wanted.map(|name| directory.join(name)).collect::<Vec<_>>()
            };
            directories = directories.iter().flat_map(below).collect();
        }
        directories
    }

    /// The drives of this device and their partitions: `sr0`, `sda`, `sda1`.
    pub(crate) fn drives(&self) -> Vec<Drive> {
        let mut drives = Vec::new();
        for block in self.scsi_devices().iter().map(|directory| directory.join("block")) {
            for name in self.list(&block).unwrap_or_default() {
                let disk = block.join(&name);
                let names = self.list(&disk).unwrap_or_default();
                let partitions = names.into_iter().filter(|other| other.starts_with(&name)).map(|name| disk.join(name));
                drives.extend([disk.clone()].into_iter().chain(partitions).filter_map(|path| self.drive(&path)));
            }
        }
        drives
    }

    fn drive(&self, directory: &Path) -> Option<Drive> {
        let name = directory.file_name()?.to_str()?.to_owned();
        let number = self.attribute(&directory.join("dev").display().to_string()).ok()?;
        let has_holders = self.list(&directory.join("holders")).is_ok_and(|holders| !holders.is_empty());
        Some(Drive { name, number, has_holders })
    }
}
