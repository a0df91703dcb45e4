//! USB descriptors in the format of sysfs's `descriptors` file: the device descriptor, then each configuration
//! descriptor with all descriptors that belong to it (USB 2.0, section 9.6; Linux `drivers/usb/core/sysfs.c`).
//!
//! [`parse`] accepts any bytes. It allocates at most a small multiple of its input, never panics, and rejects
//! inconsistent descriptors with the offset of the fault.

use serde::Serialize;

use crate::usb::InterfaceClass;

const DEVICE: u8 = 1;
const CONFIGURATION: u8 = 2;
const INTERFACE: u8 = 4;
const ENDPOINT: u8 = 5;

pub(crate) const CLASS_MASS_STORAGE: u8 = 0x08;
pub(crate) const CLASS_VENDOR: u8 = 0xff;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("the descriptor at byte {at} has a bLength of {length}, but only {left} bytes are left")]
    Length { at: usize, length: usize, left: usize },
    #[error("the descriptor of type {kind} at byte {at} is {length} bytes long, too short for its kind")]
    Short { at: usize, kind: u8, length: usize },
    #[error("the descriptor of type {kind} at byte {at} is outside the descriptor that must contain it")]
    Stray { at: usize, kind: u8 },
    #[error("no device descriptor at the start")]
    NoDevice,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Descriptors {
    pub configurations: Vec<Configuration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Configuration {
    #[doc(alias = "bConfigurationValue")]
    pub value: u8,
    /// All alternate settings of all interfaces, in the order of the descriptors.
    pub interfaces: Vec<Interface>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Interface {
    #[doc(alias = "bInterfaceNumber")]
    pub number: u8,
    #[doc(alias = "bAlternateSetting")]
    pub alternate: u8,
    #[doc(alias = "bInterfaceClass")]
    pub class: u8,
    #[doc(alias = "bInterfaceSubClass")]
    pub subclass: u8,
    #[doc(alias = "bInterfaceProtocol")]
    pub protocol: u8,
    pub endpoints: Vec<Endpoint>,
}

impl Interface {
    pub(crate) fn class_code(&self) -> InterfaceClass {
        InterfaceClass([self.class, self.subclass, self.protocol])
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// Bit 7 is the direction: set for IN.
    #[doc(alias = "bEndpointAddress")]
    pub address: u8,
    #[doc(alias = "bmAttributes")]
    pub attributes: u8,
}

impl Endpoint {
    pub fn is_in(self) -> bool {
        self.address & 0x80 != 0
    }

    pub(crate) fn is_bulk(self) -> bool {
        self.attributes & 0x03 == 0x02
    }
}

/// Parses the contents of the `descriptors` file of a USB device.
pub fn parse(bytes: &[u8]) -> Result<Descriptors, Malformed> {
    let mut rest = bytes;
    let mut has_device = false;
    let mut configurations: Vec<Configuration> = Vec::new();
    while let [length, tail @ ..] = rest {
        let at = bytes.len() - rest.len();
        let length = usize::from(*length);
        let (Some(descriptor), Some(&kind)) = (rest.get(..length.max(2)).filter(|_| length >= 2), tail.first()) else {
            return Err(Malformed::Length { at, length, left: rest.len() });
        };
        let field = |offset: usize| descriptor.get(offset).copied().ok_or(Malformed::Short { at, kind, length });
        match kind {
            DEVICE if at == 0 => {
                field(17)?;
                has_device = true;
            }
            DEVICE => return Err(Malformed::Stray { at, kind }),
            _ if !has_device => return Err(Malformed::NoDevice),
            CONFIGURATION => {
                field(8)?;
                configurations.push(Configuration { value: field(5)?, interfaces: Vec::new() });
            }
            INTERFACE => {
                let configuration = configurations.last_mut().ok_or(Malformed::Stray { at, kind })?;
                configuration.interfaces.push(Interface {
                    number: field(2)?,
                    alternate: field(3)?,
                    class: field(5)?,
                    subclass: field(6)?,
                    protocol: field(7)?,
                    endpoints: Vec::new(),
                });
            }
            ENDPOINT => {
                let interface = configurations.last_mut().and_then(|configuration| configuration.interfaces.last_mut());
                let interface = interface.ok_or(Malformed::Stray { at, kind })?;
                field(6)?;
                interface.endpoints.push(Endpoint { address: field(2)?, attributes: field(3)? });
            }
            _ => {}
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    if has_device { Ok(Descriptors { configurations }) } else { Err(Malformed::NoDevice) }
}

#[cfg(test)]
pub(crate) mod samples {
    /// Builds a `descriptors` file from configurations, for tests.
    pub(crate) fn device(configurations: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes =
            vec![18, 1, 0, 2, 0, 0, 0, 64, 0x99, 0x11, 0xa2, 0x68, 6, 0, 1, 2, 3, configurations.len() as u8];
        bytes.extend(configurations.concat());
        bytes
    }

    pub(crate) fn configuration(value: u8, interfaces: &[Vec<u8>]) -> Vec<u8> {
        let body = interfaces.concat();
        let total = (9 + body.len()) as u16;
        let mut bytes = vec![9, 2, total as u8, (total >> 8) as u8, interfaces.len() as u8, value, 0, 0xe0, 0];
        bytes.extend(body);
        bytes
    }

    /// `endpoints` are pairs of `bEndpointAddress` and `bmAttributes`.
    pub(crate) fn interface(number: u8, class: [u8; 3], endpoints: &[(u8, u8)]) -> Vec<u8> {
        let mut bytes = vec![9, 4, number, 0, endpoints.len() as u8, class[0], class[1], class[2], 0];
        for (address, attributes) in endpoints {
            bytes.extend([7, 5, *address, *attributes, 0, 2, 0]);
        }
        bytes
    }

    pub(crate) const CONTROL_CHANNEL: &[(u8, u8)] = &[(0x81, 3), (0x82, 2), (0x02, 2)];

    /// The descriptors of an MC7710. Configuration 1 has DM, NMEA, AT and QMI. Configuration 2 has MBIM.
    pub(crate) fn mc7710() -> Vec<u8> {
        let vendor = [0xff, 0xff, 0xff];
        device(&[
            configuration(
                1,
                &[
                    interface(0, vendor, &[(0x83, 2), (0x04, 2)]),
                    interface(2, vendor, CONTROL_CHANNEL),
                    interface(3, vendor, CONTROL_CHANNEL),
                    interface(8, vendor, CONTROL_CHANNEL),
                ],
            ),
            configuration(
                2,
                &[interface(12, [2, 0x0e, 0], &[(0x81, 3)]), interface(13, [10, 0, 2], &[(0x82, 2), (0x02, 2)])],
            ),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;

    #[test]
    fn inconsistent_descriptors_are_rejected_with_their_offset() {
        let whole = mc7710();
        assert_eq!(parse(&[]), Err(Malformed::NoDevice));
        assert_eq!(parse(&whole[18..]), Err(Malformed::NoDevice));
        let mut zero = whole.clone();
        zero[18] = 0;
        assert!(matches!(parse(&zero), Err(Malformed::Length { at: 18, length: 0, .. })));
        assert!(matches!(parse(&whole[..whole.len() - 1]), Err(Malformed::Length { left: 6, .. })));
        let mut stray = whole[..18].to_vec();
        stray.extend([7, 5, 0x81, 3, 8, 0, 9]);
        assert_eq!(parse(&stray), Err(Malformed::Stray { at: 18, kind: ENDPOINT }));
        let mut short = whole[..18].to_vec();
        short.extend([4, 2, 9, 0]);
        assert!(matches!(parse(&short), Err(Malformed::Short { at: 18, .. })));
    }

    #[test]
    fn truncated_and_corrupted_descriptors_do_not_panic() {
        let whole = mc7710();
        for end in 0..whole.len() {
            let _ = parse(&whole[..end]);
        }
        for at in 0..whole.len() {
            for value in [0, 1, 2, 4, 5, 9, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                let _ = parse(&bytes);
            }
        }
    }
}
