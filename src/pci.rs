//! PCI terms that have no equivalent on USB.

use std::fmt;
use std::str::FromStr;

use crate::bus::hex;

/// The subsystem of a PCI device: vendor and model of the card (`105b:e142`), or all cards of a vendor (`105b:*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subsystem {
    #[doc(alias = "subsystem_vendor")]
    pub vendor: u16,
    /// `None` for all cards of the vendor.
    #[doc(alias = "subsystem_device")]
    pub device: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a subsystem: write vendor and device, like \"105b:e142\", or \"105b:*\" for all devices of a vendor"
)]
pub struct NoSubsystem(pub String);

impl Subsystem {
    /// Whether `other` is one of the cards that `self` describes.
    pub fn includes(self, other: Subsystem) -> bool {
        self.vendor == other.vendor && (self.device.is_none() || self.device == other.device)
    }
}

impl FromStr for Subsystem {
    type Err = NoSubsystem;

    fn from_str(text: &str) -> Result<Subsystem, NoSubsystem> {
        let read = |(vendor, device): (&str, &str)| {
            let device = if device == "*" { None } else { Some(hex(device)?) };
            Some(Subsystem { vendor: hex(vendor)?, device })
        };
        text.split_once(':').and_then(read).ok_or_else(|| NoSubsystem(text.to_owned()))
    }
}

impl fmt::Display for Subsystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.device {
            Some(device) => write!(f, "{:04x}:{device:04x}", self.vendor),
            None => write!(f, "{:04x}:*", self.vendor),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subsystem_is_one_card_or_all_cards_of_a_vendor() {
        let card: Subsystem = "105B:e142".parse().unwrap();
        let maker: Subsystem = "105b:*".parse().unwrap();
        assert_eq!([card.to_string(), maker.to_string()], ["105b:e142", "105b:*"]);
        assert!(maker.includes(card) && maker.includes(maker) && card.includes(card) && !card.includes(maker));
        assert!(!maker.includes("1c5d:e142".parse().unwrap()) && !card.includes("105b:e143".parse().unwrap()));
        for text in ["", "105b", "105b:", "*:e142", "*:*", "105b:e1*", "105b:e142:0", "105b:0xe142"] {
            assert!(text.parse::<Subsystem>().is_err(), "{text}");
        }
    }
}
