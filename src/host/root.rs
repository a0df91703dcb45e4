//! The root directory. Every function that reads or writes files takes a [`Root`], so that tests and images can use
//! another one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::OFlag;

#[derive(Debug, Clone)]
pub struct Root(PathBuf);

impl Root {
    pub fn new(path: impl Into<PathBuf>) -> Root {
        Root(path.into())
    }

    /// The path of `absolute` (such as `/etc/wwan-quirks`) below this root.
    pub fn at(&self, absolute: impl AsRef<Path>) -> PathBuf {
        let path = absolute.as_ref();
        self.0.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Reads a whole regular file of at most `limit` bytes. Does not block if the file is a pipe.
    pub(crate) fn read(&self, path: &str, limit: usize) -> io::Result<Vec<u8>> {
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = File::options().read(true).custom_flags(flags.bits()).open(self.at(path))?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        read_limited(file, limit)
    }

    /// The path of the file `name` in the first of `directories` that has it. `None` if it is masked: a link to
    /// `/dev/null`.
    pub(crate) fn layered(&self, directories: &[&str], name: &str) -> Option<String> {
        let mut paths = directories.iter().map(|directory| format!("{directory}/{name}"));
        let path = paths.find(|path| fs::symlink_metadata(self.at(path)).is_ok())?;
        let directory = Path::new(&path).parent()?;
        let is_masked = fs::read_link(self.at(&path)).is_ok_and(|target| is_mask(directory, &target));
        (!is_masked).then_some(path)
    }

    /// Whether this is the `/` of the running system.
    pub(crate) fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }
}

/// Whether a link in `directory` to `target` is a mask: it leads to `/dev/null`, directly or relatively.
pub(crate) fn is_mask(directory: &Path, target: &Path) -> bool {
    let mut path = directory.to_owned();
    for part in target.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(path.pop()),
            part => path.push(part),
        }
    }
    path == Path::new("/dev/null")
}

/// Reads a whole file of at most `limit` bytes. A longer file is an error of kind `FileTooLarge`.
pub(crate) fn read_limited(file: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit.min(4096) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::ops::Deref;
    use std::os::unix::fs::symlink;

    /// A root for one test, which is removed when it is dropped.
    pub(crate) struct TempRoot(Root);

    impl TempRoot {
        /// An empty root. No other test may have the same `name`.
        pub(crate) fn new(name: &str) -> TempRoot {
            let root = Root::new(std::env::temp_dir().join(format!("wwan-quirks-{name}-{}", std::process::id())));
            fs::create_dir_all(root.at("/")).unwrap();
            TempRoot(root)
        }

        /// Writes the file, and creates its directory.
        pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
            fs::create_dir_all(self.at(path).parent().unwrap()).unwrap();
            fs::write(self.at(path), text).unwrap();
        }
    }

    impl Deref for TempRoot {
        type Target = Root;

        fn deref(&self) -> &Root {
            &self.0
        }
    }

    impl Drop for TempRoot {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(self.at("/"));
        }
    }

    #[test]
    fn the_first_directory_has_precedence_and_can_mask() {
        let root = TempRoot::new("layered");
        let found = || root.layered(&["/etc", "/lib"], "a.rules");
        let nowhere = found();
        root.write("/lib/a.rules", "");
        let shipped = found();
        root.write("/etc/a.rules", "");
        let own = found();
        fs::remove_file(root.at("/etc/a.rules")).unwrap();
        symlink("/dev/null", root.at("/etc/a.rules")).unwrap();
        let masked = found();
        fs::remove_file(root.at("/etc/a.rules")).unwrap();
        symlink("../dev/null", root.at("/etc/a.rules")).unwrap();
        let masked_relatively = found();
        assert_eq!(
            [nowhere, shipped, own, masked, masked_relatively].map(|path| path.unwrap_or_default()),
            ["", "/lib/a.rules", "/etc/a.rules", "", ""]
        );
    }
}
