//! The root folder. Every function that reads or writes files takes a [`Root`], so that tests and images can use
//! another one.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

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

    /// Whether this is the `/` of the running system.
    pub fn is_live(&self) -> bool {
        self.0 == Path::new("/")
    }
}

/// Reads a whole file of at most `limit` bytes. A longer file is an error of kind `FileTooLarge`.
pub fn read_limited(file: impl Read, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(limit.min(4096) + 1);
    file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("larger than {limit} bytes")));
    }
    Ok(bytes)
}
