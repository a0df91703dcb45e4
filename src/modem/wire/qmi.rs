//! QMI: QMUX frame, service data unit, TLVs. Includes the messages of the control (CTL) and device management (DMS)
//! services that an unlock needs.
//!
//! ```text
//! off len  QMUX                                   CTL SDU               other SDU
//! 0   1    0x01 marker                            6  1  flags           6  1  flags
//! 1   2    length: whole frame - 1                7  1  TID             7  2  TID
//! 3   1    0x00 from the host, 0x80 from the modem  8  2  message id    9  2  message id
//! 4   1    service                                10 2  length of TLVs  11 2  length of TLVs
//! 5   1    CID (0 for CTL, 0xff to all)
//! TLV: 1 type, 2 length, value
//! ```
//!
//! All numbers are little-endian. Flags distinguish requests, responses and indications. CTL has other values (0, 1, 2)
//! than the other services (0, 2, 4). Message IDs from 0x5550 on are vendor-specific: the same number has a
//! different meaning on another vendor's modem.

use std::fmt;

use super::{Fields, Framer, Head, Malformed};

const MARKER: u8 = 0x01;
const QMUX_HEAD: usize = 6;
const MIN_LENGTH: usize = 12;

/// The longest frame that is accepted: the maximum of cdc-wdm (`wMaxCommand` of qmi_wwan), with room to spare.
pub(crate) const MAX_LENGTH: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Service(pub u8);

impl Service {
    pub const CTL: Service = Service(0x00);
    pub const DMS: Service = Service(0x02);
    /// The services of Foxconn and of Foxconn's application processor. Their message IDs are those that Foxconn added
    /// to DMS.
    pub const FOX: Service = Service(0xe3);
    pub const FOXAP: Service = Service(0xe4);
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Service::CTL => f.write_str("CTL"),
            Service::DMS => f.write_str("DMS"),
            Service::FOX => f.write_str("FOX"),
            Service::FOXAP => f.write_str("FOXAP"),
            Service(other) => write!(f, "service {other:#04x}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Request,
    Response,
    Indication,
    Other(u8),
}

impl Kind {
    fn from_flags(service: Service, flags: u8) -> Kind {
        match (service, flags) {
            (_, 0x00) => Kind::Request,
            (Service::CTL, 0x01) => Kind::Response,
            (Service::CTL, 0x02) => Kind::Indication,
            (Service::CTL, other) => Kind::Other(other),
            (_, 0x02) => Kind::Response,
            (_, 0x04) => Kind::Indication,
            (_, other) => Kind::Other(other),
        }
    }

    fn flags(self, service: Service) -> u8 {
        match self {
            Kind::Request => 0x00,
            Kind::Response if service == Service::CTL => 0x01,
            Kind::Response => 0x02,
            Kind::Indication if service == Service::CTL => 0x02,
            Kind::Indication => 0x04,
            Kind::Other(flags) => flags,
        }
    }
}

/// A message of a service: its number, and its name in messages for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    pub service: Service,
    pub id: u16,
    pub name: &'static str,
    /// It changes the modem, or allocates something on it. Such a request must not be repeated without need.
    pub changes: bool,
}

impl Call {
    pub const fn query(service: Service, id: u16, name: &'static str) -> Call {
        Call { service, id, name, changes: false }
    }

    const fn change(service: Service, id: u16, name: &'static str) -> Call {
        Call { service, id, name, changes: true }
    }
}

pub mod ctl {
    use super::{Call, Service};

    pub(crate) const GET_VERSION_INFO: Call = Call::query(Service::CTL, 0x0021, "CTL Get Version Info");
    /// TLV 0x01: service. Reply, TLV 0x01: service, CID. A modem has only about ten CIDs for each service.
    pub const ALLOCATE_CID: Call = Call::change(Service::CTL, 0x0022, "CTL Allocate CID");
    /// TLV 0x01: service, CID. The reply has the same.
    pub(crate) const RELEASE_CID: Call = Call::change(Service::CTL, 0x0023, "CTL Release CID");
    /// Only for qmi-proxy. TLV 0x01: path of the port that the connection is for.
    pub const PROXY_OPEN: Call = Call::change(Service::CTL, 0xff00, "qmi-proxy open");
    /// Drops the CIDs of all clients of the modem. Never sent: modems send it as an indication when they start.
    #[cfg(test)]
    pub(crate) const SYNC: Call = Call::query(Service::CTL, 0x0027, "CTL Sync");
}

pub mod dms {
    use super::{Call, Service};

    /// Reply, TLV 0x01: [`super::OperatingMode`]; 0x10: u16, [`super::OfflineReason`]; 0x11: u8, not 0 if the hardware
    /// switch keeps the radio off.
    pub const GET_OPERATING_MODE: Call = Call::query(Service::DMS, 0x002d, "DMS Get Operating Mode");
    /// TLV 0x01: [`super::OperatingMode`].
    pub const SET_OPERATING_MODE: Call = Call::change(Service::DMS, 0x002e, "DMS Set Operating Mode");
    /// Reply, strings: TLV 0x10 ESN, 0x11 IMEI, 0x12 MEID, 0x13 IMEISV.
    pub(crate) const GET_IDS: Call = Call::query(Service::DMS, 0x0025, "DMS Get IDs");
    /// Sierra. Reply, TLV 0x10: u8, current; 0x11: u8 count, then that many u8, supported.
    pub const SWI_GET_USB_COMPOSITION: Call = Call::query(Service::DMS, 0x555b, "DMS SWI Get USB Composition");
    /// Sierra. TLV 0x01: u8. Permanent. Takes effect at the next start of the modem.
    pub(crate) const SWI_SET_USB_COMPOSITION: Call = Call::change(Service::DMS, 0x555c, "DMS SWI Set USB Composition");
    /// Foxconn. TLV 0x01: u8, 0 mcfg, 1 mcfg and apps, 2 apps. Reply, TLV 0x01: string.
    pub(crate) const FOXCONN_GET_FIRMWARE_VERSION: Call =
        Call::query(Service::DMS, 0x555e, "DMS Foxconn Get Firmware Version");
    /// Sierra, and vendors that resell its modems. No TLV.
    pub const SET_FCC_AUTHENTICATION: Call = Call::change(Service::DMS, 0x555f, "DMS Set FCC Authentication");
    /// Foxconn. Version 1, TLV 0x01: u8 0. Version 2, in this order, TLV 0x01: string, TLV 0x02: u8 `'0'`.
    pub(crate) const FOXCONN_SET_FCC_AUTHENTICATION: Call =
        Call::change(Service::DMS, 0x5571, "DMS Foxconn Set FCC Authentication");
}

pub(crate) mod fox {
    use super::{Call, Service};

    /// Sent to [`Service::FOX`], for both services. TLV 0x01: u8, 0 mcfg, 2 apps. Reply, TLV 0x01: string.
    pub(crate) const GET_FIRMWARE_VERSION: Call = Call::query(Service::FOX, 0x555e, "FOX Get Firmware Version");

    /// Reply, TLV 0x01: u8, 0 unlocked, 1 locked.
    pub(crate) const fn get_fcc_lock(service: Service) -> Call {
        let name = if service.0 == Service::FOX.0 { "FOX Get FCC Lock" } else { "FOXAP Get FCC Lock" };
        Call::query(service, 0x5570, name)
    }

    /// In this order, TLV 0x01: string, TLV 0x02: u8 `'0'`, as in [`super::dms::FOXCONN_SET_FCC_AUTHENTICATION`].
    pub(crate) const fn set_fcc_authentication(service: Service) -> Call {
        let is_fox = service.0 == Service::FOX.0;
        let name = if is_fox { "FOX Set FCC Authentication" } else { "FOXAP Set FCC Authentication" };
        Call::change(service, 0x5571, name)
    }
}

/// One QMI message, borrowed from its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    pub service: Service,
    pub cid: u8,
    pub kind: Kind,
    /// 8 bits wide in CTL.
    pub tid: u16,
    pub id: u16,
    pub tlvs: Tlvs<'a>,
}

impl<'a> Message<'a> {
    /// Parses the frame at the start of `bytes`. Bytes after the frame are ignored.
    pub fn parse(bytes: &'a [u8]) -> Result<Message<'a>, Malformed> {
        let mut head = Fields(bytes);
        let marker = head.u8("QMUX marker")?;
        if marker != MARKER {
            return Err(Malformed::Value { field: "QMUX marker", value: marker.into() });
        }
        let length = head.u16("QMUX length")?;
        let mut frame = Fields(head.bytes("QMUX frame", usize::from(length).saturating_sub(2))?);
        frame.u8("QMUX flags")?;
        let service = Service(frame.u8("QMUX service")?);
        let cid = frame.u8("QMUX CID")?;
        let kind = Kind::from_flags(service, frame.u8("SDU flags")?);
        let tid = match service {
            Service::CTL => frame.u8("SDU TID")?.into(),
            _ => frame.u16("SDU TID")?,
        };
        let id = frame.u16("SDU message id")?;
        let length = frame.u16("SDU length of TLVs")?;
        let tlvs = Tlvs::parse(frame.bytes("TLVs", length.into())?)?;
        Ok(Message { service, cid, kind, tid, id, tlvs })
    }

    /// The result of the request, from the result TLV 0x02 of the response.
    pub fn result(&self) -> Result<Result<(), ErrorCode>, Malformed> {
        let mut result = Fields(self.tlvs.get(0x02, "result TLV 0x02")?);
        let status = result.u16("result status")?;
        let error = ErrorCode(result.u16("result error")?);
        Ok(if status == 0 { Ok(()) } else { Err(error) })
    }
}

/// TLVs whose lengths have been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tlvs<'a>(&'a [u8]);

impl<'a> Tlvs<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Tlvs<'a>, Malformed> {
        let mut rest = Fields(bytes);
        while !rest.0.is_empty() {
            take_tlv(&mut rest)?;
        }
        Ok(Tlvs(bytes))
    }

    pub fn iter(self) -> impl Iterator<Item = (u8, &'a [u8])> {
        let mut rest = Fields(self.0);
        std::iter::from_fn(move || take_tlv(&mut rest).ok())
    }

    /// The value of the first TLV of this type. `field` names the TLV in the error if it is missing.
    pub fn get(self, tlv: u8, field: &'static str) -> Result<&'a [u8], Malformed> {
        self.iter().find(|(kind, _)| *kind == tlv).map(|(_, value)| value).ok_or(Malformed::Missing { field })
    }

    /// A value of one byte.
    pub fn u8(self, tlv: u8, field: &'static str) -> Result<u8, Malformed> {
        Fields(self.get(tlv, field)?).u8(field)
    }

    /// A value of two bytes.
    pub fn u16(self, tlv: u8, field: &'static str) -> Result<u16, Malformed> {
        Fields(self.get(tlv, field)?).u16(field)
    }

    /// A string. Trailing NULs, tabs and spaces, which some firmware adds, are removed.
    pub fn string(self, tlv: u8, field: &'static str) -> Result<String, Malformed> {
        let text = String::from_utf8_lossy(self.get(tlv, field)?);
        Ok(text.trim_matches(['\0', '\t', ' ', '\r', '\n']).to_owned())
    }

    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

fn take_tlv<'a>(rest: &mut Fields<'a>) -> Result<(u8, &'a [u8]), Malformed> {
    let kind = rest.u8("TLV type")?;
    let length = rest.u16("TLV length")?;
    Ok((kind, rest.bytes("TLV value", length.into())?))
}

/// Encodes a request of the host.
///
/// A CTL TID keeps its low 8 bits. TLVs are sent in the given order, which some Foxconn messages require.
pub fn request(call: Call, cid: u8, tid: u16, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    emit(0x00, call, cid, Kind::Request, tid, tlvs)
}

/// Encodes a response or indication, as a modem sends it.
#[cfg(test)]
pub(crate) fn from_modem(call: Call, cid: u8, kind: Kind, tid: u16, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    emit(0x80, call, cid, kind, tid, tlvs)
}

fn emit(sender: u8, call: Call, cid: u8, kind: Kind, tid: u16, tlvs: &[(u8, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in tlvs {
        body.push(*kind);
        body.extend((value.len() as u16).to_le_bytes());
        body.extend_from_slice(value);
    }
    let mut sdu = vec![kind.flags(call.service)];
    match call.service {
        Service::CTL => sdu.push(tid as u8),
        _ => sdu.extend(tid.to_le_bytes()),
    }
    sdu.extend(call.id.to_le_bytes());
    sdu.extend((body.len() as u16).to_le_bytes());
    sdu.extend(body);

    let length = (QMUX_HEAD - 1 + sdu.len()) as u16;
    let mut frame = vec![MARKER];
    frame.extend(length.to_le_bytes());
    frame.extend([sender, call.service.0, cid]);
    frame.extend(sdu);
    frame
}

/// Splits the input from a QMI port into QMUX frames.
pub fn framer() -> Framer {
    Framer::new(head, MAX_LENGTH)
}

fn head(bytes: &[u8]) -> Head {
    let mut fields = Fields(bytes);
    match (fields.u8("marker"), fields.u16("length"), fields.u8("flags")) {
        (Ok(marker), ..) if marker != MARKER => Head::Noise,
        (Ok(_), Ok(length), Ok(0x00 | 0x80)) if usize::from(length) + 1 >= MIN_LENGTH => {
            Head::Message(usize::from(length) + 1)
        }
        (Ok(_), Ok(_), Ok(_)) => Head::Noise,
        _ => Head::Incomplete,
    }
}

/// DMS operating mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatingMode {
    Online,
    LowPower,
    FactoryTest,
    Offline,
    Reset,
    ShuttingDown,
    PersistentLowPower,
    ModeOnlyLowPower,
    Other(u8),
}

impl OperatingMode {
    pub const UNKNOWN: OperatingMode = OperatingMode::Other(0xff);

    /// Whether the radio is off and the rest of the modem works, as under an FCC lock.
    pub(crate) fn is_low_power(self) -> bool {
        matches!(self, OperatingMode::LowPower | OperatingMode::PersistentLowPower | OperatingMode::ModeOnlyLowPower)
    }
}

impl From<u8> for OperatingMode {
    fn from(mode: u8) -> OperatingMode {
        match mode {
            0 => OperatingMode::Online,
            1 => OperatingMode::LowPower,
            2 => OperatingMode::FactoryTest,
            3 => OperatingMode::Offline,
            4 => OperatingMode::Reset,
            5 => OperatingMode::ShuttingDown,
            6 => OperatingMode::PersistentLowPower,
            7 => OperatingMode::ModeOnlyLowPower,
            other => OperatingMode::Other(other),
        }
    }
}

impl From<OperatingMode> for u8 {
    fn from(mode: OperatingMode) -> u8 {
        match mode {
            OperatingMode::Online => 0,
            OperatingMode::LowPower => 1,
            OperatingMode::FactoryTest => 2,
            OperatingMode::Offline => 3,
            OperatingMode::Reset => 4,
            OperatingMode::ShuttingDown => 5,
            OperatingMode::PersistentLowPower => 6,
            OperatingMode::ModeOnlyLowPower => 7,
            OperatingMode::Other(other) => other,
        }
    }
}

impl fmt::Display for OperatingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OperatingMode::Online => "online",
            OperatingMode::LowPower => "low-power",
            OperatingMode::FactoryTest => "factory-test",
            OperatingMode::Offline => "offline",
            OperatingMode::Reset => "reset",
            OperatingMode::ShuttingDown => "shutting-down",
            OperatingMode::PersistentLowPower => "persistent-low-power",
            OperatingMode::ModeOnlyLowPower => "mode-only-low-power",
            OperatingMode::Other(0xff) => "unknown",
            OperatingMode::Other(other) => return write!(f, "operating mode {other}"),
        })
    }
}

/// Why a modem cannot go online, as a bit mask. 0 if the modem gives no reason (libqmi, `QmiDmsOfflineReason`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct OfflineReason(pub u16);

impl fmt::Display for OfflineReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 4] = [
            "host image misconfiguration",
            "PRI image misconfiguration",
            "PRI version incompatible",
            "device memory full",
        ];
        let names: Vec<&str> =
            (0..).zip(NAMES).filter(|(bit, _)| self.0 & (1 << bit) != 0).map(|(_, name)| name).collect();
        match names.as_slice() {
            [] => write!(f, "offline reason {:#x}", self.0),
            names => f.write_str(&names.join(", ")),
        }
    }
}

/// QMI protocol error in the result TLV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorCode(pub u16);

impl ErrorCode {
    pub(crate) const CLIENT_IDS_EXHAUSTED: ErrorCode = ErrorCode(5);
    pub(crate) const INVALID_CLIENT_ID: ErrorCode = ErrorCode(7);
    const DEVICE_UNSUPPORTED: ErrorCode = ErrorCode(25);
    pub(crate) const NO_EFFECT: ErrorCode = ErrorCode(26);
    const INVALID_SERVICE_TYPE: ErrorCode = ErrorCode(31);
    const DEVICE_NOT_READY: ErrorCode = ErrorCode(52);
    const INVALID_MESSAGE_ID: ErrorCode = ErrorCode(57);
    const INVALID_QMI_COMMAND: ErrorCode = ErrorCode(71);
    pub(crate) const HARDWARE_RESTRICTED: ErrorCode = ErrorCode(83);
    const NOT_SUPPORTED: ErrorCode = ErrorCode(94);
    const OPERATION_IN_PROGRESS: ErrorCode = ErrorCode(118);

    /// The name in libqmi, for the errors that matter here.
    pub fn name(self) -> Option<&'static str> {
        Some(match self.0 {
            0 => "None",
            1 => "MalformedMessage",
            2 => "NoMemory",
            3 => "Internal",
            4 => "Aborted",
            5 => "ClientIdsExhausted",
            7 => "InvalidClientId",
            17 => "MissingArgument",
            22 => "InvalidTransactionId",
            23 => "DeviceInUse",
            25 => "DeviceUnsupported",
            26 => "NoEffect",
            31 => "InvalidServiceType",
            34 => "AuthenticationFailed",
            46 => "General",
            48 => "InvalidArgument",
            52 => "DeviceNotReady",
            57 => "InvalidMessageId",
            60 => "InvalidTransition",
            69 => "Disabled",
            70 => "InvalidOperation",
            71 => "InvalidQmiCommand",
            82 => "AccessDenied",
            83 => "HardwareRestricted",
            90 => "IncompatibleState",
            94 => "NotSupported",
            118 => "OperationInProgress",
            _ => return None,
        })
    }

    /// Whether the modem asks the host to try again later.
    pub(crate) fn is_transient(self) -> bool {
        matches!(self, ErrorCode::DEVICE_NOT_READY | ErrorCode::OPERATION_IN_PROGRESS)
    }

    /// Whether the error means that the modem does not know the message or the service.
    pub(crate) fn is_unsupported(self) -> bool {
        matches!(
            self,
            ErrorCode::DEVICE_UNSUPPORTED
                | ErrorCode::INVALID_SERVICE_TYPE
                | ErrorCode::INVALID_MESSAGE_ID
                | ErrorCode::INVALID_QMI_COMMAND
                | ErrorCode::NOT_SUPPORTED
        )
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} ({})", self.0),
            None => write!(f, "error {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hex;
    use super::*;

    const LOW_POWER: &str = "01 17 00 80 02 14 02 01 00 2D 00 0B 00 02 04 00 00 00 00 00 01 01 00 01";
    const VERSION: &str =
        "01 20 00 80 00 00 01 01 21 00 15 00 02 04 00 00 00 00 00 01 0B 00 02 00 01 00 05 00 02 01 00 0E 00";
    /// Captured reply of an EM7355.
    const COMPOSITION: &str = "01 25 00 80 02 03 02 06 00 5B 55 19 00 02 04 00 00 00 00 00 10 01 00 0E \
                               11 0B 00 0A 01 06 07 08 09 0A 0B 0C 0E 13";

    #[test]
    fn requests_match_captures() {
        use dms::*;
        for (frame, expected) in [
            (request(ctl::SYNC, 0, 1, &[]), "01 0B 00 00 00 00 00 01 27 00 00 00"),
            (request(ctl::GET_VERSION_INFO, 0, 1, &[]), "01 0B 00 00 00 00 00 01 21 00 00 00"),
            (request(ctl::ALLOCATE_CID, 0, 1, &[(1, &[2])]), "01 0F 00 00 00 00 00 01 22 00 04 00 01 01 00 02"),
            (request(ctl::RELEASE_CID, 0, 2, &[(1, &[2, 0x14])]), "01 10 00 00 00 00 00 02 23 00 05 00 01 02 00 02 14"),
            (request(GET_OPERATING_MODE, 0x14, 1, &[]), "01 0C 00 00 02 14 00 01 00 2D 00 00 00"),
            (request(SET_OPERATING_MODE, 0x14, 2, &[(1, &[0])]), "01 10 00 00 02 14 00 02 00 2E 00 04 00 01 01 00 00"),
            (request(SET_FCC_AUTHENTICATION, 0x14, 1, &[]), "01 0C 00 00 02 14 00 01 00 5F 55 00 00"),
            (request(SWI_GET_USB_COMPOSITION, 0x14, 3, &[]), "01 0C 00 00 02 14 00 03 00 5B 55 00 00"),
            (
                request(SWI_SET_USB_COMPOSITION, 0x14, 4, &[(1, &[8])]),
                "01 10 00 00 02 14 00 04 00 5C 55 04 00 01 01 00 08",
            ),
            (request(GET_IDS, 0x14, 7, &[]), "01 0C 00 00 02 14 00 07 00 25 00 00 00"),
            (
                request(FOXCONN_SET_FCC_AUTHENTICATION, 0x14, 9, &[(1, &[0])]),
                "01 10 00 00 02 14 00 09 00 71 55 04 00 01 01 00 00",
            ),
            (
                request(FOXCONN_GET_FIRMWARE_VERSION, 0x14, 9, &[(1, &[0])]),
                "01 10 00 00 02 14 00 09 00 5E 55 04 00 01 01 00 00",
            ),
            (request(ctl::ALLOCATE_CID, 0, 1, &[(1, &[0xe3])]), "01 0F 00 00 00 00 00 01 22 00 04 00 01 01 00 E3"),
            (request(fox::get_fcc_lock(Service::FOX), 1, 2, &[]), "01 0C 00 00 E3 01 00 02 00 70 55 00 00"),
            (request(fox::get_fcc_lock(Service::FOXAP), 1, 2, &[]), "01 0C 00 00 E4 01 00 02 00 70 55 00 00"),
            (
                request(fox::GET_FIRMWARE_VERSION, 1, 3, &[(1, &[2])]),
                "01 10 00 00 E3 01 00 03 00 5E 55 04 00 01 01 00 02",
            ),
        ] {
            assert_eq!(frame, hex(expected));
        }
    }

    #[test]
    fn replies_are_parsed() {
        let bytes = hex(LOW_POWER);
        let reply = Message::parse(&bytes).unwrap();
        assert_eq!((reply.service, reply.cid, reply.kind), (Service::DMS, 0x14, Kind::Response));
        assert_eq!((reply.tid, reply.id), (1, 0x2d));
        assert_eq!(reply.result(), Ok(Ok(())));
        assert_eq!(OperatingMode::from(reply.tlvs.u8(1, "mode").unwrap()), OperatingMode::LowPower);
        assert_eq!(reply.tlvs.u8(0x11, "switch"), Err(Malformed::Missing { field: "switch" }));

        let bytes = hex(VERSION);
        let reply = Message::parse(&bytes).unwrap();
        assert_eq!((reply.service, reply.kind, reply.tid, reply.id), (Service::CTL, Kind::Response, 1, 0x21));
        assert_eq!(reply.tlvs.get(1, "versions").unwrap(), hex("02 00 01 00 05 00 02 01 00 0E 00"));

        let bytes = hex(COMPOSITION);
        let reply = Message::parse(&bytes).unwrap();
        assert_eq!(reply.tlvs.u8(0x10, "composition"), Ok(14));
        assert_eq!(reply.tlvs.iter().map(|(kind, _)| kind).collect::<Vec<_>>(), [0x02, 0x10, 0x11]);
    }

    #[test]
    fn failures_are_parsed() {
        for (frame, kind, error) in [
            (
                "01 12 00 80 00 00 01 01 22 00 07 00 02 04 00 01 00 05 00",
                Kind::Response,
                Some("ClientIdsExhausted (5)"),
            ),
            ("01 13 00 80 02 14 02 01 00 5F 55 07 00 02 04 00 00 00 00 00", Kind::Response, None),
            ("01 13 00 80 02 14 02 01 00 5F 55 07 00 02 04 00 01 00 1A 00", Kind::Response, Some("NoEffect (26)")),
            (
                "01 13 00 80 02 14 02 02 00 2E 00 07 00 02 04 00 01 00 3C 00",
                Kind::Response,
                Some("InvalidTransition (60)"),
            ),
            (
                "01 13 00 80 02 04 02 0C 00 2B 00 07 00 02 04 00 01 00 47 00",
                Kind::Response,
                Some("InvalidQmiCommand (71)"),
            ),
            ("01 13 00 80 02 04 02 0C 00 2B 00 07 00 02 04 00 01 00 34 12", Kind::Response, Some("error 4660")),
        ] {
            let bytes = hex(frame);
            let message = Message::parse(&bytes).unwrap();
            assert_eq!(message.kind, kind);
            assert_eq!(message.result().unwrap().err().map(|code| code.to_string()).as_deref(), error);
        }
        let bytes = hex("01 0B 00 80 00 00 02 00 27 00 00 00");
        let sync = Message::parse(&bytes).unwrap();
        assert_eq!((sync.kind, sync.id), (Kind::Indication, ctl::SYNC.id));
        assert!(sync.result().is_err());
    }

    #[test]
    fn emitted_messages_are_parsed_back() {
        for service in [Service::CTL, Service::DMS, Service(0xe3)] {
            for kind in [Kind::Request, Kind::Response, Kind::Indication, Kind::Other(0x7f)] {
                let tlvs: [(u8, &[u8]); 3] = [(0x02, &[]), (0x01, b"abc"), (0x02, &[7; 300])];
                let call = Call::query(service, 0x5571, "");
                let frame = from_modem(call, 9, kind, 0xfe, &tlvs);
                let message = Message::parse(&frame).unwrap();
                assert_eq!((message.service, message.cid, message.kind), (service, 9, kind));
                assert_eq!((message.tid, message.id), (0xfe, 0x5571));
                assert_eq!(message.tlvs.iter().collect::<Vec<_>>(), tlvs);
            }
        }
        for mode in 0..=255 {
            assert_eq!(u8::from(OperatingMode::from(mode)), mode);
        }
    }

    #[test]
    fn every_truncation_is_an_error_that_names_the_field() {
        for frame in [LOW_POWER, VERSION, COMPOSITION] {
            let bytes = hex(frame);
            for length in 0..bytes.len() {
                let short = Message::parse(&bytes[..length]).unwrap_err();
                assert!(matches!(short, Malformed::Short { needed, had, .. } if needed > had), "{length}: {short}");
            }
        }
        assert_eq!(
            Message::parse(&hex(LOW_POWER)[..10]).unwrap_err().to_string(),
            "truncated QMUX frame: 21 bytes needed, 7 left"
        );
    }

    #[test]
    fn impossible_lengths_are_errors() {
        let low_power = hex(LOW_POWER);
        let with = |at: usize, value: [u8; 2]| {
            let mut bytes = low_power.clone();
            bytes[at..at + 2].copy_from_slice(&value);
            Message::parse(&bytes).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(with(1, [0, 0]), "truncated QMUX flags: 1 bytes needed, 0 left");
        assert_eq!(with(1, [5, 0]), "truncated SDU flags: 1 bytes needed, 0 left");
        assert_eq!(with(1, [0xff, 0xff]), "truncated QMUX frame: 65533 bytes needed, 21 left");
        assert_eq!(with(11, [0xff, 0xff]), "truncated TLVs: 65535 bytes needed, 11 left");
        assert_eq!(with(11, [0x0a, 0]), "truncated TLV value: 1 bytes needed, 0 left");
        assert_eq!(with(14, [0xff, 0xff]), "truncated TLV value: 65535 bytes needed, 8 left");
        assert_eq!(with(0, [0x02, 0x17]), "QMUX marker is 0x2");
    }

    #[test]
    fn padding_is_removed_from_strings() {
        let frame = from_modem(dms::GET_IDS, 1, Kind::Response, 1, &[(0x11, b"359072060000000\t\0")]);
        assert_eq!(Message::parse(&frame).unwrap().tlvs.string(0x11, "IMEI").unwrap(), "359072060000000");
    }

    #[test]
    fn a_stream_is_split_into_frames() {
        let (first, second) = (hex(LOW_POWER), hex(VERSION));
        // 0x01 begins no frame if the length is impossible, or the flags are unused.
        let noise = hex("00 FF 01 03 00 80 01 40 00 77 00");
        let stream = [&noise[..], &first, &second, &noise, &first].concat();
        for step in 1..stream.len() {
            let mut framer = framer();
            let mut frames = Vec::new();
            for read in stream.chunks(step) {
                framer.push(read);
                while let Some(frame) = framer.next_message() {
                    frames.push(frame.to_vec());
                }
            }
            assert_eq!(frames, [first.clone(), second.clone(), first.clone()], "reads of {step}");
            assert_eq!(framer.skipped(), 2 * noise.len());
        }
    }

    #[test]
    fn an_unterminated_frame_is_abandoned() {
        let (whole, mut framer) = (hex(LOW_POWER), framer());
        framer.push(&hex("01 40 00 80 02"));
        framer.push(&whole);
        assert_eq!(framer.next_message(), None);
        framer.resynchronise();
        assert_eq!(framer.next_message(), Some(&whole[..]));
        assert_eq!(framer.next_message(), None);
        framer.resynchronise();
        assert_eq!(framer.skipped(), 5);
    }
}
