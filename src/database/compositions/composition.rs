//! A composition, its value and functions, and the request for one.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::pattern;
use crate::bus::DeviceId;
use crate::usb::Function;

/// How reliable the facts about a family's commands are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Two independent sources, or a test on a device.
    Sure,
    /// One good source.
    Likely,
    /// Unconfirmed: the composition is only read.
    Weak,
}

impl fmt::Display for Confidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Confidence::Sure => "sure",
            Confidence::Likely => "likely",
            Confidence::Weak => "weak",
        })
    }
}

/// How reliable the facts about a family are, and where they come from.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
pub struct Provenance {
    pub name: String,
    pub confidence: Confidence,
    /// What has been tried on hardware, and the source of the report.
    pub seen: String,
}

/// The value of a composition, in the modem's own notation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// The number used by QMI and AT!UDUSBCOMP.
    Number(u8),
    /// The interface bitmask of AT!USBCOMP.
    Mask(u32),
    /// The product ID of AT!UDPID.
    Product(u16),
    /// A value of a [`crate::database::compositions::Family`].
    Text(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Mask(mask) => write!(f, "{mask:#x}"),
            Value::Product(product) => write!(f, "{product:04x}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// What a configuration offers. [`Function::Serial`] stands for the AT port.
pub(crate) type Functions = BTreeSet<Function>;

/// A composition, and what it consists of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    pub value: Value,
    /// The number that belongs to a mask, if there is one.
    pub number: Option<u8>,
    /// A description: Sierra's names of the interfaces, or a note. Empty if there is none.
    pub layout: String,
    /// The functions of each configuration. Empty if they are not known.
    pub configurations: Vec<Functions>,
    /// The modem's ID in this composition, if the ID depends on the composition.
    pub id: Option<DeviceId>,
}

impl Composition {
    /// Whether `current` is this composition. `None` if the two were read in different ways and cannot be compared.
    pub fn is_same_as(&self, current: &Composition) -> Option<bool> {
        match (&self.value, &current.value) {
            (Value::Mask(_), Value::Number(number)) => self.number.map(|known| known == *number),
            (Value::Number(number), Value::Mask(_)) => current.number.map(|known| known == *number),
            (Value::Product(_), Value::Number(_) | Value::Mask(_)) => None,
            (wanted, has) => Some(wanted == has),
        }
    }

    /// Whether the functions of the composition are known.
    pub(crate) fn is_known(&self) -> bool {
        !self.configurations.is_empty()
    }

    /// The functions of all configurations, without the AT port.
    pub fn functions(&self) -> Functions {
        let all = self.configurations.iter().flatten().copied();
        all.filter(|function| *function != Function::Serial).collect()
    }

    /// Whether a configuration has an AT port.
    pub fn has_at_port(&self) -> bool {
        self.configurations.iter().any(|functions| functions.contains(&Function::Serial))
    }
}

/// A composition, as a person requests it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Value(String),
    /// Exactly the functions that the composition must have.
    Functions(Functions),
}

#[derive(Debug, thiserror::Error)]
#[error("expected a value that the modem lists (8, 0x100d, 9011) or functions (qmi, mbim, qmi+mbim)")]
pub struct NoComposition;

impl FromStr for Wanted {
    type Err = NoComposition;

    fn from_str(text: &str) -> Result<Wanted, NoComposition> {
        let function = |name: &str| {
            let wanted = Function::ALL.into_iter().filter(|function| *function != Function::Serial);
            wanted.into_iter().find(|function| function.name().eq_ignore_ascii_case(name))
        };
        if let Some(functions) = text.split('+').map(function).collect::<Option<Functions>>() {
            return Ok(Wanted::Functions(functions));
        }
        // The names of refused values may contain a dash and a slash.
        let plain: String = text.chars().filter(|character| !matches!(character, '-' | '/')).collect();
        if pattern::is_value(&plain) { Ok(Wanted::Value(text.to_owned())) } else { Err(NoComposition) }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Value(text) => f.write_str(text),
            Wanted::Functions(functions) => f.write_str(&names(functions)),
        }
    }
}

impl Wanted {
    /// The request, spelled like the matching composition among `known`.
    pub(crate) fn spelled<'c>(&self, known: impl Iterator<Item = &'c Composition>) -> Wanted {
        let Wanted::Value(text) = self else { return self.clone() };
        let known: Vec<String> = known.map(|composition| composition.value.to_string()).collect();
        let spelled = spelling(text, known.iter().map(String::as_str)).unwrap_or(text);
        Wanted::Value(spelled.to_owned())
    }

    /// Whether the request matches `composition`.
    pub(crate) fn fits(&self, composition: &Composition) -> bool {
        match self {
            Wanted::Value(text) => {
                *text == composition.value.to_string()
                    || composition.number.is_some_and(|number| number.to_string() == *text)
            }
            Wanted::Functions(functions) => composition.functions() == *functions,
        }
    }
}

/// The element of `known` that `text` refers to. Letter case matters only between elements that differ in nothing else.
pub(crate) fn spelling<'k>(text: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let alike: Vec<&str> = known.into_iter().filter(|known| known.eq_ignore_ascii_case(text)).collect();
    let same = alike.iter().copied().find(|known| *known == text);
    same.or_else(|| alike.first().copied().filter(|first| alike.iter().all(|other| other == first)))
}

/// `mbim+qmi`, or `-` for none.
pub fn names(functions: &Functions) -> String {
    match functions.iter().map(|function| function.name()).collect::<Vec<_>>().as_slice() {
        [] => "-".to_owned(),
        names => names.join("+"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_composition_can_be_requested_by_value_and_by_function() {
        let functions = |functions: &[Function]| Wanted::Functions(functions.iter().copied().collect());
        for (text, wanted) in [
            ("8", Wanted::Value("8".to_owned())),
            ("0x100D", Wanted::Value("0x100D".to_owned())),
            ("FF;10,12,16", Wanted::Value("FF;10,12,16".to_owned())),
            ("pcie/mode", Wanted::Value("pcie/mode".to_owned())),
            ("qmi", functions(&[Function::Qmi])),
            ("MBIM+qmi", functions(&[Function::Qmi, Function::Mbim])),
        ] {
            assert_eq!(text.parse::<Wanted>().unwrap(), wanted);
        }
        for text in ["", "+", "qmi+at", "qmi ", "\"", "8\r", "a\"b", "?"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }

    #[test]
    fn letter_case_matters_only_between_values_that_differ_in_nothing_else() {
        for (text, known, expected) in [
            ("e", &["E", "e"][..], Some("e")),
            ("E", &["e", "E"], Some("E")),
            ("901e", &["9001", "901E", "901E"], Some("901E")),
            ("aB", &["Ab", "AB"], None),
            ("x", &["y"], None),
        ] {
            assert_eq!(spelling(text, known.iter().copied()), expected, "{text}");
        }
    }
}
