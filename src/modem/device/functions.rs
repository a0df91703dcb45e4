//! The functions that the kernel's drivers find in a configuration.

use super::descriptors::{CLASS_MASS_STORAGE, CLASS_VENDOR, Configuration, Interface};
use super::vendor_interfaces::VendorInterfaces;
use crate::usb::{Function, InterfaceClass};

/// Linux drivers/net/usb/rndis_host.c.
const RNDIS: [InterfaceClass; 3] =
    [InterfaceClass([0x02, 0x02, 0xff]), InterfaceClass([0xe0, 0x01, 0x03]), InterfaceClass([0xef, 0x04, 0x01])];
const CLASS_COMMUNICATIONS: u8 = 0x02;
const SUBCLASS_ECM: u8 = 0x06;
const SUBCLASS_NCM: u8 = 0x0d;
const SUBCLASS_MBIM: u8 = 0x0e;

impl Configuration {
    /// The functions that the kernel's drivers provide in this configuration.
    pub fn functions(&self, vendor: &VendorInterfaces) -> Vec<Function> {
        let mut functions = Vec::new();
        let first: Vec<&Interface> = self.interfaces.iter().filter(|interface| interface.alternate == 0).collect();
        // The drivers for the communications class require protocol 0.
        let communications = |subclass| {
            let class = InterfaceClass([CLASS_COMMUNICATIONS, subclass, 0]);
            first.iter().any(|i| i.class_code() == class && !vendor.is_qmi(i))
        };
        if communications(SUBCLASS_MBIM) {
            functions.push(Function::Mbim);
        }
        if first.iter().any(|interface| vendor.is_qmi(interface)) {
            functions.push(Function::Qmi);
        }
        if communications(SUBCLASS_ECM) {
            functions.push(Function::Ecm);
        }
        if communications(SUBCLASS_NCM) || first.iter().any(|interface| vendor.is_ncm(interface)) {
            functions.push(Function::Ncm);
        }
        if first.iter().any(|i| RNDIS.contains(&i.class_code())) {
            functions.push(Function::Rndis);
        }
        if first.iter().any(|interface| interface.class == CLASS_MASS_STORAGE) {
            functions.push(Function::Storage);
        }
        let is_serial = |i: &&Interface| i.class == CLASS_VENDOR && !vendor.is_qmi(i) && !vendor.is_ncm(i);
        if first.iter().any(is_serial) {
            functions.push(Function::Serial);
        }
        functions
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modem::device::descriptors::parse;
    use crate::modem::device::descriptors::samples::*;

    fn of(id: &str, quirk: &[u8]) -> VendorInterfaces {
        VendorInterfaces::of(id.parse().unwrap(), quirk)
    }

    #[test]
    fn functions_are_found_in_every_configuration() {
        let descriptors = parse(&mc7710()).unwrap();
        let functions = |index: usize, id, qmi: &[u8]| descriptors.configurations[index].functions(&of(id, qmi));
        assert_eq!(functions(0, "1199:68a2", &[]), [Function::Qmi, Function::Serial]);
        assert_eq!(functions(0, "1199:68a2", &[10]), [Function::Serial]);
        assert_eq!(functions(0, "1234:5678", &[8]), [Function::Qmi, Function::Serial]);
        assert_eq!(functions(0, "1234:5678", &[]), [Function::Serial]);
        assert_eq!(functions(1, "1199:68a2", &[]), [Function::Mbim]);
    }

    #[test]
    fn ncm_of_huawei_is_vendor_specific() {
        let ncm = interface(1, [0xff, 0x03, 0x16], &[(0x82, 3), (0x83, 2), (0x02, 2)]);
        let bytes = device(&[configuration(1, &[ncm])]);
        let functions = |id| parse(&bytes).unwrap().configurations[0].functions(&of(id, &[]));
        assert_eq!(functions("12d1:1506"), [Function::Ncm]);
        assert_eq!(functions("1234:1506"), [Function::Serial]);
    }

    #[test]
    fn an_interface_with_two_endpoints_has_no_qmi() {
        let bytes = device(&[configuration(1, &[interface(8, [0xff, 0xff, 0xff], &[(0x82, 2), (0x02, 2)])])]);
        assert_eq!(parse(&bytes).unwrap().configurations[0].functions(&of("1199:68a2", &[])), [Function::Serial]);
    }
}
