//! Descriptors as bytes: built here for the models of the table, or copied from a report.

/// The function behind an interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Role {
    /// Bulk-only mass storage.
    Storage,
    /// QMI on a cdc-wdm channel, `qmi_wwan`.
    Qmi,
    /// MBIM on a cdc-wdm channel, `cdc_mbim`.
    Mbim,
    /// AT commands on a tty.
    At,
    /// The control interface of NCM, ECM or RNDIS.
    Network,
    /// Reports on interrupt endpoints.
    Reports,
    /// Accepts everything and sends nothing.
    Silent,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub bytes: Vec<u8>,
    pub roles: Vec<(u8, Role)>,
    /// The addresses of its endpoints. Each number is used only once while there are enough.
    addresses: Vec<u8>,
}

/// Index of the string with the MAC address of an ECM function.
pub(crate) const MAC_ADDRESS: u8 = 5;
const BULK: u8 = 2;
const INTERRUPT: u8 = 3;
pub(crate) const INPUT: u8 = 0x80;

/// The wMaxControlMessage of the built MBIM functions, and its offset in the functional descriptor.
pub(crate) const MAX_CONTROL_MESSAGE: u16 = 4096;
const MBIM_DESCRIPTOR: [u8; 12] = [12, 0x24, 0x1b, 0x00, 0x01, 0, 16, 16, 128, 0xdc, 0x05, 0x20];

impl Configuration {
    pub fn new(value: u8) -> Configuration {
        let self_powered_and_wakeup = 0xa0;
        let bytes = vec![9, 2, 9, 0, 0, value, 0, self_powered_and_wakeup, 250];
        Configuration { bytes, roles: Vec::new(), addresses: Vec::new() }
    }

    /// Parses a configuration from a `descriptors` file.
    pub fn parse(bytes: Vec<u8>) -> Configuration {
        let mut configuration = Configuration { bytes, roles: Vec::new(), addresses: Vec::new() };
        for interface in configuration.interfaces() {
            let role = match (interface.class, interface.transfer_types.as_slice()) {
                ((0x08, _, 0x50), _) => Role::Storage,
                ((0x02, 0x0e, _), _) => Role::Mbim,
                // qmi_wwan recognises QMI by the interface number, or by the class ff/ff/ff or ff/ff/50.
                ((0xff, _, _), [_, _, _]) if matches!(interface.number, 8 | 10) => Role::Qmi,
                ((0xff, _, _), _) if interface.number == 3 => Role::At,
                ((0xff, 0xff, 0xff | 0x50), [_, _, _]) => Role::Qmi,
                _ => Role::Silent,
            };
            if !configuration.roles.iter().any(|(number, _)| *number == interface.number) {
                configuration.roles.push((interface.number, role));
            }
        }
        configuration
    }

    pub fn value(&self) -> u8 {
        self.bytes.get(5).copied().unwrap_or(0)
    }

    /// The next endpoint number. If all 15 are taken, a number that only the other direction uses.
    fn free_address(&self, direction: u8) -> u8 {
        let next = self.addresses.len() as u8 + 1;
        let is_free = |number: &u8| !self.addresses.contains(&(number | direction));
        let number = if next <= 15 { Some(next) } else { (1..=15).find(is_free) };
        number.expect("a configuration has at most 15 endpoints in each direction") | direction
    }

    fn append(&mut self, number: u8, alternate: u8, class: (u8, u8, u8), functional: &[u8], types: &[u8]) {
        let endpoints = types.len() as u8;
        let string = if class.0 == 0x08 { 4 } else { 0 };
        self.bytes.extend([9, 4, number, alternate, endpoints, class.0, class.1, class.2, string]);
        self.bytes.extend(functional);
        // `types` are endpoint attributes, with the direction in bit 7.
        for kind in types {
            let address = self.free_address(kind & INPUT);
            self.addresses.push(address);
            // High speed: 512 bytes for bulk. Interrupt endpoints are polled every 2^(9-1) microframes = 32 ms, as on
            // modems.
            let (size, interval) = if kind & 0x7f == BULK { (512u16, 0) } else { (64, 9) };
            let [low, high] = size.to_le_bytes();
            self.bytes.extend([7, 5, address, kind & 0x7f, low, high, interval]);
        }
        let [low, high] = (self.bytes.len() as u16).to_le_bytes();
        (self.bytes[2], self.bytes[3]) = (low, high);
        self.bytes[4] += u8::from(alternate == 0);
    }

    pub fn storage(self, number: u8) -> Configuration {
        self.storage_of(number, (0x08, 0x06, 0x50))
    }

    /// Bulk-only storage with this class.
    pub fn storage_of(mut self, number: u8, class: (u8, u8, u8)) -> Configuration {
        self.append(number, 0, class, &[], &[INPUT | BULK, BULK]);
        self.roles.push((number, Role::Storage));
        self
    }

    /// A vendor-specific alternate setting of a storage interface.
    pub fn vendor_alternate(mut self, number: u8, alternate: u8) -> Configuration {
        self.append(number, alternate, (0xff, 0xff, 0xff), &[], &[INPUT | BULK, BULK]);
        self
    }

    pub fn reports(mut self, number: u8) -> Configuration {
        self.append(number, 0, (0x03, 0, 0), &[], &[INPUT | INTERRUPT, INTERRUPT]);
        self.roles.push((number, Role::Reports));
        self
    }

    pub fn serial(self, number: u8, role: Role) -> Configuration {
        self.serial_of(number, role, (0xff, 0, 0))
    }

    pub fn serial_of(mut self, number: u8, role: Role, class: (u8, u8, u8)) -> Configuration {
        self.append(number, 0, class, &[], &[INPUT | INTERRUPT, INPUT | BULK, BULK]);
        self.roles.push((number, role));
        self
    }

    /// A diagnostic port.
    pub fn diag(self, number: u8) -> Configuration {
        self.bulk(number, Role::Silent, (0xff, 0xff, 0xff))
    }

    /// A port without an interrupt endpoint.
    pub fn bulk(mut self, number: u8, role: Role, class: (u8, u8, u8)) -> Configuration {
        self.append(number, 0, class, &[], &[INPUT | BULK, BULK]);
        self.roles.push((number, role));
        self
    }

    pub fn qmi(mut self, number: u8) -> Configuration {
        self.append(number, 0, (0xff, 0xff, 0xff), &[], &[INPUT | INTERRUPT, INPUT | BULK, BULK]);
        self.roles.push((number, Role::Qmi));
        self
    }

    /// MBIM: control interface `number`, data interface `number + 1`, and the interface association before them.
    pub fn mbim(mut self, number: u8) -> Configuration {
        self.bytes.extend([8, 0x0b, number, 2, 0x02, 0x0e, 0x00, 0]);
        let mut functional = vec![5, 0x24, 0x00, 0x10, 0x01, 5, 0x24, 0x06, number, number + 1];
        functional.extend(MBIM_DESCRIPTOR);
        let length = functional.len();
        functional[length - 7..length - 5].copy_from_slice(&MAX_CONTROL_MESSAGE.to_le_bytes());
        self.append(number, 0, (0x02, 0x0e, 0x00), &functional, &[INPUT | INTERRUPT]);
        self.append(number + 1, 0, (0x0a, 0x00, 0x02), &[], &[]);
        self.append(number + 1, 1, (0x0a, 0x00, 0x02), &[], &[INPUT | BULK, BULK]);
        self.roles.push((number, Role::Mbim));
        self.roles.push((number + 1, Role::Silent));
        self
    }

    /// CDC Ethernet: control interface `number`, data interface `number + 1`. String 5 is its MAC address.
    pub fn ecm(mut self, number: u8) -> Configuration {
        let header = [5, 0x24, 0x00, 0x10, 0x01];
        let union = [5, 0x24, 0x06, number, number + 1];
        let ethernet = [13, 0x24, 0x0f, MAC_ADDRESS, 0, 0, 0, 0, 0xea, 0x05, 0, 0, 0];
        let functional = [&header[..], &union, &ethernet].concat();
        self.append(number, 0, (0x02, 0x06, 0x00), &functional, &[INPUT | INTERRUPT]);
        self.append(number + 1, 0, (0x0a, 0x00, 0x00), &[], &[]);
        self.append(number + 1, 1, (0x0a, 0x00, 0x00), &[], &[INPUT | BULK, BULK]);
        self.roles.extend([(number, Role::Network), (number + 1, Role::Silent)]);
        self
    }

    /// CDC NCM, with the same layout.
    pub fn ncm(self, number: u8) -> Configuration {
        self.ncm_of(number, (0x02, 0x0d, 0x00))
    }

    /// The same with another class: that of Huawei is vendor-specific.
    pub fn ncm_of(mut self, number: u8, class: (u8, u8, u8)) -> Configuration {
        let header = [5, 0x24, 0x00, 0x10, 0x01];
        let union = [5, 0x24, 0x06, number, number + 1];
        let ethernet = [13, 0x24, 0x0f, MAC_ADDRESS, 0, 0, 0, 0, 0xea, 0x05, 0, 0, 0];
        let ncm = [6, 0x24, 0x1a, 0x00, 0x01, 0x00];
        let functional = [&header[..], &union, &ethernet, &ncm].concat();
        self.append(number, 0, class, &functional, &[INPUT | INTERRUPT]);
        self.append(number + 1, 0, (0x0a, 0x00, 0x01), &[], &[]);
        self.append(number + 1, 1, (0x0a, 0x00, 0x01), &[], &[INPUT | BULK, BULK]);
        self.roles.extend([(number, Role::Network), (number + 1, Role::Silent)]);
        self
    }

    /// RNDIS in its wireless form: control interface `number`, data interface `number + 1`.
    pub fn rndis(mut self, number: u8) -> Configuration {
        let union = [5, 0x24, 0x06, number, number + 1];
        let functional = [&[5, 0x24, 0x00, 0x10, 0x01][..], &union].concat();
        self.append(number, 0, (0xe0, 0x01, 0x03), &functional, &[INPUT | INTERRUPT]);
        self.append(number + 1, 0, (0x0a, 0x00, 0x00), &[], &[INPUT | BULK, BULK]);
        self.roles.extend([(number, Role::Network), (number + 1, Role::Silent)]);
        self
    }

    /// CDC ACM: control interface `number`, and the role on data interface `number + 1`.
    pub fn acm(self, number: u8, role: Role) -> Configuration {
        self.acm_of(number, role, 1)
    }

    /// The same with another `bInterfaceProtocol`.
    pub fn acm_of(mut self, number: u8, role: Role, protocol: u8) -> Configuration {
        let union = [5, 0x24, 0x06, number, number + 1];
        let call = [5, 0x24, 0x01, 0x00, number + 1];
        let functional = [&[5, 0x24, 0x00, 0x10, 0x01][..], &call, &[4, 0x24, 0x02, 0x02], &union].concat();
        self.append(number, 0, (0x02, 0x02, protocol), &functional, &[INPUT | INTERRUPT]);
        self.append(number + 1, 0, (0x0a, 0x00, 0x00), &[], &[INPUT | BULK, BULK]);
        self.roles.extend([(number, Role::Silent), (number + 1, role)]);
        self
    }

    /// The wMaxControlMessage of the MBIM function, if there is one.
    pub fn max_control_message(&self) -> Option<u16> {
        let at = self.mbim_descriptor()?;
        Some(u16::from_le_bytes([*self.bytes.get(at + 5)?, *self.bytes.get(at + 6)?]))
    }

    pub fn set_max_control_message(&mut self, size: u16) {
        if let Some(at) = self.mbim_descriptor() {
            self.bytes[at + 5..at + 7].copy_from_slice(&size.to_le_bytes());
        }
    }

    fn mbim_descriptor(&self) -> Option<usize> {
        let mut at = 0;
        while let [length, kind, subtype, ..] = self.bytes.get(at..)? {
            let whole = self.bytes.len() >= at + 12;
            if (*length, *kind, *subtype) == (12, 0x24, 0x1b) && whole {
                return Some(at);
            }
            at += usize::from((*length).max(1));
        }
        None
    }

    /// The descriptors with one false value, or unchanged if `kind` is not known.
    pub fn lying(&self, kind: &str) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        let first_interface = self.place_of(4);
        match (kind, first_interface, self.place_of(5)) {
            ("length", Some(at), _) => bytes[at] = 200,
            ("zero", Some(at), _) => bytes[at] = 0,
            ("count", ..) => bytes[4] = 32,
            ("endpoints", Some(at), _) => bytes[at + 4] = 30,
            ("type", _, Some(at)) => bytes[at + 1] = 4,
            ("total", ..) => bytes[2..4].copy_from_slice(&u16::MAX.to_le_bytes()),
            _ => {}
        }
        bytes
    }

    /// The offset of the first descriptor of this type.
    fn place_of(&self, kind: u8) -> Option<usize> {
        let mut at = 0;
        while let [length, found, ..] = self.bytes.get(at..)? {
            if *found == kind {
                return Some(at);
            }
            at += usize::from((*length).max(1));
        }
        None
    }

    pub fn is_interrupt(&self, endpoint: u8) -> bool {
        self.interfaces().iter().any(|interface| {
            let mut both = interface.transfer_types.iter().zip(&interface.endpoints);
            both.any(|(kind, address)| (*kind, *address) == (INTERRUPT, endpoint))
        })
    }

    /// All alternate settings of all interfaces, in the order of the descriptors.
    pub fn interfaces(&self) -> Vec<Interface> {
        let mut interfaces: Vec<Interface> = Vec::new();
        let mut rest = self.bytes.as_slice();
        while let [length, kind, ..] = rest {
            let length = usize::from(*length).max(2);
            let Some((descriptor, after)) = rest.split_at_checked(length) else { break };
            match (*kind, descriptor) {
                (4, [_, _, number, _, _, class, subclass, protocol, ..]) => interfaces.push(Interface {
                    number: *number,
                    class: (*class, *subclass, *protocol),
                    transfer_types: Vec::new(),
                    endpoints: Vec::new(),
                }),
                (5, [_, _, address, attributes, ..]) => {
                    if let Some(interface) = interfaces.last_mut() {
                        interface.transfer_types.push(attributes & 3);
                        interface.endpoints.push(*address);
                    }
                }
                _ => {}
            }
            rest = after;
        }
        interfaces
    }

    /// The interface that has this endpoint.
    pub fn interface_of(&self, endpoint: u8) -> Option<u8> {
        let has = |interface: &&Interface| interface.endpoints.contains(&endpoint);
        self.interfaces().iter().find(has).map(|interface| interface.number)
    }

    /// The interface's first endpoint of this type and direction.
    pub fn endpoint(&self, number: u8, kind: Transfer) -> Option<u8> {
        let (transfer_type, input) = match kind {
            Transfer::InterruptIn => (INTERRUPT, true),
            Transfer::BulkIn => (BULK, true),
        };
        let matches = |(t, address): (&u8, &u8)| *t == transfer_type && (address & INPUT != 0) == input;
        self.interfaces().iter().filter(|interface| interface.number == number).find_map(|interface| {
            let mut both = interface.transfer_types.iter().zip(&interface.endpoints);
            both.find(|both| matches(*both)).map(|(_, address)| *address)
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Transfer {
    InterruptIn,
    BulkIn,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    pub number: u8,
    pub class: (u8, u8, u8),
    transfer_types: Vec<u8>,
    endpoints: Vec<u8>,
}

/// The device descriptor. Strings 1 to 3 are manufacturer, product and serial number.
pub(crate) fn device(vendor: u16, product: u16, class: u8, usb: u16, configurations: u8) -> [u8; 18] {
    let [usb_low, usb_high] = usb.to_le_bytes();
    let [vendor_low, vendor_high] = vendor.to_le_bytes();
    let [product_low, product_high] = product.to_le_bytes();
    let head = [18, 1, usb_low, usb_high, class, 0, 0, 64];
    let mut bytes = [0; 18];
    bytes[..8].copy_from_slice(&head);
    bytes[8..].copy_from_slice(&[
        vendor_low,
        vendor_high,
        product_low,
        product_high,
        0x06,
        0x00,
        1,
        2,
        3,
        configurations,
    ]);
    bytes
}

/// A string descriptor.
pub(crate) fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().take(126).flat_map(u16::to_le_bytes).collect();
    let mut bytes = vec![2 + units.len() as u8, 3];
    bytes.extend(units);
    bytes
}

/// Splits the sysfs file `descriptors` into the device descriptor and the configurations.
pub(crate) fn parse(blob: &[u8]) -> Option<([u8; 18], Vec<Configuration>)> {
    let (device, mut rest) = blob.split_at_checked(18)?;
    let mut configurations = Vec::new();
    while let [_, 2, low, high, ..] = rest {
        let total = usize::from(u16::from_le_bytes([*low, *high])).max(9);
        let (configuration, after) = rest.split_at_checked(total)?;
        configurations.push(Configuration::parse(configuration.to_vec()));
        rest = after;
    }
    (rest.is_empty() && !configurations.is_empty()).then_some((device.try_into().ok()?, configurations))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_and_counts_are_correct() {
        let built = Configuration::new(2).serial(3, Role::At).qmi(8).mbim(12);
        assert_eq!(u16::from_le_bytes([built.bytes[2], built.bytes[3]]) as usize, built.bytes.len());
        assert_eq!(built.bytes[4], 4);
        assert_eq!(built.value(), 2);
    }

    #[test]
    fn qmi_has_three_endpoints() {
        let built = Configuration::new(1).serial(3, Role::At).qmi(8);
        assert_eq!(built.endpoint(8, Transfer::InterruptIn), Some(0x84));
        assert_eq!(built.endpoint(8, Transfer::BulkIn), Some(0x85));
        assert_eq!(built.interface_of(0x06), Some(8));
        assert_eq!(built.interface_of(0x86), None);
    }

    #[test]
    fn max_control_message_is_read_and_written() {
        let mut built = Configuration::new(1).mbim(12);
        assert_eq!(built.max_control_message(), Some(4096));
        built.set_max_control_message(512);
        assert_eq!(built.max_control_message(), Some(512));
        assert_eq!(Configuration::new(1).qmi(8).max_control_message(), None);
    }

    #[test]
    fn built_descriptors_are_parsed_back() {
        let configurations = [Configuration::new(1).serial(3, Role::At).qmi(8), Configuration::new(2).mbim(12)];
        let device = device(0x1199, 0x68a2, 0, 0x0200, 2);
        let mut blob = device.to_vec();
        configurations.iter().for_each(|c| blob.extend(&c.bytes));
        let (parsed, back) = parse(&blob).unwrap();
        assert_eq!(parsed, device);
        for (back, built) in back.iter().zip(&configurations) {
            assert_eq!((&back.bytes, &back.roles), (&built.bytes, &built.roles));
        }
        assert_eq!(parse(&blob[..blob.len() - 1]), None);
    }
}
