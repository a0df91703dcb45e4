//! The class of an interface.

use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

/// `bInterfaceClass`, `bInterfaceSubClass` and `bInterfaceProtocol`, such as `ff/ff/40`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InterfaceClass(pub [u8; 3]);

impl FromStr for InterfaceClass {
    type Err = String;

    fn from_str(text: &str) -> Result<InterfaceClass, String> {
        let bytes: Option<Vec<u8>> = text.split('/').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
        let class = bytes.and_then(|bytes| bytes.try_into().ok()).map(InterfaceClass);
        class.ok_or_else(|| format!("expected an interface class such as \"ff/ff/40\", got {text:?}"))
    }
}

impl<'de> Deserialize<'de> for InterfaceClass {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<InterfaceClass, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
