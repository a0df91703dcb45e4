//! Configuration files in three layers: `/etc` over `/run` over `/usr/share`
//! (UAPI configuration files specification 1.0).
//!
//! For each file name, the file of the highest layer replaces the others. A link to `/dev/null` or an empty file masks
//! the name. Files apply in the order of their names.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, OsString};
use std::fmt;
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

use crate::bus::DeviceId;
use crate::host::journal::printable_path;
use crate::host::paths;
use crate::host::root::{Root, is_mask, read_limited};
use crate::host::sys;

/// Bytes. No real file is as long.
pub(crate) const FILE_LIMIT: usize = 1 << 20;
const FILES_LIMIT: usize = 10_000;
const LINKS_LIMIT: usize = 8;
/// How many of many IDs a message names.
const FEW: usize = 3;

/// The layer of a file. A higher layer replaces a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// `/usr/share/wwan-quirks`, or the directory of another prefix.
    Shipped,
    /// `/run/wwan-quirks`.
    Runtime,
    /// `/etc/wwan-quirks`.
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

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    pub layer: Layer,
    /// The path without the root, for messages.
    pub path: PathBuf,
}

/// Whether a problem makes a file invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    Error,
    /// The file is valid. Part of it is weak, or has no effect.
    Warning,
}

/// The beginning of a message.
impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "",
            Severity::Warning => "warning: ",
        })
    }
}

/// Why a file or a directory was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    Io { path: PathBuf, source: io::Error },
    Insecure { path: PathBuf },
    InsecureLink { path: PathBuf, part: PathBuf },
    TooMany { path: PathBuf },
    Ignored { path: PathBuf, read: &'static str },
    Replaces { path: PathBuf, lower: PathBuf, ids: Vec<DeviceId> },
    NotText { path: PathBuf },
    NoDatabase { path: PathBuf },
    EmptyDatabase { path: PathBuf },
    MaskedDatabase { path: PathBuf },
}

/// The remedy for a database of which all files are masked.
pub(crate) const UNMASK: &str = "remove the masks in /etc/wwan-quirks/quirks.d and /run/wwan-quirks/quirks.d";

impl fmt::Display for FileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}{}", printable_path(self.path()), self.severity(), self.message())
    }
}

impl FileError {
    /// Whether the file does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        let FileError::Io { source, .. } = self else { return false };
        matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
    }

    pub(crate) fn severity(&self) -> Severity {
        match self {
            FileError::Ignored { .. } | FileError::Replaces { .. } => Severity::Warning,
            _ => Severity::Error,
        }
    }

    pub fn path(&self) -> &Path {
        match self {
            FileError::Io { path, .. }
            | FileError::Insecure { path }
            | FileError::InsecureLink { path, .. }
            | FileError::TooMany { path }
            | FileError::Ignored { path, .. }
            | FileError::Replaces { path, .. }
            | FileError::NotText { path }
            | FileError::NoDatabase { path }
            | FileError::EmptyDatabase { path }
            | FileError::MaskedDatabase { path } => path,
        }
    }

    /// The problem and its remedy, without the path.
    pub(crate) fn message(&self) -> String {
        let cause = self.cause();
        match (self, self.remedy()) {
            (_, None) => cause,
            (FileError::Insecure { .. }, Some(command)) => format!("{cause}; to protect it: `{command}`"),
            (_, Some(remedy)) => format!("{cause}; {remedy}"),
        }
    }

    /// The problem, without the path.
    pub(crate) fn cause(&self) -> String {
        match self {
            FileError::Io { source, .. } => format!("cannot read: {source}"),
            FileError::Insecure { .. } => "users other than root can change it".to_owned(),
            FileError::InsecureLink { part, .. } => {
                format!("users other than root can change {}, which the link passes through", printable_path(part))
            }
            FileError::TooMany { .. } => format!("more than {FILES_LIMIT} files"),
            FileError::Ignored { read, .. } => format!("not read: the program reads only {read} here"),
            FileError::Replaces { lower, ids, .. } => {
                let few: Vec<String> = ids.iter().take(FEW).map(ToString::to_string).collect();
                let lost = match ids.len() {
                    1 => "1 ID of that file no longer has".to_owned(),
                    count => format!("{count} IDs of that file no longer have"),
                };
                let more = if ids.len() > FEW { ", …" } else { "" };
                format!("this file replaces {}, and {lost} an entry ({}{more})", printable_path(lower), few.join(", "))
            }
            FileError::NotText { .. } => "not UTF-8".to_owned(),
            FileError::NoDatabase { .. } => "the database is missing: there is no such directory".to_owned(),
            FileError::EmptyDatabase { .. } => "the database is empty: no file here has a quirk".to_owned(),
            FileError::MaskedDatabase { .. } => "the database is empty: all of its files are masked".to_owned(),
        }
    }

    /// `None`: to correct the file.
    pub(crate) fn remedy(&self) -> Option<String> {
        match self {
            FileError::Insecure { path } => {
                let at = printable_path(path);
                Some(format!("chown root {at} && chmod go-w {at}"))
            }
            FileError::InsecureLink { .. } => Some("replace the link with a copy".to_owned()),
            FileError::TooMany { .. } => Some("merge the files".to_owned()),
            FileError::Replaces { .. } => Some("rename this file to keep the other one".to_owned()),
            FileError::NoDatabase { .. } | FileError::EmptyDatabase { .. } => Some("reinstall the package".to_owned()),
            FileError::MaskedDatabase { .. } => Some(UNMASK.to_owned()),
            FileError::Io { .. } | FileError::Ignored { .. } | FileError::NotText { .. } => None,
        }
    }
}

/// The `*.toml` files of `directory` in all layers, in the order of their names. Hidden files (`.*`) are left out: editors
/// create them. A file is also left out if `wanted` returns false for its layer and its name, which is padded with NULs.
/// A directory that cannot be read is an error, but does not hide the files of other layers.
pub fn files(root: &Root, directory: &str, wanted: impl Fn(Layer, &[u8]) -> bool) -> (Vec<ConfigFile>, Vec<FileError>) {
    let mut files = BTreeMap::new();
    let mut errors = Vec::new();
    for layer in Layer::ALL {
        errors.extend(add_files(root, layer, directory, &wanted, &mut files).err());
    }
    (files.into_values().collect(), errors)
}

/// The files of `directory` that a file of a higher layer replaces or masks, each after that file.
pub(crate) fn replaced(root: &Root, directory: &str) -> Vec<(ConfigFile, ConfigFile)> {
    let mut highest: BTreeMap<PathBuf, ConfigFile> = BTreeMap::new();
    let mut replaced = Vec::new();
    for layer in Layer::ALL.into_iter().rev() {
        let mut files = BTreeMap::new();
        // `files` reports a directory that cannot be read.
        let _ = add_files(root, layer, directory, &|_, _| true, &mut files);
        for (name, file) in files {
            match highest.get(&name) {
                Some(higher) => replaced.push((higher.clone(), file)),
                None => drop(highest.insert(name, file)),
            }
        }
    }
    replaced
}

fn add_files(
    root: &Root,
    layer: Layer,
    directory: &str,
    wanted: &impl Fn(Layer, &[u8]) -> bool,
    files: &mut BTreeMap<PathBuf, ConfigFile>,
) -> Result<(), FileError> {
    let Some(base) = folder_of(root, layer)? else { return Ok(()) };
    let Some(path) = folder(root, base.join(directory))? else { return Ok(()) };
    let io = |source| FileError::Io { path: path.clone(), source };
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = match fcntl::open(&root.at(&path), flags, Mode::empty()) {
        Ok(opened) => File::from(opened),
        Err(nix::Error::ENOENT) => return Ok(()),
        Err(error) => return Err(io(error.into())),
    };
    check_owner(root, &path, &directory.metadata().map_err(io)?)?;
    let mut count = 0;
    // A lookup skips most names, so do not determine the length of each name.
    let listed = sys::for_each_name(directory.as_fd(), |padded| {
        if !wanted(layer, padded) || count > FILES_LIMIT {
            return;
        }
        let name = CStr::from_bytes_until_nul(padded).map(CStr::to_bytes).unwrap_or(padded);
        if is_read(name) {
            let name = PathBuf::from(OsStr::from_bytes(name));
            files.insert(name.clone(), ConfigFile { layer, path: path.join(name) });
            count += 1;
        }
    });
    listed.map_err(|error| io(error.into()))?;
    if count > FILES_LIMIT { Err(FileError::TooMany { path }) } else { Ok(()) }
}

/// The entries of the administrator's directories that have no effect, because of their names.
pub(crate) fn ignored(root: &Root) -> Vec<FileError> {
    const DIRECTORIES: [&str; 2] = ["config.d", "quirks.d"];
    let mut ignored = Vec::new();
    for layer in [Layer::Runtime, Layer::Administrator] {
        // `files` reports a directory that cannot be read.
        let Ok(Some(base)) = folder_of(root, layer) else { continue };
        let is_state = |name: &str| layer == Layer::Runtime && ["lock", "state"].contains(&name);
        let is_known = |name: &str| {
            DIRECTORIES.contains(&name) || ["config.toml", "compositions.toml"].contains(&name) || is_state(name)
        };
        let read = "config.toml, compositions.toml, config.d/*.toml and quirks.d/*.toml";
        ignored.extend(others(root, &base, is_known).into_iter().map(|path| FileError::Ignored { path, read }));
        for directory in DIRECTORIES {
            let Ok(Some(path)) = folder(root, base.join(directory)) else { continue };
            let others = others(root, &path, |name| is_read(name.as_bytes()));
            ignored.extend(others.into_iter().map(|path| FileError::Ignored { path, read: "*.toml" }));
        }
    }
    ignored
}

/// The entries of a directory that are not `known`. Leaves out hidden files, files that editors and package managers
/// leave behind, and READMEs.
fn others(root: &Root, directory: &Path, known: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let is_leftover = |name: &str| {
        name.starts_with(['.', '#'])
            || name.ends_with('~')
            || name.starts_with("README")
            || [".dpkg-", ".ucf-", ".rpm", ".pac", ".apk-"].iter().any(|part| name.contains(part))
    };
    let Ok(entries) = fs::read_dir(root.at(directory)) else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name()).filter(|name| {
        let name = name.to_string_lossy();
        !known(&name) && !is_leftover(&name)
    });
    let mut others: Vec<PathBuf> = names.map(|name| directory.join(name)).collect();
    others.sort();
    others
}

/// Whether a directory of configuration files is searched for files with this name.
fn is_read(name: &[u8]) -> bool {
    name.ends_with(b".toml") && !name.starts_with(b".")
}

/// The file `name` (`config.toml`) of each layer that has one, from the lowest layer to the highest.
/// [`files`] reports a layer that cannot be read.
pub(crate) fn in_each_layer(root: &Root, name: &str) -> Vec<ConfigFile> {
    let files = Layer::ALL.into_iter().filter_map(|layer| {
        let folder = folder_of(root, layer).ok()??;
        Some(ConfigFile { layer, path: folder.join(name) })
    });
    files.filter(|file| fs::symlink_metadata(root.at(&file.path)).is_ok()).collect()
}

/// The directory of a layer, if it has one.
fn folder_of(root: &Root, layer: Layer) -> Result<Option<PathBuf>, FileError> {
    match folder(root, layer.directory(root)) {
        // The program also keeps its state there, and works without it.
        Err(error) if layer == Layer::Runtime && error.is_missing() => Ok(None),
        found => found,
    }
}

/// The directory at `path`, or the directory that a link at `path` leads to. `None` if there is none.
///
/// On the running system, only root can change its entries. The directories above it belong to the distribution.
fn folder(root: &Root, path: PathBuf) -> Result<Option<PathBuf>, FileError> {
    let metadata = match fs::symlink_metadata(root.at(&path)) {
        Ok(metadata) => metadata,
        Err(source) => return unless_missing(FileError::Io { path, source }),
    };
    if metadata.is_symlink() {
        return follow(root, &path).or_else(unless_missing);
    }
    if !metadata.is_dir() {
        return Err(FileError::Io { path, source: nix::Error::ENOTDIR.into() });
    }
    check_owner(root, &path, &metadata)?;
    Ok(Some(path))
}

fn unless_missing(error: FileError) -> Result<Option<PathBuf>, FileError> {
    match error {
        FileError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => Ok(None),
        error => Err(error),
    }
}

/// The text of a file. `None` if the file masks the files of its name in lower layers.
pub fn read(root: &Root, file: &ConfigFile) -> Result<Option<String>, FileError> {
    let text = |bytes| String::from_utf8(bytes).map_err(|_| FileError::NotText { path: file.path.clone() });
    read_bytes(root, file)?.map(text).transpose()
}

/// Like [`read`], but accepts any bytes.
pub(crate) fn read_bytes(root: &Root, file: &ConfigFile) -> Result<Option<Vec<u8>>, FileError> {
    let io = |source| FileError::Io { path: file.path.clone(), source };
    let opened = match open(&root.at(&file.path)) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            let Some(target) = follow(root, &file.path)? else { return Ok(None) };
            open(&root.at(&target))
        }
        opened => opened,
    };
    let opened = opened.map_err(io)?;
    let metadata = opened.metadata().map_err(io)?;
    if !metadata.is_file() {
        return Err(io(io::Error::other("not a regular file")));
    }
    check_owner(root, &file.path, &metadata)?;
    let bytes = read_limited(opened, FILE_LIMIT).map_err(io)?;
    Ok((!bytes.is_empty()).then_some(bytes))
}

/// Whether a TOML file has no key: only comments and blank lines.
pub(crate) fn has_no_key(text: &str) -> bool {
    text.trim_start_matches('\u{feff}')
        .lines()
        .map(str::trim_start)
        .all(|line| line.is_empty() || line.starts_with('#'))
}

/// Opens a file that is not a link. Does not block if the file is a pipe.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    File::options().read(true).custom_flags(flags.bits()).open(path)
}

/// The target of a link, with all links in its path resolved. `None` if it is `/dev/null`. An absolute link starts at
/// `root`.
///
/// On the running system, no user other than root can replace any part of the path.
fn follow(root: &Root, link: &Path) -> Result<Option<PathBuf>, FileError> {
    let io = |source| FileError::Io { path: link.to_owned(), source };
    let mut resolved = PathBuf::from("/");
    let mut rest: Vec<OsString> = reversed(link);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        match part.as_bytes() {
            b"/" => resolved = PathBuf::from("/"),
            b"." => continue,
            b".." => drop(resolved.pop()),
            _ => resolved.push(part),
        }
        let metadata = fs::symlink_metadata(root.at(&resolved)).map_err(io)?;
        let is_protected = match metadata.is_dir() {
            true => protects_entries(metadata.uid(), metadata.mode()),
            // A link has no permissions, and a file is checked after it is opened.
            false => metadata.uid() == 0,
        };
        if root.is_live() && !is_protected {
            return Err(FileError::InsecureLink { path: link.to_owned(), part: resolved });
        }
        if metadata.is_symlink() {
            links += 1;
            if links > LINKS_LIMIT {
                return Err(io(io::Error::other("too many links")));
            }
            let target = fs::read_link(root.at(&resolved)).map_err(io)?;
            resolved.pop();
            // An image may have no /dev.
            if is_mask(&resolved, &target) {
                return Ok(None);
            }
            rest.extend(reversed(&target));
        }
    }
    Ok(Some(resolved))
}

/// The components of a path, the last one first.
fn reversed(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|part| part.as_os_str().to_owned()).collect()
}

/// Whether only root can remove or replace root's entries in a directory. Other users may be able to add entries: the
/// sticky bit keeps them from replacing those of root (/nix/store, /tmp).
fn protects_entries(uid: u32, mode: u32) -> bool {
    uid == 0 && (mode & 0o022 == 0 || mode & 0o1000 != 0)
}

/// Checks that only root can change a file or a directory. Roots other than that of the running system are not checked.
fn check_owner(root: &Root, path: &Path, metadata: &Metadata) -> Result<(), FileError> {
    if root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o022 != 0) {
        return Err(FileError::Insecure { path: path.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::host::root::tests::TempRoot;

    /// A root with the directory of the administrator.
    fn root(name: &str) -> TempRoot {
        let root = TempRoot::new(&format!("layers-{name}"));
        fs::create_dir_all(root.at("/etc/wwan-quirks")).unwrap();
        root
    }

    fn read_own(root: &Root, name: &str) -> Result<Option<String>, FileError> {
        let path = Path::new("/etc/wwan-quirks").join(name);
        read(root, &ConfigFile { layer: Layer::Administrator, path })
    }

    #[test]
    fn a_file_that_is_not_text_is_an_error_and_does_not_block() {
        let folder = root("kinds");
        let path = folder.at("/etc/wwan-quirks");
        fs::create_dir(path.join("folder.toml")).unwrap();
        nix::unistd::mkfifo(&path.join("pipe.toml"), Mode::from_bits_truncate(0o600)).unwrap();
        symlink("pipe.toml", path.join("link.toml")).unwrap();
        symlink("loop.toml", path.join("loop.toml")).unwrap();
        symlink("nothing.toml", path.join("dangling.toml")).unwrap();
        fs::write(path.join("long.toml"), vec![b'#'; FILE_LIMIT + 1]).unwrap();
        fs::write(path.join("bytes.toml"), [0xff]).unwrap();
        for name in ["folder", "pipe", "link", "loop", "dangling", "long", "bytes"] {
            let error = read_own(&folder, &format!("{name}.toml")).unwrap_err().to_string();
            assert!(error.starts_with(&format!("/etc/wwan-quirks/{name}.toml: ")), "{error}");
        }
    }

    #[test]
    fn a_directory_of_more_than_ten_thousand_files_is_an_error() {
        let folder = root("many");
        let path = folder.at("/etc/wwan-quirks/quirks.d");
        fs::create_dir(&path).unwrap();
        let all = || files(&folder, "quirks.d", |_, _| true);
        (1..=10_000).for_each(|number| symlink("x", path.join(format!("{number}.toml"))).unwrap());
        assert!(all().0.len() == 10_000 && all().1.is_empty());
        symlink("x", path.join("0.toml")).unwrap();
        assert_eq!(all().1[0].to_string(), "/etc/wwan-quirks/quirks.d: more than 10000 files; merge the files");
    }

    /// Emacs locks a file with a dangling link, and macOS adds files with binary data to an archive.
    #[test]
    fn hidden_files_are_not_read() {
        let folder = root("hidden");
        let path = folder.at("/etc/wwan-quirks/quirks.d");
        fs::create_dir(&path).unwrap();
        symlink("root@host.1234:1", path.join(".#own.toml")).unwrap();
        for name in ["._own.toml", ".toml", "own.toml"] {
            fs::write(path.join(name), [0xff]).unwrap();
        }
        let (files, errors) = files(&folder, "quirks.d", |_, _| true);
        let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!((paths, errors.len()), (vec!["/etc/wwan-quirks/quirks.d/own.toml"], 0));
    }

    #[test]
    fn a_link_is_followed_inside_of_the_root() {
        let folder = root("links");
        let path = folder.at("/etc/wwan-quirks");
        fs::create_dir_all(folder.at("/store/hash")).unwrap();
        fs::write(folder.at("/store/hash/x.toml"), "text").unwrap();
        symlink("/store/hash", folder.at("/etc/static")).unwrap();
        symlink("/etc/static/x.toml", path.join("absolute.toml")).unwrap();
        symlink("../.././store/hash/../hash/x.toml", path.join("relative.toml")).unwrap();
        symlink("absolute.toml", path.join("twice.toml")).unwrap();
        symlink("../../../../../../../../../store/hash/x.toml", path.join("above.toml")).unwrap();
        for name in ["absolute.toml", "relative.toml", "twice.toml", "above.toml"] {
            assert_eq!(read_own(&folder, name).unwrap().as_deref(), Some("text"), "{name}");
        }
        // A directory, too.
        symlink("/store/hash", path.join("quirks.d")).unwrap();
        let (files, errors) = files(&folder, "quirks.d", |_, _| true);
        let paths: Vec<_> = files.iter().map(|file| file.path.to_str().unwrap()).collect();
        assert_eq!((paths, errors.len()), (vec!["/store/hash/x.toml"], 0));
        symlink("/dev/null", path.join("masked.toml")).unwrap();
        symlink("masked.toml", path.join("masked-twice.toml")).unwrap();
        fs::write(path.join("empty.toml"), "").unwrap();
        symlink("../../dev/null", path.join("masked-relatively.toml")).unwrap();
        symlink("../../../.././dev/x/../null", path.join("masked-oddly.toml")).unwrap();
        for name in ["masked.toml", "masked-twice.toml", "masked-relatively.toml", "masked-oddly.toml", "empty.toml"] {
            assert_eq!(read_own(&folder, name).unwrap(), None, "{name}");
        }
    }

    #[test]
    fn a_sticky_folder_of_root_protects_its_entries() {
        for (uid, mode, expected) in [
            (0, 0o40755, true),
            (0, 0o41775, true),
            (0, 0o41777, true),
            (0, 0o40775, false),
            (0, 0o40757, false),
            (0, 0o42775, false),
            (1, 0o40755, false),
            (1, 0o41777, false),
        ] {
            assert_eq!(protects_entries(uid, mode), expected, "{uid} {mode:o}");
        }
    }

    /// Uses the running system. If root does not run the test, its directories belong to another user.
    #[test]
    fn a_directory_that_others_can_replace_is_refused() {
        let home = root("home");
        let live = Root::new("/");
        let target = home.at("/target");
        fs::create_dir(&target).unwrap();
        let link = home.at("/quirks.d");
        symlink(&target, &link).unwrap();
        let is_root = fs::metadata(&target).unwrap().uid() == 0;
        for (above, itself, expected) in
            [(0o755, 0o755, true), (0o1777, 0o755, true), (0o777, 0o755, false), (0o755, 0o777, false)]
        {
            fs::set_permissions(home.at("/"), fs::Permissions::from_mode(above)).unwrap();
            fs::set_permissions(&target, fs::Permissions::from_mode(itself)).unwrap();
            let through_link = folder(&live, link.clone());
            assert_eq!(through_link.is_ok(), expected && is_root, "{above:o} {itself:o} {through_link:?}");
            assert_eq!(folder(&live, target.clone()).is_ok(), itself == 0o755 && is_root, "{itself:o}");
        }
        assert_eq!(folder(&live, home.at("/missing")).unwrap(), None);
    }

    /// Uses the running system. If root does not run the test, its directories belong to another user.
    #[test]
    fn a_link_must_not_lead_through_a_directory_that_others_can_change() {
        let folder = root("live");
        let live = Root::new("/");
        let store = folder.at("/store");
        fs::create_dir(&store).unwrap();
        fs::write(store.join("x.toml"), "text").unwrap();
        let link = folder.at("/x.toml");
        symlink(store.join("x.toml"), &link).unwrap();
        let is_root = fs::metadata(&store).unwrap().uid() == 0;
        for (mode, expected) in [(0o755, true), (0o1775, true), (0o1777, true), (0o775, false), (0o777, false)] {
            fs::set_permissions(&store, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
            match follow(&live, &link) {
                Ok(target) => assert!(expected && is_root && target == Some(store.join("x.toml")), "{mode:o}"),
                Err(FileError::InsecureLink { path, .. }) => {
                    assert!(!(expected && is_root) && path == link, "{mode:o}")
                }
                Err(error) => panic!("{mode:o}: {error}"),
            }
        }
        assert!(follow(&live, Path::new("/bin/sh")).unwrap().is_some());
    }
}
