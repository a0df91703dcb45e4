//! Which vendor-specific interfaces of a modem the kernel's network drivers bind: QMI with qmi_wwan, NCM with
//! huawei_cdc_ncm.

use super::descriptors::{CLASS_VENDOR, Interface};
use crate::bus::DeviceId;
use crate::usb::InterfaceClass;

/// Facts about the drivers, generated from the aliases of their modules. The file is TOML, but is read line by line:
/// parsing all of it takes as long as the rest of a hook.
const TABLE: &str = include_str!("../../../config/qmi-wwan.toml");

/// The interfaces of one modem that have QMI, and the vendor-specific ones that have NCM.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct VendorInterfaces {
    /// `bInterfaceNumber`s of vendor-specific interfaces.
    numbers: Vec<u8>,
    classes: Vec<InterfaceClass>,
    ncm_classes: Vec<InterfaceClass>,
}

impl VendorInterfaces {
    /// The numbers in the modem's quirk. If it has none, the interfaces that the driver binds for this ID.
    pub fn of(id: DeviceId, quirk: &[u8]) -> VendorInterfaces {
        let of_driver = VendorInterfaces::of_driver(id);
        match quirk {
            [] => of_driver,
            numbers => VendorInterfaces { numbers: numbers.to_vec(), classes: Vec::new(), ..of_driver },
        }
    }

    fn of_driver(id: DeviceId) -> VendorInterfaces {
        let (numbers, classes) = TABLE.split_once("[classes]").unwrap_or((TABLE, ""));
        let (classes, ncm_classes) = classes.split_once("[ncm-classes]").unwrap_or((classes, ""));
        let (device, vendor) = (id.to_string(), format!("{:04x}:*", id.vendor));
        let class = |text: &str| text.trim_matches('"').parse().ok();
        let of_id = |section| values(section, &device).chain(values(section, &vendor)).filter_map(class).collect();
        VendorInterfaces {
            numbers: values(numbers, &device).filter_map(|number| number.parse().ok()).collect(),
            classes: of_id(classes),
            ncm_classes: of_id(ncm_classes),
        }
    }

    /// Whether the kernel knows no interface with QMI.
    pub(crate) fn lacks_qmi(&self) -> bool {
        self.numbers.is_empty() && self.classes.is_empty()
    }

    /// Whether the kernel knows interfaces with QMI by their numbers.
    pub(crate) fn has_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    pub(crate) fn is_qmi(&self, interface: &Interface) -> bool {
        let is_number = interface.class == CLASS_VENDOR && self.numbers.contains(&interface.number);
        // The driver treats an interface with two endpoints as a diagnostic port.
        interface.endpoints.len() != 2 && (is_number || self.classes.contains(&interface.class_code()))
    }

    /// Whether the interface has NCM, although its class is vendor-specific.
    pub(crate) fn is_ncm(&self, interface: &Interface) -> bool {
        self.ncm_classes.contains(&interface.class_code())
    }
}

/// The elements of the line `"KEY" = [ELEMENT, …]`, including their quotation marks.
fn values<'t>(section: &'t str, key: &str) -> impl Iterator<Item = &'t str> {
    let list = |line: &'t str| line.strip_prefix('"')?.strip_prefix(key)?.strip_prefix("\" = [")?.strip_suffix(']');
    section.lines().find_map(list).into_iter().flat_map(|list| list.split(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[derive(serde::Deserialize)]
    struct Table {
        kernel: String,
        numbers: BTreeMap<String, Vec<u8>>,
        classes: BTreeMap<String, Vec<String>>,
        #[serde(rename = "ncm-classes")]
        ncm_classes: BTreeMap<String, Vec<String>>,
    }

    #[test]
    fn every_line_of_the_table_is_read() {
        let table: Table = toml::from_str(TABLE).unwrap();
        assert!(table.numbers.len() > 300 && !table.kernel.is_empty());
        for (id, numbers) in &table.numbers {
            assert_eq!(VendorInterfaces::of_driver(id.parse().unwrap()).numbers, *numbers, "{id}");
        }
        let of = |key: &str| VendorInterfaces::of_driver(key.replace('*', "0000").parse().unwrap());
        let qmi = table.classes.iter().map(|(key, classes)| (key, of(key).classes, classes));
        let ncm = table.ncm_classes.iter().map(|(key, classes)| (key, of(key).ncm_classes, classes));
        for (key, found, classes) in qmi.chain(ncm) {
            let found: Vec<_> = found
                .iter()
                .map(|InterfaceClass([class, sub, protocol])| format!("{class:02x}/{sub:02x}/{protocol:02x}"))
                .collect();
            assert_eq!(found, *classes, "{key}");
        }
    }

    #[test]
    fn a_quirk_overrides_the_table() {
        let of = |id: &str, quirk: &[u8]| VendorInterfaces::of(id.parse().unwrap(), quirk);
        assert_eq!(of("1199:68a2", &[]).numbers, [8, 19]);
        assert_eq!(of("1199:68a2", &[10]), VendorInterfaces { numbers: vec![10], ..VendorInterfaces::default() });
        assert!(of("12d1:15c1", &[]).numbers.is_empty());
        assert!(of("12d1:15c1", &[]).classes.contains(&InterfaceClass([0xff, 1, 7])));
        assert_eq!(of("1234:5678", &[]), VendorInterfaces::default());
    }
}
