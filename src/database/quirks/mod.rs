//! The quirks database: fragments in TOML, merged over the layers, validated into [`Quirk`]s.

pub mod audit;
pub mod composition;
pub mod fragment;
pub mod switch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::database::diagnostic::Diagnostic;
use crate::database::layers::{self, Layer, LayerError, Layered};
use crate::host::root::Root;
use crate::usb::Function;
use crate::usb::UsbId;
pub use switch::Switch;

const DIRECTORY: &str = "quirks.d";

/// Where an entry or a setting stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub layer: Layer,
    pub path: PathBuf,
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.path.display(), self.line)
    }
}

/// One entry of the database.
#[derive(Debug, Clone, PartialEq)]
pub struct Quirk {
    pub ids: Vec<UsbId>,
    pub name: String,
    /// What a person should know, shown by `explain`.
    pub note: Option<String>,
    /// Texts of the device that narrow the match.
    pub strings: Strings,
    /// The `bInterfaceNumber`s on which qmi_wwan finds QMI; where empty, it is looked for.
    pub qmi_interfaces: Vec<u8>,
    /// What is done about an unlocked radio that may need a reset to come online.
    pub online_after_reset: Option<Reset>,
    pub steps: Vec<Step>,
    pub place: Place,
}

impl Quirk {
    /// How the radio is unlocked; `None` if it has no known lock.
    pub fn procedure(&self) -> Option<&Procedure> {
        self.steps.iter().find_map(|step| if let Step::FccAuth(procedure) = step { Some(procedure) } else { None })
    }

    /// Whether the device is in install mode.
    pub fn is_install_mode(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Switch(_)))
    }
}

/// A text that a device tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Text {
    Manufacturer,
    Product,
    Serial,
    /// Of the answer to a SCSI INQUIRY.
    ScsiVendor,
    ScsiModel,
    ScsiRevision,
}

impl Text {
    /// Whether it is known only once the kernel has asked the device over SCSI.
    pub fn is_scsi(self) -> bool {
        matches!(self, Text::ScsiVendor | Text::ScsiModel | Text::ScsiRevision)
    }
}

/// Parts of texts to look for in a device; `_` stands for itself and for a blank.
pub type Strings = BTreeMap<Text, String>;

fn is_part(part: &str, whole: &str) -> bool {
    whole.contains(part) || (part.contains('_') && whole.replace(' ', "_").contains(&part.replace(' ', "_")))
}

/// What a modem needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Switch(Switch),
    Configuration {
        wish: Wish,
        /// How long the device is left without any configuration before it is given this one; none for a device that
        /// needs no such detour.
        unconfigured: Option<Duration>,
    },
    FccAuth(Procedure),
}

impl Step {
    pub fn name(&self) -> &'static str {
        match self {
            Step::Switch(_) => "switch",
            Step::Configuration { .. } => "configuration",
            Step::FccAuth(_) => "fcc-auth",
        }
    }

    /// The method, the configuration or the procedure, as `list` prints it.
    pub fn value(&self) -> String {
        match self {
            Step::Switch(switch) => switch.to_string(),
            Step::Configuration { wish, .. } => wish.to_string(),
            Step::FccAuth(procedure) => procedure.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name(), self.value())
    }
}

/// The configuration that a quirk wishes for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// What the policy prefers.
    Preferred,
    /// What the kernel chose.
    Keep,
    Function(Function),
    /// A `bConfigurationValue`.
    Value(u8),
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Preferred => f.write_str("preferred"),
            Wish::Keep => f.write_str("keep"),
            Wish::Function(function) => f.write_str(function.name()),
            Wish::Value(value) => write!(f, "{value}"),
        }
    }
}

/// A reset that is done, or that a person is told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reset {
    Tell,
    Do,
}

/// How a radio is unlocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Procedure {
    /// DMS 0x555F, of Sierra and those that sell its modems. No secret.
    Sierra,
    /// The radio state of Quectel's own MBIM service. No secret.
    Quectel,
    /// DMS 0x5571, with a hash over versions, IMEI and this word; on older firmware without.
    Foxconn { magic: String },
    /// A challenge by AT commands on the tty of this interface, answered with a hash over it and the OEM's string; each
    /// is tried in turn.
    Rolling { interface: u8, oem_strings: Vec<String> },
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Procedure::Sierra => "sierra",
            Procedure::Quectel => "quectel",
            Procedure::Foxconn { .. } => "foxconn",
            Procedure::Rolling { .. } => "rolling",
        })
    }
}

#[derive(Debug, thiserror::Error)]
pub enum QuirksError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("{0}")]
    Invalid(#[from] Box<Diagnostic>),
}

/// What a look-up gives: the quirk, and what is wrong with files that might have had a better one.
#[derive(Debug, Default)]
pub struct Found {
    pub quirk: Option<Quirk>,
    pub errors: Vec<QuirksError>,
}

/// The narrowest quirk for a device: the one with the most texts that match, of these the one of the highest layer, of
/// these the last. `read` is called only for texts that an entry asks for, since reading them takes the device's lock.
///
/// Only files that can match are read: one whose name begins with four hex digits and a hyphen holds one vendor.
pub fn lookup(root: &Root, id: UsbId, read: impl Fn(Text) -> Option<String>) -> Found {
    let mut found = Found::default();
    let files = match layers::files(root, DIRECTORY, |name| vendor_of(name).is_none_or(|vendor| vendor == id.vendor)) {
        Ok(files) => files,
        Err(error) => return Found { quirk: None, errors: vec![error.into()] },
    };
    // Of every text whether the device has it, read when it is first asked for.
    let mut device = BTreeMap::new();
    let mut best: Option<(usize, Layer)> = None;
    for file in files {
        let (quirks, errors) = load(root, &file, |text| fragment::parse_for(&file, text, id));
        found.errors.extend(errors);
        for quirk in quirks.into_iter().filter(|quirk| quirk.ids.contains(&id)) {
            let rank = (quirk.strings.len(), quirk.place.layer);
            let matches = quirk.strings.iter().all(|(text, part)| {
                let whole = device.entry(*text).or_insert_with(|| read(*text));
                whole.as_ref().is_some_and(|whole| is_part(part, whole))
            });
            if matches && best.is_none_or(|best| rank >= best) {
                best = Some(rank);
                found.quirk = Some(quirk);
            }
        }
    }
    found
}

/// The whole database, in the order of its files.
pub fn all(root: &Root) -> (Vec<Quirk>, Vec<QuirksError>) {
    let files = match layers::files(root, DIRECTORY, |_| true) {
        Ok(files) => files,
        Err(error) => return (Vec::new(), vec![error.into()]),
    };
    let mut all = (Vec::new(), Vec::new());
    for file in files {
        let (quirks, errors) = load(root, &file, |text| fragment::parse(&file, text));
        all.0.extend(quirks);
        all.1.extend(errors);
    }
    all
}

fn load(
    root: &Root,
    file: &Layered,
    parse: impl FnOnce(&str) -> (Vec<Quirk>, Vec<Diagnostic>),
) -> (Vec<Quirk>, Vec<QuirksError>) {
    match layers::read(root, file) {
        Ok(None) => (Vec::new(), Vec::new()),
        Ok(Some(text)) => {
            let (quirks, errors) = parse(&text);
            (quirks, errors.into_iter().map(|error| Box::new(error).into()).collect())
        }
        Err(error) => (Vec::new(), vec![error.into()]),
    }
}

/// The vendor that a file of this name is all about (`1199-sierra.toml`).
pub fn vendor_of(name: &[u8]) -> Option<u16> {
    let &[a, b, c, d, b'-', ..] = name else { return None };
    [a, b, c, d].iter().try_fold(0, |vendor, digit| Some((vendor << 4) | hex_digit(*digit)?))
}

/// As [`char::to_digit`], which costs more, and this is asked for every file there is.
fn hex_digit(digit: u8) -> Option<u16> {
    let value = match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => return None,
    };
    Some(value.into())
}
