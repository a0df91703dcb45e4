//! Reads the quirks database from the files of its layers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::{self, Utf8Error};

use crate::bus::DeviceId;
use crate::database::diagnostic::{Diagnostic, LoadError};
use crate::database::layers::{self, ConfigFile, FileError, Layer};
use crate::database::quirks::fragment::search::parse_for;
use crate::database::quirks::fragment::{self, vendor_of};
use crate::database::quirks::{DeviceString, Quirk, matches, narrowness};
use crate::host::root::Root;

pub(crate) const DIRECTORY: &str = "quirks.d";

/// The result of a lookup.
#[derive(Debug, Default)]
pub struct Lookup {
    pub quirk: Option<Quirk>,
    /// Errors in files that may contain a better quirk.
    pub errors: Vec<LoadError>,
}

/// The narrowest quirk for a device: the one with the most matchers. Among equally narrow ones, the one in the highest
/// layer wins, then the last one. A whole subsystem is narrower than its vendor alone. `read` is called only for
/// strings that an entry needs, because reading them takes the device's lock.
///
/// A lookup reads all of the administrator's files, but only those shipped files that can have the ID: a shipped file
/// whose name begins with four hex digits and a hyphen (`1199-`, on PCI `pci-1eac-`) contains only that vendor.
pub fn lookup(root: &Root, id: DeviceId, read: impl Fn(DeviceString) -> Option<String>) -> Lookup {
    let (files, errors) = layers::files(root, DIRECTORY, |layer, name| {
        layer != Layer::Shipped || vendor_of(name).is_none_or(|vendor| vendor == (id.bus, id.vendor))
    });
    let mut result = Lookup { quirk: None, errors: errors.into_iter().map(LoadError::from).collect() };
    // Each string is read at most once.
    let mut device = BTreeMap::new();
    let mut best: Option<(usize, Layer)> = None;
    for file in files {
        let (quirks, errors) = load(root, &file, |bytes| parse_for(&file, bytes, id));
        result.errors.extend(errors);
        for quirk in quirks.into_iter().filter(|quirk| quirk.model(id).is_some()) {
            let rank = (narrowness(&quirk.matchers), quirk.location.layer);
            let is_match = quirk.matchers.iter().all(|(string, part)| {
                let whole = device.entry(*string).or_insert_with(|| read(*string));
                whole.as_ref().is_some_and(|whole| matches(*string, part, whole))
            });
            if is_match && best.is_none_or(|best| rank >= best) {
                best = Some(rank);
                result.quirk = Some(quirk);
            }
        }
    }
    result
}

/// The whole database, in the order of its files.
pub fn all(root: &Root) -> (Vec<Quirk>, Vec<LoadError>) {
    let (files, errors) = layers::files(root, DIRECTORY, |_, _| true);
    let mut all = (Vec::new(), errors.into_iter().map(LoadError::from).collect::<Vec<_>>());
    for file in files {
        let (quirks, errors) = load(root, &file, |bytes| Ok(fragment::parse(&file, str::from_utf8(bytes)?)));
        all.0.extend(quirks);
        all.1.extend(errors);
    }
    all
}

/// Like [`all`], but a database without any quirk is an error.
pub(crate) fn installed(root: &Root) -> (Vec<Quirk>, Vec<LoadError>) {
    let (quirks, mut errors) = all(root);
    if quirks.is_empty() && errors.is_empty() {
        let path = Layer::Shipped.directory(root).join(DIRECTORY);
        let error = match root.at(&path).is_dir() {
            true if masks_quirks(root) => FileError::MaskedDatabase { path },
            true => FileError::EmptyDatabase { path },
            false => FileError::NoDatabase { path },
        };
        errors.push(error.into());
    }
    (quirks, errors)
}

/// A file of the database that a file of a higher layer replaces or masks.
pub(crate) struct Hidden {
    /// The file of the higher layer.
    pub by: PathBuf,
    pub is_masked: bool,
    pub path: PathBuf,
    pub quirks: Vec<Quirk>,
}

/// The files of the database that are hidden, with their quirks.
pub(crate) fn hidden(root: &Root) -> Vec<Hidden> {
    let files = layers::replaced(root, DIRECTORY).into_iter();
    // `all` reports a file of a higher layer that cannot be read.
    let hidden = files.filter_map(|(by, file)| {
        let is_masked = layers::read(root, &by).ok()?.is_none();
        let (quirks, _) = fragment::parse(&file, &layers::read(root, &file).ok()??);
        Some(Hidden { by: by.path, is_masked, path: file.path, quirks })
    });
    hidden.collect()
}

/// Whether a file with quirks is masked.
pub(crate) fn masks_quirks(root: &Root) -> bool {
    hidden(root).iter().any(|hidden| hidden.is_masked && !hidden.quirks.is_empty())
}

/// The text of each file, in the order in which the files apply.
pub fn texts(root: &Root) -> Result<Vec<String>, FileError> {
    let (files, errors) = layers::files(root, DIRECTORY, |_, _| true);
    if let Some(error) = errors.into_iter().next() {
        return Err(error);
    }
    files.iter().filter_map(|file| layers::read(root, file).transpose()).collect()
}

fn load(
    root: &Root,
    file: &ConfigFile,
    parse: impl FnOnce(&[u8]) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Utf8Error>,
) -> (Vec<Quirk>, Vec<LoadError>) {
    let parsed = layers::read_bytes(root, file).and_then(|bytes| {
        let parsed = bytes.map(|bytes| parse(&bytes)).transpose();
        parsed.map_err(|_| FileError::NotText { path: file.path.clone() })
    });
    match parsed.map(Option::unwrap_or_default) {
        Ok((quirks, errors)) => (quirks, errors.into_iter().map(LoadError::from).collect()),
        Err(error) => (Vec::new(), vec![error.into()]),
    }
}
