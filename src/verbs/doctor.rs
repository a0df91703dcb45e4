//! `doctor`: what on this system stands in the way of a modem, and the cure of each.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::Serialize;
use serde_json::json;

use crate::database::layers::Layer;
use crate::database::policy::Policy;
use crate::database::quirks::{self, Quirk, Step};
use crate::database::udev_rules;
use crate::host::journal::printable;
use crate::host::paths;
use crate::host::root::{Root, read_limited};
use crate::modem::device::Device;
use crate::serve::error::{Error, Exit};
use crate::serve::lookup::lookup;
use crate::usb::UsbId;
use crate::verbs::output::print_json;

/// Rules files and the like are well below.
const LIMIT: usize = 4 << 20;
const RELOAD: &str = "udevadm control --reload";
const NEW_RULES: &str =
    "wwan-quirks rules >/etc/udev/rules.d/86-wwan-quirks-local.rules && udevadm control --reload && udevadm trigger";

/// Where systemd looks for units.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Something that stands in the way.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    #[serde(rename = "problem")]
    finding: String,
    /// A command, where one does it.
    #[serde(rename = "remedy")]
    cure: String,
}

/// What was looked at: what is wrong, and what could not be seen.
#[derive(Debug, Default)]
struct Looked {
    findings: Vec<Finding>,
    unseen: Vec<String>,
}

impl Looked {
    fn found(&mut self, finding: impl Into<String>, cure: impl Into<String>) {
        self.findings.push(Finding { finding: finding.into(), cure: cure.into() });
    }

    /// The text of a file; none where it is not there, or cannot be read, which is told.
    fn read(&mut self, root: &Root, path: &str) -> Option<String> {
        let read = File::open(root.at(path)).and_then(|file| read_limited(file, LIMIT));
        match read {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                self.unseen(path, &error);
                None
            }
        }
    }

    fn unseen(&mut self, path: &str, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            self.unseen.push(format!("{path}: {error}"));
        }
    }

    /// The rules file of this name that counts for udev, with its path.
    fn rules(&mut self, root: &Root, name: &str) -> Option<(String, String)> {
        self.layered(root, &["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"], &format!("udev/rules.d/{name}"))
    }

    /// The file `name` of the first of `directories` that has it, with its path; none where it is masked.
    fn layered(&mut self, root: &Root, directories: &[&str], name: &str) -> Option<(String, String)> {
        let path = directories
            .iter()
            .map(|directory| format!("{directory}/{name}"))
            .find(|path| fs::symlink_metadata(root.at(path)).is_ok())?;
        // A link to /dev/null masks.
        if fs::read_link(root.at(&path)).is_ok_and(|target| target == Path::new("/dev/null")) {
            return None;
        }
        Some((self.read(root, &path)?, path))
    }
}

/// Prints what stands in the way; [`Exit::Failed`] where something does.
pub fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut looked = Looked::default();
    let (quirks, errors) = quirks::all(root);
    let (_, policy_errors) = Policy::load(root);
    if errors.is_empty() {
        database(root, &quirks, &mut looked);
    }
    for error in errors.into_iter().map(Error::from).chain(policy_errors.into_iter().map(Error::from)) {
        looked.found(error.chain().lines().next().unwrap_or_default(), "`wwan-quirks check` shows the place");
    }
    own_rules(root, &quirks, &mut looked);
    own_unit(root, &mut looked);
    permissions(root, &mut looked);
    other_switchers(root, &quirks, &mut looked);
    kernel(root, &mut looked);
    modem_manager(root, &quirks, &mut looked);
    modems(root, &mut looked);
    selinux(root, &mut looked);

    let Looked { findings, unseen } = looked;
    if json {
        print_json(out, "doctor", &json!({ "problems": findings, "unreadable": unseen }))?;
    } else {
        for Finding { finding, cure } in &findings {
            writeln!(out, "{}\n  cure: {}", printable(finding), printable(cure))?;
        }
        for path in &unseen {
            writeln!(out, "not seen: {}", printable(path))?;
        }
        if findings.is_empty() {
            writeln!(out, "nothing stands in the way")?;
        }
    }
    Ok(if findings.is_empty() { Exit::Fine } else { Exit::Failed })
}

/// Whether there is a database.
fn database(root: &Root, quirks: &[Quirk], looked: &mut Looked) {
    let shipped = paths::data(root).join("quirks.d");
    let cause = match (root.at(&shipped).is_dir(), quirks.is_empty()) {
        (true, false) => return,
        (true, true) => format!("the database is empty: no file in {} has a quirk", shipped.display()),
        (false, _) => format!("the database is missing: there is no {}", shipped.display()),
    };
    looked.found(
        cause,
        format!("install the package again; the program of this database is {}", paths::program(root).display()),
    );
}

/// Whether udev calls us for all that the database knows.
fn own_rules(root: &Root, quirks: &[Quirk], looked: &mut Looked) {
    let files: Vec<(String, String)> =
        udev_rules::FILES.into_iter().filter_map(|name| looked.rules(root, name)).collect();
    let Some((text, path)) = files.first() else {
        let name = udev_rules::FILES[0];
        let finding = format!("udev has no rules of wwan-quirks: no {name} counts");
        return match own_file(root, &format!("udev/rules.d/{name}")) {
            Some(unread) => {
                looked.found(finding, format!("ln -sf {unread} /etc/udev/rules.d/ && {RELOAD} && udevadm trigger"))
            }
            None => looked.found(finding, NEW_RULES),
        };
    };
    let all: String = files.iter().map(|(text, _)| text.as_str()).collect();
    let ruled = udev_rules::RuledIds::read(&all);
    for quirk in quirks {
        for id in quirk.ids.iter().filter(|id| !ruled.covers(quirk, **id)) {
            let by = if quirk.location.layer == Layer::Administrator { "the administrator's" } else { "a" };
            let finding = format!("no rule in {path} calls wwan-quirks for {id}, {by} quirk in {}", quirk.location);
            looked.found(finding, NEW_RULES);
        }
    }
    let program = text.split("IMPORT{program}=\"").nth(1).and_then(|run| run.split([' ', '"']).next());
    if let Some(program) = program.filter(|program| !root.at(program).exists()) {
        looked.found(format!("{path} runs {program}, which is not there"), "install the package again");
    }
}

/// Whether systemd can continue with a modem that answers late.
fn own_unit(root: &Root, looked: &mut Looked) {
    let unit = "wwan-quirks@.service";
    if !root.at("/run/systemd/system").is_dir() || UNITS.iter().any(|folder| root.at(folder).join(unit).exists()) {
        return;
    }
    let cure = match own_file(root, &format!("systemd/system/{unit}")) {
        Some(unread) => format!("systemctl link {unread}"),
        None => "install the package again".to_owned(),
    };
    looked.found(format!("systemd has no {unit}: a modem that answers late stays locked"), cure);
}

/// The path of a file in this installation's `lib`, which udev and systemd do not read below every prefix.
fn own_file(root: &Root, name: &str) -> Option<String> {
    let path = paths::program(root).parent()?.parent()?.join("lib").join(name);
    root.at(&path).is_file().then(|| path.display().to_string())
}

/// What others than root could put another in place of. Files of the database and the policy are told as invalid.
fn permissions(root: &Root, looked: &mut Looked) {
    let rules: Vec<String> =
        udev_rules::FILES.into_iter().filter_map(|name| Some(looked.rules(root, name)?.1)).collect();
    let program = paths::program(root).display().to_string();
    let state = ["/run/wwan-quirks", "/run/wwan-quirks/state"].map(str::to_owned);
    for path in state.into_iter().chain([program]).chain(rules) {
        let Ok(metadata) = fs::metadata(root.at(&path)) else { continue };
        let foreign = root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o020 != 0);
        if foreign || metadata.mode() & 0o002 != 0 {
            looked.found(
                format!("others than root may write {path}"),
                format!("chown root: {path} && chmod go-w {path}"),
            );
        }
    }
}

/// Programs that switch the same devices.
fn other_switchers(root: &Root, quirks: &[Quirk], looked: &mut Looked) {
    let switched: BTreeSet<UsbId> = quirks
        .iter()
        .filter(|quirk| quirk.steps.iter().any(|step| matches!(step, Step::Switch(_))))
        .flat_map(|quirk| quirk.ids.iter().copied())
        .collect();
    // What tells usb_modeswitch's unit to leave alone what we serve.
    let told = looked.layered(root, &UNITS, "usb_modeswitch@.service.d/wwan-quirks.conf").is_some();
    if let Some((text, path)) = looked.rules(root, "40-usb_modeswitch.rules").filter(|_| !told) {
        let shared = text.lines().filter_map(ruled_id).filter(|id| switched.contains(id)).count();
        if shared > 0 {
            looked.found(
                format!("usb_modeswitch switches {shared} of the same IDs, by {path}"),
                format!("ln -s /dev/null /etc/udev/rules.d/40-usb_modeswitch.rules && {RELOAD}"),
            );
        }
    }
    let usbmode = ["/etc/hotplug.d/usb/20-usb_mode", "/etc/init.d/usbmode"];
    if let Some(path) = usbmode.into_iter().find(|path| root.at(path).exists()) {
        looked.found(format!("usbmode switches the same devices, by {path}"), "opkg remove usb-modeswitch");
    }
}

/// The ID that a line of usb_modeswitch's rules compares with.
fn ruled_id(line: &str) -> Option<UsbId> {
    let value = |key: &str| line.split_once(key)?.1.split_once("==\"")?.1.split('"').next();
    format!("{}:{}", value("{idVendor}")?, value("{idProduct}")?).parse().ok()
}

/// What the kernel itself does, or cannot do.
fn kernel(root: &Root, looked: &mut Looked) {
    // 1 "full logic", 2 keeps the CD-ROM, 3 always switches (Linux drivers/usb/storage/sierra_ms.c).
    let parameter = "/sys/module/usb_storage/parameters/swi_tru_install";
    if looked.read(root, parameter).is_some_and(|value| value.trim() == "2") {
        looked.found(
            format!("usb-storage is told to keep Sierra's modems in install mode ({parameter} is 2)"),
            "remove swi_tru_install=2 from /etc/modprobe.d and the kernel's command line, then reboot",
        );
    }
    let Some(release) = looked.read(root, "/proc/sys/kernel/osrelease") else { return };
    let folder = format!("/lib/modules/{}", release.trim());
    let lists: Vec<String> = ["modules.dep", "modules.builtin"]
        .iter()
        .filter_map(|list| looked.read(root, &format!("{folder}/{list}")))
        .collect();
    if lists.is_empty() {
        return;
    }
    for driver in ["qmi_wwan", "cdc_mbim", "cdc_wdm", "option", "qcserial"] {
        let (file, other) = (format!("/{driver}.ko"), format!("/{}.ko", driver.replace('_', "-")));
        if !lists.iter().any(|list| list.contains(&file) || list.contains(&other)) {
            looked.found(
                format!("this kernel has no {driver}, which modems need ({folder})"),
                format!("install the package with the kernel's modules, or build it with {driver}"),
            );
        }
    }
}

/// ModemManager's own unlocking, which is for the administrator to link.
fn modem_manager(root: &Root, quirks: &[Quirk], looked: &mut Looked) {
    let (policy, _) = Policy::load(root);
    let unlocked: BTreeSet<UsbId> = quirks
        .iter()
        .filter(|quirk| quirk.steps.iter().any(|step| matches!(step, Step::FccAuth(_))))
        .flat_map(|quirk| quirk.ids.iter().copied())
        .filter(|id| policy.resolve(*id, None, || None).fcc_auth.value)
        .collect();
    let folder = "/etc/ModemManager/fcc-unlock.d";
    let entries = match fs::read_dir(root.at(folder)) {
        Ok(entries) => entries,
        Err(error) => return looked.unseen(folder, &error),
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    for name in names {
        let whole = name.parse::<UsbId>().is_ok_and(|id| unlocked.contains(&id));
        let vendor = name.len() == 4
            && u16::from_str_radix(&name, 16).is_ok_and(|vendor| unlocked.iter().any(|id| id.vendor == vendor));
        if whole || vendor {
            looked.found(
                format!("ModemManager unlocks {name} as well, by {folder}/{name}: one of the two is enough"),
                format!("rm {folder}/{name}"),
            );
        }
    }
}

/// What is plugged in, and cannot work as it stands.
fn modems(root: &Root, looked: &mut Looked) {
    let devices = match Device::all(root) {
        Ok(devices) => devices,
        Err(error) => return looked.unseen.push(Error::from(error).chain()),
    };
    for device in devices {
        // What is wrong with the database has been told.
        let (Some(known), _) = lookup(root, &device) else { continue };
        let (port, name) = (&device.port, &known.quirk.name);
        if device.attribute("authorized").is_ok_and(|authorized| authorized == "0") {
            looked.found(
                format!("the kernel may not use the modem on {port}, {name}: it is not authorized (USBGuard?)"),
                format!("echo 1 >/sys/bus/usb/devices/{port}/authorized, or `usbguard allow-device`"),
            );
        } else if device.interfaces().is_ok_and(|all| !all.is_empty() && all.iter().all(|one| one.driver.is_none())) {
            looked.found(
                format!("no driver took any interface of the modem on {port}, {name}"),
                "modprobe -a qmi_wwan cdc_mbim option qcserial usb-storage",
            );
        }
    }
}

/// What SELinux kept us from, where it is on and its log may be read.
fn selinux(root: &Root, looked: &mut Looked) {
    if looked.read(root, "/sys/fs/selinux/enforce").is_none_or(|enforce| enforce.trim() != "1") {
        return;
    }
    let log = looked.read(root, "/var/log/audit/audit.log").unwrap_or_default();
    let denied = |line: &&str| line.contains("avc:  denied") && line.contains("comm=\"wwan-quirks\"");
    let count = log.lines().filter(denied).count();
    if count > 0 {
        looked.found(
            format!("SELinux has denied wwan-quirks {count} calls (/var/log/audit/audit.log)"),
            "ausearch -c wwan-quirks --raw | audit2allow -M wwan-quirks && semodule -i wwan-quirks.pp",
        );
    }
}
