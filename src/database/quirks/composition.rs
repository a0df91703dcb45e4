//! What Sierra's USB compositions are made of, and how one is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::usb::UsbId;

const TABLE: &str = include_str!("../../../config/compositions.toml");
/// The function that is no data connection, but the way back.
const AT: &str = "at";

/// config/compositions.toml, where each field is explained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Table {
    modems: Vec<String>,
    pub password: String,
    #[doc(alias = "bInterfaceNumber")]
    pub at_interface: u8,
    #[doc(alias = "bInterfaceNumber")]
    pub qmi_interfaces: Vec<u8>,
    functions: BTreeMap<String, Vec<String>>,
    numbers: BTreeMap<String, Layout>,
    bits: BTreeMap<String, String>,
    products: BTreeMap<String, Layout>,
}

/// The interfaces of each configuration, by Sierra's names, with blanks between them. Empty where nothing is known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Layout(pub Vec<String>);

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "not known" } else { "" })?;
        f.write_str(&self.0.join(" | "))
    }
}

/// A composition as a modem has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value {
    /// Of QMI and AT!UDUSBCOMP.
    Number(u8),
    /// The interface bitmask of AT!USBCOMP.
    Mask(u32),
    /// The product ID of AT!UDPID.
    Product(u16),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Mask(mask) => write!(f, "{mask:#x}"),
            Value::Product(product) => write!(f, "{product:04x}"),
        }
    }
}

/// A composition, and what it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Composition {
    pub value: Value,
    /// The number of a mask that has one.
    pub number: Option<u8>,
    pub layout: Layout,
}

impl Composition {
    /// Whether `current` is this composition; `None` where the modem was asked another way and the two cannot be
    /// compared.
    pub fn is(&self, current: &Composition) -> Option<bool> {
        match (self.value, current.value) {
            (Value::Mask(_), Value::Number(number)) => self.number.map(|known| known == number),
            (Value::Number(number), Value::Mask(_)) => current.number.map(|known| known == number),
            (Value::Product(_), Value::Number(_) | Value::Mask(_)) => None,
            (wanted, has) => Some(wanted == has),
        }
    }
}

/// The bits that a modem's AT!USBCOMP=? lists, by their names in small letters.
pub type Bits = BTreeMap<String, u32>;

/// A composition as a person asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Value(Value),
    /// The functions that it must have, and no others, in the order of their names.
    Functions(Vec<String>),
}

#[derive(Debug, thiserror::Error)]
#[error("neither a number (8), nor a bitmask (0x100d), nor functions (qmi, mbim, qmi+mbim)")]
pub struct NoComposition;

impl FromStr for Wanted {
    type Err = NoComposition;

    fn from_str(text: &str) -> Result<Wanted, NoComposition> {
        let text = text.to_ascii_lowercase();
        let is_hex = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        if let Some(digits) = text.strip_prefix("0x").filter(|digits| is_hex(digits)) {
            return u32::from_str_radix(digits, 16)
                .map(|mask| Wanted::Value(Value::Mask(mask)))
                .map_err(|_| NoComposition);
        }
        if let Ok(number) = text.parse() {
            return Ok(Wanted::Value(Value::Number(number)));
        }
        if let (4, true, Ok(product)) = (text.len(), is_hex(&text), u16::from_str_radix(&text, 16)) {
            return Ok(Wanted::Value(Value::Product(product)));
        }
        let table = Table::shipped();
        let mut functions: Vec<String> = text.split('+').map(str::to_owned).collect();
        functions.sort_unstable();
        functions.dedup();
        let known = functions.iter().all(|function| function != AT && table.functions.contains_key(function));
        if known { Ok(Wanted::Functions(functions)) } else { Err(NoComposition) }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Value(value) => value.fmt(f),
            Wanted::Functions(functions) => f.write_str(&functions.join("+")),
        }
    }
}

impl Table {
    pub fn shipped() -> Table {
        toml::from_str(TABLE).expect("config/compositions.toml is valid: a test reads it")
    }

    /// Whether modems of this ID know these compositions.
    pub fn knows(&self, id: UsbId) -> bool {
        let id = id.to_string();
        self.modems.contains(&id)
    }

    /// Whether a modem of this ID has neither QMI nor MBIM, and is made to have them by another product ID.
    pub fn is_direct_ip(&self, id: UsbId) -> bool {
        let product = self.products.get(&Value::Product(id.product).to_string());
        product.is_some_and(|layout| self.functions(layout).is_empty())
    }

    pub fn of_number(&self, number: u8) -> Composition {
        let layout = self.numbers.get(&number.to_string()).cloned().unwrap_or_default();
        Composition { value: Value::Number(number), number: None, layout }
    }

    pub fn of_product(&self, product: u16) -> Composition {
        let value = Value::Product(product);
        Composition { value, number: None, layout: self.products.get(&value.to_string()).cloned().unwrap_or_default() }
    }

    /// What `mask` is made of, on a modem that lists these bits.
    pub fn of_mask(&self, mask: u32, listed: &Bits) -> Composition {
        let mut bits: Vec<(u32, &String)> = listed.iter().map(|(name, bit)| (*bit, name)).collect();
        bits.sort_unstable();
        let has = bits.into_iter().filter(|(bit, _)| mask & bit != 0);
        let names: Vec<&str> = has.map(|(_, name)| self.bits.get(name).unwrap_or(name).as_str()).collect();
        let same = |number: &u8| self.mask_of(*number, listed) == Some(mask);
        Composition {
            value: Value::Mask(mask),
            number: (0..=u8::MAX).find(same),
            layout: Layout(vec![names.join(" ")]),
        }
    }

    /// The compositions with a number that a modem can be given which lists these bits.
    pub fn of_bits(&self, listed: &Bits) -> Vec<Composition> {
        let masks = (0..=u8::MAX).filter_map(|number| self.mask_of(number, listed));
        masks.map(|mask| self.of_mask(mask, listed)).collect()
    }

    /// Whether every bit of `mask` is listed by the modem, and its meaning is known.
    pub fn allows(&self, mask: u32, listed: &Bits) -> bool {
        let known = listed.iter().filter(|(name, _)| self.bits.contains_key(*name)).fold(0, |all, (_, bit)| all | bit);
        mask != 0 && mask & !known == 0
    }

    /// The mask of the composition with this number, where it has one configuration and the modem lists all its bits.
    fn mask_of(&self, number: u8, listed: &Bits) -> Option<u32> {
        let layout = self.numbers.get(&number.to_string())?;
        let [interfaces] = layout.0.as_slice() else { return None };
        let bit = |interface: &str| {
            let mut names = self.bits.iter().filter(|(_, means)| *means == interface).map(|(name, _)| name);
            listed.get(names.next()?)
        };
        interfaces.split(' ').try_fold(0, |mask, interface| Some(mask | bit(interface)?))
    }

    /// The functions of all configurations, but for the AT port, in the order of their names.
    pub fn functions(&self, layout: &Layout) -> Vec<&str> {
        let mut functions = self.all_functions(layout);
        functions.retain(|function| *function != AT);
        functions
    }

    /// Whether a configuration has an AT port.
    pub fn has_at_port(&self, layout: &Layout) -> bool {
        self.all_functions(layout).contains(&AT)
    }

    fn all_functions(&self, layout: &Layout) -> Vec<&str> {
        let names: Vec<&str> = layout.0.iter().flat_map(|configuration| configuration.split(' ')).collect();
        let has = |interfaces: &[String]| interfaces.iter().any(|interface| names.contains(&interface.as_str()));
        self.functions.iter().filter(|(_, interfaces)| has(interfaces)).map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bits() -> Bits {
        [("diag", 1), ("nmea", 4), ("modem", 8), ("rmnet0", 0x100), ("mbim", 0x1000), ("audio", 0x10000)]
            .map(|(name, bit)| (name.to_owned(), bit))
            .into()
    }

    #[test]
    fn the_shipped_table_is_whole() {
        let table = Table::shipped();
        for number in 0..=22 {
            let Composition { layout, .. } = table.of_number(number);
            assert!(!layout.0.is_empty(), "{number}");
            assert_eq!(table.functions(&layout).contains(&"qmi"), matches!(number, 6 | 7 | 13..=22), "{number}");
            assert_eq!(table.functions(&layout).contains(&"mbim"), number > 7, "{number}");
            assert_eq!(table.has_at_port(&layout), !matches!(number, 9..=12), "{number}");
        }
        assert!(table.numbers.keys().all(|number| number.parse::<u8>().is_ok_and(|number| number <= 22)));
        assert!(table.modems.iter().all(|id| id.parse::<UsbId>().is_ok_and(|parsed| parsed.to_string() == *id)));
        for name in table.bits.values() {
            assert!(
                table.numbers.values().any(|layout| layout.0[0].split(' ').any(|interface| interface == name))
                    || name == "rmnet2",
                "{name}"
            );
        }
        let id = |text: &str| text.parse().unwrap();
        assert!(table.is_direct_ip(id("1199:68a3")) && !table.is_direct_ip(id("1199:68a2")));
        assert!(table.knows(id("1199:9071")) && !table.knows(id("1199:0fff")) && !table.knows(id("12d1:15c1")));
    }

    #[test]
    fn masks_are_the_modems_own() {
        let table = Table::shipped();
        let numbered = |number| Some(number);
        let known: Vec<_> =
            table.of_bits(&bits()).into_iter().map(|known| (known.value.to_string(), known.number)).collect();
        let mask = |text: &str, number| (text.to_owned(), numbered(number));
        assert_eq!(
            known,
            [
                mask("0x10d", 6),
                mask("0x100d", 8),
                mask("0x1000", 9),
                mask("0x1004", 10),
                mask("0x1001", 11),
                mask("0x1005", 12)
            ]
        );
        let odd = table.of_mask(0x1_1009, &bits());
        assert_eq!((odd.number, odd.layout.to_string().as_str()), (None, "dm at mbim audio"));
        assert!(table.allows(0x1009, &bits()));
        for refused in [0, 0x1_1009, 0x2, 0x8000_0000] {
            assert!(!table.allows(refused, &bits()), "{refused:#x}");
        }
    }

    #[test]
    fn a_person_may_ask_by_number_and_by_function() {
        for (text, wanted) in [
            ("8", Wanted::Value(Value::Number(8))),
            ("0x100D", Wanted::Value(Value::Mask(0x100d))),
            ("68A2", Wanted::Value(Value::Product(0x68a2))),
            ("qmi", Wanted::Functions(vec!["qmi".to_owned()])),
            ("qmi+mbim", Wanted::Functions(vec!["mbim".to_owned(), "qmi".to_owned()])),
            ("MBIM+qmi", Wanted::Functions(vec!["mbim".to_owned(), "qmi".to_owned()])),
        ] {
            assert_eq!(text.parse::<Wanted>().unwrap(), wanted);
        }
        for text in ["", "+", "at", "qmi+at", "foo", "256", "-1", "0x", "0x1ffffffff", "qmi ", "68a", "0x+1"] {
            assert!(text.parse::<Wanted>().is_err(), "{text}");
        }
    }
}
