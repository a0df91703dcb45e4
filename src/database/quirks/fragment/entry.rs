//! The TOML form of an entry.

use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU8;
use std::ops::Range;
use std::time::Duration;

use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use toml::Spanned;

use super::validate::{check_names, check_steps, fits_bus};
use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::Location;
use crate::database::list::{List, Listed};
use crate::database::quirks::switch::{Bytes, Seconds, SwitchEntry};
use crate::database::quirks::{
    ByteOrder, DeviceString, Gtfcclock, Matchers, Model, NeededReset, NewId, Number, Procedure, Quirk, Seen, Select,
    StateCommand, Step, Target,
};
use crate::modem::wire::qmi::Service;
use crate::pci::Subsystem;
use crate::usb::Function;

/// The upper limit of `unconfigured`. A udev event must also have time left for the kernel to set the new
/// configuration.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Entry {
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
    steps: Spanned<List<StepEntry>>,
}

enum StepEntry {
    Switch(SwitchEntry),
    Configuration(ConfigurationEntry),
    FccAuth(ProcedureEntry),
}

impl Listed for StepEntry {
    const LIST: &'static str = "a list of steps, such as [{ switch = \"eject\" }]";
}

/// A table with one key.
impl<'de> Deserialize<'de> for StepEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<StepEntry, D::Error> {
        #[derive(Deserialize)]
        #[serde(field_identifier, rename_all = "kebab-case")]
        enum Key {
            Switch,
            Configuration,
            FccAuth,
        }
        struct StepVisitor;
        impl<'de> Visitor<'de> for StepVisitor {
            type Value = StepEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table with one step, such as { switch = \"eject\" }")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StepEntry, A::Error> {
                let step = match map.next_key()? {
                    Some(Key::Switch) => StepEntry::Switch(map.next_value()?),
                    Some(Key::Configuration) => StepEntry::Configuration(map.next_value()?),
                    Some(Key::FccAuth) => StepEntry::FccAuth(map.next_value()?),
                    None => {
                        let message = "an empty table is not a step: write a step, such as { switch = \"eject\" }";
                        return Err(de::Error::custom(message));
                    }
                };
                match map.next_key::<Key>()? {
                    Some(_) => Err(de::Error::custom("a table contains one step: write a table for each step")),
                    None => Ok(step),
                }
            }
        }
        deserializer.deserialize_any(StepVisitor)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProcedureEntry {
    Sierra,
    Quectel,
    /// Contains the magic string for the hash, like the next two.
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
    #[serde(default)]
    keys: Vec<KeyEntry>,
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
    #[serde(default)]
    keys: Vec<KeyEntry>,
}

/// Four bytes, written as hex digits.
struct KeyEntry([u8; 4]);

impl<'de> Deserialize<'de> for KeyEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KeyEntry, D::Error> {
        let Bytes(bytes) = Bytes::deserialize(deserializer)?;
        let length = bytes.len();
        let key = bytes.try_into().map(KeyEntry);
        key.map_err(|_| de::Error::custom(format!("a key has 4 bytes (8 hex digits), got {length}")))
    }
}

fn keys(entries: Vec<KeyEntry>) -> Vec<[u8; 4]> {
    entries.into_iter().map(|KeyEntry(key)| key).collect()
}

/// One model or a list of models, not yet parsed.
pub(super) enum ModelEntries {
    One(ModelEntry),
    Many(Vec<Spanned<ModelEntry>>),
}

/// An ID, or a table with facts about the device that has the ID.
pub(super) enum IdOr<Table> {
    Id(String),
    Table(Table),
}

pub(super) type ModelEntry = IdOr<ModelTable>;
/// What a device becomes.
type TargetEntry = IdOr<TargetTable>;

/// A table that describes a device.
trait DeviceTable {
    /// What the file may contain instead of the table.
    const EXPECTED: &'static str;
}

impl DeviceTable for ModelTable {
    const EXPECTED: &'static str =
        "an ID like \"1199:9071\", or a table like { id = \"1199:9071\", name = \"EM7455\" }";
}

impl DeviceTable for TargetTable {
    const EXPECTED: &'static str =
        "an ID like \"12d1:14dc\", or a table like { id = \"12d1:14dc\", name = \"network card\" }";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ModelTable {
    pub id: Spanned<String>,
    name: Option<String>,
    #[serde(default)]
    becomes: Vec<Spanned<TargetEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetTable {
    id: Spanned<String>,
    name: String,
}

struct IdOrVisitor<Table>(PhantomData<Table>);

impl<'de, Table: Deserialize<'de> + DeviceTable> Visitor<'de> for IdOrVisitor<Table> {
    type Value = IdOr<Table>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Table::EXPECTED)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<IdOr<Table>, E> {
        Ok(IdOr::Id(text.to_owned()))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<IdOr<Table>, A::Error> {
        Table::deserialize(MapAccessDeserializer::new(map)).map(IdOr::Table)
    }
}

impl<'de, Table: Deserialize<'de> + DeviceTable> Deserialize<'de> for IdOr<Table> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IdOr<Table>, D::Error> {
        deserializer.deserialize_any(IdOrVisitor(PhantomData))
    }
}

impl<'de> Deserialize<'de> for ModelEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ModelEntries, D::Error> {
        struct ModelsVisitor;
        impl<'de> Visitor<'de> for ModelsVisitor {
            type Value = ModelEntries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ModelTable::EXPECTED)?;
                f.write_str(", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ModelEntries, E> {
                Ok(ModelEntries::One(IdOr::Id(text.to_owned())))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<ModelEntries, A::Error> {
                IdOrVisitor(PhantomData).visit_map(map).map(ModelEntries::One)
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

/// The span of an error in an entry, and its message.
type InvalidValue = (Range<usize>, String);

impl ModelEntries {
    /// The models with their spans.
    pub(super) fn with_spans(models: Spanned<ModelEntries>) -> Vec<(Range<usize>, ModelEntry)> {
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
            IdOr::Id(text) => (span, text, None, Vec::new()),
            IdOr::Table(ModelTable { id, name, becomes }) => (id.span(), id.into_inner(), name, becomes),
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
                IdOr::Id(text) => Ok(Target { id: read_id(span, &text)?, name: None }),
                IdOr::Table(TargetTable { id, name }) => {
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

/// A selection, or a table with `select` that also says how to set the configuration.
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
                    return Err(de::Error::custom("`unconfigured` must be at most 1 second"));
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

/// The quirk of an entry. `vendor`: the only one that the file may contain. Returns the first error, and its location.
pub(super) fn quirk(entry: Entry, vendor: Option<(Bus, u16)>, location: Location) -> Result<Quirk, InvalidValue> {
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
        steps: entry.steps.into_inner().0.into_iter().map(step).collect(),
        location,
    };
    fits_bus(&quirk).map_err(|message| (id_span, message))?;
    check_steps(&quirk).map_err(|message| (steps_span, message))?;
    Ok(quirk)
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
            ProcedureEntry::Gtfcclock(GtfcclockEntry {
                interface,
                byte_order,
                number,
                state,
                oem_strings,
                keys: all,
            }) => {
                Procedure::Gtfcclock(Gtfcclock { interface, byte_order, number, state, oem_strings, keys: keys(all) })
            }
            ProcedureEntry::IntelMutualAuthentication(KeysEntry { oem_strings, keys: all }) => {
                Procedure::Intel { oem_strings, keys: keys(all) }
            }
            ProcedureEntry::XmmRpc(KeysEntry { oem_strings, keys: all }) => {
                Procedure::Xmm { oem_strings, keys: keys(all) }
            }
        }),
    }
}
