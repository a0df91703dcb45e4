//! Sierra's USB compositions, identified by number (QMI, AT!UDUSBCOMP), by bitmask (AT!USBCOMP) or by product ID
//! (AT!UDPID).

use std::collections::BTreeMap;

use serde::Deserialize;

use super::composition::{Composition, Confidence, Functions, Provenance, Value};
use crate::bus::DeviceId;
use crate::outcome::Failure;
use crate::usb::Function;

/// The table `[sierra]` of `compositions.toml`. The file explains each key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sierra {
    name: String,
    confidence: Confidence,
    seen: String,
    ids: Vec<DeviceId>,
    mask_ids: Vec<DeviceId>,
    pub password: String,
    #[doc(alias = "bInterfaceNumber")]
    pub(crate) at_interface: u8,
    #[doc(alias = "bInterfaceNumber")]
    pub qmi_interfaces: Vec<u8>,
    config_types: Vec<String>,
    /// The interfaces that provide no function.
    other_interfaces: Vec<String>,
    functions: BTreeMap<Function, Vec<String>>,
    numbers: BTreeMap<u8, Vec<String>>,
    bits: BTreeMap<String, String>,
    products: BTreeMap<String, Vec<String>>,
}

/// The bits that a modem's AT!USBCOMP=? lists, by their names in lower case.
pub(crate) type Bits = BTreeMap<String, u32>;

impl Sierra {
    /// The errors in the numbered compositions.
    pub(super) fn errors(&self) -> Vec<String> {
        let is_known =
            |name: &str| self.functions.values().flatten().chain(&self.other_interfaces).any(|known| known == name);
        let interfaces = self.numbers.iter().flat_map(|(number, layout)| {
            layout.iter().flat_map(|interfaces| interfaces.split(' ')).map(move |name| (number, name))
        });
        let unknown = interfaces.filter(|(_, name)| !is_known(name));
        unknown.map(|(number, name)| format!("composition {number} has the unknown interface {name:?}")).collect()
    }

    /// Whether modems with this ID have these compositions.
    pub fn knows(&self, id: DeviceId) -> bool {
        self.ids.contains(&id) || self.has_only_masks(id)
    }

    /// Whether a modem with this ID identifies its composition by bitmask only.
    pub(crate) fn has_only_masks(&self, id: DeviceId) -> bool {
        self.mask_ids.contains(&id)
    }

    pub fn provenance(&self) -> Provenance {
        Provenance { name: self.name.clone(), confidence: self.confidence, seen: self.seen.clone() }
    }

    /// Whether a modem with this ID has neither QMI nor MBIM, and gets them with another product ID.
    pub(crate) fn is_direct_ip(&self, id: DeviceId) -> bool {
        let product = Value::Product(id.product).to_string();
        self.products.contains_key(&product) && self.of_product(id.product).functions().is_empty()
    }

    /// Whether configuration types with this name keep the product ID and the AT port.
    pub(crate) fn keeps_ports(&self, config_type: &str) -> bool {
        let name = config_type.trim().to_ascii_lowercase();
        self.config_types.iter().any(|known| name.ends_with(known))
    }

    pub(crate) fn of_number(&self, number: u8) -> Composition {
        self.composition(Value::Number(number), self.numbers.get(&number))
    }

    pub(crate) fn of_product(&self, product: u16) -> Composition {
        let value = Value::Product(product);
        let layout = self.products.get(&value.to_string());
        self.composition(value, layout)
    }

    /// The composition of `mask` on a modem that lists these bits.
    pub(crate) fn of_mask(&self, mask: u32, listed: &Bits) -> Composition {
        let mut bits: Vec<(u32, &String)> = listed.iter().map(|(name, bit)| (*bit, name)).collect();
        bits.sort_unstable();
        let has = bits.iter().filter(|(bit, _)| mask & bit != 0);
        let mut names: Vec<String> = has.map(|(_, name)| self.bits.get(*name).unwrap_or(name).clone()).collect();
        let unlisted = mask & !bits.iter().fold(0, |all, (bit, _)| all | bit);
        if unlisted != 0 {
            names.push(format!("{unlisted:#x}"));
        }
        let known = mask & self.known(listed);
        let number = (0..=u8::MAX).find(|number| self.mask_of(*number, listed) == Some(known));
        Composition { number, ..self.composition(Value::Mask(mask), Some(&vec![names.join(" ")])) }
    }

    /// The numbered compositions of a modem that lists these bits. Bits of `current` with unknown meaning are kept,
    /// because certain combinations of bits keep a modem from starting (osmocom.org, Sierra_Wireless_Modems).
    pub(crate) fn of_bits(&self, listed: &Bits, current: u32) -> Vec<Composition> {
        let unknown = current & !self.known(listed);
        let masks = (0..=u8::MAX).filter_map(|number| self.mask_of(number, listed));
        masks.map(|mask| self.of_mask(mask | unknown, listed)).collect()
    }

    /// The composition of `mask`, if the modem lists all its bits, their meaning is known, and the other bits are those
    /// of `current`.
    pub fn checked(&self, mask: u32, listed: &Bits, current: u32) -> Result<Composition, Failure> {
        let known = self.known(listed);
        let (dropped, added) = (current & !known & !mask, mask & !known & !current);
        if dropped != 0 {
            let names = self.of_mask(dropped, listed).layout;
            let reason = format!("{mask:#x} clears bits whose meaning is not known: {names}");
            return Err(Failure::new(reason, format!("keep them: {:#x}", mask | dropped)));
        }
        if added != 0 || mask & known == 0 {
            let reason = format!("{mask:#x} has bits that the modem does not list, or whose meaning is not known");
            return Err(Failure::new(reason, "choose a value that `wwan-quirks composition` lists"));
        }
        Ok(self.of_mask(mask, listed))
    }

    /// The listed bits whose meaning is known.
    fn known(&self, listed: &Bits) -> u32 {
        listed.iter().filter(|(name, _)| self.bits.contains_key(*name)).fold(0, |all, (_, bit)| all | bit)
    }

    /// The mask of the composition with this number. `None` unless it has one configuration and the modem lists all its
    /// bits.
    fn mask_of(&self, number: u8, listed: &Bits) -> Option<u32> {
        let layout = self.numbers.get(&number)?;
        let [interfaces] = layout.as_slice() else { return None };
        let bit = |interface: &str| {
            let mut names = self.bits.iter().filter(|(_, means)| *means == interface).map(|(name, _)| name);
            listed.get(names.next()?)
        };
        interfaces.split(' ').try_fold(0, |mask, interface| Some(mask | bit(interface)?))
    }

    /// `layout` names the interfaces of each configuration. `None` if they are not known.
    fn composition(&self, value: Value, layout: Option<&Vec<String>>) -> Composition {
        let layout = layout.map(Vec::as_slice).unwrap_or_default();
        let functions = |interfaces: &String| {
            let has =
                |names: &[String]| interfaces.split(' ').any(|interface| names.iter().any(|name| name == interface));
            self.functions.iter().filter(|(_, names)| has(names)).map(|(function, _)| *function).collect::<Functions>()
        };
        let text = if layout.is_empty() { "not known".to_owned() } else { layout.join(" | ") };
        let configurations = layout.iter().map(functions).collect();
        Composition { value, number: None, layout: text, configurations, id: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shipped;
    use super::*;

    fn bits() -> Bits {
        [("diag", 1), ("nmea", 4), ("modem", 8), ("rmnet0", 0x100), ("mbim", 0x1000), ("audio", 0x10000)]
            .map(|(name, bit)| (name.to_owned(), bit))
            .into()
    }

    #[test]
    fn the_shipped_table_is_complete() {
        let table = shipped().sierra.unwrap();
        for number in 0..=22 {
            let composition = table.of_number(number);
            assert!(!composition.configurations.is_empty(), "{number}");
            let has = |function| composition.functions().contains(&function);
            assert_eq!(has(Function::Qmi), matches!(number, 6 | 7 | 13..=22), "{number}");
            assert_eq!(has(Function::Mbim), number > 7, "{number}");
            assert_eq!(composition.has_at_port(), !matches!(number, 9..=12), "{number}");
        }
        assert!(table.numbers.keys().all(|number| *number <= 22));
        let id = |text: &str| text.parse().unwrap();
        assert!(table.is_direct_ip(id("1199:68a3")) && !table.is_direct_ip(id("1199:68a2")));
        assert!(table.knows(id("1199:9071")) && !table.knows(id("1199:0fff")) && !table.knows(id("12d1:15c1")));
        assert!(table.knows(id("1199:68aa")) && table.is_direct_ip(id("1199:68aa")));
        assert!(!table.of_product(0x68aa).has_at_port());
        for masked in ["1199:90d3", "1199:90e3", "1199:90e5"] {
            assert!(table.has_only_masks(id(masked)), "{masked}");
        }
        for (name, keeps) in [("Generic", true), ("Legacy-Generic", true), ("MBIM V2", true), ("USBIF-MBIM", false)] {
            assert_eq!(table.keeps_ports(name), keeps, "{name}");
        }
    }

    #[test]
    fn masks_use_the_bits_that_the_modem_lists() {
        let table = shipped().sierra.unwrap();
        let known = |current| -> Vec<_> {
            let all = table.of_bits(&bits(), current).into_iter();
            all.map(|known| (known.value.to_string(), known.number)).collect()
        };
        let masks = |masks: [&str; 6]| {
            masks.map(str::to_owned).into_iter().zip([6, 8, 9, 10, 11, 12].map(Some)).collect::<Vec<_>>()
        };
        assert_eq!(known(0x10d), masks(["0x10d", "0x100d", "0x1000", "0x1004", "0x1001", "0x1005"]));
        let odd = table.of_mask(0x1_1009, &bits());
        assert_eq!((odd.number, odd.layout.as_str()), (None, "dm at mbim audio"));
    }

    #[test]
    fn bits_of_unknown_meaning_are_kept_and_never_dropped_silently() {
        let table = shipped().sierra.unwrap();
        // A DW5811e has "ubist", which AT!USBCOMP=? does not list.
        let kept =
            table.of_bits(&bits(), 0x20_100d).into_iter().map(|known| known.value.to_string()).collect::<Vec<_>>();
        assert_eq!(kept.first().map(String::as_str), Some("0x20010d"));
        let current = table.of_mask(0x20_100d, &bits());
        assert_eq!((current.number, current.layout.as_str()), (Some(8), "dm nmea at mbim 0x200000"));
        assert!(table.checked(0x20_1009, &bits(), 0x20_100d).is_ok());
        let failure = table.checked(0x10d, &bits(), 0x20_100d).unwrap_err();
        assert_eq!(failure.to_string(), "0x10d clears bits whose meaning is not known: 0x200000; keep them: 0x20010d");
        assert!(
            table.checked(0x100d, &bits(), 0x1_100d).unwrap_err().to_string().contains("audio; keep them: 0x1100d")
        );
        for refused in [0, 0x1_1009, 0x2, 0x8000_0000] {
            assert!(table.checked(refused, &bits(), 0x100d).is_err(), "{refused:#x}");
        }
        assert!(table.checked(0x1009, &bits(), 0x100d).is_ok());
    }
}
