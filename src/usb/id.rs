//! Vendor and product IDs.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

/// `idVendor:idProduct`, written as four hex digits each (`1199:0fff`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UsbId {
    pub vendor: u16,
    pub product: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no USB ID: write four hex digits, a colon, four hex digits, like \"1199:9071\"")]
pub struct NoUsbId(pub String);

impl FromStr for UsbId {
    type Err = NoUsbId;

    fn from_str(text: &str) -> Result<UsbId, NoUsbId> {
        let hex = |part: &str| {
            let digits = part.len() == 4 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
            digits.then(|| u16::from_str_radix(part, 16).ok()).flatten()
        };
        text.split_once(':')
            .and_then(|(vendor, product)| Some(UsbId { vendor: hex(vendor)?, product: hex(product)? }))
            .ok_or_else(|| NoUsbId(text.to_owned()))
    }
}

impl Serialize for UsbId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for UsbId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:04x}", self.vendor, self.product)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        let id: UsbId = "1199:0FFF".parse().unwrap();
        assert_eq!((id.vendor, id.product), (0x1199, 0x0fff));
        assert_eq!(id.to_string(), "1199:0fff");
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "1199", "1199:", "1199:fff", "1199:+fff", "11990fff", "1199:0fff:1", "119g:0fff", "1199:00fff"]
        {
            assert!(text.parse::<UsbId>().is_err(), "{text}");
        }
    }
}
