//! Configuration files in three layers: `/etc` over `/run` over `/usr/share`
//! (UAPI configuration files specification 1.0).
//!
//! Of one file name the highest layer's file counts whole; a link to `/dev/null` or an empty file masks the others;
//! files apply in the order of their names.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{self, OFlag};
use nix::libc;
use nix::sys::stat::Mode;
use serde::Serialize;

use crate::host::paths;
use crate::host::root::{Root, read_limited};
use crate::host::sys;

/// No file of ours comes near; one that does is a mistake or an attack.
const FILE_LIMIT: usize = 1 << 20;
const FILES_LIMIT: usize = 10_000;
const LINKS_LIMIT: usize = 8;

/// Who wrote a file. The order is that of precedence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// `/usr/share/wwan-quirks`, or its like below another prefix
    Shipped,
    /// `/run/wwan-quirks`
    Runtime,
    /// `/etc/wwan-quirks`
    Administrator,
}

impl Layer {
    const ALL: [Layer; 3] = [Layer::Shipped, Layer::Runtime, Layer::Administrator];

    pub fn directory(self, root: &Root) -> PathBuf {
        match self {
            Layer::Shipped => paths::data(root),
            Layer::Runtime => "/run/wwan-quirks".into(),
            Layer::Administrator => "/etc/wwan-quirks".into(),
        }
    }
}

/// A file that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layered {
    pub layer: Layer,
    /// As people know it, without the root.
    pub path: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} can be written by others than root: `chmod go-w {path}` and see that root owns it")]
    Insecure { path: PathBuf },
    #[error("{path} holds too many files")]
    TooMany { path: PathBuf },
    #[error("{path} is not UTF-8")]
    NotText { path: PathBuf },
}

/// The `*.toml` files of `directory` in all layers whose names are `wanted`, in the order of their names. What it is asked
/// about has NULs behind it.
pub fn files(root: &Root, directory: &str, wanted: impl Fn(&[u8]) -> bool) -> Result<Vec<Layered>, LayerError> {
    let mut found = BTreeMap::new();
    for layer in Layer::ALL {
        let path = layer.directory(root).join(directory);
        let io = |error: nix::Error| LayerError::Io { path: path.clone(), source: error.into() };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = match fcntl::open(&root.at(&path), flags, Mode::empty()) {
            Ok(opened) => opened,
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => continue,
            Err(error) => return Err(io(error)),
        };
        let opened = File::from(opened);
        secure(root, &path, &opened.metadata().map_err(|source| LayerError::Io { path: path.clone(), source })?)?;
        let before = found.len();
        // Most names are not wanted: they are passed over as they are, with what fills up their records.
        let told = sys::for_each_name(opened.as_fd(), |padded| {
            if !wanted(padded) || found.len() > before + FILES_LIMIT {
                return;
            }
            let name = CStr::from_bytes_until_nul(padded).map(CStr::to_bytes).unwrap_or(padded);
            if name.ends_with(b".toml") {
                let name = PathBuf::from(OsStr::from_bytes(name));
                found.insert(name.clone(), Layered { layer, path: path.join(name) });
            }
        });
        told.map_err(io)?;
        if found.len() > before + FILES_LIMIT {
            return Err(LayerError::TooMany { path });
        }
    }
    Ok(found.into_values().collect())
}

/// The file `name` (`config.toml`) of each layer that has one, from the lowest layer to the highest.
pub fn in_each_layer(root: &Root, name: &str) -> Vec<Layered> {
    let files = Layer::ALL.into_iter().map(|layer| Layered { layer, path: layer.directory(root).join(name) });
    files.filter(|file| fs::symlink_metadata(root.at(&file.path)).is_ok()).collect()
}

/// The text of a file; none where it masks others of its name.
pub fn read(root: &Root, file: &Layered) -> Result<Option<String>, LayerError> {
    let io = |source| LayerError::Io { path: file.path.clone(), source };
    let opened = match open(&root.at(&file.path)) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let Some(real) = follow(root, &file.path).map_err(io)? else { return Ok(None) };
            secure_way(root, &real)?;
            open(&root.at(&real))
        }
        opened => opened,
    };
    let opened = opened.map_err(io)?;
    let metadata = opened.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(io(io::Error::other("not a regular file")));
    }
    secure(root, &file.path, &metadata)?;
    let bytes = read_limited(opened, FILE_LIMIT).map_err(io)?;
    let text = String::from_utf8(bytes).map_err(|_| LayerError::NotText { path: file.path.clone() })?;
    Ok((!text.is_empty()).then_some(text))
}

/// Opens what is no link, and waits for nobody: what is found there may be a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// Where links lead, absolute ones from the root; none for `/dev/null`.
fn follow(root: &Root, path: &Path) -> io::Result<Option<PathBuf>> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_LIMIT {
        match fs::read_link(root.at(&path)) {
            Ok(target) if target == Path::new("/dev/null") => return Ok(None),
            Ok(target) => path = path.parent().unwrap_or(Path::new("/")).join(target),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return Ok(Some(path)),
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many links"))
}

/// On the running system, what decides over modems must be root's alone.
fn secure(root: &Root, path: &Path, metadata: &Metadata) -> Result<(), LayerError> {
    if root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0) {
        return Err(LayerError::Insecure { path: path.to_owned() });
    }
    Ok(())
}

/// A link may lead anywhere, but not through a folder where others could put another file in place of the one there.
fn secure_way(root: &Root, path: &Path) -> Result<(), LayerError> {
    if !root.is_live() {
        return Ok(());
    }
    let io = |source| LayerError::Io { path: path.to_owned(), source };
    for folder in path.canonicalize().map_err(io)?.ancestors().skip(1) {
        secure(root, folder, &folder.metadata().map_err(io)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        let path = std::env::temp_dir().join(format!("wwan-quirks-layers-{}", std::process::id()));
        let root = Root::new(&path);
        let folder = path.join("etc/wwan-quirks");
        fs::create_dir_all(folder.join("folder.toml")).unwrap();
        nix::unistd::mkfifo(&folder.join("pipe.toml"), Mode::from_bits_truncate(0o600)).unwrap();
        symlink("pipe.toml", folder.join("link.toml")).unwrap();
        symlink("loop.toml", folder.join("loop.toml")).unwrap();
        fs::write(folder.join("long.toml"), vec![b'#'; FILE_LIMIT + 1]).unwrap();
        fs::write(folder.join("bytes.toml"), [0xff]).unwrap();
        for name in ["folder", "pipe", "link", "loop", "long", "bytes"] {
            let path = Path::new("/etc/wwan-quirks").join(format!("{name}.toml"));
            assert!(read(&root, &Layered { layer: Layer::Administrator, path }).is_err(), "{name}");
        }
        fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn a_link_must_not_lead_to_where_others_can_write() {
        let folder = std::env::temp_dir().join(format!("wwan-quirks-way-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("policy.toml"), "").unwrap();
        let way = |path: &Path| secure_way(&Root::new("/"), path);
        assert!(matches!(way(&folder.join("policy.toml")), Err(LayerError::Insecure { .. })));
        assert!(way(Path::new("/usr/bin/env")).is_ok());
        fs::remove_dir_all(folder).unwrap();
    }
}
