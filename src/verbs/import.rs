//! `import`: turns usb_modeswitch configuration files into quirks.
//!
//! A `.json` file is the output of `export json`.
//!
//! Any other file is named after the device (`12d1:1446`, `05c6:1000:uMa=Option`), or contains its ID (`DefaultVendor`,
//! `DefaultProduct`). A file has lines `Key=value`, with the keys of usb_modeswitch 2.6.1. A key without an equivalent
//! is reported once for all files that have it.

use std::collections::BTreeMap;
use std::fmt::{self, Display, LowerHex, Write as _};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::Diagnostic;
use crate::database::layers::{ConfigFile, FileError, Layer};
use crate::database::quirks::switch::Bytes;
use crate::database::quirks::{DeviceString, fragment};
use crate::host::journal::{print_error, warn};
use crate::host::root::read_limited;
use crate::serve::error::{Error, Exit};
use crate::verbs::output::{errors_json, print_json, report_errors};

/// Bytes. All known files are shorter.
const FILE_LIMIT: usize = 4 << 20;

/// usb_modeswitch's names for the strings of a device. OpenWrt's usbmode has the same ones.
pub(super) const STRINGS: [(DeviceString, &str); 6] = [
    (DeviceString::Manufacturer, "uMa"),
    (DeviceString::Product, "uPr"),
    (DeviceString::Serial, "uSe"),
    (DeviceString::ScsiVendor, "sVe"),
    (DeviceString::ScsiModel, "sMo"),
    (DeviceString::ScsiRevision, "sRe"),
];

/// Keys that select a method.
const METHODS: [(&str, &str); 15] = [
    ("HuaweiMode", "huawei"),
    ("HuaweiNewMode", "huawei-new"),
    ("HuaweiAltMode", "huawei-alternative"),
    ("SierraMode", "sierra"),
    ("SonyMode", "sony"),
    ("GCTMode", "gct"),
    ("KobilMode", "kobil"),
    ("SequansMode", "sequans"),
    ("MobileActionMode", "mobile-action"),
    ("CiscoMode", "cisco"),
    ("QisdaMode", "qisda"),
    ("QuantaMode", "quanta"),
    ("OptionMode", "option"),
    ("BlackberryMode", "blackberry"),
    ("PantechMode", "pantech"),
];

/// usb_modeswitch's keys that select a method, and our methods for them.
pub(super) fn methods() -> impl Iterator<Item = (&'static str, &'static str)> {
    METHODS.into_iter().chain([("StandardEject", "eject")])
}

/// The other keys that have an equivalent.
const KEYS: [&str; 19] = [
    "StandardEject",
    "DetachStorageOnly",
    "MessageContent",
    "MessageContent2",
    "MessageContent3",
    "TargetVendor",
    "TargetProduct",
    "TargetProductList",
    "DefaultVendor",
    "DefaultProduct",
    "TargetClass",
    "MessageEndpoint",
    "ResponseEndpoint",
    "ResetUSB",
    "Interface",
    "Configuration",
    "AltSetting",
    "ReleaseDelay",
    "WaitBefore",
];

/// Keys without an equivalent, with the reason.
const NO_EQUIVALENT: [(&str, &str); 5] = [
    ("CheckSuccess", "wwan-quirks detects at once that a device leaves, and udev reports its return"),
    ("NeedResponse", "wwan-quirks always reads the answer to a CBW, and no other answer"),
    ("NoDriverLoading", "the kernel and udev load drivers"),
    (
        "InquireDevice",
        "the keys manufacturer, product, serial, scsi-vendor, scsi-model and scsi-revision narrow a match",
    ),
    ("NoMBIMCheck", "`prefer` in the policy selects the configuration"),
];

/// Prints the quirks in `paths`, which are files and directories of files.
pub fn run(paths: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut import = Import::default();
    let mut errors = Vec::new();
    for path in paths {
        let files = match path.is_dir() {
            true => configurations(path),
            false => Ok(vec![path.clone()]),
        };
        match files {
            Ok(files) if files.is_empty() => errors.push(Error::NoFiles { path: path.clone() }),
            Ok(files) => errors.extend(files.iter().filter_map(|file| Some(import.file(file).err()?.into()))),
            Err(source) => errors.push(FileError::Io { path: path.clone(), source }.into()),
        }
    }
    let exit = report_errors(&errors);
    // Without an entry, a file in quirks.d has no use.
    let toml = if import.is_empty() { String::new() } else { import.toml() };
    if json {
        let keys = import.ignored_keys.iter().map(
            |(key, uses)| json!({ "key": key, "reason": uses.reason, "first-file": uses.first.display().to_string(), "files": uses.files }),
        );
        let keys: Vec<Value> = keys.collect();
        let body =
            json!({ "toml": toml, "diagnostics": import.errors, "warnings": import.warnings, "ignored-keys": keys });
        print_json(out, "import", &body, &errors_json(&errors))?;
    } else {
        out.write_all(toml.as_bytes())?;
    }
    for error in &import.errors {
        print_error(error);
    }
    for message in &import.warnings {
        warn(message);
    }
    for (key, uses) in &import.ignored_keys {
        warn(format_args!("{key}, {uses}"));
    }
    Ok(if import.errors.is_empty() { exit } else { exit.max(Exit::Failed) })
}

/// The configuration files in a directory, in the order of their names.
fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| is_configuration(path)).collect();
    files.sort_unstable();
    Ok(files)
}

/// False for files that package managers and editors leave next to configuration files.
fn is_configuration(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.is_file()
        && !name.starts_with('.')
        && !name.contains(".dpkg")
        && !name.contains(".rpm")
        && !name.ends_with('~')
}

/// The content of all files that were read.
#[derive(Debug, Default)]
pub struct Import {
    entries: Vec<Entry>,
    /// Entries from JSON, in TOML.
    from_json: String,
    /// Errors. A file with an error gives no entry.
    pub errors: Vec<Diagnostic>,
    /// Messages about files that a later file with the same ID and the same strings replaces, about files without an
    /// action, and about lines without a key.
    warnings: Vec<String>,
    /// Keys without an equivalent.
    pub(crate) ignored_keys: BTreeMap<String, Uses>,
}

/// The files with a key that has no equivalent, and why it has none.
#[derive(Debug)]
pub struct Uses {
    reason: &'static str,
    first: PathBuf,
    files: usize,
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {}", self.first.display())?;
        match self.files - 1 {
            0 => {}
            1 => f.write_str(" and one more file")?,
            more => write!(f, " and {more} more files")?,
        }
        write!(f, ": ignored, because {}", self.reason)
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    id: DeviceId,
    name: String,
    /// `TargetVendor` with `TargetProductList` or `TargetProduct`.
    becomes: Vec<DeviceId>,
    /// The part of the file name after the ID. usb_modeswitch orders its choice by it.
    suffix: String,
    /// Lines `key = "text"` that narrow the match.
    matchers: Vec<String>,
    /// The value of `steps`.
    steps: String,
}

impl Import {
    /// Reads one file.
    pub fn file(&mut self, path: &Path) -> Result<(), FileError> {
        let bytes = fs::File::open(path).and_then(|file| read_limited(file, FILE_LIMIT));
        let bytes = bytes.map_err(|source| FileError::Io { path: path.to_owned(), source })?;
        // Some known files have comments in Latin-1.
        let text = String::from_utf8_lossy(&bytes);
        self.add(path, text.strip_prefix('\u{feff}').unwrap_or(&text));
        Ok(())
    }

    /// Adds the text of a file.
    pub fn add(&mut self, path: &Path, text: &str) {
        if path.extension().is_some_and(|extension| extension == "json") {
            match entries_from_json(path, text) {
                Ok(text) => self.from_json.push_str(&text),
                Err((at, message)) => self.errors.push(Diagnostic::at(path, text, at..at, message)),
            }
            return;
        }
        let mut reader = Reader { path, text, keys: keys(text), errors: Vec::new(), ignored: Vec::new() };
        let entry = reader.entry();
        self.errors.append(&mut reader.errors);
        for (key, reason) in reader.ignored {
            let uses = Uses { reason, first: path.to_owned(), files: 0 };
            self.ignored_keys.entry(key.to_owned()).or_insert(uses).files += 1;
        }
        let mut without_key = without_key(text);
        if let Some(first) = without_key.next() {
            let lines = match without_key.count() {
                0 => "the line without `=` is ignored".to_owned(),
                more => format!("this and {more} more lines without `=` are ignored"),
            };
            self.warnings.push(format!("{}:{first}: {lines}", path.display()));
        }
        if let Some(entry) = entry {
            if entry.steps == "[]" {
                self.warnings.push(format!("{} has no action: the entry leaves the device alone", path.display()));
            }
            let same = |known: &Entry| (known.id, &known.suffix) == (entry.id, &entry.suffix);
            if let Some(at) = self.entries.iter().position(same) {
                let old = self.entries.remove(at);
                self.warnings.push(format!("{}: replaced by {}", old.path.display(), path.display()));
            }
            self.entries.push(entry);
        }
    }

    fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.from_json.is_empty()
    }

    /// The entries in TOML. Entries of one vendor with the same steps become one.
    pub fn toml(&self) -> String {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        // Among entries that match equally well the last one applies. In usb_modeswitch it is the last one by name.
        entries.sort_unstable_by(|a, b| (a.id, &a.suffix).cmp(&(b.id, &b.suffix)));
        let mut groups: Vec<Vec<&Entry>> = Vec::new();
        for entry in entries {
            let same = |group: &&mut Vec<&Entry>| {
                group.first().is_some_and(|first| {
                    first.id.vendor == entry.id.vendor
                        && first.steps == entry.steps
                        && first.matchers.is_empty()
                        && entry.matchers.is_empty()
                })
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        let mut text = "schema = 1\n".to_owned();
        for group in &groups {
            // Writing to a String does not fail.
            let _ = write_group(&mut text, group);
        }
        text + &self.from_json
    }
}

/// The output of `export json`.
#[derive(Deserialize)]
struct Exported<'a> {
    schema: u64,
    #[serde(borrow)]
    device: Vec<&'a RawValue>,
}

/// The data of OpenWrt's usbmode.
#[derive(Deserialize)]
struct UsbMode {
    #[serde(rename = "devices")]
    _devices: IgnoredAny,
    #[serde(rename = "messages")]
    _messages: IgnoredAny,
}

const NO_USBMODE: &str = "the format of OpenWrt's usbmode cannot be imported: import the usb_modeswitch files, or the \
                          output of `wwan-quirks export json`";

/// The entries that `export json` printed, in TOML, or the first error with its offset in `text`.
fn entries_from_json(path: &Path, text: &str) -> Result<String, (usize, String)> {
    let exported: Exported =
        serde_json::from_str(text).map_err(|error| match serde_json::from_str::<UsbMode>(text) {
            Ok(_) => (0, NO_USBMODE.to_owned()),
            Err(_) => json_error(text, &error),
        })?;
    if exported.schema != 1 {
        return Err((0, "expected \"schema\": 1: a newer version of wwan-quirks may read this file".to_owned()));
    }
    if exported.device.is_empty() {
        return Err((0, "the list `device` is empty".to_owned()));
    }
    let file = ConfigFile { layer: Layer::Administrator, path: path.to_owned() };
    let mut toml = String::new();
    for (index, entry) in exported.device.iter().enumerate() {
        // The entry is a part of `text`.
        let at = entry.get().as_ptr().addr().saturating_sub(text.as_ptr().addr());
        let wrong = |message: &str| (at, format!("element {} of `device`: {message}", index + 1));
        let table: toml::Table = serde_json::from_str(entry.get()).map_err(|error| {
            let (offset, message) = json_error(entry.get(), &error);
            (at + offset, message)
        })?;
        let mut text = "\n[[device]]\n".to_owned();
        for (key, value) in table {
            // All known keys are bare. Writing to a String does not fail.
            let _ = match key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-') {
                true => writeln!(text, "{key} = {value}"),
                false => writeln!(text, "{} = {value}", quoted(&key)),
            };
        }
        let (_, errors) = fragment::parse(&file, &format!("schema = 1\n{text}"));
        if let Some(error) = errors.first() {
            return Err(wrong(&error.message));
        }
        toml.push_str(&text);
    }
    Ok(toml)
}

/// The offset in `text`, and the message, of an error in JSON.
fn json_error(text: &str, error: &serde_json::Error) -> (usize, String) {
    let lines = text.split_inclusive('\n').take(error.line().saturating_sub(1));
    let at = lines.map(str::len).sum::<usize>() + error.column().saturating_sub(1);
    let message = error.to_string();
    (at, message.split(" at line ").next().unwrap_or_default().to_owned())
}

fn write_group(text: &mut String, group: &[&Entry]) -> fmt::Result {
    let Some(first) = group.first() else { return Ok(()) };
    writeln!(text, "\n[[device]]")?;
    if group.len() == 1 {
        let id = if first.becomes.is_empty() { format!("\"{}\"", first.id) } else { model(first, "") };
        writeln!(text, "id = {id}\nname = {}", quoted(&first.name))?;
    } else {
        writeln!(text, "id = [")?;
        for entry in group {
            writeln!(text, "    {},", model(entry, &format!(", name = {}", quoted(&entry.name))))?;
        }
        writeln!(text, "]\nname = {}", quoted(&format!("{} and {} more", first.name, group.len() - 1)))?;
    }
    for line in &first.matchers {
        writeln!(text, "{line}")?;
    }
    writeln!(text, "source = \"usb_modeswitch\"\nseen = \"table\"\nsteps = {}", first.steps)
}

/// The table of a model. `name` is another key, or empty. A long list of targets has lines of its own.
fn model(entry: &Entry, name: &str) -> String {
    let targets: Vec<String> = entry.becomes.iter().map(|id| format!("\"{id}\"")).collect();
    let becomes = match targets.len() {
        0 => String::new(),
        1..=4 => format!(", becomes = [{}]", targets.join(", ")),
        _ => {
            let lines: Vec<String> = targets.chunks(8).map(|line| format!("        {},\n", line.join(", "))).collect();
            format!(", becomes = [\n{}    ]", lines.concat())
        }
    };
    format!("{{ id = \"{}\"{name}{becomes} }}", entry.id)
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A key, its value, and the span of the value.
type Key<'a> = (&'a str, &'a str, Range<usize>);

/// All `Key=value` lines. A line with `;`, `#` or `!` before the equals sign is a comment. If a key occurs twice, the first
/// line applies.
fn keys(text: &str) -> Vec<Key<'_>> {
    let mut keys: Vec<Key<'_>> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let begin = start;
        start += line.len();
        let Some((key, value)) = line.split_once('=') else { continue };
        if key.contains([';', '#', '!']) || keys.iter().any(|(known, ..)| *known == key.trim()) {
            continue;
        }
        let at = begin + key.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => value.split([' ', '\t', ';', '#']).next().unwrap_or_default(),
        };
        let at = if text.get(at..).is_some_and(|rest| rest.starts_with('"')) { at + 1 } else { at };
        keys.push((key.trim(), value, at..at + value.len()));
    }
    keys
}

/// The numbers of lines that are neither blank nor a comment, and that have no equals sign.
fn without_key(text: &str) -> impl Iterator<Item = usize> {
    let lines = text.lines().map(str::trim).zip(1..);
    let is_ignored = |line: &str| !line.is_empty() && !line.contains('=') && !line.starts_with([';', '#', '!']);
    lines.filter(move |(line, _)| is_ignored(line)).map(|(_, number)| number)
}

/// The first comment, which in usb_modeswitch's files is the name of the device.
fn first_comment(text: &str) -> Option<String> {
    let comments = text.lines().filter_map(|line| line.trim().strip_prefix('#'));
    let comment = comments.map(|comment| comment.trim_matches(['#', ' ', '\t'])).find(|comment| !comment.is_empty())?;
    Some(comment.chars().filter(|character| !character.is_control()).collect())
}

/// The matchers that the parts of a file name after the ID contain, as lines `key = "text"`.
fn matchers<'a>(parts: impl Iterator<Item = &'a str>) -> Result<Vec<String>, String> {
    let mut matchers = BTreeMap::new();
    for part in parts {
        let split = part.split_once('=').and_then(|(short, text)| {
            let (string, _) = STRINGS.iter().find(|(_, known)| *known == short)?;
            Some((short, string, text))
        });
        let Some((short, string, text)) = split else {
            return Err(format!(
                "unknown part {part:?} in the file name: expected uMa=, uPr=, uSe=, sVe=, sMo= or sRe="
            ));
        };
        if matchers.insert(string, format!("{string} = {}", quoted(text))).is_some() {
            return Err(format!("a second {short}= in the file name"));
        }
    }
    Ok(matchers.into_values().collect())
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    keys: Vec<Key<'a>>,
    errors: Vec<Diagnostic>,
    ignored: Vec<(&'a str, &'static str)>,
}

impl<'a> Reader<'a> {
    fn entry(&mut self) -> Option<Entry> {
        let (id, matchers) = self.subject()?;
        let steps = self.steps();
        let becomes = self.becomes(id);
        for (key, _, span) in self.keys.clone() {
            if let Some((_, reason)) = NO_EQUIVALENT.iter().find(|(name, _)| *name == key) {
                self.ignored.push((key, reason));
            } else if !KEYS.contains(&key) && METHODS.iter().all(|(name, _)| *name != key) {
                let message = format!("unknown key {key}");
                self.errors.push(Diagnostic::at(self.path, self.text, span, message));
            }
        }
        let name = first_comment(self.text).unwrap_or_else(|| id.to_string());
        let suffix = self.name().splitn(3, ':').nth(2).unwrap_or_default().to_owned();
        self.errors.is_empty().then_some(Entry {
            path: self.path.to_owned(),
            id,
            name,
            becomes,
            suffix,
            matchers,
            steps,
        })
    }

    fn name(&self) -> &'a str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The ID and the device strings of the file.
    fn subject(&mut self) -> Option<(DeviceId, Vec<String>)> {
        let mut parts = self.name().split(':');
        let named = format!("{}:{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Ok(id) = named.parse() else {
            let (vendor, product) =
                (self.number("DefaultVendor", 16, u16::MAX), self.number("DefaultProduct", 16, u16::MAX));
            let id = vendor.zip(product).map(|(vendor, product)| DeviceId { bus: Bus::Usb, vendor, product });
            if id.is_none() {
                self.error(
                    0..0,
                    "the device is unknown: expected a file name VID:PID, or DefaultVendor and DefaultProduct",
                );
            }
            return Some((id?, Vec::new()));
        };
        for key in ["DefaultVendor", "DefaultProduct"] {
            if self.has(key) {
                self.ignore(key, "the file name contains the ID");
            }
        }
        match matchers(parts) {
            Ok(matchers) => Some((id, matchers)),
            Err(message) => {
                self.error(0..0, &message);
                None
            }
        }
    }

    /// The steps in usb_modeswitch's order: the method or the messages, the configuration, the alternate setting, the
    /// reset.
    fn steps(&mut self) -> String {
        let mut operations = self.operations();
        let configuration = self.number("Configuration", 16, u8::MAX);
        let mut after = Vec::new();
        if let Some(value) = self.number("AltSetting", 16, u8::MAX) {
            after.push(format!("{{ alternate-setting = {value} }}"));
        }
        if self.flag("ResetUSB") {
            after.extend(["{ sleep = 1 }".to_owned(), "\"reset\"".to_owned()]);
        }
        let mut steps = Vec::new();
        let configuration = match configuration {
            // "Look for an MBIM configuration". Here the policy selects it.
            Some(0) => Some("\"preferred\"".to_owned()),
            Some(value) if !operations.is_empty() || !after.is_empty() => {
                operations.push(format!("{{ set-configuration = {value} }}"));
                None
            }
            value => value.map(|value| value.to_string()),
        };
        operations.extend(after);
        if !operations.is_empty() {
            steps.push(format!("{{ switch = {} }}", self.switch(&operations)));
        }
        steps.extend(configuration.map(|value| format!("{{ configuration = {value} }}")));
        format!("[{}]", steps.join(", "))
    }

    /// What the device becomes. A device that keeps its ID has no target.
    fn becomes(&mut self, id: DeviceId) -> Vec<DeviceId> {
        let vendor = self.number("TargetVendor", 16, u16::MAX).unwrap_or(id.vendor);
        let products = match self.get("TargetProductList") {
            Some((list, span)) => {
                let products: Option<Vec<u16>> =
                    list.split(',').map(|product| unsigned(product.trim(), 16)?.try_into().ok()).collect();
                if products.is_none() {
                    self.error(span, "TargetProductList must be a comma-separated list of product IDs");
                }
                products.unwrap_or_default()
            }
            None => self.number("TargetProduct", 16, u16::MAX).into_iter().collect(),
        };
        let mut targets: Vec<DeviceId> =
            products.into_iter().map(|product| DeviceId { bus: Bus::Usb, vendor, product }).collect();
        targets.retain(|target| *target != id);
        targets
    }

    fn operations(&mut self) -> Vec<String> {
        let methods: Vec<(&str, &str)> =
            METHODS.into_iter().filter(|(key, _)| self.flag(key) || (*key == "PantechMode" && self.has(key))).collect();
        let messages: Vec<String> = ["MessageContent", "MessageContent2", "MessageContent3"]
            .into_iter()
            .filter_map(|key| self.message(key))
            .collect();
        let mut operations = Vec::new();
        if self.flag("DetachStorageOnly") {
            operations.push("\"detach\"".to_owned());
        }
        match methods.as_slice() {
            [] => {}
            [(key, method)] => {
                if self.flag("StandardEject") || !messages.is_empty() {
                    self.ignore("MessageContent", "usb_modeswitch ignores it if a mode is set");
                }
                let mode = if *key == "PantechMode" { self.number(key, 10, u16::MAX) } else { None };
                match mode {
                    // The device switches by itself.
                    Some(1 | 3) => {}
                    None | Some(2) => operations.push(format!("\"{method}\"")),
                    Some(mode) => operations.extend([
                        "\"detach\"".to_owned(),
                        format!("{{ control = {{ request-type = 0x40, request = 0x70, value = {mode} }} }}"),
                    ]),
                }
                return operations;
            }
            [_, (second, _), ..] => {
                let span = self.get(second).map_or(0..0, |(_, span)| span);
                self.error(span, "a second mode: usb_modeswitch refuses two modes");
            }
        }
        if self.flag("StandardEject") {
            operations.push("\"eject\"".to_owned());
            // With an eject, usb_modeswitch sends one message and ignores the others.
            operations.extend(messages.into_iter().take(1));
        } else {
            operations.extend(messages);
        }
        operations
    }

    fn message(&mut self, key: &str) -> Option<String> {
        let (value, span) = self.get(key)?;
        match value.parse::<Bytes>() {
            Err(message) => self.error(span, &message),
            Ok(bytes) => match bytes.error() {
                Some(message) => self.error(span, &message),
                None => return Some(format!("{{ bulk = \"{bytes}\" }}")),
            },
        }
        None
    }

    /// The value of a `switch` step.
    fn switch(&mut self, operations: &[String]) -> String {
        let mut keys = Vec::new();
        if let Some(value) = self.number("Interface", 16, u8::MAX) {
            keys.push(format!("interface = 0x{value:02x}"));
        }
        for (key, name, direction, wrong) in [
            ("MessageEndpoint", "out", 0, "it is the address of an IN endpoint"),
            ("ResponseEndpoint", "in", 0x80, "it is the address of an OUT endpoint"),
        ] {
            match self.number(key, 16, u8::MAX) {
                Some(address) if address & 0x80 != direction => self.ignore(key, wrong),
                Some(address) => keys.push(format!("{name} = 0x{address:02x}")),
                None => {}
            }
        }
        if let Some(value) = self.number("WaitBefore", 10, 60_u8) {
            keys.push(format!("wait-before = {value}"));
        }
        if let Some(milliseconds) = self.number("ReleaseDelay", 10, 60_000_u16) {
            keys.push(format!("release-delay = {}", f64::from(milliseconds) / 1000.0));
        }
        if let Some(value) = self.number("TargetClass", 16, u8::MAX) {
            keys.push(format!("target-class = 0x{value:02x}"));
        }
        let list = format!("[{}]", operations.join(", "));
        // A message has 62 characters. If the list does not fit on a line, each operation gets its own.
        let lines = format!("[\n    {},\n]", operations.join(",\n    "));
        let list = if list.len() + keys.join(", ").len() < 86 { list } else { lines };
        match (keys.as_slice(), operations) {
            ([], [name]) if name.starts_with('"') => name.clone(),
            ([], _) => list,
            _ => format!("{{ {}, do = {list} }}", keys.join(", ")),
        }
    }

    fn get(&self, key: &str) -> Option<(&'a str, Range<usize>)> {
        self.keys.iter().find(|(name, ..)| *name == key).map(|(_, value, span)| (*value, span.clone()))
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|(value, _)| value.starts_with(['1', 'y', 'Y', 't', 'T']))
    }

    /// A number from 0 to `most`. Anything else is an error.
    fn number<T: TryFrom<u32> + PartialOrd + Display + LowerHex>(
        &mut self,
        key: &str,
        radix: u32,
        most: T,
    ) -> Option<T> {
        let (value, span) = self.get(key)?;
        let digits = if radix == 16 { value.trim_start_matches("0x").trim_start_matches("0X") } else { value };
        let number = unsigned(digits, radix).and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| *number <= most);
        if number.is_none() {
            let (kind, most) =
                if radix == 16 { ("hex number", format!("{most:x}")) } else { ("number", most.to_string()) };
            self.error(span, &format!("{key} must be a {kind} from 0 to {most}"));
        }
        number
    }

    fn ignore(&mut self, key: &'a str, reason: &'static str) {
        self.ignored.push((key, reason));
    }

    fn error(&mut self, span: Range<usize>, message: &str) {
        self.errors.push(Diagnostic::at(self.path, self.text, span, message));
    }
}

/// A number without a sign.
fn unsigned(digits: &str, radix: u32) -> Option<u32> {
    u32::from_str_radix(digits, radix).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(name: &str, text: &str) -> Import {
        let mut import = Import::default();
        import.add(Path::new(name), text);
        import
    }

    /// The `steps` of a file.
    fn steps(text: &str) -> String {
        let import = import("1234:5678", text);
        assert!(import.errors.is_empty(), "{:?}", import.errors);
        import.toml().split_once("steps = ").unwrap().1.trim_end().to_owned()
    }

    fn ignored_keys(text: &str) -> Vec<String> {
        import("1234:5678", text).ignored_keys.into_keys().collect()
    }

    const REZERO: &str = "55534243123456780000000000000601000000000000000000000000000000";

    #[test]
    fn keys_become_steps_in_usb_modeswitchs_order() {
        assert_eq!(steps("StandardEject=1\n"), "[{ switch = \"eject\" }]");
        assert_eq!(steps("HuaweiNewMode = yes"), "[{ switch = \"huawei-new\" }]");
        assert_eq!(steps("Configuration=0"), "[{ configuration = \"preferred\" }]");
        assert_eq!(steps("Configuration=0x0a"), "[{ configuration = 10 }]");
        assert_eq!(
            steps(&format!("MessageContent=\"{REZERO}\"")),
            format!("[{{ switch = [{{ bulk = \"{REZERO}\" }}] }}]")
        );
        assert_eq!(
            steps("SonyMode=1\nConfiguration=2\nTargetClass=0x02"),
            "[{ switch = { target-class = 0x02, do = [\"sony\", { set-configuration = 2 }] } }]"
        );
        assert_eq!(
            steps("OptionMode=1\nAltSetting=1\nResetUSB=1\nConfiguration=1"),
            "[{ switch = [\n    \"option\",\n    { set-configuration = 1 },\n    { alternate-setting = 1 },\n    \
             { sleep = 1 },\n    \"reset\",\n] }]"
        );
        assert_eq!(steps("DetachStorageOnly=1"), "[{ switch = \"detach\" }]");
        assert_eq!(
            steps(
                "StandardEject=1\nInterface=1\nWaitBefore=2\nReleaseDelay=4000\nMessageEndpoint=05\nResponseEndpoint=85"
            ),
            "[{ switch = { interface = 0x01, out = 0x05, in = 0x85, wait-before = 2, release-delay = 4, do = [\"eject\"] } }]"
        );
        assert_eq!(steps("PantechMode=2"), "[{ switch = \"pantech\" }]");
        assert!(steps("PantechMode=4").contains("value = 4"));
        assert_eq!(steps("PantechMode=1"), "[]");
    }

    #[test]
    fn keys_that_usb_modeswitch_ignores_are_ignored() {
        let eject = steps(&format!("StandardEject=1\nMessageContent={REZERO}\nMessageContent2={REZERO}"));
        assert_eq!(eject.matches("bulk").count(), 1);
        assert_eq!(steps(&format!("CiscoMode=1\nMessageContent={REZERO}")), "[{ switch = \"cisco\" }]");
        assert_eq!(steps("StandardEject=0\nHuaweiMode=1\nHuaweiMode=0"), "[{ switch = \"huawei\" }]");
        assert_eq!(steps("; StandardEject=1\n #HuaweiMode=1\n!SierraMode=1"), "[]");
        assert_eq!(
            ignored_keys("NeedResponse=1\nTargetVendor=0x1234\nStandardEject=1\nCheckSuccess=40"),
            ["CheckSuccess", "NeedResponse"]
        );
        assert_eq!(ignored_keys("StandardEject=1\nResponseEndpoint=0x01"), ["ResponseEndpoint"]);
        assert_eq!(ignored_keys("StandardEject=1\nMessageEndpoint=0x81"), ["MessageEndpoint"]);
    }

    #[test]
    fn what_a_file_does_not_say_is_a_warning() {
        let warnings = |text: &str| import("1234:5678", text).warnings;
        assert_eq!(warnings("# A\n\n ;b\n!c\nStandardEject=1\n"), [""; 0]);
        let no_action = "1234:5678 has no action: the entry leaves the device alone";
        assert_eq!(warnings("TargetVendor=0x1234\nTargetProduct=0001\n"), [no_action]);
        assert_eq!(warnings("\nStandardEject 1\n"), ["1234:5678:2: the line without `=` is ignored", no_action]);
        let lines = "1234:5678:1: this and 2 more lines without `=` are ignored";
        assert_eq!(warnings("<html>\nStandardEject=1\n<p>\n</html>"), [lines]);
    }

    /// A file that is named after its device needs no other ID.
    #[test]
    fn an_id_in_the_file_is_ignored_only_if_its_name_has_one() {
        let text = "DefaultVendor=0x1234\nDefaultProduct=0x5678\nStandardEject=1\n";
        let ignored = |name| import(name, text).ignored_keys.into_keys().collect::<Vec<_>>();
        assert_eq!(ignored("my.conf"), [""; 0]);
        assert_eq!(ignored("1234:5678"), ["DefaultProduct", "DefaultVendor"]);
    }

    #[test]
    fn an_ignored_key_is_reported_once() {
        let mut import = Import::default();
        for name in ["1234:0001", "1234:0002", "1234:0003"] {
            import.add(Path::new(name), "StandardEject=1\nNeedResponse=1\n");
        }
        let text = import.ignored_keys.get("NeedResponse").unwrap().to_string();
        assert!(
            text.starts_with(
                "in 1234:0001 and 2 more files: ignored, because wwan-quirks always reads the answer to a CBW"
            ),
            "{text}"
        );
        assert_eq!(import.toml().matches("[[device]]").count(), 1);
    }

    #[test]
    fn the_name_of_a_file_is_the_device() {
        let toml = import("05C6:1000:uMa=A \"B\":sRe=2", "# ## Some stick\nStandardEject=1").toml();
        assert!(toml.contains("id = \"05c6:1000\"\nname = \"Some stick\"\n"), "{toml}");
        assert!(toml.contains("manufacturer = 'A \"B\"'\nscsi-revision = \"2\"\n"), "{toml}");
        let toml = import("1234:5678", "# a\u{1b}[2J\tb\nStandardEject=1").toml();
        assert!(toml.contains("name = \"a[2Jb\""), "{toml}");
        let toml = import("my.conf", "DefaultVendor=0x12d1\nDefaultProduct=0x1446\nHuaweiNewMode=1").toml();
        assert!(toml.contains("id = \"12d1:1446\"\nname = \"12d1:1446\""), "{toml}");
    }

    #[test]
    fn targets_become_keys_and_the_devices_own_id_is_left_out() {
        let becomes = |text: &str| import("1234:5678", text).toml();
        let of = |text: &str| becomes(&format!("StandardEject=1\n{text}"));
        assert!(
            of("TargetVendor=0x1235\nTargetProduct=0001")
                .contains("id = { id = \"1234:5678\", becomes = [\"1235:0001\"] }")
        );
        let list = of("TargetProduct=0001\nTargetProductList=5678,0A02,3");
        assert!(list.contains("becomes = [\"1234:0a02\", \"1234:0003\"]"), "{list}");
        assert!(of("TargetVendor=1234\nTargetProduct=5678").contains("id = \"1234:5678\"\n"));
    }

    #[test]
    fn the_last_file_by_name_is_the_last_entry() {
        let mut import = Import::default();
        for name in ["05c6:1000:uMa=Option", "05c6:1000:sVe=Option", "05c6:1000"] {
            import.add(Path::new(name), "OptionMode=1");
        }
        let toml = import.toml();
        let at = |text: &str| toml.find(text).unwrap();
        assert!(at("scsi-vendor") < at("manufacturer"));
        assert_eq!(toml.matches("[[device]]").count(), 3, "{toml}");
    }

    #[test]
    fn an_error_has_its_location_and_gives_no_entry() {
        for (name, text, location, message) in [
            ("1234:5678", "StandardEject=1\nHuaweMode=1", "2:11", "unknown key HuaweMode"),
            ("1234:5678", "HuaweiMode=1\nSierraMode=1", "2:12", "a second mode"),
            ("1234:5678", "MessageContent=\"5553424\"", "1:17", "hex digits"),
            ("1234:5678", "MessageContent=5553424312345678", "1:16", "31 bytes"),
            ("1234:5678", "TargetProductList=1,+1", "1:19", "TargetProductList must be a comma-separated"),
            ("1234:5678", "TargetProductList=1,x", "1:19", "TargetProductList must be a comma-separated"),
            ("1234:5678", "Configuration=x", "1:15", "Configuration must be a hex number"),
            ("1234:5678", "StandardEject=1\nWaitBefore=61", "2:12", "WaitBefore must be a number from 0 to 60"),
            ("1234:5678", "StandardEject=1\nInterface=100", "2:11", "Interface must be a hex number from 0 to ff"),
            ("1234:5678:uXx=1", "StandardEject=1", "1:1", "unknown part \"uXx=1\""),
            ("1234:5678:uMa=a:sRe=1:uMa=b", "StandardEject=1", "1:1", "a second uMa= in the file name"),
            ("my.conf", "StandardEject=1", "1:1", "DefaultVendor"),
        ] {
            let import = import(name, text);
            let [error] = import.errors.as_slice() else { panic!("{text}: {:?}", import.errors) };
            assert_eq!(format!("{}:{}", error.line, error.column), location, "{text}");
            assert!(error.message.contains(message), "{error}");
            assert!(!import.toml().contains("[[device]]"));
        }
    }

    /// For any text, the output is valid and has one ID for each file without an error.
    #[test]
    fn the_output_is_valid_for_any_text() {
        let seed = "# Nàme \"x\"\nTargetClass=0xff\nTargetVendor=0x1234\nTargetProductList=0001,0002\nInterface=09\nMessageEndpoint=0x05\nResponseEndpoint=85\nWaitBefore=2\n\
            ReleaseDelay=400\nStandardEject=1\nMessageContent=\"0f00\"\nMessageContent2=10\nConfiguration=2\nAltSetting=1\n\
            ResetUSB=1\nPantechMode=4\nHuaweiMode=0\nDetachStorageOnly=1\n";
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from((state >> 8) % below as u64).unwrap()
        };
        let mut usable = 0;
        for _ in 0..3000 {
            let mut text: Vec<char> = seed.chars().collect();
            for _ in 0..random(6) {
                let at = random(text.len().max(1));
                match random(4) {
                    0 if text.len() > 1 => drop(text.remove(at)),
                    0 => {}
                    1 => text.insert(at.min(text.len()), ['\n', '=', '"', '\'', '#', '\u{7}', '9', 'f'][random(8)]),
                    2 => text[at] = ['1', '0', 'x', '\\', '\r', ']', 'ß', '-'][random(8)],
                    _ => text.truncate(at.max(1)),
                }
            }
            let import = import("1234:5678:uMa=a'\"\\b\t", &text.iter().collect::<String>());
            let file = crate::database::layers::ConfigFile {
                layer: crate::database::layers::Layer::Shipped,
                path: "x.toml".into(),
            };
            let (quirks, errors) = crate::database::quirks::fragment::parse(&file, &import.toml());
            assert_eq!(errors, [], "{}", import.toml());
            assert_eq!(quirks.len(), usize::from(import.errors.is_empty()));
            usable += quirks.len();
        }
        assert!(usable > 300, "{usable}");
    }
}
