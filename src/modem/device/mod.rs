//! One USB or PCI device in sysfs.
//!
//! A [`Device`] holds its sysfs directory open. That handle belongs to this device alone: once the device has left the
//! bus, every read and write through the handle fails, even if another device is on the same port. For this reason,
//! the code below never acts on a modem other than the one that it was given.
//!
//! All input here comes from the device or from the environment, and is checked: paths stay below `/sys/devices` and
//! follow no symbolic link, and the size of texts and descriptors is limited.

pub mod descriptors;
mod drives;
mod functions;
mod named;
mod node;
mod ports;
pub mod vendor_interfaces;

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{self, OFlag};
use nix::sys::stat::{Mode, fstat};
use serde::Serialize;

use crate::bus::{Bus, DeviceId, Port};
use crate::host::deadline::Deadline;
use crate::host::root::{Root, read_limited};
use crate::host::sys;
use crate::pci::Subsystem;
use descriptors::{Descriptors, Malformed};
pub(crate) use drives::Drive;
use node::is_number;
pub use node::{ControlPort, DeviceNumber};
pub(crate) use node::{is_cdc_wdm, is_tty, is_wwan_port};

/// A sysfs attribute is at most a page.
const ATTRIBUTE_LIMIT: usize = 4096;
/// Eight configurations of at most 65,535 bytes each: `USB_MAXCONFIG` in the kernel.
const DESCRIPTORS_LIMIT: usize = 18 + 8 * 65_535;

#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("DEVPATH {0:?} is not the path of a device: it must start with /devices and must not contain \"..\"")]
    BadPath(String),
    #[error("DEVPATH {0:?} does not belong to a USB or PCI device")]
    NoDevice(String),
    #[error("the device at {port} is gone")]
    Gone { port: String },
    #[error("a driver held the device, so its attribute {name} could not be read")]
    Held { name: String },
    #[error("cannot read {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("unexpected contents of {path}: {text:?}")]
    Unparsable { path: PathBuf, text: String },
    #[error("the descriptors in {path} are malformed: {source}")]
    Descriptors { path: PathBuf, source: Malformed },
    #[error(
        "{0:?} is not a device: write a port (1-1.2, 0000:08:00.0), an ID (VID:PID, pci:VID:PID), /dev/cdc-wdmN, \
         /dev/wwanNxxxN or /dev/bus/usb/BBB/DDD"
    )]
    NoSuchForm(String),
    #[error("no such device: {0} (`wwan-quirks status` lists the modems)")]
    NotFound(String),
    #[error("no such device: {0} is a USB ID; did you mean {pci}?", pci = .0.on_pci())]
    OnPci(DeviceId),
    #[error("{name} matches more than one modem: name one of the ports {}", .ports.join(", "))]
    Ambiguous { name: String, ports: Vec<String> },
}

/// An interface of the active configuration, with its driver and the device nodes on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BoundInterface {
    #[doc(alias = "bInterfaceNumber")]
    pub number: u8,
    pub driver: Option<String>,
    /// Names of the `usbmisc`, `tty` and `net` devices of this interface.
    pub nodes: Vec<String>,
}

/// An open `bConfigurationValue`, for use where no file can be opened any more.
#[derive(Debug)]
pub(crate) struct ConfigurationValue(File);

impl ConfigurationValue {
    /// Like [`Device::set_configuration`].
    pub(crate) fn set(&self, value: u8) -> io::Result<()> {
        self.0.write_all_at(format!("{value}\n").as_bytes(), 0)
    }

    /// `None` if the device is unconfigured.
    pub(crate) fn get(&self) -> io::Result<Option<u8>> {
        let mut text = [0; 8];
        // sysfs generates the text again for each read at offset 0.
        let length = self.0.read_at(&mut text, 0)?;
        let text = text.get(..length).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or_default();
        Ok(text.trim().parse().ok().filter(|value| *value != 0))
    }
}

pub struct Device {
    pub port: Port,
    pub id: DeviceId,
    /// Used in messages and to find the device again. Reads go through `directory`.
    path: PathBuf,
    directory: OwnedFd,
}

impl Device {
    /// The last USB or PCI device on the path `devpath` (`/devices/…`, as in udev's `DEVPATH`). On such a path, a USB
    /// device comes after its host controller, and a PCI device comes after its bridges.
    ///
    /// # Errors
    /// `BadPath` and `NoDevice` if `devpath` is not such a path, `Gone` if the device has left, and `Unparsable` if its IDs
    /// are not hex digits.
    pub fn at_devpath(root: &Root, devpath: &str) -> Result<Device, DeviceError> {
        let bad = || DeviceError::BadPath(devpath.to_owned());
        let relative = devpath.strip_prefix('/').filter(|path| path.starts_with("devices/")).ok_or_else(bad)?;
        if relative.len() > 4096 || relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(bad());
        }
        let parts: Vec<&str> = relative.split('/').collect();
        let depth = parts.iter().rposition(|part| Port::new(part).is_some());
        let depth = depth.ok_or_else(|| DeviceError::NoDevice(devpath.to_owned()))?;
        let (Some(path), Some(port)) = (parts.get(..=depth), parts.get(depth).and_then(|part| Port::new(part))) else {
            return Err(bad());
        };
        Device::open(root, Path::new(&path.join("/")), port)
    }

    /// All USB and PCI devices on the buses of `root`, in the order of their ports. Devices are opened one at a time: a
    /// machine may have more devices than a process may have open files.
    pub fn all(root: &Root) -> Result<impl Iterator<Item = Device> + '_, DeviceError> {
        let mut ports: Vec<Port> = Vec::new();
        for bus in [Bus::Usb, Bus::Pci] {
            let path = root.at(devices_of(bus));
            match std::fs::read_dir(&path) {
                Ok(entries) => {
                    ports.extend(entries.flatten().filter_map(|entry| Port::new(entry.file_name().to_str()?)));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(DeviceError::Io { path, source }),
            }
        }
        ports.sort_unstable();
        // A device that has left in the meantime, or that cannot be read, is skipped.
        Ok(ports.into_iter().filter_map(|port| Device::at_port(root, port).ok()))
    }

    /// The device on `port`.
    ///
    /// # Errors
    /// `NotFound` if no device is on the port. Otherwise, those of [`at_devpath`](Self::at_devpath).
    pub fn at_port(root: &Root, port: Port) -> Result<Device, DeviceError> {
        let link = root.at(devices_of(port.bus())).join(port.as_str());
        let sys = root.at("/sys").canonicalize();
        let real = link.canonicalize().and_then(|real| Ok((real, sys?)));
        let (real, sys) = real.map_err(|_| DeviceError::NotFound(port.to_string()))?;
        let relative = real.strip_prefix(&sys).map_err(|_| DeviceError::BadPath(real.display().to_string()))?;
        Device::open(root, relative, port)
    }

    fn open(root: &Root, relative: &Path, port: Port) -> Result<Device, DeviceError> {
        let sys = root.at("/sys");
        let path = sys.join(relative);
        let top = File::open(&sys).map_err(|source| DeviceError::Io { path: sys, source })?;
        // Opens one path component at a time. openat2 could open the whole path at once, but udevd's sandbox refuses
        // it: RestrictSUIDSGID makes it fail with ENOSYS.
        let mut directory = OwnedFd::from(top);
        for name in relative {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            directory = match fcntl::openat(&directory, name, flags, Mode::empty()) {
                Ok(directory) => directory,
                Err(nix::Error::ENOENT | nix::Error::ENODEV) => {
                    return Err(DeviceError::Gone { port: port.to_string() });
                }
                Err(error) => return Err(DeviceError::Io { path, source: error.into() }),
            };
        }
        let bus = port.bus();
        let mut device = Device { port, id: DeviceId { bus, vendor: 0, product: 0 }, path, directory };
        device.id.vendor = device.hex(device.vendor_attribute())?;
        device.id.product = device.hex(if bus == Bus::Pci { "device" } else { "idProduct" })?;
        Ok(device)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this device is still on the bus.
    pub(crate) fn is_present(&self) -> bool {
        self.attribute(self.vendor_attribute()).is_ok()
    }

    /// An attribute that every device of this bus has until it leaves.
    fn vendor_attribute(&self) -> &'static str {
        match self.id.bus {
            Bus::Usb => "idVendor",
            Bus::Pci => "vendor",
        }
    }

    /// The serial number. For a PCI modem, the one that its MHI controller has read.
    pub fn serial(&self) -> Option<String> {
        if self.id.bus == Bus::Usb {
            return self.attribute("serial").ok();
        }
        let controller = self.mhi_controller()?;
        let text = self.attribute(&format!("{controller}/serial_number")).ok()?;
        Some(text.strip_prefix("Serial Number:").unwrap_or(&text).trim().to_owned())
    }

    /// Like [`serial`](Self::serial), but does not wait beyond the deadline.
    ///
    /// # Errors
    /// [`DeviceError::Held`]. [`DeviceError::Gone`] if the device has left.
    pub(crate) fn serial_by(&self, deadline: Deadline) -> Result<Option<String>, DeviceError> {
        let serial = match self.id.bus {
            Bus::Usb => self.attribute_by("serial", deadline)?,
            Bus::Pci => self.serial(),
        };
        // Many devices have no serial number. A device that has left has none either.
        if serial.is_none() && !self.is_present() { Err(self.gone()) } else { Ok(serial) }
    }

    /// Like [`attribute`](Self::attribute), but does not wait beyond the deadline. `None` if the device has no such
    /// attribute, or has left.
    ///
    /// # Errors
    /// [`DeviceError::Held`] if a driver has held the device's lock until the deadline.
    pub(crate) fn attribute_by(&self, name: &str, deadline: Deadline) -> Result<Option<String>, DeviceError> {
        // A string descriptor has up to 126 characters, and the kernel writes up to three bytes for each.
        let mut text = [0; 512];
        let read = sys::interrupted_at(deadline, || {
            let file = self.open_file(Path::new(name), OFlag::O_RDONLY)?;
            nix::unistd::read(file, &mut text)
        });
        match read {
            Ok(length) => {
                Ok(text.get(..length).map(|text| String::from_utf8_lossy(text).trim_end_matches('\n').to_owned()))
            }
            Err(nix::Error::EINTR) => Err(DeviceError::Held { name: name.to_owned() }),
            Err(_) => Ok(None),
        }
    }

    fn gone(&self) -> DeviceError {
        DeviceError::Gone { port: self.port.to_string() }
    }

    /// The subsystem IDs of a PCI device.
    pub fn subsystem(&self) -> Option<Subsystem> {
        let read = |name| self.hex(name).ok();
        Some(Subsystem { vendor: read("subsystem_vendor")?, device: Some(read("subsystem_device")?) })
    }

    /// A text attribute without its trailing newline. Bytes that are not UTF-8 are replaced.
    ///
    /// `manufacturer`, `product`, `serial` and `bConfigurationValue` take the device's lock in the kernel, and may
    /// block for seconds while a driver probes. `idVendor`, `idProduct`, `busnum`, `devnum`, `dev` and `descriptors` do
    /// not (Linux `drivers/usb/core/sysfs.c`).
    ///
    /// # Errors
    /// `Gone` if the device has left, `Io` if it has no such attribute, or the attribute cannot be read.
    pub fn attribute(&self, name: &str) -> Result<String, DeviceError> {
        let bytes = self.read(Path::new(name), ATTRIBUTE_LIMIT)?;
        Ok(String::from_utf8_lossy(&bytes).trim_end_matches('\n').to_owned())
    }

    pub fn descriptors(&self) -> Result<Descriptors, DeviceError> {
        let bytes = self.raw_descriptors()?;
        descriptors::parse(&bytes)
            .map_err(|source| DeviceError::Descriptors { path: self.path.join("descriptors"), source })
    }

    pub(crate) fn raw_descriptors(&self) -> Result<Vec<u8>, DeviceError> {
        self.read(Path::new("descriptors"), DESCRIPTORS_LIMIT)
    }

    /// The active configuration. `None` if the device is unconfigured.
    ///
    /// # Errors
    /// Those of [`attribute`](Self::attribute), and `Unparsable` if the attribute is not a number.
    #[doc(alias = "bConfigurationValue")]
    pub fn configuration(&self) -> Result<Option<u8>, DeviceError> {
        if self.id.bus == Bus::Pci {
            return Ok(None);
        }
        self.parse_configuration(&self.attribute("bConfigurationValue")?)
    }

    /// Like [`configuration`](Self::configuration), but does not wait beyond the deadline.
    ///
    /// # Errors
    /// Those of `configuration`, and [`DeviceError::Held`].
    pub(crate) fn configuration_by(&self, deadline: Deadline) -> Result<Option<u8>, DeviceError> {
        if self.id.bus == Bus::Pci {
            return Ok(None);
        }
        let text = self.attribute_by("bConfigurationValue", deadline)?.ok_or_else(|| self.gone())?;
        self.parse_configuration(&text)
    }

    fn parse_configuration(&self, text: &str) -> Result<Option<u8>, DeviceError> {
        match text.trim() {
            "" | "0" => Ok(None),
            value => value.parse().map(Some).map_err(|_| self.unparsable("bConfigurationValue", value)),
        }
    }

    /// Writes `bConfigurationValue`. The write returns after the kernel has unbound the drivers, sent SET_CONFIGURATION
    /// (up to 5 s), and bound the new drivers. If a driver waits for a modem that does not answer, that takes tens of seconds.
    pub(crate) fn set_configuration(&self, value: u8) -> nix::Result<()> {
        let file = self.open_file(Path::new("bConfigurationValue"), OFlag::O_WRONLY)?;
        nix::unistd::write(file, format!("{value}\n").as_bytes()).map(drop)
    }

    /// Opens `bConfigurationValue` for later reads and writes.
    pub(crate) fn configuration_value(&self) -> io::Result<ConfigurationValue> {
        Ok(ConfigurationValue(self.open_file(Path::new("bConfigurationValue"), OFlag::O_RDWR)?))
    }

    /// Opens `authorized` for writing. 0 unconfigures the device and unbinds its drivers. 1 lets the kernel choose a
    /// configuration again.
    pub fn open_authorized(&self) -> io::Result<File> {
        Ok(self.open_file(Path::new("authorized"), OFlag::O_WRONLY)?)
    }

    /// Identifies this enumeration of the device: the inode number of its sysfs directory, which sysfs does not reuse. A
    /// PCI modem that crashes or loses power stays on the bus, but the kernel creates its WWAN ports again (t7xx), or the
    /// whole WWAN device (MHI). For this reason, its oldest port identifies it: inode numbers increase.
    #[allow(clippy::unnecessary_cast, reason = "an inode number has 32 bits on 32-bit ARM")]
    pub(crate) fn enumeration_id(&self) -> u64 {
        let of = |path: &Path| self.open_directory(path).and_then(fstat).map(|status| status.st_ino as u64);
        let Some(wwan) = self.wwan_directory() else {
            return fstat(&self.directory).map_or(0, |status| status.st_ino as u64);
        };
        let ports = self.list(&wwan).unwrap_or_default().into_iter().filter(|name| name.starts_with("wwan"));
        let oldest = ports.filter_map(|port| of(&wwan.join(port)).ok()).min();
        oldest.or_else(|| of(&wwan).ok()).unwrap_or(0)
    }

    /// Whether the kernel is allowed to use the device. USBGuard or `usbcore.authorized_default=0` can forbid that.
    pub(crate) fn is_authorized(&self) -> bool {
        !self.attribute("authorized").is_ok_and(|value| value == "0")
    }

    /// How long the device has been connected, without the time in suspend: the kernel counts jiffies. `None` if the
    /// kernel does not keep track of that (`CONFIG_PM`).
    pub(crate) fn connected_for(&self) -> Option<Duration> {
        self.attribute("power/connected_duration").ok()?.parse().ok().map(Duration::from_millis)
    }

    /// `devnum`: the number of the device on its bus, from 1 to 127.
    pub(crate) fn bus_number(&self) -> Option<u16> {
        self.decimal("devnum").ok()
    }

    /// A network interface of the modem that is up (`IFF_UP` of linux/if.h).
    pub(crate) fn network_interface_up(&self) -> Result<Option<String>, DeviceError> {
        for interface in self.interface_directories()? {
            for name in self.list(&Path::new(&interface).join("net")).unwrap_or_default() {
                let flags = self.attribute(&format!("{interface}/net/{name}/flags")).unwrap_or_default();
                if u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 != 0) {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    /// The device's node under `/dev/bus/usb`, and the device number that the node must have.
    pub fn node(&self, root: &Root) -> Result<(PathBuf, DeviceNumber), DeviceError> {
        let name = format!("/dev/bus/usb/{:03}/{:03}", self.decimal("busnum")?, self.decimal("devnum")?);
        Ok((root.at(name), self.number("dev")?))
    }

    /// The interfaces of the active configuration. A PCI device has none.
    ///
    /// # Errors
    /// Those of [`attribute`](Self::attribute), and `Unparsable` if the number of an interface is not hex digits.
    pub fn interfaces(&self) -> Result<Vec<BoundInterface>, DeviceError> {
        if self.id.bus == Bus::Pci {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for name in self.interface_directories()? {
            let directory = Path::new(&name);
            let number = self.attribute(&format!("{name}/bInterfaceNumber"));
            let Some(number) = unless_missing(number)? else { continue };
            let number = u8::from_str_radix(&number, 16).map_err(|_| self.unparsable("bInterfaceNumber", &number))?;
            let mut nodes = Vec::new();
            for class in ["usbmisc", "net", "tty"] {
                nodes.extend(self.list(&directory.join(class)).unwrap_or_default());
            }
            // The directory of a usb-serial port (`ttyUSB0`) is next to the directories of the classes.
            nodes.extend(self.list(directory)?.into_iter().filter(|name| name.starts_with("tty") && name != "tty"));
            nodes.sort_unstable();
            found.push(BoundInterface { number, driver: self.driver(directory), nodes });
        }
        found.sort_unstable_by_key(|interface| interface.number);
        Ok(found)
    }

    /// The kernel's WWAN device on a PCI device, `wwan/wwan0`. The driver for MHI modems has a controller in between:
    /// `mhi0/wwan/wwan0`.
    fn wwan_directory(&self) -> Option<PathBuf> {
        let is_pci = self.id.bus == Bus::Pci;
        let controller = is_pci.then(|| self.mhi_controller())?.map(PathBuf::from);
        controller.into_iter().chain([PathBuf::new()]).find_map(|parent| {
            let class = parent.join("wwan");
            let names = self.list(&class).ok()?;
            names.into_iter().find(|name| name.strip_prefix("wwan").is_some_and(is_number)).map(|name| class.join(name))
        })
    }

    /// The MHI controller of a PCI modem, `mhi0`.
    fn mhi_controller(&self) -> Option<String> {
        let names = self.list(Path::new("")).ok()?;
        names.into_iter().find(|name| name.strip_prefix("mhi").is_some_and(is_number))
    }

    /// The MHI channels that the modem offers: `MBIM`, `DUN`, `IP_HW0_MBIM`. Until the firmware runs, there are only
    /// the channels of its loader, or none.
    pub(crate) fn mhi_channels(&self) -> Vec<String> {
        let Some(controller) = self.mhi_controller() else { return Vec::new() };
        let prefix = format!("{controller}_");
        let names = self.list(Path::new(&controller)).unwrap_or_default();
        let mut channels: Vec<String> =
            names.iter().filter_map(|name| name.strip_prefix(&prefix)).map(str::to_owned).collect();
        channels.sort_unstable();
        channels
    }

    /// The driver that is bound to the device itself, not to an interface.
    pub(crate) fn bound_driver(&self) -> Option<String> {
        self.driver(Path::new(""))
    }

    /// The directories of the interfaces of the active configuration, such as `1-1:1.0`.
    fn interface_directories(&self) -> Result<impl Iterator<Item = String>, DeviceError> {
        let prefix = format!("{}:", self.port);
        Ok(self.list(Path::new(""))?.into_iter().filter(move |name| name.starts_with(&prefix)))
    }

    fn driver(&self, directory: &Path) -> Option<String> {
        let target = fcntl::readlinkat(&self.directory, &directory.join("driver")).ok()?;
        Path::new(&target).file_name()?.to_str().map(str::to_owned)
    }

    fn open_file(&self, name: &Path, access: OFlag) -> nix::Result<File> {
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        fcntl::openat(&self.directory, name, flags, Mode::empty()).map(File::from)
    }

    fn open_directory(&self, directory: &Path) -> nix::Result<OwnedFd> {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        fcntl::openat(&self.directory, directory, flags, Mode::empty())
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>, DeviceError> {
        // On a 64-bit kernel, inode numbers of sysfs have 64 bits, and readdir(3) of a 32-bit C library may fail.
        let mut names = Vec::new();
        self.open_directory(directory)
            .and_then(|opened| {
                sys::for_each_name(opened.as_fd(), |padded| {
                    let name = CStr::from_bytes_until_nul(padded).ok().and_then(|name| name.to_str().ok());
                    names.extend(name.filter(|name| *name != "." && *name != "..").map(str::to_owned));
                })
            })
            .map_err(|error| self.error(directory, error.into()))?;
        Ok(names)
    }

    fn read(&self, name: &Path, limit: usize) -> Result<Vec<u8>, DeviceError> {
        debug_assert!(name.components().all(|part| matches!(part, Component::Normal(_))));
        self.open_file(name, OFlag::O_RDONLY)
            .map_err(io::Error::from)
            .and_then(|file| read_limited(file, limit))
            .map_err(|error| self.error(name, error))
    }

    fn error(&self, name: &Path, source: io::Error) -> DeviceError {
        match source.raw_os_error().map(nix::Error::from_raw) {
            Some(nix::Error::ENODEV) => self.gone(),
            // A removed directory has no entries. If the ID still exists, only this attribute is missing.
            Some(nix::Error::ENOENT) if name == Path::new(self.vendor_attribute()) || !self.is_present() => self.gone(),
            _ => DeviceError::Io { path: self.path.join(name), source },
        }
    }

    fn unparsable(&self, name: &str, text: &str) -> DeviceError {
        DeviceError::Unparsable { path: self.path.join(name), text: text.to_owned() }
    }

    fn hex(&self, name: &str) -> Result<u16, DeviceError> {
        let text = self.attribute(name)?;
        // PCI has `0x1eac`, USB has `1199`.
        u16::from_str_radix(text.strip_prefix("0x").unwrap_or(&text), 16).map_err(|_| self.unparsable(name, &text))
    }

    fn decimal(&self, name: &str) -> Result<u16, DeviceError> {
        let text = self.attribute(name)?;
        text.parse().map_err(|_| self.unparsable(name, &text))
    }

    fn number(&self, name: &str) -> Result<DeviceNumber, DeviceError> {
        let text = self.attribute(name)?;
        DeviceNumber::parse(&text).ok_or_else(|| self.unparsable(name, &text))
    }
}

/// `None` if the device is present, and only this attribute is missing. The kernel creates the directory of a port or of an
/// interface first, then its attributes, and then sends its event (Linux `drivers/base/core.c`, `device_add`).
fn unless_missing<T>(found: Result<T, DeviceError>) -> Result<Option<T>, DeviceError> {
    match found {
        Err(DeviceError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

fn devices_of(bus: Bus) -> &'static str {
    match bus {
        Bus::Usb => "/sys/bus/usb/devices",
        Bus::Pci => "/sys/bus/pci/devices",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;
    use std::fs;
    use std::os::unix::fs::symlink;

    impl Device {
        /// The USB device `vendor:product` on port 1-1 of an empty root. It has already left. `name` names the test.
        pub(crate) fn that_left(name: &str, vendor: &str, product: &str) -> (Root, Device) {
            let root = TempRoot::new(name);
            let device = Device::on_port(&root, vendor, product);
            (Root::clone(&root), device)
        }

        /// The USB device `vendor:product` on port 1-1, without other attributes.
        pub(crate) fn on_port(root: &TempRoot, vendor: &str, product: &str) -> Device {
            for (name, id) in [("idVendor", vendor), ("idProduct", product)] {
                root.write(&format!("/sys/devices/usb1/1-1/{name}"), format!("{id}\n"));
            }
            Device::at_devpath(root, "/devices/usb1/1-1").unwrap()
        }
    }

    fn plug(root: &TempRoot, vendor: &str) {
        for (name, text) in [
            ("idVendor", vendor),
            ("idProduct", "9071"),
            ("busnum", "1"),
            ("devnum", "7"),
            ("dev", "189:6"),
            ("bConfigurationValue", "1"),
        ] {
            root.write(&format!("/sys/devices/usb1/1-1/{name}"), format!("{text}\n"));
        }
    }

    #[test]
    fn a_device_that_took_its_place_is_not_touched() {
        let root = TempRoot::new("swapped");
        plug(&root, "1199");
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        let attribute = device.configuration_value().unwrap();
        assert!(device.is_present() && device.node(&root).is_ok());
        fs::remove_dir_all(root.at("/sys/devices/usb1/1-1")).unwrap();
        plug(&root, "12d1");
        assert!(!device.is_present());
        assert!(device.node(&root).is_err());
        assert!(device.set_configuration(2).is_err());
        assert!(matches!(device.descriptors(), Err(DeviceError::Gone { .. })));
        assert!(matches!(device.configuration(), Err(DeviceError::Gone { .. })));
        let _ = attribute.set(3);
        let now = fs::read_to_string(root.at("/sys/devices/usb1/1-1/bConfigurationValue")).unwrap();
        assert_eq!(now, "1\n");
    }

    #[test]
    fn descriptors_that_are_larger_than_the_kernel_keeps_are_an_error() {
        let root = TempRoot::new("large");
        plug(&root, "1199");
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        for (bytes, is_read) in [(DESCRIPTORS_LIMIT, true), (DESCRIPTORS_LIMIT + 1, false)] {
            root.write("/sys/devices/usb1/1-1/descriptors", vec![0; bytes]);
            assert_eq!(device.raw_descriptors().is_ok(), is_read, "{bytes}");
        }
    }

    #[test]
    fn no_symlink_in_the_path_to_a_device_is_followed() {
        let root = TempRoot::new("linked");
        plug(&root, "1199");
        let link = root.at("/sys/devices/usb2");
        symlink("usb1", &link).unwrap();
        assert!(Device::at_devpath(&root, "/devices/usb1/1-1").is_ok());
        assert!(matches!(Device::at_devpath(&root, "/devices/usb2/1-1"), Err(DeviceError::Io { .. })));
        let attribute = root.at("/sys/devices/usb1/1-1/bConfigurationValue");
        fs::rename(&attribute, root.at("/another")).unwrap();
        symlink(root.at("/another"), &attribute).unwrap();
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        assert!(device.set_configuration(2).is_err());
        assert!(device.configuration_value().is_err());
        assert_eq!(fs::read_to_string(root.at("/another")).unwrap(), "1\n");
    }
}
