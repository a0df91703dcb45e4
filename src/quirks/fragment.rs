//! One file of the database as it is written, and what it says once it is checked.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, SeqAccess, Visitor};
use toml::Spanned;

use super::{Place, Procedure, Quirk, Step, Strings, Switch, Wish, vendor_of};
use crate::device::descriptors::Function;
use crate::id::UsbId;
use crate::layers::Layered;
use crate::source::{Invalid, line_of};

/// The form of the files that this program reads.
const SCHEMA: u32 = 1;

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
    id: Spanned<Ids>,
    name: Spanned<String>,
    note: Option<String>,
    manufacturer: Option<String>,
    product: Option<String>,
    serial: Option<String>,
    scsi_vendor: Option<String>,
    scsi_model: Option<String>,
    #[serde(default)]
    qmi_interfaces: Vec<u8>,
    steps: Spanned<Vec<StepEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StepEntry {
    Switch(SwitchName),
    Configuration(WishEntry),
    FccAuth(ProcedureName),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SwitchName {
    Sierra,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ProcedureName {
    Sierra,
}

/// One ID or a list of them.
struct Ids(Vec<UsbId>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Ids, D::Error> {
        struct IdsVisitor;
        impl<'de> Visitor<'de> for IdsVisitor {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an ID like \"1199:9071\", or a list of them")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ids, E> {
                text.parse().map(|id| Ids(vec![id])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(Id(id)) = list.next_element()? {
                    ids.push(id);
                }
                Ok(Ids(ids))
            }
        }
        deserializer.deserialize_any(IdsVisitor)
    }
}

struct Id(UsbId);

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map(Id).map_err(de::Error::custom)
    }
}

/// `"preferred"`, `"keep"`, a function, or a `bConfigurationValue`.
struct WishEntry(Wish);

impl<'de> Deserialize<'de> for WishEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<WishEntry, D::Error> {
        struct WishVisitor;
        impl Visitor<'_> for WishVisitor {
            type Value = WishEntry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"preferred\", \"keep\", \"mbim\", \"qmi\", \"ecm\", \"ncm\", or a number from 1 to 255")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<WishEntry, E> {
                Ok(WishEntry(match text {
                    "preferred" => Wish::Preferred,
                    "keep" => Wish::Keep,
                    "mbim" => Wish::Function(Function::Mbim),
                    "qmi" => Wish::Function(Function::Qmi),
                    "ecm" => Wish::Function(Function::Ecm),
                    "ncm" => Wish::Function(Function::Ncm),
                    _ => return Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<WishEntry, E> {
                let value = u8::try_from(value).ok().filter(|value| *value != 0);
                value.map(|value| WishEntry(Wish::Value(value))).ok_or_else(|| E::custom("1 to 255 are configurations"))
            }
        }
        deserializer.deserialize_any(WishVisitor)
    }
}

/// The quirks of a file, and what is wrong with it. Where the file as a whole cannot be read, there are no quirks; an
/// entry that is wrong is left out.
pub fn parse(file: &Layered, text: &str) -> (Vec<Quirk>, Vec<Invalid>) {
    let invalid = |span, message: String| Invalid::at(&file.path, text, span, message);
    let fragment: Fragment = match toml::from_str(text) {
        Ok(fragment) => fragment,
        Err(error) => return (Vec::new(), vec![Invalid::from_toml(&file.path, text, &error)]),
    };
    if *fragment.schema.get_ref() != SCHEMA {
        let message = format!("this program reads schema = {SCHEMA}; a newer one may read this file");
        return (Vec::new(), vec![invalid(fragment.schema.span(), message)]);
    }
    let vendor = file.path.file_name().and_then(|name| vendor_of(name.to_str()?));
    let mut quirks = Vec::new();
    let mut errors = Vec::new();
    for entry in fragment.device {
        let line = line_of(text, entry.span().start);
        let entry = entry.into_inner();
        let ids = &entry.id.get_ref().0;
        let stranger = ids.iter().find(|id| vendor.is_some_and(|vendor| vendor != id.vendor));
        if let Some(id) = stranger {
            let message = format!("{id} does not belong into a file of vendor {:04x}", vendor.unwrap_or_default());
            errors.push(invalid(entry.id.span(), message));
            continue;
        }
        if ids.is_empty() {
            errors.push(invalid(entry.id.span(), "an entry needs at least one ID".to_owned()));
            continue;
        }
        quirks.push(Quirk {
            ids: entry.id.into_inner().0,
            name: entry.name.into_inner(),
            note: entry.note,
            strings: Strings {
                manufacturer: entry.manufacturer,
                product: entry.product,
                serial: entry.serial,
                scsi_vendor: entry.scsi_vendor,
                scsi_model: entry.scsi_model,
            },
            qmi_interfaces: entry.qmi_interfaces,
            steps: entry.steps.into_inner().into_iter().map(step).collect(),
            place: Place { layer: file.layer, path: file.path.clone(), line },
        });
    }
    (quirks, errors)
}

fn step(entry: StepEntry) -> Step {
    match entry {
        StepEntry::Switch(SwitchName::Sierra) => Step::Switch(Switch::Sierra),
        StepEntry::Configuration(WishEntry(wish)) => Step::Configuration(wish),
        StepEntry::FccAuth(ProcedureName::Sierra) => Step::FccAuth(Procedure::Sierra),
    }
}
