//! The entries of the quirks database, as values. [`fragment`] parses them from TOML.

pub mod fragment;
pub(crate) mod huawei;
pub mod switch;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::Location;
use crate::modem::transport::Protocol;
use crate::modem::wire::qmi::Service;
use crate::outcome::StepKind;
use crate::pci::Subsystem;
use crate::usb::Function;
pub use switch::Switch;

/// One entry of the database.
#[derive(Debug, Clone, PartialEq)]
pub struct Quirk {
    pub models: Vec<Model>,
    /// A name that fits all models. [`Quirk::name_of`] returns the name of one of them.
    pub name: String,
    /// A note for administrators, which `explain` prints.
    pub note: Option<String>,
    /// The source of the facts in the entry.
    pub source: Option<String>,
    pub seen: Option<Seen>,
    /// Device strings that narrow the match.
    pub matchers: Matchers,
    /// The `bInterfaceNumber`s to which qmi_wwan binds. If empty, QMI is guessed from the descriptors.
    pub qmi_interfaces: Vec<u8>,
    /// What to do if the unlocked radio may need a reset to come online.
    pub(crate) online_after_reset: Option<NeededReset>,
    /// How to bind the serial driver of a kernel that does not know the modem.
    pub new_id: Option<NewId>,
    pub steps: Vec<Step>,
    pub location: Location,
}

/// A device of an entry.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    pub id: DeviceId,
    /// `None` for the name of the entry.
    pub name: Option<String>,
    /// What the device becomes after a switch, if known. For information only: any ID is accepted.
    pub becomes: Vec<Target>,
}

/// A device after a switch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Target {
    pub id: DeviceId,
    pub name: Option<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        self.name.as_ref().map_or(Ok(()), |name| write!(f, ", {name}"))
    }
}

/// The number of targets that fit on a line.
const FEW: usize = 3;

/// A line for the file `new_id` of a usb-serial driver. The program does not write it. `doctor` prints the command for
/// a person.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewId {
    pub module: String,
    /// The name of the driver in `/sys/bus/usb-serial/drivers`.
    pub driver: String,
    /// `bInterfaceClass` of the interfaces that the driver may bind.
    pub interface_class: u8,
}

impl NewId {
    /// The command that makes the driver bind the interfaces of `id`.
    pub fn command(&self, id: DeviceId) -> String {
        let NewId { module, driver, interface_class } = self;
        let DeviceId { vendor, product, .. } = id;
        format!(
            "modprobe {module} && echo {vendor:04x} {product:04x} {interface_class:02x} \
             >/sys/bus/usb-serial/drivers/{driver}/new_id"
        )
    }
}

/// How well the facts in an entry are confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Seen {
    /// The steps worked on such a device.
    Hardware,
    /// Descriptors or messages of such a device were recorded.
    Capture,
    /// Another project ships the same facts in a table.
    Table,
    /// One unconfirmed mention. Checks of strings or interfaces protect other devices with this ID.
    Hint,
}

impl Seen {
    pub fn name(self) -> &'static str {
        match self {
            Seen::Hardware => "hardware",
            Seen::Capture => "capture",
            Seen::Table => "table",
            Seen::Hint => "hint",
        }
    }

    /// What the facts are based on, if not on a report from hardware.
    pub(crate) fn instead_of_hardware(self) -> Option<&'static str> {
        match self {
            Seen::Hardware => None,
            Seen::Capture => Some("from a recording of its descriptors or messages"),
            Seen::Table => Some("from a table of another project"),
            Seen::Hint => Some("from one unconfirmed mention"),
        }
    }
}

impl Quirk {
    pub fn ids(&self) -> impl Iterator<Item = DeviceId> + '_ {
        self.models.iter().map(|model| model.id)
    }

    pub fn model(&self, id: DeviceId) -> Option<&Model> {
        self.models.iter().find(|model| model.id == id)
    }

    /// The name of the model with this ID.
    pub fn name_of(&self, id: DeviceId) -> &str {
        self.model(id).and_then(|model| model.name.as_deref()).unwrap_or(&self.name)
    }

    /// What the model with this ID becomes, in words. `None` if it is not known.
    pub fn becomes(&self, id: DeviceId) -> Option<String> {
        match self.model(id)?.becomes.as_slice() {
            [] => None,
            targets if targets.len() <= FEW => {
                Some(targets.iter().map(Target::to_string).collect::<Vec<_>>().join(", or "))
            }
            targets => Some(format!("one of {} devices (`wwan-quirks explain {id}` lists them)", targets.len())),
        }
    }

    /// The unlock procedure, or the first of several. `None` if the radio has no known lock.
    pub fn procedure(&self) -> Option<&Procedure> {
        self.procedures().next()
    }

    /// The unlock procedures. A modem with several procedures has one of these locks.
    pub fn procedures(&self) -> impl Iterator<Item = &Procedure> {
        self.steps.iter().filter_map(|step| if let Step::FccAuth(procedure) = step { Some(procedure) } else { None })
    }

    /// Whether the entry is for PCI devices. All its models are on one bus.
    pub fn is_pci(&self) -> bool {
        self.ids().any(|id| id.bus == Bus::Pci)
    }

    /// Whether the device is in install mode.
    pub(crate) fn is_install_mode(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Switch(_)))
    }
}

/// Whether an entry has this ID.
pub(crate) fn knows(quirks: &[Quirk], id: DeviceId) -> bool {
    quirks.iter().any(|quirk| quirk.model(id).is_some())
}

/// What a device reports about itself besides its ID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceString {
    Manufacturer,
    Product,
    Serial,
    /// From the answer to SCSI INQUIRY, like the next two.
    ScsiVendor,
    ScsiModel,
    ScsiRevision,
    /// The subsystem IDs of a PCI device. A matcher is the whole pair, or a vendor and `*`.
    Subsystem,
}

impl fmt::Display for DeviceString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DeviceString::Manufacturer => "manufacturer",
            DeviceString::Product => "product",
            DeviceString::Serial => "serial",
            DeviceString::ScsiVendor => "scsi-vendor",
            DeviceString::ScsiModel => "scsi-model",
            DeviceString::ScsiRevision => "scsi-revision",
            DeviceString::Subsystem => "subsystem",
        })
    }
}

impl DeviceString {
    /// Whether the string is known only after the kernel has sent SCSI INQUIRY.
    pub fn is_scsi(self) -> bool {
        matches!(self, DeviceString::ScsiVendor | DeviceString::ScsiModel | DeviceString::ScsiRevision)
    }
}

/// For each string, the text that it must contain. `_` matches itself and a space.
pub(crate) type Matchers = BTreeMap<DeviceString, String>;

pub(crate) fn matches(string: DeviceString, part: &str, whole: &str) -> bool {
    if string == DeviceString::Subsystem {
        return match (part.parse::<Subsystem>(), whole.parse()) {
            (Ok(wanted), Ok(subsystem)) => wanted.includes(subsystem),
            _ => false,
        };
    }
    whole.contains(part) || (part.contains('_') && whole.replace(' ', "_").contains(&part.replace(' ', "_")))
}

/// How narrow a match is: a string counts once, and a subsystem once for its vendor and once for its device ID.
pub(crate) fn narrowness(matchers: &Matchers) -> usize {
    let subsystem = matchers.get(&DeviceString::Subsystem);
    matchers.len() + usize::from(subsystem.is_some_and(|subsystem| !subsystem.ends_with('*')))
}

/// What a modem needs.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    Switch(Switch),
    Configuration {
        select: Select,
        /// The `bConfigurationValue` for a modem without that function.
        fallback: Option<u8>,
        /// How long the device stays unconfigured before it gets this configuration. `None`: it changes directly.
        unconfigured: Option<Duration>,
    },
    FccAuth(Procedure),
}

impl Step {
    pub fn kind(&self) -> StepKind {
        match self {
            Step::Switch(_) => StepKind::Switch,
            Step::Configuration { .. } => StepKind::Configuration,
            Step::FccAuth(_) => StepKind::FccAuth,
        }
    }

    /// The method, the configuration or the procedure, in the notation of `list`.
    pub fn value(&self) -> String {
        match self {
            Step::Switch(switch) => switch.to_string(),
            Step::Configuration { select, fallback: Some(value), .. } => format!("{select} or {value}"),
            Step::Configuration { select, .. } => select.to_string(),
            Step::FccAuth(procedure) => procedure.to_string(),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.kind(), self.value())
    }
}

/// The configuration that a quirk selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The function that the policy prefers.
    Preferred,
    /// What the kernel chose.
    Keep,
    Function(Function),
    /// A `bConfigurationValue`.
    Value(u8),
}

impl fmt::Display for Select {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Select::Preferred => f.write_str("preferred"),
            Select::Keep => f.write_str("keep"),
            Select::Function(function) => f.write_str(function.name()),
            Select::Value(value) => write!(f, "{value}"),
        }
    }
}

/// What to do if a modem needs a reset: report it to the administrator, or reset the modem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NeededReset {
    Report,
    Reset,
}

/// How to unlock a radio.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Procedure {
    /// DMS 0x555F of Sierra modems, under all brands. Needs no secret.
    Sierra,
    /// The radio state in Quectel's MBIM service. Needs no secret.
    Quectel,
    /// Message 0x5571 with a hash over versions, IMEI and this magic string. The service is DMS, where older firmware
    /// accepts the message without the hash, or Foxconn's own FOX or FOXAP.
    Foxconn { service: Service, magic: String },
    /// Challenge and response over AT commands.
    Gtfcclock(Gtfcclock),
    /// Challenge and response in the MBIM service Intel Mutual Authentication. The keys are those of [`Gtfcclock`].
    Intel { oem_strings: Vec<String>, keys: Vec<[u8; 4]> },
    /// Challenge and response over the RPC of Intel's XMM7360, with the same kind of keys.
    Xmm { oem_strings: Vec<String>, keys: Vec<[u8; 4]> },
}

/// `AT+GTFCCLOCKGEN` requests a challenge. `AT+GTFCCLOCKVER` sends the response: a hash over the challenge and a key.
/// The keys are tried in turn: those of the laptop (SMBIOS), then those of `oem_strings`, then `keys`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gtfcclock {
    /// `bInterfaceNumber` of the tty of a USB modem. A PCI modem has an AT port.
    pub interface: Option<u8>,
    /// The byte order of the challenge in the hash, and of the response in the digest.
    pub byte_order: ByteOrder,
    /// The notation of the response.
    pub number: Number,
    /// The command that reads the state of the lock.
    pub state: StateCommand,
    /// A key is the first four bytes of SHA-256 over an OEM string.
    pub oem_strings: Vec<String>,
    /// Keys that are not made from a known OEM string.
    pub keys: Vec<[u8; 4]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ByteOrder {
    #[default]
    BigEndian,
    LittleEndian,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Number {
    #[default]
    Decimal,
    /// `0x` and eight digits.
    Hex,
}

/// How a modem reports the state of its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StateCommand {
    /// `AT+GTFCCEFFSTATUS?`: mode and status.
    #[default]
    Gtfcceffstatus,
    /// `AT+GTFCCLOCKSTATE` of Intel's XMM7560: 0 means locked. On the FM350, the command of this name concerns a
    /// permanent setting.
    Gtfcclockstate,
}

impl Procedure {
    /// The protocols of ports that can carry the procedure. PCI modems have a port for the first one.
    pub fn protocols(&self) -> &'static [Protocol] {
        match self {
            // Over MBIM, the QMI service carries QMI frames.
            Procedure::Sierra | Procedure::Foxconn { .. } => &[Protocol::Mbim, Protocol::Qmi],
            // Over QMI, the procedure can only find out that there is nothing to unlock.
            Procedure::Quectel => &[Protocol::Mbim, Protocol::Qmi],
            Procedure::Gtfcclock(_) => &[Protocol::At],
            Procedure::Intel { .. } => &[Protocol::Mbim],
            Procedure::Xmm { .. } => &[Protocol::XmmRpc],
        }
    }

    /// The protocol of the WWAN port that the procedure uses on a PCI modem. `None` if the procedure is for USB modems.
    pub fn wwan_protocol(&self) -> Option<Protocol> {
        self.protocols().first().copied().filter(|_| *self != Procedure::Sierra && self.interface().is_none())
    }

    /// The `bInterfaceNumber` of the one port to use, if the quirk names it.
    pub fn interface(&self) -> Option<u8> {
        match self {
            Procedure::Gtfcclock(gtfcclock) => gtfcclock.interface,
            _ => None,
        }
    }

    /// The OEM strings whose hashes are keys. `None` if the procedure has no key.
    pub fn oem_strings(&self) -> Option<&[String]> {
        match self {
            Procedure::Gtfcclock(Gtfcclock { oem_strings, .. })
            | Procedure::Intel { oem_strings, .. }
            | Procedure::Xmm { oem_strings, .. } => Some(oem_strings),
            Procedure::Sierra | Procedure::Quectel | Procedure::Foxconn { .. } => None,
        }
    }

    /// The keys that are not made from an OEM string.
    pub(crate) fn keys(&self) -> &[[u8; 4]] {
        match self {
            Procedure::Gtfcclock(Gtfcclock { keys, .. })
            | Procedure::Intel { keys, .. }
            | Procedure::Xmm { keys, .. } => keys,
            Procedure::Sierra | Procedure::Quectel | Procedure::Foxconn { .. } => &[],
        }
    }
}

impl fmt::Display for Procedure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Procedure::Sierra => "sierra",
            Procedure::Quectel => "quectel",
            Procedure::Foxconn { service: Service::FOX, .. } => "fox",
            Procedure::Foxconn { service: Service::FOXAP, .. } => "foxap",
            Procedure::Foxconn { .. } => "foxconn",
            Procedure::Gtfcclock(_) => "gtfcclock",
            Procedure::Intel { .. } => "intel-mutual-authentication",
            Procedure::Xmm { .. } => "xmm-rpc",
        })
    }
}
