//! The file systems that are mounted.

use std::fs;

use crate::host::root::Root;

/// Whether a file system on the block device `number` (`8:1`) is mounted for writing. Source: proc_pid_mountinfo(5).
pub(crate) fn is_mounted_for_writing(root: &Root, number: &str) -> bool {
    let mounts = fs::read_to_string(root.at("/proc/self/mountinfo")).unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ');
        let is_writable = |options: Option<&str>| options.is_some_and(|options| options.split(',').any(|o| o == "rw"));
        // ID, parent, number, root, mount point, options. After " - ": type, source, options of the file system.
        fields.nth(2) == Some(number) && is_writable(fields.nth(2)) && is_writable(line.rsplit(' ').next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;

    #[test]
    fn only_a_file_system_that_is_mounted_for_writing_counts() {
        let root = TempRoot::new("mounts");
        assert!(!is_mounted_for_writing(&root, "8:1"));
        let mounts = "22 1 8:1 / /media/card rw,nosuid shared:1 - vfat /dev/sda1 rw,uid=1000\n\
                      23 1 11:0 / /media/cd ro,nosuid shared:2 - iso9660 /dev/sr0 ro\n\
                      24 1 8:2 / /media/a\\040b ro - ext4 /dev/sda2 rw\n\
                      25 1 8:3 / /media/c rw - ext4 /dev/sda3 ro,errors=remount-ro\n";
        root.write("/proc/self/mountinfo", mounts);
        let of = ["8:1", "11:0", "8:2", "8:3", "8"].map(|number| is_mounted_for_writing(&root, number));
        assert_eq!(of, [true, false, false, false, false]);
    }
}
