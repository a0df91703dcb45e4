//! How a device leaves install mode: a list of USB transfers and other operations, expressed as data.
//!
//! ```toml
//! { switch = "huawei-new" }                                    # a method of config/methods.toml, by name
//! { switch = ["eject", { bulk = "5553424312345678…" }] }       # operations, one after another
//! { switch = { do = ["option"], target-class = 0xff } }        # operations, and parameters for all of them
//! ```
//!
//! | operation | meaning |
//! |---|---|
//! | `"NAME"` | all operations of that method |
//! | `"detach"` | detach the kernel's drivers from all interfaces |
//! | `"reset"` | reset the port |
//! | `{ control = { request-type, request, value, index, length or data, timeout } }` | a control transfer |
//! | `{ bulk = "HEX" }` | a bulk transfer to the device; after a CBW, its data and its CSW are read |
//! | `{ interrupt-out = { endpoint, data } }`, `{ interrupt-in = { endpoint, length, times } }` | interrupt transfers |
//! | `{ set-configuration = N }`, `{ alternate-setting = N }` | SET_CONFIGURATION, SET_INTERFACE |
//! | `{ sleep = SECONDS }` | a pause |
//! | `"wait-for-return"` | the device leaves the bus and returns with the same ID before the next operation |
//!
//! Keys besides `do`: `interface`, `out`, `in` (bulk endpoint addresses), `wait-before` and `release-delay` (seconds),
//! `target-class` (`bInterfaceClass` of the first interface of a device that has already left install mode),
//! `interface-class` (`bInterfaceClass` that the interface must have; a device with another class is left alone).
//!
//! When an entry is read, methods are replaced by their operations. An unknown method is then an error at its location.

use std::fmt;
use std::num::{NonZeroU8, NonZeroU16};
use std::path::Path;
use std::time::Duration;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::database::diagnostic::Diagnostic;
use crate::database::list::{List, Listed};
use crate::usb::Setup;

/// The methods.
const METHODS_PATH: &str = "config/methods.toml";
const METHODS: &str = include_str!("../../../config/methods.toml");

/// The first four bytes of a command block wrapper (USB Mass Storage Bulk-Only 1.0, 5.1).
const CBW_SIGNATURE: [u8; 4] = *b"USBC";
const CBW_LENGTH: usize = 31;
/// The longest command in a CBW. In the standard, the shortest has 1 byte, but Huawei's own messages state 0.
const CBW_COMMAND_LENGTH: u8 = 16;

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switch {
    #[serde(rename = "do")]
    operations: Operations,
    /// `bInterfaceNumber` of the interface to use. Default: the first interface.
    pub interface: Option<u8>,
    /// Addresses of the bulk endpoints. Default: the first ones of the interface.
    #[serde(default, deserialize_with = "endpoint::<_, _, false>")]
    pub out: Option<u8>,
    #[serde(default, deserialize_with = "endpoint::<_, _, true>")]
    pub r#in: Option<u8>,
    /// Pause before the first transfer, for devices that are not ready when they appear.
    #[serde(default)]
    pub(crate) wait_before: Seconds,
    /// Pause between the last transfer and the release of the interface.
    #[serde(default)]
    pub(crate) release_delay: Seconds,
    /// `bInterfaceClass` of the first interface of a device that has already left install mode.
    pub(crate) target_class: Option<u8>,
    /// `bInterfaceClass` that the interface must have. A CBW needs mass storage in any case.
    pub interface_class: Option<u8>,
}

/// Operations in their order, with methods resolved.
#[derive(Debug, Clone, Default, PartialEq)]
struct Operations {
    /// The names in the entry: `eject+bulk:5553…`.
    names: Vec<String>,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Detach,
    Reset,
    Control(Control),
    /// A transfer to the device. After a CBW, its data and CSW are read. After anything else, nothing is read.
    Bulk(Bytes),
    InterruptOut(InterruptOut),
    InterruptIn(InterruptIn),
    SetConfiguration(u8),
    AlternateSetting(u8),
    Sleep(Seconds),
    /// The device leaves the bus and returns with the same ID. No run waits for that: the return is a separate event.
    WaitForReturn,
}

/// A control transfer. Bit 7 of the request type is the direction of its data.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Control {
    #[doc(alias = "bmRequestType")]
    pub request_type: u8,
    #[doc(alias = "bRequest")]
    pub request: u8,
    #[doc(alias = "wValue")]
    #[serde(default)]
    pub value: u16,
    #[serde(default)]
    pub index: Index,
    /// Data for the device.
    #[serde(default)]
    pub data: Bytes,
    /// `wLength` of a transfer from the device. A transfer to the device has the length of `data`.
    #[serde(default)]
    pub length: u16,
    #[serde(default = "Control::timeout")]
    pub(crate) timeout: Seconds,
}

/// `wIndex` of a control transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    Number(u16),
    /// The number of the interface in use.
    Interface,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptOut {
    #[serde(deserialize_with = "endpoint::<_, _, false>")]
    pub endpoint: u8,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptIn {
    #[serde(deserialize_with = "endpoint::<_, _, true>")]
    pub endpoint: u8,
    #[serde(deserialize_with = "at_least_one::<_, NonZeroU16, _>")]
    pub length: u16,
    /// How many times to read.
    #[serde(default = "once", deserialize_with = "at_least_one::<_, NonZeroU8, _>")]
    pub times: u8,
}

/// Bytes, written as hex digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// 0 to 60 seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Switch {
    fn of(operations: Operations) -> Switch {
        Switch {
            operations,
            interface: None,
            out: None,
            r#in: None,
            wait_before: Seconds::default(),
            release_delay: Seconds::default(),
            target_class: None,
            interface_class: None,
        }
    }

    /// The switch for the method `name`, which an entry states.
    pub fn method(name: &str) -> Result<Switch, String> {
        Operations::named(name).map(Switch::of)
    }

    /// The switch for the method `name`, which the program's source states.
    ///
    /// # Panics
    /// If config/methods.toml has no such method, or the method is invalid. Tests cover each such name and each method.
    pub(crate) fn built_in(name: &'static str) -> Switch {
        Switch::method(name).expect("a valid method of config/methods.toml")
    }

    /// This switch with the operations of a [built-in](Self::built_in) method. Endpoints and pauses are kept.
    pub(crate) fn with_method(&self, name: &'static str) -> Switch {
        Switch { operations: Switch::built_in(name).operations, ..self.clone() }
    }

    /// The name of the method that the entry begins with, or of an operation.
    pub(crate) fn first_name(&self) -> Option<&str> {
        self.operations.names.first().map(String::as_str)
    }

    /// All operations in their order.
    pub fn ops(&self) -> &[Op] {
        &self.operations.ops
    }

    /// The operations for one stay of the device on the bus: those up to `wait-for-return`, or those after it if the
    /// device has `returned`.
    pub fn part(&self, returned: bool) -> &[Op] {
        let mut parts = self.ops().split(|op| matches!(op, Op::WaitForReturn));
        let first = parts.next().unwrap_or_default();
        let next = parts.next().filter(|_| returned);
        next.unwrap_or(first)
    }

    /// The sum of all pauses.
    pub fn pauses(&self) -> Duration {
        let sleeps = self.ops().iter().map(|op| if let Op::Sleep(pause) = op { pause.0 } else { Duration::ZERO });
        sleeps.sum::<Duration>() + self.wait_before.0 + self.release_delay.0
    }

    /// Whether the plan depends on the interfaces of the device.
    pub(crate) fn needs_interfaces(&self) -> bool {
        let plain = |op: &Op| matches!(op, Op::Sleep(_) | Op::Control(Control { index: Index::Number(_), .. }));
        self.target_class.is_some() || self.interface_class.is_some() || !self.ops().iter().all(plain)
    }

    pub(crate) fn sets_configuration(&self) -> bool {
        self.ops().iter().any(|op| matches!(op, Op::SetConfiguration(_)))
    }
}

impl Operations {
    fn op(op: Op) -> Operations {
        let name = match &op {
            Op::Bulk(bytes) => format!("bulk:{bytes}"),
            op => op.kind().to_owned(),
        };
        Operations { names: vec![name], ops: vec![op] }
    }

    /// The operation or the method with this name.
    fn named(name: &str) -> Result<Operations, String> {
        if let Some(op) = Op::named(name) {
            return Ok(Operations::op(op));
        }
        let unknown = || {
            let names = method_names(METHODS).collect::<Vec<_>>().join(", ");
            format!("unknown switch method {name:?}; the methods are: {names}")
        };
        let ops = method(METHODS, name).ok_or_else(unknown)??;
        Ok(Operations { names: vec![name.to_owned()], ops })
    }
}

/// The operations of the method `name` in `methods`, which has the form of config/methods.toml. An error has its
/// location in that file.
fn method(methods: &str, name: &str) -> Option<Result<Vec<Op>, String>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Method {
        r#do: Vec<Op>,
    }
    // Parse only this table, so that the cost does not depend on the number of methods in the file.
    let header = format!("\n[{name}]\n");
    let start = methods.find(&header)? + header.len();
    let rest = methods.get(start..).unwrap_or_default();
    let table = rest.split_once("\n[").map_or(rest, |(table, _)| table);
    let error = |error: toml::de::Error| {
        let span = error.span().map_or(start..start, |span| start + span.start..start + span.end);
        let Diagnostic { path, line, column, .. } = Diagnostic::at(Path::new(METHODS_PATH), methods, span, "");
        format!("switch method {name:?} is broken: {}:{line}:{column}: {}", path.display(), error.message().trim_end())
    };
    Some(toml::from_str(table).map(|method: Method| method.r#do).map_err(error))
}

fn method_names(methods: &str) -> impl Iterator<Item = &str> {
    methods.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
}

impl Op {
    /// Whether this is a SCSI command to a mass storage device.
    pub(crate) fn is_cbw(&self) -> bool {
        matches!(self, Op::Bulk(message) if message.is_cbw())
    }
}

impl Bytes {
    /// Whether this has the signature of a command block wrapper.
    pub(crate) fn is_cbw(&self) -> bool {
        self.0.starts_with(&CBW_SIGNATURE)
    }

    /// The error in a bulk message.
    pub fn error(&self) -> Option<String> {
        if self.0.is_empty() {
            return Some("a bulk message needs at least one byte".to_owned());
        }
        if !self.is_cbw() {
            return None;
        }
        if self.0.len() != CBW_LENGTH {
            return Some(format!("a CBW has {CBW_LENGTH} bytes, got {}", self.0.len()));
        }
        let length = self.0.get(14).copied().unwrap_or_default();
        (length > CBW_COMMAND_LENGTH)
            .then(|| format!("bCBWCBLength must be at most {CBW_COMMAND_LENGTH}, got {length}"))
    }
}

impl Control {
    /// The setup packet, if `interface` is the interface in use.
    pub fn setup(&self, interface: u8) -> Setup {
        let index = match self.index {
            Index::Number(index) => index,
            Index::Interface => interface.into(),
        };
        Setup { request_type: self.request_type, request: self.request, value: self.value, index }
    }

    /// Whether the device sends the data.
    pub fn is_in(&self) -> bool {
        self.request_type & 0x80 != 0
    }

    /// The contradiction between the direction of the transfer and its fields.
    fn error(&self) -> Option<&'static str> {
        match (self.is_in(), self.data.0.is_empty(), self.length) {
            (true, false, _) => {
                Some("bit 7 of request-type says that the device sends the data: write `length` instead of `data`")
            }
            (false, _, 1..) => {
                Some("bit 7 of request-type says that the device receives the data: write `data` instead of `length`")
            }
            _ => None,
        }
    }

    fn timeout() -> Seconds {
        Seconds(Duration::from_secs(1))
    }
}

fn once() -> u8 {
    1
}

/// Reads a number that is at least 1.
fn at_least_one<'de, D: Deserializer<'de>, N: Deserialize<'de>, T: From<N>>(deserializer: D) -> Result<T, D::Error> {
    N::deserialize(deserializer).map(T::from)
}

/// Reads the address of an IN or an OUT endpoint. Bit 7 is the direction.
fn endpoint<'de, D: Deserializer<'de>, T: From<u8>, const IN: bool>(deserializer: D) -> Result<T, D::Error> {
    let address = u8::deserialize(deserializer)?;
    let name = |is_in| if is_in { "IN" } else { "OUT" };
    match address & 0x80 != 0 {
        is_in if is_in == IN => Ok(address.into()),
        is_in => Err(de::Error::custom(format!(
            "0x{address:02x} is the address of an {} endpoint, but this key is for an {} endpoint",
            name(is_in),
            name(IN)
        ))),
    }
}

impl Default for Index {
    fn default() -> Index {
        Index::Number(0)
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.operations.names.join("+"))
    }
}

impl Op {
    fn kind(&self) -> &'static str {
        match self {
            Op::Detach => "detach",
            Op::Reset => "reset",
            Op::Control(_) => "control",
            Op::Bulk(_) => "bulk",
            Op::InterruptOut(_) => "interrupt-out",
            Op::InterruptIn(_) => "interrupt-in",
            Op::SetConfiguration(_) => "set-configuration",
            Op::AlternateSetting(_) => "alternate-setting",
            Op::Sleep(_) => "sleep",
            Op::WaitForReturn => "wait-for-return",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind();
        match self {
            Op::Detach | Op::Reset | Op::WaitForReturn => f.write_str(kind),
            Op::Control(control) => write!(f, "{kind} {control}"),
            Op::Bulk(data) => write!(f, "{kind} {data}"),
            Op::InterruptOut(InterruptOut { endpoint, data }) => write!(f, "{kind} {endpoint:02x} {data}"),
            Op::InterruptIn(InterruptIn { endpoint, length, times }) => {
                write!(f, "{kind} {endpoint:02x}, {times} reads of {length} B")
            }
            Op::SetConfiguration(value) | Op::AlternateSetting(value) => write!(f, "{kind} {value}"),
            Op::Sleep(seconds) => write!(f, "{kind} {seconds}"),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x} {:02x} {:04x} ", self.request_type, self.request, self.value)?;
        match self.index {
            Index::Number(index) => write!(f, "{index:04x}, ")?,
            Index::Interface => f.write_str("interface, ")?,
        }
        match (self.is_in(), self.data.0.is_empty()) {
            (true, _) => write!(f, "reads {} B", self.length),
            (false, true) => f.write_str("no data"),
            (false, false) => write!(f, "{}", self.data),
        }
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} s", self.0.as_secs_f64())
    }
}

impl std::str::FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Bytes, String> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| Some((digit(pair.first()?)? << 4) | digit(pair.get(1)?)?);
        let bytes = text.as_bytes().chunks(2).map(byte).collect::<Option<_>>();
        bytes.map(Bytes).ok_or_else(|| format!("expected an even number of hex digits, got {text:?}"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A control transfer without a contradiction.
struct Transfer(Control);

impl<'de> Deserialize<'de> for Transfer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Transfer, D::Error> {
        let control = Control::deserialize(deserializer)?;
        control.error().map_or(Ok(Transfer(control)), |error| Err(de::Error::custom(error)))
    }
}

/// The data of a bulk transfer.
struct Message(Bytes);

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        bytes.error().map_or(Ok(Message(bytes)), |error| Err(de::Error::custom(error)))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=60.0).contains(&seconds) {
            return Err(de::Error::custom(format!("expected 0 to 60 seconds, got {seconds}")));
        }
        Ok(Seconds(Duration::from_secs_f64(seconds)))
    }
}

impl<'de> Deserialize<'de> for Index {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Index, D::Error> {
        struct IndexVisitor;
        impl Visitor<'_> for IndexVisitor {
            type Value = Index;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number up to 0xffff, or \"interface\"")
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Index, E> {
                let number = u16::try_from(value).map(Index::Number);
                number.map_err(|_| E::invalid_value(de::Unexpected::Signed(value), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Index, E> {
                match text {
                    "interface" => Ok(Index::Interface),
                    _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
                }
            }
        }
        deserializer.deserialize_any(IndexVisitor)
    }
}

impl Op {
    fn named(name: &str) -> Option<Op> {
        match name {
            "detach" => Some(Op::Detach),
            "reset" => Some(Op::Reset),
            "wait-for-return" => Some(Op::WaitForReturn),
            _ => None,
        }
    }
}

/// The name of an operation, or a table with one operation.
impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
        struct OpVisitor;
        impl<'de> Visitor<'de> for OpVisitor {
            type Value = Op;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one operation, such as \"detach\" or { bulk = \"5553…\" }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Op, E> {
                Op::named(name).ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Op, A::Error> {
                const OPS: &[&str] = &[
                    "control",
                    "bulk",
                    "interrupt-out",
                    "interrupt-in",
                    "set-configuration",
                    "alternate-setting",
                    "sleep",
                ];
                let Some(key) = map.next_key::<String>()? else {
                    return Err(de::Error::custom("an empty table is not an operation"));
                };
                let op = match key.as_str() {
                    "control" => Op::Control(map.next_value::<Transfer>()?.0),
                    "bulk" => Op::Bulk(map.next_value::<Message>()?.0),
                    "interrupt-out" => Op::InterruptOut(map.next_value()?),
                    "interrupt-in" => Op::InterruptIn(map.next_value()?),
                    "set-configuration" => Op::SetConfiguration(map.next_value()?),
                    "alternate-setting" => Op::AlternateSetting(map.next_value()?),
                    "sleep" => Op::Sleep(map.next_value()?),
                    _ => return Err(de::Error::unknown_variant(&key, OPS)),
                };
                match map.next_key::<String>()? {
                    Some(second) => {
                        Err(de::Error::custom(format!("{key} and {second} are two operations: write a table for each")))
                    }
                    None => Ok(op),
                }
            }
        }
        deserializer.deserialize_any(OpVisitor)
    }
}

/// An element of a list in an entry: a method by its name, or an operation.
struct Element(Operations);

impl Listed for Element {
    const LIST: &'static str = "a list of methods and operations, such as [\"eject\"]";
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Element, D::Error> {
        struct ElementVisitor;
        impl<'de> Visitor<'de> for ElementVisitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a method, or one operation, such as { bulk = \"5553…\" }")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Element, E> {
                Operations::named(name).map(Element).map_err(E::custom)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                Op::deserialize(MapAccessDeserializer::new(map)).map(|op| Element(Operations::op(op)))
            }
        }
        deserializer.deserialize_any(ElementVisitor)
    }
}

impl<'de> Deserialize<'de> for Operations {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Operations, D::Error> {
        let mut all = Operations::default();
        for Element(Operations { names, ops }) in List::deserialize(deserializer)?.0 {
            all.names.extend(names);
            all.ops.extend(ops);
        }
        if all.ops.is_empty() {
            return Err(de::Error::custom("a switch without operations does nothing: omit the step"));
        }
        Ok(all)
    }
}

/// A [`Switch`] in an entry: a name, a list, or a table.
pub(crate) struct SwitchEntry(pub Switch);

impl<'de> Deserialize<'de> for SwitchEntry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SwitchEntry, D::Error> {
        struct SwitchVisitor;
        impl<'de> Visitor<'de> for SwitchVisitor {
            type Value = Switch;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a method, a list of operations, or a table with `do`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Switch, E> {
                Switch::method(name).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Switch, A::Error> {
                Operations::deserialize(SeqAccessDeserializer::new(list)).map(Switch::of)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Switch, A::Error> {
                Switch::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_any(SwitchVisitor).map(SwitchEntry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Switch, String> {
        #[derive(serde::Deserialize)]
        struct Step {
            switch: SwitchEntry,
        }
        let step: Result<Step, _> = toml::from_str(&format!("switch = {value}"));
        step.map(|step| step.switch.0).map_err(|error| error.message().to_owned())
    }

    fn strings(ops: &[Op]) -> Vec<String> {
        ops.iter().map(ToString::to_string).collect()
    }

    fn ops(value: &str) -> Vec<String> {
        strings(read(value).unwrap().ops())
    }

    #[test]
    fn every_method_is_valid() {
        let names: Vec<&str> = method_names(METHODS).collect();
        for name in &names {
            let switch = Switch::method(name).unwrap();
            assert!(!switch.ops().is_empty(), "{name}");
            assert_eq!(switch.to_string(), *name);
        }
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        // The file as a whole is TOML, too.
        let whole: toml::Table = toml::from_str(METHODS).unwrap();
        assert_eq!(whole.len(), names.len());
    }

    #[test]
    fn an_error_in_a_method_has_its_location() {
        let methods = "# Methods\n\n[good]\ndo = [\"reset\"]\n\n[broken]\ndo = [\n    \"reset\",\n    { sleep = 61 },\n]\n\n[x]\ndo = []\n";
        assert_eq!(method(methods, "good"), Some(Ok(vec![Op::Reset])));
        assert_eq!(
            method(methods, "broken"),
            Some(Err("switch method \"broken\" is broken: config/methods.toml:9:15: expected 0 to 60 seconds, got 61"
                .to_owned()))
        );
        assert_eq!(method(methods, "bad"), None);
        // A method has operations, and no other method.
        let nested = method("\n[a]\ndo = [\"sierra\"]\n", "a").unwrap().unwrap_err();
        assert!(nested.contains("config/methods.toml:3:7: invalid value"), "{nested}");
    }

    #[test]
    fn a_switch_is_a_name_a_list_or_a_table() {
        assert_eq!(ops("\"sierra\""), ["control 40 0b 0001 0000, no data"]);
        assert_eq!(
            ops("[\"huawei\", { bulk = \"0f\" }, \"reset\", { sleep = 0.5 }]"),
            ["control 00 03 0001 0000, no data", "bulk 0f", "reset", "sleep 0.5 s"]
        );
        let switch =
            read("{ do = [\"sierra\"], interface = 1, out = 0x05, in = 0x85, wait-before = 2, target-class = 0xff }");
        let switch = switch.unwrap();
        assert_eq!((switch.interface, switch.out, switch.r#in), (Some(1), Some(5), Some(0x85)));
        assert_eq!((switch.wait_before.0, switch.target_class), (Duration::from_secs(2), Some(0xff)));
    }

    #[test]
    fn operations_after_wait_for_return_are_for_the_next_stay() {
        let switch = read("[\"sony\", { set-configuration = 2 }]").unwrap();
        let control = "control c0 11 0002 0000, reads 3 B";
        assert_eq!(strings(switch.part(false)), ["detach", control]);
        assert_eq!(strings(switch.part(true)), [control, "set-configuration 2"]);
        // Without `wait-for-return`, both parts are all operations.
        let sierra = Switch::method("sierra").unwrap();
        assert_eq!(sierra.part(true), sierra.part(false));
    }

    #[test]
    fn an_error_states_its_cause() {
        for (value, message) in [
            ("\"siera\"", "unknown switch method \"siera\"; the methods are: sierra, huawei, "),
            ("[]", "without operations"),
            ("{ do = [] }", "without operations"),
            ("{ do = \"sierra\" }", "expected a list of methods and operations, such as [\"eject\"]"),
            ("{ interface = 1 }", "missing field `do`"),
            ("{ do = [\"sierra\"], colour = 1 }", "unknown field `colour`"),
            ("[{ bulk = \"555\" }]", "even number of hex digits"),
            ("[{ bulk = \"5g\" }]", "even number of hex digits"),
            ("[{ bulk = \"55\", sleep = 1 }]", "bulk and sleep are two operations"),
            ("[{}]", "empty table"),
            ("[{ blk = \"55\" }]", "unknown variant `blk`"),
            ("[{ sleep = 61 }]", "expected 0 to 60 seconds, got 61"),
            ("[{ sleep = -1 }]", "expected 0 to 60 seconds, got -1"),
            ("[{ control = { request-type = 0x40 } }]", "missing field `request`"),
            ("[{ control = { request-type = 0xc0, request = 1, data = \"00\" } }]", "write `length` instead of `data`"),
            ("[{ control = { request-type = 0x40, request = 1, length = 1 } }]", "write `data` instead of `length`"),
            ("[{ bulk = \"\" }]", "at least one byte"),
            ("{ do = [\"sierra\"], out = 0x81 }", "0x81 is the address of an IN endpoint"),
            ("{ do = [\"sierra\"], in = 0x01 }", "0x01 is the address of an OUT endpoint"),
            ("[{ interrupt-out = { endpoint = 0x81, data = \"00\" } }]", "for an OUT endpoint"),
            ("[{ interrupt-in = { endpoint = 1, length = 1 } }]", "for an IN endpoint"),
            ("[{ interrupt-in = { endpoint = 0x81, length = 0 } }]", "expected a nonzero u16"),
            ("[{ interrupt-in = { endpoint = 0x81, length = 1, times = 0 } }]", "expected a nonzero u8"),
            ("[{ control = { request-type = 0x40, request = 256 } }]", "u8"),
            ("[{ control = { request-type = 0x40, request = 1, index = \"if\" } }]", "or \"interface\""),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
    }

    #[test]
    fn an_index_can_be_the_interface_number() {
        let switch = read("[{ control = { request-type = 0xa1, request = 0xa0, index = \"interface\", length = 1 } }]");
        let switch = switch.unwrap();
        let [Op::Control(control)] = switch.ops() else { panic!("{switch:?}") };
        assert_eq!(control.setup(3).index, 3);
        assert_eq!(control.to_string(), "a1 a0 0000 interface, reads 1 B");
        assert!(control.is_in());
    }

    #[test]
    fn a_message_with_the_signature_of_a_cbw_must_be_one() {
        let error = |hex: &str| hex.parse::<Bytes>().unwrap().error();
        assert_eq!(error("5553424312345678000000000000061b000000020000000000000000000000"), None);
        assert_eq!(error("1b5a01"), None);
        assert!(error("5553424312345678").is_some_and(|error| error.contains("has 31 bytes, got 8")));
        assert!(
            error(&format!("55534243{}", "11".repeat(27))).is_some_and(|error| error.contains("at most 16, got 17"))
        );
    }
}
