//! The file systems that are mounted.

use std::{fs, io};

use crate::host::root::Root;

/// The mounted file systems. Source: proc_pid_mountinfo(5).
pub(crate) struct Mounts(String);

impl Mounts {
    pub(crate) fn read(root: &Root) -> io::Result<Mounts> {
        match fs::read(root.at("/proc/self/mountinfo")) {
            Ok(bytes) => Ok(Mounts(String::from_utf8_lossy(&bytes).into_owned())),
            // A directory with the files of another system has no mounts.
            Err(_) if !root.is_live() => Ok(Mounts(String::new())),
            Err(error) => Err(error),
        }
    }

    /// Whether a file system on the block device `name` (`sda1`) with this number (`8:1`) is mounted for writing. Some
    /// file systems, such as btrfs, have numbers of their own.
    pub(crate) fn has_writable(&self, name: &str, number: &str) -> bool {
        let is_writable = |options: &str| options.split(',').any(|option| option == "rw");
        // ID, parent, number, root, mount point, options, more fields, "-"; then type, source, options of the file
        // system.
        self.0.lines().any(|line| {
            let Some((mount, file_system)) = line.split_once(" - ") else { return false };
            let (mount, file_system): (Vec<_>, Vec<_>) = (mount.split(' ').collect(), file_system.split(' ').collect());
            let (&[_, _, at, _, _, options, ..], &[_, source, super_options]) = (&*mount, &*file_system) else {
                return false;
            };
            (at == number || source.strip_prefix("/dev/") == Some(name))
                && is_writable(options)
                && is_writable(super_options)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn only_a_file_system_that_is_mounted_for_writing_counts() {
        let root = TempRoot::new("mounts");
        let is_mounted = |(name, number)| Mounts::read(&root).unwrap().has_writable(name, number);
        assert!(!is_mounted(("sda1", "8:1")));
        let mounts = b"20 1 8:9 / /media/caf\xe9 rw - vfat /dev/sda9 rw\n\
                       22 1 8:1 / /media/card rw,nosuid shared:1 - vfat /dev/sda1 rw,uid=1000\n\
                       23 1 11:0 / /media/cd ro,nosuid shared:2 - iso9660 /dev/sr0 ro\n\
                       24 1 8:2 / /media/a\\040b ro - ext4 /dev/sda2 rw\n\
                       25 1 8:3 / /media/c rw - ext4 /dev/sda3 ro,errors=remount-ro\n\
                       26 1 0:45 / /media/d rw shared:3 - btrfs /dev/sda4 rw\n\
                       27 1 0:46 / /media/e rw";
        root.write("/proc/self/mountinfo", mounts);
        let of = [("sda1", "8:1"), ("sr0", "11:0"), ("sda2", "8:2"), ("sda3", "8:3"), ("sda4", "8:4"), ("sda", "8:0")];
        assert_eq!(of.map(is_mounted), [true, false, false, false, true, false]);
    }
}
