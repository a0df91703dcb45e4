//! How a device leaves its install mode: a list of USB transfers and other acts, written as data.
//!
//! ```toml
//! { switch = "huawei-new" }                                    # a method of config/methods.toml, by name
//! { switch = ["eject", { bulk = "5553424312345678…" }] }       # acts, one after another
//! { switch = { do = ["option"], target-class = 0xff } }        # acts, and what holds for all of them
//! ```
//!
//! | act | what it is |
//! |---|---|
//! | `"NAME"` | the acts of that method |
//! | `"detach"` | the kernel's drivers let go of all interfaces |
//! | `"reset"` | the port is reset |
//! | `{ control = { request-type, request, value, index, length or data, timeout } }` | a control transfer |
//! | `{ bulk = "HEX" }` | a bulk transfer to the device; after a CBW, its data and its CSW are read |
//! | `{ interrupt-out = { endpoint, data } }`, `{ interrupt-in = { endpoint, length, times } }` | interrupt transfers |
//! | `{ set-configuration = N }`, `{ alternate-setting = N }` | SET_CONFIGURATION, SET_INTERFACE |
//! | `{ sleep = SECONDS }` | a pause |
//! | `"wait-for-return"` | the device leaves and comes back as the same ID; what follows is for then |
//!
//! Keys beside `do`: `interface`, `out`, `in` (bulk endpoint addresses), `wait-before` and `release-delay` (seconds),
//! `target-class` (the class of the first interface of a device that has switched already), `interface-class` (the class
//! of the interface that the switch needs; a device with another one is left alone).

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::usb::Setup;

/// The methods that have a name.
const METHODS: &str = include_str!("../../../config/methods.toml");

/// The first four bytes of a command block wrapper (USB Mass Storage Bulk-Only 1.0, 5.1).
const CBW_SIGNATURE: [u8; 4] = *b"USBC";
const CBW_LENGTH: usize = 31;
/// The longest command that a CBW holds. The shortest is 1 by the standard, and 0 in Huawei's own messages.
const CBW_COMMAND_LENGTH: u8 = 16;

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Switch {
    /// What is done, as it is written; [`Switch::ops`] says it without names.
    #[serde(rename = "do")]
    pub acts: Vec<Act>,
    /// `bInterfaceNumber` of the interface that is spoken to; the first one where none is given.
    pub interface: Option<u8>,
    /// Bulk endpoint addresses; the interface's first ones where none are given.
    pub out: Option<u8>,
    pub r#in: Option<u8>,
    /// Before the first transfer, for devices that are not ready when they appear.
    #[serde(default)]
    pub wait_before: Seconds,
    /// Between the last transfer and letting go of the interface.
    #[serde(default)]
    pub release_delay: Seconds,
    /// `bInterfaceClass` of a device's first interface that tells that it has switched already.
    pub target_class: Option<u8>,
    /// `bInterfaceClass` that the interface must have. A CBW needs mass storage in any case.
    pub interface_class: Option<u8>,
}

/// One act as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// All that a method does.
    Method(String),
    Op(Op),
}

#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    Detach,
    Reset,
    Control(Control),
    /// To the device. After a CBW its data and its CSW are read; after anything else, nothing is.
    Bulk(Bytes),
    InterruptOut(InterruptOut),
    InterruptIn(InterruptIn),
    SetConfiguration(u8),
    AlternateSetting(u8),
    Sleep(Seconds),
    /// The device leaves and comes back with the same ID. Nobody waits: its return has an event of its own.
    WaitForReturn,
}

/// A control transfer. Bit 7 of the request type says which way its data goes.
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
    /// What the device is sent.
    #[serde(default)]
    pub data: Bytes,
    /// How much is read of the device; `wLength` of a transfer to the device is that of `data`.
    #[serde(default)]
    pub length: u16,
    #[serde(default = "Control::timeout")]
    pub timeout: Seconds,
}

/// `wIndex` of a control transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Index {
    Number(u16),
    /// The number of the interface that is spoken to.
    Interface,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptOut {
    pub endpoint: u8,
    pub data: Bytes,
}

#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InterruptIn {
    pub endpoint: u8,
    pub length: u16,
    /// How often it is read.
    #[serde(default = "once")]
    pub times: u8,
}

/// Bytes, written as hex digits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

/// A number of seconds from 0 to 60, whole or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Switch {
    /// A switch that is `acts` and nothing else.
    pub fn of(acts: Vec<Act>) -> Switch {
        Switch {
            acts,
            interface: None,
            out: None,
            r#in: None,
            wait_before: Seconds::default(),
            release_delay: Seconds::default(),
            target_class: None,
            interface_class: None,
        }
    }

    /// The method `name` does this.
    pub fn method(name: &str) -> Option<Switch> {
        // One table of the file is parsed, and not the file: a method costs the same, however many there are.
        let (_, rest) = METHODS.split_once(&format!("\n[{name}]\n"))?;
        let table = rest.split_once("\n[").map_or(rest, |(table, _)| table);
        toml::from_str(table).ok()
    }

    /// The names of all methods.
    pub fn methods() -> impl Iterator<Item = &'static str> {
        METHODS.lines().filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'))
    }

    /// What is done on the wire, in order.
    pub fn ops(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for act in &self.acts {
            match act {
                Act::Op(op) => ops.push(op.clone()),
                // Methods consist of ops alone, and the name was found when the switch was read.
                Act::Method(name) => ops.extend(Switch::method(name).into_iter().flat_map(|method| method.ops())),
            }
        }
        ops
    }
}

impl Switch {
    /// What is done on one visit of a device that leaves and comes back in between: on the first, or where it has
    /// `returned`, on the next.
    pub fn part(&self, returned: bool) -> Vec<Op> {
        let ops = self.ops();
        let mut parts = ops.split(|op| matches!(op, Op::WaitForReturn));
        let first = parts.next().unwrap_or_default();
        let next = parts.next().filter(|_| returned);
        next.unwrap_or(first).to_vec()
    }

    /// All that it waits by itself.
    pub fn pauses(&self) -> Duration {
        let sleeps = self.ops().into_iter().map(|op| if let Op::Sleep(pause) = op { pause.0 } else { Duration::ZERO });
        sleeps.sum::<Duration>() + self.wait_before.0 + self.release_delay.0
    }

    /// Whether what is done depends on the interfaces that the device has.
    pub fn needs_interfaces(&self) -> bool {
        let plain = |op: &Op| matches!(op, Op::Sleep(_) | Op::Control(Control { index: Index::Number(_), .. }));
        self.target_class.is_some() || self.interface_class.is_some() || !self.ops().iter().all(plain)
    }

    pub fn sets_configuration(&self) -> bool {
        self.ops().iter().any(|op| matches!(op, Op::SetConfiguration(_)))
    }
}

impl Op {
    /// Whether it is a SCSI command to a mass storage.
    pub fn is_cbw(&self) -> bool {
        matches!(self, Op::Bulk(message) if message.is_cbw())
    }
}

impl Bytes {
    /// Whether this claims to be a command block wrapper.
    pub fn is_cbw(&self) -> bool {
        self.0.starts_with(&CBW_SIGNATURE)
    }

    /// What is wrong with a message that claims to be a CBW.
    pub fn fault(&self) -> Option<String> {
        if !self.is_cbw() {
            return None;
        }
        if self.0.len() != CBW_LENGTH {
            return Some(format!("a CBW is {CBW_LENGTH} bytes long, and this has {}", self.0.len()));
        }
        let length = self.0.get(14).copied().unwrap_or_default();
        (length > CBW_COMMAND_LENGTH)
            .then(|| format!("a CBW holds a command of up to {CBW_COMMAND_LENGTH} bytes, and this one says {length}"))
    }
}

impl Control {
    /// The setup packet, for a device whose interface `interface` is spoken to.
    pub fn setup(&self, interface: u8) -> Setup {
        let index = match self.index {
            Index::Number(index) => index,
            Index::Interface => interface.into(),
        };
        Setup { request_type: self.request_type, request: self.request, value: self.value, index }
    }

    /// Whether its data goes to the host.
    pub fn is_in(&self) -> bool {
        self.request_type & 0x80 != 0
    }

    fn timeout() -> Seconds {
        Seconds(Duration::from_secs(1))
    }
}

fn once() -> u8 {
    1
}

impl Default for Index {
    fn default() -> Index {
        Index::Number(0)
    }
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, act) in self.acts.iter().enumerate() {
            let text: Cow<'_, str> = match act {
                Act::Method(name) => name.into(),
                Act::Op(Op::Bulk(bytes)) => format!("bulk:{bytes}").into(),
                Act::Op(op) => op.kind().into(),
            };
            write!(f, "{}{text}", if number == 0 { "" } else { "+" })?;
        }
        Ok(())
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
                write!(f, "{kind} {endpoint:02x}, {times} times {length} bytes")
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
            (true, _) => write!(f, "{} bytes back", self.length),
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
        bytes.map(Bytes).ok_or_else(|| format!("{text:?} is no even number of hex digits"))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// What a bulk transfer carries.
struct Message(Bytes);

impl<'de> Deserialize<'de> for Message {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Message, D::Error> {
        let bytes = Bytes::deserialize(deserializer)?;
        bytes.fault().map_or(Ok(Message(bytes)), |fault| Err(de::Error::custom(fault)))
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if !(0.0..=60.0).contains(&seconds) {
            return Err(de::Error::custom(format!("{seconds} seconds: from 0 to 60 can be had")));
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

impl<'de> Deserialize<'de> for Act {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Act, D::Error> {
        struct ActVisitor;
        impl<'de> Visitor<'de> for ActVisitor {
            type Value = Act;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a method, or one act like { bulk = \"5553…\" }")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Act, E> {
                match text {
                    "detach" => Ok(Act::Op(Op::Detach)),
                    "reset" => Ok(Act::Op(Op::Reset)),
                    "wait-for-return" => Ok(Act::Op(Op::WaitForReturn)),
                    name if Switch::methods().any(|method| method == name) => Ok(Act::Method(name.to_owned())),
                    _ => {
                        let names = Switch::methods().collect::<Vec<_>>().join(", ");
                        Err(E::custom(format!("there is no switch method {text:?}; those that are: {names}")))
                    }
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Act, A::Error> {
                const ACTS: &[&str] = &[
                    "control",
                    "bulk",
                    "interrupt-out",
                    "interrupt-in",
                    "set-configuration",
                    "alternate-setting",
                    "sleep",
                ];
                let Some(key) = map.next_key::<String>()? else {
                    return Err(de::Error::custom("an empty table is no act"));
                };
                let op = match key.as_str() {
                    "control" => Op::Control(map.next_value()?),
                    "bulk" => Op::Bulk(map.next_value::<Message>()?.0),
                    "interrupt-out" => Op::InterruptOut(map.next_value()?),
                    "interrupt-in" => Op::InterruptIn(map.next_value()?),
                    "set-configuration" => Op::SetConfiguration(map.next_value()?),
                    "alternate-setting" => Op::AlternateSetting(map.next_value()?),
                    "sleep" => Op::Sleep(map.next_value()?),
                    _ => return Err(de::Error::unknown_variant(&key, ACTS)),
                };
                match map.next_key::<String>()? {
                    Some(second) => {
                        Err(de::Error::custom(format!("{key} and {second} are two acts: write two tables")))
                    }
                    None => Ok(Act::Op(op)),
                }
            }
        }
        deserializer.deserialize_any(ActVisitor)
    }
}

/// A [`Switch`] as it stands in an entry: a name, a list of acts, or a table.
pub struct Written(pub Switch);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Written, D::Error> {
        struct SwitchVisitor;
        impl<'de> Visitor<'de> for SwitchVisitor {
            type Value = Written;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a method, a list of acts, or a table with `do`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Written, E> {
                let act = Act::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(Written(Switch::of(vec![act])))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Written, A::Error> {
                let mut acts = Vec::new();
                while let Some(act) = list.next_element()? {
                    acts.push(act);
                }
                Ok(Written(Switch::of(acts)))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
                Switch::deserialize(MapAccessDeserializer::new(map)).map(Written)
            }
        }
        let Written(switch) = deserializer.deserialize_any(SwitchVisitor)?;
        if switch.acts.is_empty() {
            return Err(de::Error::custom("a switch without acts does nothing: leave the step out"));
        }
        Ok(Written(switch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Switch, String> {
        #[derive(serde::Deserialize)]
        struct Step {
            switch: Written,
        }
        let step: Result<Step, _> = toml::from_str(&format!("switch = {value}"));
        step.map(|step| step.switch.0).map_err(|error| error.message().to_owned())
    }

    fn ops(value: &str) -> Vec<String> {
        read(value).unwrap().ops().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_method_can_be_read_and_consists_of_ops() {
        let names: Vec<&str> = Switch::methods().collect();
        for name in &names {
            let method = Switch::method(name).unwrap_or_else(|| panic!("{name}"));
            assert!(!method.acts.is_empty(), "{name}");
            assert_eq!(method, Switch::of(method.acts.clone()), "{name} has keys beside `do`");
            assert!(method.acts.iter().all(|act| matches!(act, Act::Op(_))), "{name}");
        }
        let unique: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(unique.len(), names.len());
        // The file as a whole is TOML, too.
        let whole: toml::Table = toml::from_str(METHODS).unwrap();
        assert_eq!(whole.len(), names.len());
    }

    #[test]
    fn the_three_ways_to_write_a_switch() {
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
    fn what_follows_a_return_is_for_then() {
        let switch = read("[\"sony\", { set-configuration = 2 }]").unwrap();
        let text = |returned| switch.part(returned).iter().map(ToString::to_string).collect::<Vec<_>>();
        let control = "control c0 11 0002 0000, 3 bytes back";
        assert_eq!(text(false), ["detach", control]);
        assert_eq!(text(true), [control, "set-configuration 2"]);
        // One that does not leave in between does the same each time.
        let sierra = Switch::method("sierra").unwrap();
        assert_eq!(sierra.part(true), sierra.part(false));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (value, message) in [
            ("\"siera\"", "no switch method \"siera\"; those that are: "),
            ("[]", "without acts"),
            ("{ do = [] }", "without acts"),
            ("{ interface = 1 }", "missing field `do`"),
            ("{ do = [\"sierra\"], colour = 1 }", "unknown field `colour`"),
            ("[{ bulk = \"555\" }]", "even number of hex digits"),
            ("[{ bulk = \"5g\" }]", "even number of hex digits"),
            ("[{ bulk = \"55\", sleep = 1 }]", "bulk and sleep are two acts"),
            ("[{}]", "empty table"),
            ("[{ blk = \"55\" }]", "unknown variant `blk`"),
            ("[{ sleep = 61 }]", "from 0 to 60"),
            ("[{ sleep = -1 }]", "from 0 to 60"),
            ("[{ control = { request-type = 0x40 } }]", "missing field `request`"),
            ("[{ control = { request-type = 0x40, request = 256 } }]", "u8"),
            ("[{ control = { request-type = 0x40, request = 1, index = \"if\" } }]", "or \"interface\""),
        ] {
            let error = read(value).unwrap_err();
            assert!(error.contains(message), "{value}: {error}");
        }
    }

    #[test]
    fn an_index_can_be_the_interface() {
        let switch = read("[{ control = { request-type = 0xa1, request = 0xa0, index = \"interface\", length = 1 } }]");
        let ops = switch.unwrap().ops();
        let [Op::Control(control)] = ops.as_slice() else { panic!("{ops:?}") };
        assert_eq!(control.setup(3).index, 3);
        assert_eq!(control.to_string(), "a1 a0 0000 interface, 1 bytes back");
        assert!(control.is_in());
    }

    #[test]
    fn a_message_that_claims_to_be_a_cbw_is_one() {
        let fault = |hex: &str| hex.parse::<Bytes>().unwrap().fault();
        assert_eq!(fault("5553424312345678000000000000061b000000020000000000000000000000"), None);
        assert_eq!(fault("1b5a01"), None);
        assert!(fault("5553424312345678").is_some_and(|fault| fault.contains("31 bytes")));
        assert!(fault(&format!("55534243{}", "11".repeat(27))).is_some_and(|fault| fault.contains("says 17")));
    }
}
