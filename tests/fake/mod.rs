//! A root directory with a modem in its sysfs, for tests of the whole program.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// A command that runs the program.
pub(crate) fn program() -> Command {
    command(env!("CARGO_BIN_EXE_wwan-quirks"))
}

/// A command that runs `program`, which was built together with the tests. If this machine cannot run it, the variable
/// `TEST_RUNNER` holds an emulator and its arguments.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let runner = std::env::var("TEST_RUNNER").unwrap_or_default();
    let mut words = runner.split_whitespace().map(OsStr::new).chain([program.as_ref()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

/// A directory for scratch files, in memory if possible: file systems on disks are slow at creating many files just after
/// others were deleted.
fn scratch() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

pub(crate) struct Root(pub PathBuf);

impl Root {
    /// A fresh root that holds the shipped database and policy.
    pub(crate) fn new() -> Root {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wwan-quirks-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = Root(scratch().join(name));
        for directory in [
            "sys/bus/usb/devices",
            "sys/bus/pci/devices",
            "sys/class/usbmisc",
            "sys/class/wwan",
            "run",
            "etc/wwan-quirks/quirks.d",
            "dev",
        ] {
            fs::create_dir_all(root.0.join(directory)).unwrap();
        }
        let shipped = root.0.join("usr/share/wwan-quirks/quirks.d");
        fs::create_dir_all(&shipped).unwrap();
        let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        for entry in fs::read_dir(config.join("quirks.d")).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), shipped.join(entry.file_name())).unwrap();
        }
        for file in ["config.toml", "compositions.toml"] {
            fs::copy(config.join(file), root.0.join("usr/share/wwan-quirks").join(file)).unwrap();
        }
        root
    }

    pub(crate) fn write(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.0.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path.trim_start_matches('/'))).unwrap()
    }

    pub(crate) fn policy(&self, text: &str) {
        self.write("etc/wwan-quirks/config.toml", text);
    }

    /// Plugs a USB device into `port`. Returns its sysfs directory below the root.
    pub(crate) fn plug(&self, port: &str, id: &str, descriptors: &[u8]) -> String {
        let (vendor, product) = id.split_once(':').unwrap();
        let directory = format!("/sys/devices/pci0000:00/usb1/{port}");
        let attribute = |name: &str, text: &str| self.write(&format!("{directory}/{name}"), text);
        attribute("idVendor", &format!("{vendor}\n"));
        attribute("idProduct", &format!("{product}\n"));
        attribute("busnum", "1\n");
        attribute("devnum", "5\n");
        attribute("dev", "189:4\n");
        attribute("manufacturer", "Sierra Wireless, Incorporated\n");
        attribute("product", "MC7710\n");
        attribute("serial", "LF53920000010\n");
        attribute("bNumConfigurations", &format!("{}\n", descriptors.get(17).copied().unwrap_or(1)));
        attribute("bConfigurationValue", "1\n");
        self.write(&format!("{directory}/descriptors"), descriptors);
        symlink(format!("../../../devices/pci0000:00/usb1/{port}"), self.0.join("sys/bus/usb/devices").join(port))
            .unwrap();
        directory
    }

    /// Writes the results of earlier runs on the device that is plugged into `port`.
    pub(crate) fn results(&self, port: &str, fields: &str) {
        let enumeration = fs::metadata(self.0.join("sys/bus/usb/devices").join(port)).unwrap().ino();
        self.write(&format!("run/wwan-quirks/state/{port}"), format!("{{\"enumeration\":{enumeration},{fields}}}"));
    }

    /// Gives the modem on `port` a control port, bound to `driver`.
    pub(crate) fn control_port(&self, port: &str, interface: &str, driver: &str, name: &str) {
        let directory = format!("/sys/devices/pci0000:00/usb1/{port}/{port}:{interface}");
        let number = interface.split_once('.').unwrap().1;
        self.write(&format!("{directory}/bInterfaceNumber"), format!("{:02x}\n", number.parse::<u8>().unwrap()));
        self.write(&format!("{directory}/usbmisc/{name}/dev"), "180:176\n");
        fs::create_dir_all(self.0.join("sys/bus/usb/drivers").join(driver)).unwrap();
        let link = self.0.join(directory.trim_start_matches('/')).join("driver");
        symlink(format!("../../../../../bus/usb/drivers/{driver}"), link).unwrap();
        let class = format!("../../devices/pci0000:00/usb1/{port}/{port}:{interface}/usbmisc/{name}");
        symlink(class, self.0.join("sys/class/usbmisc").join(name)).unwrap();
    }

    /// Gives the modem on `port` a tty, like the one that the option driver creates.
    pub(crate) fn tty(&self, port: &str, interface: &str, name: &str) {
        let directory = format!("/sys/devices/pci0000:00/usb1/{port}/{port}:{interface}");
        let number = interface.split_once('.').unwrap().1;
        self.write(&format!("{directory}/bInterfaceNumber"), format!("{:02x}\n", number.parse::<u8>().unwrap()));
        self.write(&format!("{directory}/{name}/tty/{name}/dev"), "188:1\n");
        fs::create_dir_all(self.0.join("sys/bus/usb/drivers/option")).unwrap();
        let link = self.0.join(directory.trim_start_matches('/')).join("driver");
        symlink("../../../../../bus/usb/drivers/option", link).unwrap();
    }

    /// Puts a PCI function at `address`, behind a root port. `id` is `VVVV:DDDD SVVV:SDDD`. Returns its sysfs directory.
    pub(crate) fn pci(&self, address: &str, id: &str, driver: &str) -> String {
        let domain = address.split(':').next().unwrap();
        let bridge = format!("/sys/devices/pci{domain}:00/{domain}:00:1c.6");
        let directory = format!("{bridge}/{address}");
        let numbers: Vec<&str> = id.split([':', ' ']).collect();
        let names = ["vendor", "device", "subsystem_vendor", "subsystem_device"];
        for (path, numbers) in [(&bridge, &["8086", "9c9a", "0000", "0000"][..]), (&directory, &numbers)] {
            for (name, number) in names.iter().zip(numbers) {
                self.write(&format!("{path}/{name}"), format!("0x{number}\n"));
            }
            let name = path.rsplit('/').next().unwrap();
            let link = self.0.join("sys/bus/pci/devices").join(name);
            let _ = symlink(path.replacen("/sys", "../../..", 1), link);
        }
        if !driver.is_empty() {
            symlink(format!("../../../../bus/pci/drivers/{driver}"), self.0.join(&directory[1..]).join("driver"))
                .unwrap();
        }
        directory
    }

    /// Gives a device a WWAN port `wwan0` + `name`. `parent` is the sysfs directory of the function, or of a device on it.
    /// Returns the DEVPATH of the port.
    pub(crate) fn wwan_port(&self, parent: &str, name: &str) -> String {
        let port = format!("wwan0{name}");
        let directory = format!("{parent}/wwan/wwan0/{port}");
        self.write(
            &format!("{directory}/type"),
            format!("{}\n", name.trim_end_matches(char::is_numeric).to_uppercase()),
        );
        self.write(&format!("{directory}/dev"), "245:1\n");
        symlink(directory.replacen("/sys", "../..", 1), self.0.join("sys/class/wwan").join(port)).unwrap();
        directory.trim_start_matches("/sys").to_owned()
    }

    /// Runs the program on this root.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, &[])
    }

    /// Runs the hook with exactly this environment.
    pub(crate) fn hook(&self, environment: &[(&str, &str)]) -> Ended {
        self.run_with(&["hook"], environment)
    }

    fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ended {
        let mut command = program();
        command.env_clear().envs(environment.iter().copied()).arg("--root").arg(&self.0).args(arguments);
        Ended::from(command.output().unwrap())
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[derive(Debug)]
pub(crate) struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        Ended {
            code: output.status.code().expect("ended by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

pub(crate) fn device(configurations: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![18, 1, 0, 2, 0, 0, 0, 64, 0x99, 0x11, 0xa2, 0x68, 6, 0, 1, 2, 3, configurations.len() as u8];
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

pub(crate) fn interface(number: u8, class: [u8; 3], endpoints: &[(u8, u8)]) -> Vec<u8> {
    let mut bytes = vec![9, 4, number, 0, endpoints.len() as u8, class[0], class[1], class[2], 0];
    for (address, attributes) in endpoints {
        bytes.extend([7, 5, *address, *attributes, 0, 2, 0]);
    }
    bytes
}

/// An MC7710: 1 = QMI on interface 8, 2 = MBIM.
pub(crate) fn mc7710() -> Vec<u8> {
    let control = [(0x81, 3), (0x82, 2), (0x02, 2)];
    let vendor = [0xff, 0xff, 0xff];
    let qmi = [interface(3, vendor, &control), interface(8, vendor, &control)];
    let mbim = [interface(12, [2, 0x0e, 0], &[(0x81, 3)]), interface(13, [10, 0, 2], &[(0x82, 2), (0x02, 2)])];
    device(&[configuration(1, &qmi), configuration(2, &mbim)])
}

/// TRU-Install: mass storage on interface 9, the only one.
pub(crate) fn install_mode() -> Vec<u8> {
    device(&[configuration(1, &[interface(9, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])])])
}

/// A stick with mass storage in its first configurations, and MBIM in the last one.
pub(crate) fn mbim_behind_storage(storages: u8) -> Vec<u8> {
    let storage = [interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])];
    let mbim = [interface(0, [2, 0x0e, 0], &[(0x81, 3)]), interface(1, [10, 0, 2], &[(0x82, 2), (0x02, 2)])];
    let mut configurations: Vec<_> = (1..=storages).map(|value| configuration(value, &storage)).collect();
    configurations.push(configuration(storages + 1, &mbim));
    device(&configurations)
}

/// Two configurations, both with mass storage and without a function of a modem.
pub(crate) fn two_of_storage() -> Vec<u8> {
    let storage = [interface(0, [8, 6, 0x50], &[(0x81, 2), (0x02, 2)])];
    device(&[configuration(1, &storage), configuration(2, &storage)])
}

/// A printer-like interface with an OUT endpoint and no IN endpoint.
pub(crate) fn without_answer() -> Vec<u8> {
    device(&[configuration(1, &[interface(0, [7, 1, 1], &[(0x01, 2)])])])
}
