//! A family of modems whose composition is a single value, read and set by AT commands.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::{Deserialize, Deserializer};

use super::composition::{Composition, Confidence, Functions, Provenance, Value, spelling};
use super::pattern::{Pattern, is_value};
use crate::bus::{Bus, DeviceId};
use crate::usb::InterfaceClass;

/// One `[[family]]` table of `compositions.toml`. The file explains each key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Family {
    pub name: String,
    ids: Vec<IdPattern>,
    confidence: Confidence,
    seen: String,
    #[serde(default)]
    pub(crate) at_classes: Vec<InterfaceClass>,
    #[serde(default)]
    #[doc(alias = "bInterfaceNumber")]
    pub(crate) at_interfaces: Vec<u8>,
    pub read: Query,
    pub test: Option<Query>,
    pub(crate) without_test: Option<String>,
    set: Option<String>,
    /// A line that the answer to `set` must contain. If it is missing, the modem has refused the value.
    pub(crate) accepted: Option<Pattern>,
    pub(crate) restart: Option<String>,
    #[serde(default)]
    pub(crate) set_restarts: bool,
    #[serde(default)]
    pub also: Vec<Fact>,
    /// Values that are never set, with the reason.
    #[serde(default)]
    refused: BTreeMap<String, String>,
    parts: Option<Parts>,
    values: Vec<ValueEntry>,
}

/// A command, and the possible forms of the answer line that contains the value.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Query {
    pub command: String,
    pub answer: Vec<Pattern>,
}

impl Query {
    /// The values in the answer, in the order of its lines.
    pub fn read(&self, lines: &[String]) -> Vec<String> {
        let of_line = |line: &String| self.answer.iter().find_map(|pattern| pattern.read(line));
        lines.iter().filter_map(of_line).flatten().collect()
    }
}

/// Another setting. It is shown, but never set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fact {
    pub name: String,
    pub command: String,
    pub answer: Vec<Pattern>,
}

/// For values that are lists: the meaning of each part.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Parts {
    functions: BTreeMap<String, Functions>,
    /// Parts that the modem accepts without listing them.
    #[serde(default)]
    unlisted: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueEntry {
    value: String,
    functions: Functions,
    id: Option<IdPattern>,
    set: Option<String>,
    note: Option<String>,
}

/// `1e0e:9001`, or `2c7c:*` for all products of a vendor; on PCI `pci:14c3:4d75` and `pci:1eac:*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct IdPattern {
    bus: Bus,
    vendor: u16,
    product: Option<u16>,
}

impl<'de> Deserialize<'de> for IdPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<IdPattern, D::Error> {
        let text = String::deserialize(deserializer)?;
        let all = text.strip_suffix(":*");
        let id: DeviceId = all.map_or(text.clone(), |vendor| format!("{vendor}:0000")).parse().map_err(|_| {
            serde::de::Error::custom(format!("{text:?} is neither an ID (\"1e0e:9001\") nor a vendor (\"2c7c:*\")"))
        })?;
        Ok(IdPattern { bus: id.bus, vendor: id.vendor, product: all.is_none().then_some(id.product) })
    }
}

impl Family {
    pub fn includes(&self, id: DeviceId) -> bool {
        let mut ids = self.ids.iter().chain(self.values.iter().filter_map(|entry| entry.id.as_ref()));
        ids.any(|known| {
            (known.bus, known.vendor) == (id.bus, id.vendor)
                && known.product.is_none_or(|product| product == id.product)
        })
    }

    pub fn provenance(&self) -> Provenance {
        Provenance { name: self.name.clone(), confidence: self.confidence, seen: self.seen.clone() }
    }

    /// Why compositions of this family are read-only on this bus. `None` if they can be set.
    pub(crate) fn read_only(&self, bus: Bus) -> Option<String> {
        match (self.confidence, &self.set) {
            _ if bus == Bus::Pci => Some("the setting affects only USB, but the modem is on PCI".to_owned()),
            (Confidence::Weak, _) => Some("too little is known about this family to set its composition".to_owned()),
            (_, None) if self.values.iter().all(|entry| entry.set.is_none()) => {
                Some("no command is known that sets the composition".to_owned())
            }
            _ => None,
        }
    }

    /// The values in the table.
    pub fn values(&self) -> impl Iterator<Item = &str> {
        self.values.iter().map(|entry| entry.value.as_str())
    }

    /// The composition of `value`, as far as the table describes it.
    pub fn composition(&self, value: &str) -> Composition {
        let entry = self.entry(value);
        let known = entry.map(|entry| entry.functions.clone()).or_else(|| self.functions_of_parts(value));
        let other = if self.has_parts() { value.to_ascii_uppercase() } else { value.to_owned() };
        Composition {
            value: Value::Text(entry.map_or(other, |entry| entry.value.clone())),
            number: None,
            layout: entry.and_then(|entry| entry.note.clone()).unwrap_or_default(),
            configurations: known.into_iter().collect(),
            id: entry.and_then(|entry| {
                let IdPattern { bus, vendor, product } = entry.id?;
                Some(DeviceId { bus, vendor, product: product? })
            }),
        }
    }

    /// Whether a modem that lists these values, or parts of values, supports `value`.
    pub(crate) fn is_listed(&self, value: &str, listed: &[String]) -> bool {
        let has = |wanted: &str| spelling(wanted, listed.iter().map(String::as_str)).is_some();
        match &self.parts {
            None => has(value),
            Some(parts) => split(value)
                .all(|part| parts.unlisted.iter().any(|known| known.eq_ignore_ascii_case(part)) || has(part)),
        }
    }

    /// Whether values are lists of parts.
    pub(crate) fn has_parts(&self) -> bool {
        self.parts.is_some()
    }

    /// Why `value` is never set. `None` if it can be set.
    pub(crate) fn refusal(&self, value: &str) -> Option<&str> {
        let (_, reason) = self.refused.iter().find(|(refused, _)| refused.eq_ignore_ascii_case(value))?;
        Some(reason)
    }

    /// The command that sets `value`.
    pub fn set(&self, value: &str) -> Option<String> {
        let own = self.entry(value).and_then(|entry| entry.set.as_ref());
        own.cloned().or_else(|| Some(self.set.as_ref()?.replace("{value}", value)))
    }

    fn entry(&self, value: &str) -> Option<&ValueEntry> {
        let value = spelling(value, self.values())?;
        self.values.iter().find(|entry| entry.value == value)
    }

    /// A list has two halves: before and after the modem leaves install mode. The second half is the composition.
    fn functions_of_parts(&self, value: &str) -> Option<Functions> {
        let Parts { functions, .. } = self.parts.as_ref()?;
        let (_, composition) = value.rsplit_once(';')?;
        split(composition).try_fold(Functions::new(), |mut all, part| {
            all.extend(functions.get(&part.to_ascii_uppercase())?);
            Some(all)
        })
    }

    /// The contradictions in this table, each with its location in the file. `whole` is the location of the table.
    pub fn errors(&self, whole: Range<usize>) -> Vec<(Range<usize>, String)> {
        let mut errors: Vec<String> = Vec::new();
        let mut expect = |holds: bool, message: &str| {
            if !holds {
                errors.push(message.to_owned());
            }
        };
        expect(!self.ids.is_empty(), "`ids` is empty");
        expect(!self.seen.is_empty(), "`seen` is empty: write what has been tried on hardware, or \"not tried\"");
        expect(
            !(self.at_interfaces.is_empty() && self.at_classes.is_empty()),
            "neither `at-interfaces` nor `at-classes` names an AT port",
        );
        let reads = |answer: &[Pattern]| !answer.is_empty() && answer.iter().all(Pattern::reads);
        expect(reads(&self.read.answer), "the answer of `read` has no {value}");
        expect(self.test.as_ref().is_none_or(|test| reads(&test.answer)), "the answer of `test` has no {values}");
        expect(self.also.iter().all(|fact| reads(&fact.answer)), "an answer of `also` has no {value}");
        let has_place = self.set.as_ref().is_none_or(|set| set.contains("{value}"));
        expect(has_place, "`set` has no {value}");
        let sets = self.values.iter().filter_map(|entry| entry.set.as_ref());
        let commands = [&self.read.command].into_iter().chain(self.test.as_ref().map(|test| &test.command));
        let commands = commands.chain(&self.set).chain(&self.restart).chain(sets);
        let commands = commands.chain(self.also.iter().map(|fact| &fact.command));
        let is_command = |command: &&String| {
            let head = command.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("AT"));
            head && command.bytes().all(|byte| (b' '..0x7f).contains(&byte))
        };
        expect(commands.into_iter().all(|command| is_command(&command)), "a command does not begin with AT");
        let is_set = self.read_only(Bus::Usb).is_none();
        expect(
            !is_set || self.test.is_some() || self.without_test.is_some(),
            "without `test`, `without-test` must explain why the change can be reverted",
        );
        expect(!is_set || !self.values.is_empty(), "`values` is empty");
        expect(self.values().all(is_value), "a value has characters other than letters, digits, comma and semicolon");
        expect(
            self.values().all(|value| self.refused.keys().all(|refused| !refused.eq_ignore_ascii_case(value))),
            "a value is in `values` and in `refused`",
        );
        let mut values: Vec<&str> = self.values().collect();
        values.sort_unstable();
        values.dedup();
        expect(values.len() == self.values.len(), "`values` contains a value twice");
        let head = whole.start..whole.start + "[[family]]".len();
        errors.into_iter().map(|message| (head.clone(), message)).collect()
    }
}

fn split(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ';']).filter(|part| !part.is_empty())
}

#[cfg(test)]
mod tests {
    use super::super::shipped;
    use super::*;
    use crate::database::compositions::names;
    use crate::usb::Function;

    #[test]
    fn the_functions_of_a_list_are_those_of_its_second_half() {
        let all = shipped();
        let huawei = all.families.iter().find(|family| family.name.contains("SETPORT")).unwrap();
        let listed: Vec<String> = ["A1", "A2", "10", "12", "16"].map(str::to_owned).to_vec();
        for (value, functions, has_at_port, is_listed) in [
            ("FF;10,12,16", "ncm", true, true),
            ("A1,A2;10,12,16,A1,A2", "ncm+storage", true, true),
            ("FF;16", "ncm", false, true),
            ("FF;12,3", "-", true, false),
        ] {
            let composition = huawei.composition(value);
            assert_eq!(names(&composition.functions()), functions, "{value}");
            assert_eq!(composition.has_at_port(), has_at_port, "{value}");
            assert_eq!(huawei.is_listed(value, &listed), is_listed, "{value}");
        }
        let known = |value| huawei.composition(value).is_known();
        assert!(known("FF;12") && known("ff;a1") && !known("12") && !known("FF;99"));
        assert_eq!(huawei.composition("ff;10,12,16"), huawei.composition("FF;10,12,16"));
    }

    #[test]
    fn every_shipped_family_is_consistent() {
        for family in &shipped().families {
            assert!(!family.name.is_empty() && !family.seen.is_empty());
            if family.confidence == Confidence::Weak {
                assert!(family.read_only(Bus::Usb).is_some(), "{}", family.name);
            }
            for entry in &family.values {
                let command = family.set(&entry.value);
                assert!(command.is_none_or(|command| !command.contains(['{', '\r', '\n'])), "{}", family.name);
                let functions = family.composition(&entry.value).configurations;
                assert_eq!(functions.first(), Some(&entry.functions), "{}", family.name);
            }
            assert!(
                family.values().count() == 0
                    || family.values.iter().any(|entry| entry.functions.contains(&Function::Serial))
            );
        }
    }
}
