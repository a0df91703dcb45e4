//! One file of the database: its TOML format, and its quirks.

use std::fmt;
use std::iter::Peekable;
use std::num::NonZeroU8;
use std::ops::Range;
use std::str::{self, Utf8Error};
use std::time::Duration;

use memchr::memmem;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::switch::{Seconds, SwitchEntry};
use super::{
    ByteOrder, DeviceString, Gtfcclock, Matchers, Model, NeededReset, NewId, Number, Procedure, Quirk, Seen, Select,
    StateCommand, Step, Target, vendor_of,
};
use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::{Diagnostic, Location, line_of, unsupported};
use crate::database::layers::{self, ConfigFile, Layer};
use crate::modem::wire::qmi::Service;
use crate::pci::Subsystem;
use crate::usb::Function;

/// The version of the format.
const SCHEMA: u32 = 1;
/// The limit of `unconfigured`. A udev event also has to wait for the kernel's work on the new configuration.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    schema: Spanned<u32>,
    #[serde(default)]
    device: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Entry {
    id: Spanned<ModelEntries>,
    name: Spanned<String>,
    note: Option<String>,
    source: Option<String>,
    seen: Option<Seen>,
    manufacturer: Option<String>,
    product: Option<String>,
    serial: Option<String>,
    scsi_vendor: Option<String>,
    scsi_model: Option<String>,
    scsi_revision: Option<String>,
    subsystem: Option<Spanned<String>>,
    #[serde(default)]
    qmi_interfaces: Vec<u8>,
    online_after_reset: Option<NeededReset>,
    new_id: Option<Spanned<NewId>>,
    steps: Spanned<Vec<StepEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StepEntry {
    Switch(SwitchEntry),
    Configuration(ConfigurationEntry),
    FccAuth(ProcedureEntry),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProcedureEntry {
    Sierra,
    Quectel,
    /// With the magic string for the hash, like the next two.
    Foxconn(String),
    Fox(String),
    Foxap(String),
    Gtfcclock(GtfcclockEntry),
    IntelMutualAuthentication(KeysEntry),
    XmmRpc(KeysEntry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct KeysEntry {
    oem_strings: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct GtfcclockEntry {
    interface: Option<u8>,
    #[serde(default)]
    byte_order: ByteOrder,
    #[serde(default)]
    number: Number,
    #[serde(default)]
    state: StateCommand,
    oem_strings: Vec<String>,
}

/// One model or a list of models, not yet parsed.
enum ModelEntries {
    One(ModelEntry),
    Many(Vec<Spanned<ModelEntry>>),
}

/// An ID, or a table with facts about the device that has the ID.
enum ModelEntry {
    Id(String),
    Table(ModelTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelTable {
    id: Spanned<String>,
    name: Option<String>,
    #[serde(default)]
    becomes: Vec<Spanned<TargetEntry>>,
}

/// What a device becomes: an ID, or a table with its name.
enum TargetEntry {
    Id(String),
    Table(TargetTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    id: Spanned<String>,
    name: String,
}

struct ModelVisitor;
impl<'de> Visitor<'de> for ModelVisitor {
    type Value = ModelEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an ID like \"1199:9071\", or a table like { id = \"1199:9071\", name = \"EM7455\" }")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ModelEntry, E> {
        Ok(ModelEntry::Id(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelEntry, A::Error> {
        ModelTable::deserialize(MapAccessDeserializer::new(map)).map(ModelEntry::Table)
    }
}

impl<'de> Deserialize<'de> for ModelEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelEntry, D::Error> {
        deserializer.deserialize_any(ModelVisitor)
    }
}

impl<'de> Deserialize<'de> for ModelEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelEntries, D::Error> {
        struct ModelsVisitor;
        impl<'de> Visitor<'de> for ModelsVisitor {
            type Value = ModelEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Visitor::expecting(&ModelVisitor, f)?;
                f.write_str(", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ModelEntries, E> {
                ModelVisitor.visit_str(text).map(ModelEntries::One)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelEntries, A::Error> {
                ModelVisitor.visit_map(map).map(ModelEntries::One)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<ModelEntries, A::Error> {
                let mut models = Vec::new();
                while let Some(model) = list.next_element()? {
                    models.push(model);
                }
                Ok(ModelEntries::Many(models))
            }
        }
        deserializer.deserialize_any(ModelsVisitor)
    }
}

impl<'de> Deserialize<'de> for TargetEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<TargetEntry, D::Error> {
        struct TargetVisitor;
        impl<'de> Visitor<'de> for TargetVisitor {
            type Value = TargetEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an ID like \"12d1:14dc\", or a table like { id = \"12d1:14dc\", name = \"network card\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<TargetEntry, E> {
                Ok(TargetEntry::Id(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<TargetEntry, A::Error> {
                TargetTable::deserialize(MapAccessDeserializer::new(map)).map(TargetEntry::Table)
            }
        }
        deserializer.deserialize_any(TargetVisitor)
    }
}

/// The span of an error in an entry, and its message.
type InvalidValue = (Range<usize>, String);

/// Where the model `id` is in `text`, which begins with the header of its entry.
pub(crate) fn place_of(text: &str, id: DeviceId) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Entries {
        device: Vec<Ids>,
    }
    #[derive(Deserialize)]
    struct Ids {
        id: Spanned<ModelEntries>,
    }
    // Inside a multi-line string, the text of a header is not a header.
    let end = text.find(HEADER).map_or(text.len(), |newline| newline + 1);
    let entries: Entries = toml::from_str(text.get(..end)?).or_else(|_| toml::from_str(text)).ok()?;
    let models = ModelEntries::with_spans(entries.device.into_iter().next()?.id);
    let mut places = models.into_iter().map(|(span, model)| match model {
        ModelEntry::Id(text) => (span, text),
        ModelEntry::Table(ModelTable { id, .. }) => (id.span(), id.into_inner()),
    });
    // A span includes the quotes.
    places.find(|(_, text)| text.parse() == Ok(id)).map(|(span, _)| span.start + 1..span.end - 1)
}

impl ModelEntries {
    /// The models with their spans.
    fn with_spans(models: Spanned<ModelEntries>) -> Vec<(Range<usize>, ModelEntry)> {
        let span = models.span();
        match models.into_inner() {
            ModelEntries::One(model) => vec![(span, model)],
            ModelEntries::Many(models) => models.into_iter().map(|model| (model.span(), model.into_inner())).collect(),
        }
    }

    /// The models, or the first error. All must have the bus and vendor `vendor`, if it is given.
    fn read(models: Spanned<ModelEntries>, vendor: Option<(Bus, u16)>) -> Result<Vec<Model>, InvalidValue> {
        let span = models.span();
        let models = ModelEntries::with_spans(models);
        if models.is_empty() {
            return Err((span, "an entry needs at least one ID".to_owned()));
        }
        models.into_iter().map(|(span, model)| model.read(span, vendor)).collect()
    }
}

impl ModelEntry {
    fn read(self, span: Range<usize>, vendor: Option<(Bus, u16)>) -> Result<Model, InvalidValue> {
        let (span, text, name, becomes) = match self {
            ModelEntry::Id(text) => (span, text, None, Vec::new()),
            ModelEntry::Table(ModelTable { id, name, becomes }) => (id.span(), id.into_inner(), name, becomes),
        };
        let id = read_id(span.clone(), &text)?;
        if let Some((bus, vendor)) = vendor.filter(|vendor| *vendor != (id.bus, id.vendor)) {
            let (prefix, on) = if bus == Bus::Pci { ("pci-", " on PCI") } else { ("", "") };
            let message = format!(
                "a lookup of {id} does not read this file: a shipped file named {prefix}{vendor:04x}-* is for vendor \
                 {vendor:04x}{on}"
            );
            return Err((span, message));
        }
        let becomes = becomes.into_iter().map(|target| {
            let span = target.span();
            match target.into_inner() {
                TargetEntry::Id(text) => Ok(Target { id: read_id(span, &text)?, name: None }),
                TargetEntry::Table(TargetTable { id, name }) => {
                    Ok(Target { id: read_id(id.span(), id.get_ref())?, name: Some(name) })
                }
            }
        });
        Ok(Model { id, name, becomes: becomes.collect::<Result<_, _>>()? })
    }
}

fn read_id(span: Range<usize>, text: &str) -> Result<DeviceId, InvalidValue> {
    match text.parse::<DeviceId>() {
        Err(error) => Err((span, error.to_string())),
        Ok(id) if id.forms().iter().any(|form| form == text) => Ok(id),
        Ok(_) => Err((span, "the letters of an ID must be all lower case or all upper case".to_owned())),
    }
}

/// A selection, or a table with `select` and how to set the configuration.
struct ConfigurationEntry {
    select: SelectEntry,
    fallback: Option<NonZeroU8>,
    unconfigured: Option<Seconds>,
}

impl<'de> Deserialize<'de> for ConfigurationEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ConfigurationEntry, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Table {
            select: SelectEntry,
            fallback: Option<NonZeroU8>,
            unconfigured: Option<Seconds>,
        }
        struct ConfigurationVisitor;
        impl<'de> Visitor<'de> for ConfigurationVisitor {
            type Value = ConfigurationEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Visitor::expecting(&SelectVisitor, f)?;
                f.write_str(", or a table with `select`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ConfigurationEntry, E> {
                Ok(ConfigurationEntry { select: SelectVisitor.visit_str(text)?, fallback: None, unconfigured: None })
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<ConfigurationEntry, E> {
                Ok(ConfigurationEntry { select: SelectVisitor.visit_i64(value)?, fallback: None, unconfigured: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ConfigurationEntry, A::Error> {
                let Table { select, fallback, unconfigured } = Table::deserialize(MapAccessDeserializer::new(map))?;
                if unconfigured.is_some_and(|Seconds(pause)| pause > LONGEST_PAUSE) {
                    return Err(de::Error::custom("unconfigured can be at most 1 second"));
                }
                if fallback.is_some() && !matches!(select, SelectEntry(Select::Preferred | Select::Function(_))) {
                    return Err(de::Error::custom("only a function can have a `fallback`"));
                }
                Ok(ConfigurationEntry { select, fallback, unconfigured })
            }
        }
        deserializer.deserialize_any(ConfigurationVisitor)
    }
}

/// `"preferred"`, `"keep"`, a function, or a `bConfigurationValue`.
struct SelectEntry(Select);

impl<'de> Deserialize<'de> for SelectEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SelectEntry, D::Error> {
        deserializer.deserialize_any(SelectVisitor)
    }
}

struct SelectVisitor;
impl Visitor<'_> for SelectVisitor {
    type Value = SelectEntry;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"preferred\", \"keep\", \"mbim\", \"qmi\", \"ecm\", \"ncm\", or a number from 1 to 255")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<SelectEntry, E> {
        Ok(SelectEntry(match text {
            "preferred" => Select::Preferred,
            "keep" => Select::Keep,
            "mbim" => Select::Function(Function::Mbim),
            "qmi" => Select::Function(Function::Qmi),
            "ecm" => Select::Function(Function::Ecm),
            "ncm" => Select::Function(Function::Ncm),
            _ => return Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<SelectEntry, E> {
        let value = u8::try_from(number).ok().filter(|value| *value != 0);
        value
            .map(|value| SelectEntry(Select::Value(value)))
            .ok_or_else(|| E::custom(format!("expected a configuration from 1 to 255, got {number}")))
    }
}

/// The header of an entry. The same text in a multi-line string is not a header.
const HEADER: &str = "\n[[device]]";

/// Like [`parse`], but parses only the entries that can have `id`, so that a large file takes little longer than a small
/// one. `check` reports errors in the rest. An entry of the administrator is parsed if it names `id` anywhere: it may say
/// to leave the modem alone, and an error must not hide it. In a shipped file, the other models of a list are left out.
///
/// # Errors
/// A part that it parses is not UTF-8.
pub fn parse_for(file: &ConfigFile, bytes: &[u8], id: DeviceId) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Utf8Error> {
    match file.layer {
        Layer::Shipped => parse_shipped_for(file, bytes, id),
        // The search would miss an ID in a string with escapes, and an error in a file without entries.
        _ if memchr::memchr(b'\\', bytes).is_some() || memmem::find(bytes, HEADER.as_bytes()).is_none() => {
            Ok(parse(file, str::from_utf8(bytes)?))
        }
        _ if names(bytes, id) => Ok(parse_naming(file, str::from_utf8(bytes)?, id)),
        _ => Ok((Vec::new(), Vec::new())),
    }
}

/// Whether the numbers of `id` are anywhere in the text.
fn names(text: &[u8], id: DeviceId) -> bool {
    let [numbers, _] = DeviceId { bus: Bus::Usb, ..id }.forms();
    memchr::memchr_iter(b':', text).any(|colon| {
        let at = colon.checked_sub(4).and_then(|start| text.get(start..start + numbers.len()));
        at.is_some_and(|at| at.eq_ignore_ascii_case(numbers.as_bytes()))
    })
}

/// The quirks and errors of the entries that name `id`.
fn parse_naming(file: &ConfigFile, text: &str, id: DeviceId) -> (Vec<Quirk>, Vec<Diagnostic>) {
    match split(text) {
        Some((head, entries)) if !names(head.as_bytes(), id) => {
            parse_entries(file, head, entries, |entry| names(entry.as_bytes(), id))
        }
        _ => parse(file, text),
    }
}

fn parse_shipped_for(
    file: &ConfigFile,
    bytes: &[u8],
    id: DeviceId,
) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Utf8Error> {
    let whole = || Ok(parse(file, str::from_utf8(bytes)?));
    let text = |from, to| str::from_utf8(bytes.get(from..to).unwrap_or_default());
    let header_after = |from: usize| Some(from + memmem::find(bytes.get(from..)?, HEADER.as_bytes())?);
    // The search would miss an ID in a string with escapes, and cut a line end of two characters.
    let (Some(first), None) = (header_after(0), memchr::memchr2(b'\\', b'\r', bytes)) else { return whole() };
    // Inside a multi-line string, the text of a header is not a header.
    if [b"\"\"\"", b"'''"].iter().any(|quotes| memmem::find(bytes, *quotes).is_some()) {
        return whole();
    }
    let (mut quirks, mut errors) = (Vec::new(), Vec::new());
    let mut read = 0;
    let forms = id.forms();
    let mut hits: Vec<_> =
        needles(&forms).into_iter().map(|needle| memmem::find_iter(bytes, needle).peekable()).collect();
    let mut next = |from| hits.iter_mut().filter_map(|hits| skip_to(hits, from)).min();
    while let Some(at) = next(read) {
        let is_id = |form: &String| bytes.get(at..).is_some_and(|rest| rest.starts_with(form.as_bytes()));
        if !forms.iter().any(is_id) {
            read = at + 1;
            continue;
        }
        if at < first {
            return whole();
        }
        let start = memmem::rfind(bytes.get(..at).unwrap_or_default(), HEADER.as_bytes()).unwrap_or(first);
        if is_target(text(start, at)?) {
            read = at + 1;
            continue;
        }
        let end = header_after(at).unwrap_or(bytes.len());
        let (head, entry) = (text(0, first)?, text(start, end)?);
        // The number of lines that are left out.
        let skipped = memchr::memchr_iter(b'\n', bytes.get(first..start).unwrap_or_default()).count();
        let (mut more, mut wrong) = match parse_entry(file, head, skipped, &only_model(entry, &forms)) {
            (quirks, errors) if errors.is_empty() => (quirks, errors),
            _ => parse_entry(file, head, skipped, entry),
        };
        quirks.append(&mut more);
        errors.append(&mut wrong);
        read = end;
    }
    Ok((quirks, errors))
}

/// The search strings that find both forms of an ID: the common part, if that is more than the vendor.
fn needles(forms: &[String; 2]) -> Vec<&str> {
    const PRODUCT: usize = 4;
    let [lower, upper] = forms;
    let common = lower.bytes().zip(upper.bytes()).take_while(|(lower, upper)| lower == upper).count();
    match lower.get(..common) {
        Some(common) if common.len() + PRODUCT > lower.len() => vec![common],
        _ => vec![lower, upper],
    }
}

/// The first of `hits` at or after `from`.
fn skip_to(hits: &mut Peekable<impl Iterator<Item = usize>>, from: usize) -> Option<usize> {
    while hits.next_if(|at| *at < from).is_some() {}
    hits.peek().copied()
}

/// Whether the text that follows `before` in an entry is an element of a list of targets.
fn is_target(before: &str) -> bool {
    let Some(list) = memmem::rfind(before.as_bytes(), b"becomes = [") else { return false };
    let (before, list) = before.split_at(list);
    let line = before.rsplit('\n').next().unwrap_or_default();
    // In a comment or a string, the words mean nothing.
    let is_in_string = line.contains('\'') || line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
    !line.contains('#') && !is_in_string && !list.contains(']')
}

/// How the line of a model in a list begins and ends. The shipped files and `import` write it like this.
const MODEL: (&str, &str) = ("    { id = \"", "},\n");

/// The text of an entry, with empty lines in place of the models whose ID is not in `forms`. If a target is indented
/// like a model, the whole text.
fn only_model(entry: &str, forms: &[String; 2]) -> String {
    let mut kept = String::with_capacity(entry.len());
    let (mut is_other, mut lists_targets) = (false, false);
    for line in entry.split_inclusive('\n') {
        let begins = line.strip_prefix(MODEL.0);
        if begins.is_some() && lists_targets {
            return entry.to_owned();
        }
        let rest = line.split_once("becomes = [").map(|(_, rest)| rest).or(lists_targets.then_some(line));
        lists_targets = rest.is_some_and(|rest| !rest.contains(']'));
        if let Some(rest) = begins {
            is_other = !forms.iter().any(|form| rest.starts_with(form.as_str()));
        }
        kept.push_str(if is_other { "\n" } else { line });
        is_other &= !(line.ends_with(MODEL.1) && (begins.is_some() || !line.starts_with("     ")));
    }
    kept
}

/// Parses the text before the first header, and then `entry`. Between them, `skipped` lines are left out.
fn parse_entry(file: &ConfigFile, head: &str, skipped: usize, entry: &str) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let (mut quirks, mut errors) = match parse_whole(file, &[head, entry].concat()) {
        Ok(parsed) => parsed,
        Err(error) => (Vec::new(), vec![*error]),
    };
    quirks.iter_mut().for_each(|quirk| quirk.location.line += skipped);
    errors.iter_mut().filter(|error| error.line > line_of(head, head.len())).for_each(|error| error.line += skipped);
    (quirks, errors)
}

/// The quirks of a file, and all errors. An entry with an error is left out.
pub fn parse(file: &ConfigFile, text: &str) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let error = match parse_whole(file, text) {
        Ok(parsed) => return parsed,
        Err(error) => *error,
    };
    // The TOML parser stops at the first error. Parse the entries one by one to find the others.
    let Some((head, entries)) = split(text) else { return (Vec::new(), vec![error]) };
    let (quirks, mut errors) = parse_entries(file, head, entries, |_| true);
    if errors.is_empty() {
        errors.push(error);
    }
    (quirks, errors)
}

/// The text before the first entry, and the text of each entry. `None` if the text has no entry, or if text in the form of
/// a header may not be one.
fn split(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut starts: Vec<usize> = text.match_indices(HEADER).map(|(at, _)| at).collect();
    for start in &mut starts {
        let ends_with_cr = text.get(..*start).is_some_and(|before| before.ends_with('\r'));
        *start -= usize::from(ends_with_cr);
    }
    let head = text.get(..*starts.first()?)?;
    // Text in the form of a header may be part of a string, and a header may be indented.
    let is_plain = !text.contains("\"\"\"") && !text.contains("'''") && !head.contains(HEADER.trim_start());
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let entries = starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end));
    is_plain.then(|| (head, entries.collect()))
}

/// Parses each of the entries that `is_wanted` accepts on its own.
fn parse_entries(
    file: &ConfigFile,
    head: &str,
    entries: Vec<&str>,
    is_wanted: impl Fn(&str) -> bool,
) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let head_lines = line_of(head, head.len());
    let (mut quirks, mut errors, mut skipped, mut is_first) = (Vec::new(), Vec::new(), 0, true);
    for entry in entries {
        if is_wanted(entry) {
            let (mut more, mut wrong) = parse_entry(file, head, skipped, entry);
            // Every entry repeats an error before the first entry.
            wrong.retain(|error| is_first || error.line > head_lines);
            quirks.append(&mut more);
            errors.append(&mut wrong);
            is_first = false;
        }
        skipped += entry.matches('\n').count();
    }
    (quirks, errors)
}

/// The quirks of a file and the errors in their values, or the error that stopped the TOML parser.
fn parse_whole(file: &ConfigFile, text: &str) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Box<Diagnostic>> {
    if layers::has_no_key(text) {
        return Ok((Vec::new(), Vec::new()));
    }
    let invalid = |span, message: String| Diagnostic::at(&file.path, text, span, message);
    let fragment: Fragment = toml::from_str(text).map_err(|error| Diagnostic::from_toml(&file.path, text, &error))?;
    if let Some(message) = unsupported(&fragment.schema, SCHEMA) {
        return Err(invalid(fragment.schema.span(), message).into());
    }
    let name = file.path.file_name().filter(|_| file.layer == Layer::Shipped);
    let vendor = name.and_then(|name| vendor_of(name.as_encoded_bytes()));
    let mut quirks = Vec::new();
    let mut errors = Vec::new();
    for entry in fragment.device {
        let location = Location { layer: file.layer, path: file.path.clone(), line: line_of(text, entry.span().start) };
        match quirk(entry.into_inner(), vendor, location) {
            Ok(quirk) => quirks.push(quirk),
            Err((span, message)) => errors.push(invalid(span, message)),
        }
    }
    Ok((quirks, errors))
}

/// The quirk of an entry. `vendor`: the only one that the file may contain. Returns the first error, and its place.
fn quirk(entry: Entry, vendor: Option<(Bus, u16)>, location: Location) -> Result<Quirk, InvalidValue> {
    let id_span = entry.id.span();
    let models = ModelEntries::read(entry.id, vendor)?;
    let mut matchers = Matchers::new();
    for (string, part) in [
        (DeviceString::Manufacturer, entry.manufacturer),
        (DeviceString::Product, entry.product),
        (DeviceString::Serial, entry.serial),
        (DeviceString::ScsiVendor, entry.scsi_vendor),
        (DeviceString::ScsiModel, entry.scsi_model),
        (DeviceString::ScsiRevision, entry.scsi_revision),
    ] {
        matchers.extend(part.map(|part| (string, part)));
    }
    if let Some(subsystem) = entry.subsystem {
        let span = subsystem.span();
        let subsystem = subsystem.into_inner().parse::<Subsystem>().map_err(|error| (span, error.to_string()))?;
        matchers.insert(DeviceString::Subsystem, subsystem.to_string());
    }
    if let Some(new_id) = &entry.new_id {
        check_names(new_id.get_ref()).map_err(|message| (new_id.span(), message))?;
    }
    let steps_span = entry.steps.span();
    let quirk = Quirk {
        models,
        name: entry.name.into_inner(),
        note: entry.note,
        source: entry.source,
        seen: entry.seen,
        matchers,
        qmi_interfaces: entry.qmi_interfaces,
        online_after_reset: entry.online_after_reset,
        new_id: entry.new_id.map(Spanned::into_inner),
        steps: entry.steps.into_inner().into_iter().map(step).collect(),
        location,
    };
    fits_bus(&quirk).map_err(|message| (id_span, message))?;
    check_steps(&quirk).map_err(|message| (steps_span, message))?;
    Ok(quirk)
}

/// Checks the names, which become part of a command.
fn check_names(NewId { module, driver, .. }: &NewId) -> Result<(), String> {
    let is_plain = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_plain(module) && is_plain(driver) {
        return Ok(());
    }
    Err("the name of a module or driver may contain only letters, digits, `_` and `-`".to_owned())
}

/// Checks that no step is there twice, and that each has what it needs.
fn check_steps(quirk: &Quirk) -> Result<(), String> {
    // A modem can have one of several locks.
    let kind = |step: &Step| match step {
        Step::FccAuth(procedure) => procedure.to_string(),
        step => step.kind().to_string(),
    };
    for (at, step) in quirk.steps.iter().enumerate() {
        if quirk.steps.iter().take(at).any(|other| kind(other) == kind(step)) {
            return Err(format!("two {} steps: an entry can have only one", step.kind()));
        }
        check_step(step, quirk.is_pci())?;
    }
    Ok(())
}

/// Checks that a step is possible on the bus, and can have an effect.
fn check_step(step: &Step, is_pci: bool) -> Result<(), String> {
    let is_keyless = |strings: &[String]| strings.is_empty() || strings.iter().any(String::is_empty);
    match step {
        Step::FccAuth(Procedure::Xmm { .. }) if !is_pci => {
            Err(format!("{step} is for PCI modems, and this is a USB ID"))
        }
        Step::Switch(_) | Step::Configuration { .. } | Step::FccAuth(Procedure::Sierra) if is_pci => {
            Err(format!("{step} is for USB modems, and this is a PCI ID"))
        }
        Step::FccAuth(Procedure::Gtfcclock(Gtfcclock { interface, .. })) if is_pci == interface.is_some() => {
            Err(match is_pci {
                true => "a PCI modem has no `interface`: omit the key".to_owned(),
                false => "gtfcclock needs `interface`, the number of the interface with the AT port".to_owned(),
            })
        }
        Step::FccAuth(procedure @ Procedure::Foxconn { magic, .. }) if magic.is_empty() => {
            Err(format!("{procedure} needs the magic string of the vendor"))
        }
        Step::FccAuth(procedure) if procedure.oem_strings().is_some_and(is_keyless) => {
            Err("oem-strings needs at least one string, and no empty one".to_owned())
        }
        _ => Ok(()),
    }
}

/// Several makers use Qualcomm's own PCI IDs.
const SHARED_PCI_VENDOR: u16 = 0x17cb;

/// Checks that an entry has only keys that are possible on the bus of its IDs.
fn fits_bus(quirk: &Quirk) -> Result<(), String> {
    let subsystem = quirk.matchers.contains_key(&DeviceString::Subsystem);
    let (pci, usb): (Vec<DeviceId>, Vec<DeviceId>) = quirk.ids().partition(|id| id.bus == Bus::Pci);
    if !pci.is_empty() && !usb.is_empty() {
        return Err("an entry cannot have both USB IDs and PCI IDs".to_owned());
    }
    if pci.is_empty() {
        return if subsystem { Err("only PCI IDs have a subsystem".to_owned()) } else { Ok(()) };
    }
    if let Some(shared) = pci.iter().find(|id| id.vendor == SHARED_PCI_VENDOR && !subsystem) {
        return Err(format!("several makers use {shared}: the entry needs a subsystem, such as \"105b:*\""));
    }
    if let Some(string) = quirk.matchers.keys().find(|string| **string != DeviceString::Subsystem) {
        return Err(format!("a PCI device has no {string}"));
    }
    let of_usb = [
        ("qmi-interfaces", !quirk.qmi_interfaces.is_empty()),
        ("online-after-reset", quirk.online_after_reset.is_some()),
        ("new-id", quirk.new_id.is_some()),
    ];
    match of_usb.into_iter().find(|(_, is_set)| *is_set) {
        Some((key, _)) => Err(format!("`{key}` is for USB modems, and this is a PCI ID")),
        None => Ok(()),
    }
}

fn step(entry: StepEntry) -> Step {
    match entry {
        StepEntry::Switch(SwitchEntry(switch)) => Step::Switch(switch),
        StepEntry::Configuration(ConfigurationEntry { select: SelectEntry(select), fallback, unconfigured }) => {
            Step::Configuration {
                select,
                fallback: fallback.map(NonZeroU8::get),
                unconfigured: unconfigured.map(|Seconds(pause)| pause),
            }
        }
        StepEntry::FccAuth(procedure) => Step::FccAuth(match procedure {
            ProcedureEntry::Sierra => Procedure::Sierra,
            ProcedureEntry::Quectel => Procedure::Quectel,
            ProcedureEntry::Foxconn(magic) => Procedure::Foxconn { service: Service::DMS, magic },
            ProcedureEntry::Fox(magic) => Procedure::Foxconn { service: Service::FOX, magic },
            ProcedureEntry::Foxap(magic) => Procedure::Foxconn { service: Service::FOXAP, magic },
            ProcedureEntry::Gtfcclock(GtfcclockEntry { interface, byte_order, number, state, oem_strings }) => {
                Procedure::Gtfcclock(Gtfcclock { interface, byte_order, number, state, oem_strings })
            }
            ProcedureEntry::IntelMutualAuthentication(KeysEntry { oem_strings }) => Procedure::Intel { oem_strings },
            ProcedureEntry::XmmRpc(KeysEntry { oem_strings }) => Procedure::Xmm { oem_strings },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn file(name: &str) -> ConfigFile {
        ConfigFile { layer: Layer::Shipped, path: PathBuf::from(name) }
    }

    fn parse_for(file: &ConfigFile, text: &str, id: DeviceId) -> (Vec<Quirk>, Vec<Diagnostic>) {
        super::parse_for(file, text.as_bytes(), id).unwrap()
    }

    const TEXT: &str = "schema = 1\n\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [\n]\n\n# x\n[[device]]\n\
        id = [\"1199:68A2\", \"1199:9041\"]\nname = \"B\"\nsteps = [{ configuration = 1 }]\n[[device]]\nid = \"1199:0fff\"\n";

    #[test]
    fn only_entries_that_can_have_the_id_are_parsed_and_lines_keep_their_numbers() {
        let (quirks, errors) = parse_for(&file("1199-x.toml"), TEXT, "1199:68a2".parse().unwrap());
        assert_eq!(errors, []);
        assert_eq!(quirks.len(), 1);
        assert_eq!((quirks[0].name.as_str(), quirks[0].location.line), ("B", 10));
        // A lookup reports an error at the same location as a check of the whole file.
        let (_, errors) = parse_for(&file("1199-x.toml"), TEXT, "1199:0fff".parse().unwrap());
        assert_eq!(errors, parse(&file("1199-x.toml"), TEXT).1);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn line_ends_of_two_characters_are_line_ends() {
        let text = TEXT.replace('\n', "\r\n");
        for id in ["1199:9071", "1199:68a2"] {
            let (quirks, _) = parse_for(&file("1199-x.toml"), &text, id.parse().unwrap());
            let names: Vec<_> = quirks.iter().map(|quirk| (quirk.name.as_str(), quirk.location.line)).collect();
            assert_eq!(names, [("A", 3), ("B", 10)], "{id}");
        }
        let messages = |text: &str| {
            let errors = parse(&file("1199-x.toml"), text).1;
            errors.into_iter().map(|error| (error.line, error.column, error.message)).collect::<Vec<_>>()
        };
        let wrong = TEXT.replace("1199:9071", "1199:zzzz");
        assert_eq!(messages(&wrong).len(), 2);
        assert_eq!(messages(&wrong.replace('\n', "\r\n")), messages(&wrong));
    }

    #[test]
    fn an_entry_is_found_although_a_string_looks_like_a_list_of_targets() {
        for (quote, note) in [('"', "it becomes = [a modem"), ('\'', "it becomes = [a \" modem")] {
            let text = format!(
                "schema = 1\n[[device]]\nnote = {quote}{note}{quote}\nid = \"1199:9071\"\nname = \"A\"\nsteps = []\n"
            );
            assert_eq!(parse_for(&file("1199-x.toml"), &text, "1199:9071".parse().unwrap()).0.len(), 1, "{note}");
        }
    }

    #[test]
    fn targets_in_the_indentation_of_a_model_are_kept() {
        let text = "schema = 1\n[[device]]\nid = { id = \"1199:2222\", becomes = [\n    { id = \"1199:3333\", name = \"net\" },\n] }\n\
            name = \"B\"\nsteps = []\n";
        let (quirks, errors) = parse_for(&file("1199-x.toml"), text, "1199:2222".parse().unwrap());
        assert_eq!((quirks[0].models[0].becomes.len(), errors), (1, vec![]));
    }

    #[test]
    fn a_file_without_a_key_has_no_entry() {
        for text in ["\n", "# 1199:9071\r\n\t# schema = 1\n", "#"] {
            assert_eq!(parse(&file("1199-x.toml"), text), (Vec::new(), Vec::new()), "{text:?}");
            assert_eq!(parse_for(&file("1199-x.toml"), text, "1199:9071".parse().unwrap()), (Vec::new(), Vec::new()));
        }
        let missing = parse(&file("1199-x.toml"), "# x\ndevice = []\n").1;
        assert!(missing.len() == 1 && missing[0].message.contains("missing field `schema`"), "{missing:?}");
    }

    #[test]
    fn an_indented_first_header_gives_no_false_error() {
        let text = format!("schema = 1\n  {}", TEXT.split_once("\n\n").unwrap().1);
        let errors = parse(&file("1199-x.toml"), &text).1;
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    /// Models in tables of several lines. One of them has lines that look complete, but are not.
    const MODELS: &str = "schema = 1\n[[device]]\nid = [\n    \"12d1:0001\",\n    { id = \"12d1:0002\", name = \"B\" },\n    \
        { id = \"12d1:0003\", becomes = [\n        \"12d1:0002\", { id = \"12d1:0004\", name = \"D\" },\n    ] },\n    \
        { id = \"12d1:0005\", becomes = [{ id = \"12d1:0006\", name = \"F\" },\n        \"12d1:0001\"] },\n]\n\
        name = \"A\"\nsource = \"S\"\nseen = \"hint\"\nsteps = []\n";

    #[test]
    fn a_lookup_takes_one_model_of_a_list() {
        let file = file("own.toml");
        let (all, errors) = parse(&file, MODELS);
        assert_eq!(errors, []);
        assert_eq!(all[0].ids().count(), 4);
        assert_eq!((all[0].source.as_deref(), all[0].seen), (Some("S"), Some(Seen::Hint)));
        for (id, name, becomes) in [
            ("12d1:0001", "A", vec![]),
            ("12d1:0002", "B", vec![]),
            ("12d1:0003", "A", vec!["12d1:0002", "12d1:0004, D"]),
        ] {
            let id = id.parse().unwrap();
            let (found, errors) = parse_for(&file, MODELS, id);
            assert_eq!(errors, []);
            let model = found[0].model(id).unwrap();
            assert_eq!(found[0].name_of(id), name);
            assert_eq!(model.becomes.iter().map(ToString::to_string).collect::<Vec<_>>(), becomes);
            assert_eq!(Some(model), all[0].model(id));
        }
        let id = "12d1:0005".parse().unwrap();
        let (found, errors) = parse_for(&file, MODELS, id);
        assert_eq!((found[0].model(id), errors), (all[0].model(id), vec![]));
        // An entry that only has the ID as a target is not parsed.
        let of = |id: &str| parse_for(&file, MODELS, id.parse().unwrap());
        assert_eq!(of("12d1:0004"), (Vec::new(), Vec::new()));
        assert_eq!(of("12d1:0006"), (Vec::new(), Vec::new()));
        let commented = MODELS.replace("id = [\n", "id = [ # becomes = [\n");
        assert_eq!(parse_for(&file, &commented, "12d1:0001".parse().unwrap()).0.len(), 1);
        // Other models are not parsed: an error in their lines is for `check`. If lines only look complete, all are parsed.
        let (before, rest) = MODELS.split_once("    { id = \"12d1:0005\"").unwrap();
        let broken = before.replace("name = \"B\"", "nam = 1") + rest.split_once("\"12d1:0001\"] },\n").unwrap().1;
        assert_eq!(parse_for(&file, &broken, "12d1:0003".parse().unwrap()).1, []);
        assert_eq!(parse_for(&file, &broken, "12d1:0002".parse().unwrap()).1.len(), 1);
    }

    #[test]
    fn one_error_does_not_hide_others() {
        let (quirks, errors) = parse(&file("1199-x.toml"), &format!("{TEXT}[[device]]\nid = \"1199:1\nsteps = []\n"));
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!((quirks.len(), lines.as_slice()), (2, [14, 17].as_slice()), "{errors:?}");
        // An error before the first entry is reported once.
        let (quirks, errors) = parse(&file("1199-x.toml"), &TEXT.replace("schema", "shema"));
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!((quirks.len(), lines.as_slice()), (0, [1, 14].as_slice()), "{errors:?}");
    }

    #[test]
    fn an_id_with_escapes_is_found() {
        let text = "schema = 1\n[[device]]\nid = \"\\u0031199:9071\"\nname = \"A\"\nsteps = []\n[[device]]\nid = \"1199:1111\"\n\
            name = \"\"\"\n[[device]]\n9071\"\"\"\nsteps = []\n";
        let (quirks, errors) = parse_for(&file("own.toml"), text, "1199:9071".parse().unwrap());
        assert_eq!((errors.len(), quirks.len()), (0, 2));
    }

    #[test]
    fn both_forms_of_an_id_are_found() {
        for id in ["1199:9071", "1199:90ab", "1199:ab01", "12d1:14ac", "pci:17cb:0308"] {
            for form in id.parse::<DeviceId>().unwrap().forms() {
                let text = format!(
                    "schema = 1\n[[device]]\nid = \"1199:90ac\"\nname = \"A\"\nsteps = []\n[[device]]\nid = \"{form}\"\nname = \"B\"\nsteps = []\n"
                );
                let text =
                    if form.starts_with("pci") { text.replace("steps", "subsystem = \"105b:*\"\nsteps") } else { text };
                let (quirks, _) = parse_for(&file("own.toml"), &text, id.parse().unwrap());
                assert_eq!(quirks.len(), 1, "{form}");
            }
        }
    }

    /// An entry that may say to leave the modem alone is not passed over.
    #[test]
    fn an_entry_of_the_administrator_is_parsed_if_it_names_the_modem_in_any_way() {
        let own = ConfigFile { layer: Layer::Administrator, path: PathBuf::from("own.toml") };
        let id: DeviceId = "12d1:14fe".parse().unwrap();
        let look_up = |ids: &str, more: &str| {
            let entry = |ids: &str, more: &str| format!("[[device]]\nid = {ids}\nname = \"A\"\n{more}\nsteps = []\n");
            let text =
                ["schema = 1\n", &entry("\"1199:9071\"", ""), &entry(ids, more), "[[device]]\nid = 5\n"].concat();
            let (quirks, errors) = parse_for(&own, &text, id);
            let all = parse(&own, &text).1;
            assert!(errors.iter().all(|error| all.contains(error)), "{errors:?} {all:?}");
            (quirks.len(), errors.len())
        };
        for (ids, more, found) in [
            ("\"12d1:14fe\"", "", (1, 0)),
            ("\"12D1:14FE\"", "", (1, 0)),
            ("\"12d1:14FE\"", "", (0, 1)),
            ("\"12D1:14fe\"", "", (0, 1)),
            ("[{ id = \"12d1:aaaa\", becomes = [\"12d1:1001\" },\n    { id = \"12d1:14fe\" },\n]", "", (0, 1)),
            ("[\n    { id = \"12d1:14fe\" },\n    { id = \"12d1:14-6\" },\n]", "", (0, 1)),
            ("\"12d1:14fe\"", "note = 'becomes = ['", (1, 0)),
            ("\"12d1:0001\"", "note = 5 # 12d1:14fe", (0, 1)),
            ("\"12d1:0001\"", "note = 5", (0, 0)),
        ] {
            assert_eq!(look_up(ids, more), found, "{ids} {more}");
        }
        // In a file with a string of several lines, each error counts.
        assert_eq!(look_up("\"12d1:14fe\"", "note = \"\"\"\nbecomes = [\n\"\"\""), (0, 1));
        let text =
            "schema = 1\n[[device]]\nnote = '''\nbecomes = [\n'''\nid = \"12d1:14fe\"\nname = \"A\"\nsteps = []\n";
        for file in [&own, &file("12d1-x.toml")] {
            assert_eq!(parse_for(file, text, id).0.len(), 1);
        }
    }

    /// Only the parsed parts must be text.
    #[test]
    fn bytes_elsewhere_do_not_matter() {
        let entry = |id: &str| [b"[[device]]\nid = \"", id.as_bytes(), b"\"\nname = \"A\"\nsteps = []\n"].concat();
        let bytes = [b"schema = 1\n", &entry("1199:9071")[..], b"# \xff\n", &entry("1199:9079")[..]].concat();
        let find = |id: &str| super::parse_for(&file("own.toml"), &bytes, id.parse().unwrap());
        assert_eq!(find("1199:9079").unwrap().0.len(), 1);
        assert!(find("1199:9071").is_err());
        assert!(super::parse_for(&file("own.toml"), b"\xff", "1199:9071".parse().unwrap()).is_err());
    }

    #[test]
    fn a_header_in_a_string_is_ignored() {
        let text = "schema = 1\n[[device]]\nid = \"1199:0001\"\nname = \"A\"\nnote = QQQ\n[[device]]\nQQQ\n# 1199:9071\nsteps = []\n\
            [[device]]\nid = \"1199:9071\"\nname = \"B\"\nsteps = []\n";
        for quotes in ["\"\"\"", "'''"] {
            let (quirks, errors) =
                parse_for(&file("own.toml"), &text.replace("QQQ", quotes), "1199:9071".parse().unwrap());
            assert_eq!((quirks.len(), errors), (2, Vec::new()), "{quotes}");
        }
    }

    /// A lookup reads all files of an administrator, regardless of their names.
    #[test]
    fn the_name_of_an_administrators_file_does_not_restrict_its_ids() {
        let text = "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = []\n";
        for (layer, expected) in [(Layer::Shipped, 0), (Layer::Runtime, 1), (Layer::Administrator, 1)] {
            let file = ConfigFile { layer, path: PathBuf::from("2025-site.toml") };
            let (quirks, errors) = parse(&file, text);
            assert_eq!((quirks.len(), errors.len()), (expected, 1 - expected), "{layer:?}: {errors:?}");
        }
    }

    #[test]
    fn an_error_has_its_location() {
        for (entry, location, message) in [
            ("id = \"1199:907\"\nname = \"A\"\nsteps = []", "1:6", "not a device ID"),
            ("id = [\"1199:9071\", \"x\"]\nname = \"A\"\nsteps = []", "1:20", "not a device ID"),
            ("id = \"1199:9071\"\nname = 1", "2:8", "invalid type"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ swich = \"sierra\" }]", "3:12", "unknown variant"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 0 }]", "3:28", "from 1 to 255, got 0"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = \"mbin\" }]", "3:28", "invalid value"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = []\ncolour = 1", "4:1", "unknown field"),
            ("id = \"413c:9071\"\nname = \"A\"\nsteps = []", "1:6", "is for vendor 1199"),
            ("id = \"1199:90aB\"\nname = \"A\"\nsteps = []", "1:6", "all lower case or all upper case"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ switch = [{ bulk = \"55534243\" }] }]", "3:31", "31 bytes"),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 1 }, { configuration = 2 }]",
                "3:9",
                "two configuration steps",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = \"sierra\" }, { fcc-auth = \"quectel\" }, { fcc-auth = \"sierra\" }]",
                "3:9",
                "two fcc-auth steps",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 1, unconfigured = 2 } }]",
                "3:28",
                "at most 1 second",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 1, fallback = 2 } }]",
                "3:28",
                "only a function can have a `fallback`",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 0 } }]",
                "3:39",
                "from 1 to 255, got 0",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = [\"X\"] } }]",
                "3:38",
                "invalid type",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { interface = 3, oem-strings = [] } } }]",
                "3:9",
                "at least one string",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { interface = 3, oem-strings = [\"\"] } } }]",
                "3:9",
                "no empty one",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { oem-strings = [\"X\"] } } }]",
                "3:9",
                "gtfcclock needs `interface`",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { xmm-rpc = { oem-strings = [\"X\"] } } }]",
                "3:9",
                "fcc-auth=xmm-rpc is for PCI modems, and this is a USB ID",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { foxconn = \"\" } }]",
                "3:9",
                "foxconn needs the magic string",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ switch = { out = 0x81, do = [\"eject\"] } }]",
                "3:29",
                "0x81 is the address of an IN endpoint",
            ),
            ("id = []\nname = \"A\"\nsteps = []", "1:6", "at least one"),
            ("id = { id = \"1199:907\" }\nname = \"A\"\nsteps = []", "1:13", "not a device ID"),
            ("id = [{ id = \"1199:9071\", nam = 1 }]\nname = \"A\"\nsteps = []", "1:27", "unknown field `nam`"),
            ("id = { id = \"1199:9071\", becomes = [\"1\"] }\nname = \"A\"\nsteps = []", "1:37", "not a device ID"),
            ("id = \"1199:9071\"\nname = \"A\"\nseen = \"x\"\nsteps = []", "3:8", "unknown variant `x`"),
            (
                "id = \"1199:9071\"\nname = \"A\"\nnew-id = { module = \"x;reboot\", driver = \"option1\", interface-class = 0xff }\nsteps = []",
                "3:10",
                "letters, digits",
            ),
        ] {
            let text = format!("schema = 1\n[[device]]\n{entry}\n");
            let errors = parse(&file("1199-x.toml"), &text).1;
            let [error] = errors.as_slice() else { panic!("{entry}: {errors:?}") };
            assert_eq!(format!("{}:{}", error.line - 2, error.column), location, "{entry}: {error}");
            assert!(error.message.contains(message), "{entry}: {error}");
        }
        assert_eq!(
            parse(&file("a.toml"), "schema = 2\n").1[0].message,
            "unsupported schema 2 (expected 1): this file needs a newer version of wwan-quirks"
        );
        assert_eq!(parse(&file("a.toml"), "[[device]]\n").1.len(), 1);
    }
}
