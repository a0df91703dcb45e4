//! The number of a configuration.

/// `bConfigurationValue` in words. `None`: the device is unconfigured.
#[doc(alias = "bConfigurationValue")]
pub(crate) fn configuration_name(value: Option<u8>) -> String {
    value.map_or("none".to_owned(), |value| value.to_string())
}
