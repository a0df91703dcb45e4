//! `doctor`: problems on this system that keep modems from working, each with its remedy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::iter;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::geteuid;
use serde::Serialize;

use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::LoadError;
use crate::database::layers::{FileError, UNMASK};
use crate::database::load;
use crate::database::policy::Policy;
use crate::database::quirks::{NewId, Procedure, Quirk, Step};
use crate::database::udev_rules;
use crate::host::journal::printable;
use crate::host::paths;
use crate::host::root::Root;
use crate::modem::device::{BoundInterface, Device};
use crate::modem::transport::Protocol;
use crate::serve::error::{Error, Exit};
use crate::serve::lookup::lookup;
use crate::verbs::check::problems;
use crate::verbs::output::print_json;

/// Bytes. Rules files are shorter, and auditd rotates its log at 8 MB.
const LIMIT: usize = 16 << 20;
const RELOAD: &str = "udevadm control --reload";
/// `check` fails before the shell truncates the file.
const NEW_RULES: &str = "wwan-quirks check && wwan-quirks rules >/etc/udev/rules.d/86-wwan-quirks-local.rules && \
                         udevadm control --reload && udevadm trigger";
/// Replaces the package's rules, so that udev no longer knows IDs that the database lacks.
const ONLY_RULES: &str = "wwan-quirks check && wwan-quirks rules >/etc/udev/rules.d/85-wwan-quirks.rules && \
                          rm -f /etc/udev/rules.d/86-wwan-quirks-local.rules && udevadm control --reload && \
                          udevadm trigger";

/// Where systemd looks for units.
const UNITS: [&str; 5] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

#[derive(Debug, PartialEq, Eq, Serialize)]
struct Problem {
    problem: String,
    /// A command, if a command solves the problem.
    remedy: String,
}

/// The result of all checks.
#[derive(Debug, Default, Serialize)]
struct Diagnosis {
    problems: Vec<Problem>,
    /// Files that exist but cannot be read. They are not checked.
    unreadable: Vec<Unreadable>,
}

#[derive(Debug, Serialize)]
struct Unreadable {
    path: String,
    message: String,
}

impl Diagnosis {
    fn add(&mut self, problem: impl Into<String>, remedy: impl Into<String>) {
        self.problems.push(Problem { problem: problem.into(), remedy: remedy.into() });
    }

    /// Adds a problem in the database or the policy. Only root can read all files.
    fn add_found(&mut self, found: &LoadError, is_root: bool) {
        match found {
            LoadError::File(FileError::Io { path, source })
                if source.kind() == ErrorKind::PermissionDenied && !is_root =>
            {
                self.add_unreadable(&path.display().to_string(), source);
            }
            found => self.add(found.summary(), found.remedy()),
        }
    }

    /// The text of a file. `None` if it does not exist or cannot be read.
    fn read(&mut self, root: &Root, path: &str) -> Option<String> {
        match root.read(path, LIMIT) {
            Ok(bytes) => Some(String::from_utf8_lossy(&bytes).into_owned()),
            Err(error) => {
                self.add_unreadable(path, &error);
                None
            }
        }
    }

    fn add_unreadable(&mut self, path: &str, error: &io::Error) {
        if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) {
            self.unreadable.push(Unreadable { path: path.to_owned(), message: error.to_string() });
        }
    }

    /// The rules file that udev reads for this name, with its path.
    fn rules(&mut self, root: &Root, name: &str) -> Option<(String, String)> {
        self.layered(root, &udev_rules::DIRECTORIES, name)
    }

    /// The file `name` in the first of `directories` that has it, with its path. `None` if it is masked.
    fn layered(&mut self, root: &Root, directories: &[&str], name: &str) -> Option<(String, String)> {
        let path = root.layered(directories, name)?;
        Some((self.read(root, &path)?, path))
    }
}

/// Prints all problems. The exit status is [`Exit::Failed`] if there is one.
pub(crate) fn run(root: &Root, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut diagnosis = Diagnosis::default();
    let (quirks, errors) = load::all(root);
    let is_complete = errors.is_empty();
    if is_complete {
        database(root, &quirks, &mut diagnosis);
    }
    for found in problems(root, &quirks, errors) {
        diagnosis.add_found(&found, geteuid().is_root());
    }
    own_rules(root, &quirks, &mut diagnosis);
    own_units(root, &mut diagnosis);
    permissions(root, &mut diagnosis);
    other_switchers(root, &quirks, is_complete, &mut diagnosis);
    kernel(root, &mut diagnosis);
    modem_manager(root, &quirks, &mut diagnosis);
    modems(root, &mut diagnosis);
    selinux(root, &mut diagnosis);

    if json {
        print_json(out, "doctor", &diagnosis, &[])?;
    } else {
        for Problem { problem, remedy } in &diagnosis.problems {
            writeln!(out, "{}\n  remedy: {}", printable(problem), printable(remedy))?;
        }
        for Unreadable { path, message } in &diagnosis.unreadable {
            writeln!(out, "not checked: {}", printable(&format!("{path}: {message}")))?;
        }
        match (diagnosis.problems.is_empty(), diagnosis.unreadable.is_empty()) {
            (true, true) => writeln!(out, "no problems found")?,
            (true, false) => {
                let root =
                    if geteuid().is_root() { "" } else { "; run `wwan-quirks doctor` as root to check the rest" };
                writeln!(out, "no problems found in the files that could be read{root}")?;
            }
            (false, _) => {}
        }
    }
    Ok(if diagnosis.problems.is_empty() { Exit::Success } else { Exit::Failed })
}

/// Checks that there is a database.
fn database(root: &Root, quirks: &[Quirk], diagnosis: &mut Diagnosis) {
    let shipped = paths::data(root).join("quirks.d");
    let cause = match (root.at(&shipped).is_dir(), quirks.is_empty()) {
        (true, false) => return,
        (true, true) if load::masks_quirks(root) => {
            let problem = format!("the database is empty: all files in {} are masked", shipped.display());
            return diagnosis.add(problem, UNMASK);
        }
        (true, true) => format!("the database is empty: no file in {} has a quirk", shipped.display()),
        (false, _) => format!("the database is missing: there is no {}", shipped.display()),
    };
    diagnosis.add(cause, format!("reinstall the package; {} reads this database", paths::program(root).display()));
}

/// Checks that the udev rules run this program for every ID of the database.
fn own_rules(root: &Root, quirks: &[Quirk], diagnosis: &mut Diagnosis) {
    if let Some(other) = without_udev(root) {
        return own_lines(root, other, diagnosis);
    }
    let files: Vec<(String, String)> =
        udev_rules::FILES.into_iter().filter_map(|name| diagnosis.rules(root, name)).collect();
    let Some((_, path)) = files.first() else {
        let name = udev_rules::FILES[0];
        let problem = format!("udev has no rules for wwan-quirks: {name} is missing or masked");
        return match own_file(root, &format!("udev/rules.d/{name}")) {
            Some(unread) => {
                diagnosis.add(problem, format!("ln -sf {unread} /etc/udev/rules.d/ && {RELOAD} && udevadm trigger"))
            }
            None => diagnosis.add(problem, NEW_RULES),
        };
    };
    // What ONLY_RULES created. A link leads to the package's file.
    let is_replaced =
        |path: &str| path.starts_with("/etc/") && path.ends_with(udev_rules::FILES[0]) && !root.at(path).is_symlink();
    let new_rules = if is_replaced(path) { ONLY_RULES } else { NEW_RULES };
    let all: String = files.iter().map(|(text, _)| text.as_str()).collect();
    let ruled = udev_rules::RuledIds::read(&all);
    let mut missing: BTreeMap<&Path, Vec<String>> = BTreeMap::new();
    for quirk in quirks {
        let ids = quirk.ids().filter(|id| !ruled.covers(quirk, *id));
        missing.entry(&quirk.location.path).or_default().extend(ids.map(|id| id.to_string()));
    }
    for (file, ids) in missing.into_iter().filter(|(_, ids)| !ids.is_empty()) {
        let problem =
            format!("no rule in {path} runs wwan-quirks for these IDs in {}: {}", file.display(), ids.join(", "));
        diagnosis.add(problem, new_rules);
    }
    for (text, path) in &files {
        let program = text.split("IMPORT{program}=\"").nth(1).and_then(|run| run.split([' ', '"']).next());
        if let Some(program) = program.filter(|program| !root.at(program).exists()) {
            let remedy = match path.ends_with(udev_rules::FILES[1]) {
                true => NEW_RULES,
                false if is_replaced(path) => ONLY_RULES,
                false => "reinstall the package",
            };
            diagnosis.add(format!("{path} runs {program}, which does not exist"), remedy);
        }
    }
}

/// Checks that another device manager runs this program.
fn own_lines(root: &Root, OtherManager { name, file, remedy }: OtherManager, diagnosis: &mut Diagnosis) {
    let text = diagnosis.read(root, file).unwrap_or_default();
    let mut lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let is_own = |line: &str| line.contains("wwan-quirks hook");
    // mdev stops at the first line that matches, unless that line begins with `-`.
    let is_for_all = |line: &str| name == "mdev" && line.split_whitespace().next() == Some(".*");
    let has_own = lines.clone().any(is_own);
    if !has_own {
        diagnosis.add(format!("{name} does not run wwan-quirks: {file} has no line for it"), remedy);
    } else if lines.any(is_for_all) && lines.any(is_own) {
        diagnosis.add(
            format!("mdev does not run wwan-quirks: in {file}, a line for all devices (.*) comes before its lines"),
            format!("move the lines of wwan-quirks to the beginning of {file}"),
        );
    }
    if name == "mdev" {
        if has_own {
            outdated_lines(root, &text, diagnosis);
        }
        openrc(root, diagnosis);
    }
}

/// Checks that mdev.conf has the lines of this version.
fn outdated_lines(root: &Root, installed: &str, diagnosis: &mut Diagnosis) {
    let path = paths::data(root).join("mdev.conf");
    let shipped = fs::read_to_string(root.at(&path)).unwrap_or_default();
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
    let installed: Vec<String> = installed.lines().map(words).collect();
    let mut wanted = shipped.lines().filter(|line| line.starts_with('-')).map(words);
    if let Some(line) = wanted.find(|line| !installed.contains(line)) {
        diagnosis.add(
            format!("/etc/mdev.conf has outdated lines of wwan-quirks: it lacks `{line}`"),
            format!("replace them with those of {}", path.display()),
        );
    }
}

/// The device manager of a system without udev.
struct OtherManager {
    name: &'static str,
    /// The file that makes it run the hook.
    file: &'static str,
    /// How to add the lines to the file.
    remedy: String,
}

fn without_udev(root: &Root) -> Option<OtherManager> {
    let has = |path: &str| root.at(path).exists();
    if has("/run/udev") {
        None
    } else if has("/etc/hotplug.d") {
        let remedy = "reinstall the package".to_owned();
        Some(OtherManager { name: "procd", file: "/etc/hotplug.d/usb/20-wwan-quirks", remedy })
    } else if has("/etc/mdev.conf") {
        let lines = paths::data(root).join("mdev.conf");
        let remedy = format!("add the lines of {} to /etc/mdev.conf", lines.display());
        Some(OtherManager { name: "mdev", file: "/etc/mdev.conf", remedy })
    } else {
        None
    }
}

/// Checks that OpenRC starts the script that handles the modems that are present at boot.
fn openrc(root: &Root, diagnosis: &mut Diagnosis) {
    let script = "/etc/init.d/wwan-quirks";
    let mut runlevels = fs::read_dir(root.at("/etc/runlevels")).into_iter().flatten().flatten();
    if root.at(script).exists() && !runlevels.any(|entry| entry.path().join("wwan-quirks").is_symlink()) {
        diagnosis.add(
            format!("OpenRC does not start {script}: modems that are present at boot are not handled"),
            "rc-update add wwan-quirks default",
        );
    }
}

/// Each unit, the targets that start it, and what happens if it does not start. udev starts the first one.
const OWN_UNITS: [(&str, &[&str], &str); 3] = [
    ("wwan-quirks@.service", &[], "a slow modem stays locked"),
    ("wwan-quirks-sleep.service", &["sleep"], "a radio that was off before sleep may be on afterwards"),
    (
        "wwan-quirks-resume.service",
        &["suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate"],
        "a modem that locks again during sleep stays locked",
    ),
];

/// Checks that systemd starts the unit for slow modems, and the units before and after sleep.
fn own_units(root: &Root, diagnosis: &mut Diagnosis) {
    if !paths::has_systemd(root) {
        return;
    }
    let has = |name: &str| UNITS.iter().any(|folder| root.at(folder).join(name).exists());
    for (unit, targets, effect) in OWN_UNITS {
        let unwanted = targets.iter().filter(|target| !has(&format!("{target}.target.wants/{unit}")));
        let wants = unwanted.map(|target| format!("systemctl add-wants {target}.target {unit}"));
        let remedy: Vec<String> = match (has(unit), own_file(root, &format!("systemd/system/{unit}"))) {
            (true, _) => wants.collect(),
            (false, Some(unread)) => iter::once(format!("systemctl link {unread}")).chain(wants).collect(),
            (false, None) => vec!["reinstall the package".to_owned()],
        };
        if !remedy.is_empty() {
            diagnosis.add(format!("systemd does not start {unit}: {effect}"), remedy.join(" && "));
        }
    }
}

/// The path of a file in the `lib` beside the program or its data, which udev and systemd do not read below every prefix.
fn own_file(root: &Root, name: &str) -> Option<String> {
    [paths::program(root), paths::data(root)].iter().find_map(|installed| {
        let path = installed.parent()?.parent()?.join("lib").join(name);
        root.at(&path).is_file().then(|| path.display().to_string())
    })
}

/// Checks that only root can change what root runs. Database and policy are checked when they are read.
fn permissions(root: &Root, diagnosis: &mut Diagnosis) {
    let rules: Vec<String> =
        udev_rules::FILES.into_iter().filter_map(|name| Some(diagnosis.rules(root, name)?.1)).collect();
    let program = paths::program(root).display().to_string();
    let state = ["/run/wwan-quirks", "/run/wwan-quirks/state"].map(str::to_owned);
    for path in state.into_iter().chain([program]).chain(rules) {
        let Ok(metadata) = fs::metadata(root.at(&path)) else { continue };
        let foreign = root.is_live() && (metadata.uid() != 0 || metadata.mode() & 0o020 != 0);
        if foreign || metadata.mode() & 0o002 != 0 {
            diagnosis.add(
                format!("users other than root can change {path}"),
                format!("chown root: {path} && chmod go-w {path}"),
            );
        }
    }
}

/// The drop-in that keeps usb_modeswitch's unit away from our devices.
const KEEP_AWAY: &str = "usb_modeswitch@.service.d/wwan-quirks.conf";

/// Finds other programs that switch the same devices, and devices that no program switches.
fn other_switchers(root: &Root, quirks: &[Quirk], is_complete: bool, diagnosis: &mut Diagnosis) {
    // Without systemd, the rules start the program itself.
    let is_kept_away = !lacks_systemd(root) && diagnosis.layered(root, &UNITS, KEEP_AWAY).is_some();
    if let Some((text, path)) = diagnosis.rules(root, "40-usb_modeswitch.rules") {
        match is_kept_away {
            false => switched_twice(root, quirks, &text, &path, diagnosis),
            // An entry that could not be read may have the ID.
            true if is_complete => switched_by_none(root, quirks, &text, diagnosis),
            true => {}
        }
    }
    let usbmode = ["/etc/hotplug.d/usb/20-usb_mode", "/etc/init.d/usbmode"];
    if let Some(path) = usbmode.into_iter().find(|path| root.at(path).exists()) {
        diagnosis.add(format!("usbmode switches the same devices: {path}"), "opkg remove usb-modeswitch");
    }
}

/// Finds devices that both this database and usb_modeswitch's rules `text`, which are at `path`, switch.
fn switched_twice(root: &Root, quirks: &[Quirk], text: &str, path: &str, diagnosis: &mut Diagnosis) {
    let switched: BTreeSet<DeviceId> =
        quirks.iter().filter(|quirk| quirk.is_install_mode()).flat_map(Quirk::ids).collect();
    let shared = text.lines().filter_map(ruled_id).filter(|id| switched.contains(id)).count();
    if shared > 0 {
        let folder = "usb_modeswitch@.service.d";
        let remedy = match own_file(root, &format!("systemd/system/{KEEP_AWAY}")).filter(|_| !lacks_systemd(root)) {
            Some(unread) => format!(
                "mkdir -p /etc/systemd/system/{folder} && ln -sf {unread} /etc/systemd/system/{folder}/ && \
                 systemctl daemon-reload"
            ),
            None => format!("ln -s /dev/null /etc/udev/rules.d/40-usb_modeswitch.rules && {RELOAD}"),
        };
        diagnosis.add(format!("usb_modeswitch also switches {shared} IDs of this database: {path}"), remedy);
    }
}

/// Finds devices that usb_modeswitch's rules `text` name, that our rules keep away from it, and whose entry is masked.
fn switched_by_none(root: &Root, quirks: &[Quirk], text: &str, diagnosis: &mut Diagnosis) {
    let Some(ruled) = udev_rules::RuledIds::installed(root) else { return };
    let known: BTreeSet<DeviceId> = quirks.iter().flat_map(Quirk::ids).collect();
    let theirs: BTreeSet<DeviceId> = text.lines().filter_map(ruled_id).collect();
    let is_theirs = |id: DeviceId| {
        // One line is for all products of a vendor.
        let vendor = format!("{{idVendor}}==\"{:04x}\"", id.vendor);
        theirs.contains(&id) || text.lines().any(|line| line.contains(&vendor) && !line.contains("{idProduct}"))
    };
    let mut lost = BTreeSet::new();
    for masked in load::hidden(root).into_iter().filter(|hidden| hidden.is_masked) {
        let ids = masked.quirks.iter().filter(|quirk| quirk.is_install_mode()).flat_map(Quirk::ids);
        lost.extend(ids.filter(|id| !known.contains(id) && ruled.has(*id) && is_theirs(*id)));
    }
    if let Some(first) = lost.first() {
        let count = lost.len();
        diagnosis.add(
            format!(
                "no program switches {count} IDs, such as {first}: their entries are masked, but the rules of \
                 wwan-quirks keep usb_modeswitch away"
            ),
            ONLY_RULES,
        );
    }
}

/// Whether udev runs without systemd. In an image, nothing runs.
fn lacks_systemd(root: &Root) -> bool {
    root.at("/run/udev").exists() && !paths::has_systemd(root)
}

/// The ID in a line of usb_modeswitch's rules.
fn ruled_id(line: &str) -> Option<DeviceId> {
    let value = |key: &str| line.split_once(key)?.1.split_once("==\"")?.1.split('"').next();
    format!("{}:{}", value("{idVendor}")?, value("{idProduct}")?).parse().ok()
}

/// Checks the parameters and the drivers of the kernel.
fn kernel(root: &Root, diagnosis: &mut Diagnosis) {
    // 1 "full logic", 2 keeps the CD-ROM, 3 always switches (Linux drivers/usb/storage/sierra_ms.c).
    let parameter = "/sys/module/usb_storage/parameters/swi_tru_install";
    if diagnosis.read(root, parameter).is_some_and(|value| value.trim() == "2") {
        diagnosis.add(
            format!("usb-storage keeps Sierra modems in install mode ({parameter} is 2)"),
            "remove swi_tru_install=2 from /etc/modprobe.d and the kernel's command line, then reboot",
        );
    }
    let Some(release) = diagnosis.read(root, "/proc/sys/kernel/osrelease") else { return };
    let folder = format!("/lib/modules/{}", release.trim());
    let lists: Vec<String> = ["modules.dep", "modules.builtin"]
        .iter()
        .filter_map(|list| diagnosis.read(root, &format!("{folder}/{list}")))
        .collect();
    if lists.is_empty() {
        return;
    }
    for driver in ["qmi_wwan", "cdc_mbim", "cdc_wdm", "option", "qcserial"] {
        let (file, other) = (format!("/{driver}.ko"), format!("/{}.ko", driver.replace('_', "-")));
        if !lists.iter().any(|list| list.contains(&file) || list.contains(&other)) {
            diagnosis.add(
                format!("this kernel lacks the driver {driver} ({folder})"),
                format!("install the package with the kernel modules, or build a kernel with {driver}"),
            );
        }
    }
}

/// Finds modems that ModemManager also unlocks. A script whose name is only a vendor also serves modems that have no
/// unlock here.
fn modem_manager(root: &Root, quirks: &[Quirk], diagnosis: &mut Diagnosis) {
    let (policy, _) = Policy::load(root);
    let unlocked: BTreeSet<DeviceId> = quirks
        .iter()
        .filter(|quirk| quirk.steps.iter().any(|step| matches!(step, Step::FccAuth(_))))
        .flat_map(Quirk::ids)
        .filter(|id| policy.resolve(*id, None, || None).fcc_auth.value)
        .collect();
    let folder = "/etc/ModemManager/fcc-unlock.d";
    let entries = match fs::read_dir(root.at(folder)) {
        Ok(entries) => entries,
        Err(error) => return diagnosis.add_unreadable(folder, &error),
    };
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    for name in names {
        // The names of ModemManager's scripts do not contain the bus.
        let numbers = |id: DeviceId| (id.vendor, id.product);
        let same = |id: DeviceId| unlocked.iter().any(|known| numbers(*known) == numbers(id));
        if name.parse::<DeviceId>().is_ok_and(same) {
            diagnosis.add(
                format!("ModemManager also unlocks {name}: {folder}/{name}; one unlock is enough"),
                format!("rm {folder}/{name}"),
            );
        }
    }
}

/// Checks the modems that are plugged in.
fn modems(root: &Root, diagnosis: &mut Diagnosis) {
    if !["/sys/bus/usb/devices", "/sys/bus/pci/devices"].iter().any(|path| root.at(path).exists()) {
        // An image has an empty /sys.
        if root.is_live() || root.at("/sys/bus").exists() {
            let message =
                "found neither a USB nor a PCI bus, so no modem was checked; a container needs the host's /sys";
            diagnosis.unreadable.push(Unreadable { path: "/sys/bus".to_owned(), message: message.to_owned() });
        }
        return;
    }
    let devices = match Device::all(root) {
        Ok(devices) => devices,
        Err(error) => {
            let message = Error::from(error).chain();
            return diagnosis.unreadable.push(Unreadable { path: "/sys/bus".to_owned(), message });
        }
    };
    for device in devices {
        // Errors in the database are already reported.
        let (Some(known), _) = lookup(root, &device) else { continue };
        let (port, name) = (&device.port, known.quirk.name_of(device.id));
        if device.id.bus == Bus::Pci {
            pci_modem(root, &device, &known.quirk, diagnosis);
        } else if !device.is_authorized() {
            diagnosis.add(
                format!("the modem on {port}, {name}, is not authorized (USBGuard?)"),
                format!(
                    "echo 1 >/sys/bus/usb/devices/{port}/authorized, or `usbguard list-devices`, then \
                     `usbguard allow-device NUMBER`"
                ),
            );
        } else if let Some(command) = known.quirk.new_id.as_ref().and_then(|new_id| unknown_to(new_id, &device)) {
            diagnosis.add(format!("the kernel's serial driver does not know the modem on {port}, {name}"), command);
        } else if device.interfaces().is_ok_and(|all| !all.is_empty() && all.iter().all(|one| one.driver.is_none())) {
            diagnosis.add(
                format!("no driver is bound to the modem on {port}, {name}"),
                "modprobe -a qmi_wwan cdc_mbim option qcserial usb-storage",
            );
        }
    }
}

/// The command for a modem if its driver has bound none of the interfaces that it should.
fn unknown_to(new_id: &NewId, device: &Device) -> Option<String> {
    let active = device.configuration().ok()?;
    let configurations = device.descriptors().ok()?.configurations;
    let of_class = |interface: &BoundInterface| {
        let active = configurations.iter().filter(|configuration| Some(configuration.value) == active);
        let mut same = active.flat_map(|active| &active.interfaces).filter(|one| one.number == interface.number);
        same.any(|one| one.class == new_id.interface_class)
    };
    let interfaces: Vec<_> = device.interfaces().ok()?.into_iter().filter(of_class).collect();
    let is_unknown = !interfaces.is_empty() && interfaces.iter().all(|interface| interface.driver.is_none());
    is_unknown.then(|| new_id.command(device.id))
}

/// Checks that a PCI modem has the port that its quirk needs.
fn pci_modem(root: &Root, device: &Device, quirk: &Quirk, diagnosis: &mut Diagnosis) {
    let modem = format!("the modem at {}, {}", device.port, quirk.name_of(device.id));
    let Some(wanted) = quirk.procedure().and_then(Procedure::wwan_protocol).map(Protocol::wwan_type) else { return };
    let Ok(ports) = device.control_ports() else { return };
    let types: Vec<&str> = ports.iter().filter_map(|port| port.wwan_type.as_deref()).collect();
    let (problem, remedy) = match (device.bound_driver(), types.as_slice()) {
        (None, _) => return no_pci_driver(root, device, &modem, diagnosis),
        (Some(_), types) if types.contains(&wanted) => return,
        // mhi_wwan_ctrl binds the channels of the firmware in operation.
        (Some(_), []) if device.mhi_channels().iter().any(|channel| channel == wanted) => {
            (format!("{modem}, has no WWAN port"), "modprobe -a mhi_wwan_ctrl mhi_wwan_mbim")
        }
        (Some(_), []) => (
            format!("the firmware of {modem}, is not running: the driver has created no WWAN port"),
            "shut the machine down and turn it on again; the kernel log shows how far the modem started",
        ),
        (Some(_), types) if types.iter().all(|port| FLASH_MODE.contains(port)) => (
            format!("{modem}, is in flash mode: it has only {} ports", types.join(" and ")),
            "shut the machine down and turn it on again; if the problem persists, install its firmware again (fwupd)",
        ),
        (Some(_), types) => (
            format!("{modem}, has no {wanted} port, which its unlock needs: it has only {} ports", types.join(" and ")),
            "its firmware may be configured for other ports; report a bug with the output of `wwan-quirks report`",
        ),
    };
    diagnosis.add(problem, remedy);
}

/// Port types that a modem has only while its firmware is being written.
const FLASH_MODE: [&str; 2] = ["FIREHOSE", "FASTBOOT"];

/// The drivers of all PCI modems.
const PCI_DRIVERS: [&str; 3] = ["mhi_pci_generic", "iosm", "mtk_t7xx"];

/// Checks whether this kernel has a driver for a modem that has none bound.
fn no_pci_driver(root: &Root, device: &Device, modem: &str, diagnosis: &mut Diagnosis) {
    let release = diagnosis.read(root, "/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    let mut read = |list: &str| diagnosis.read(root, &format!("/lib/modules/{release}/{list}"));
    let (of_modules, built_in) = (read("modules.alias"), read("modules.builtin.modinfo"));
    let is_known = of_modules.is_some();
    // alias pci:v… NAME
    let of_modules = of_modules.unwrap_or_default();
    let mut of_modules = of_modules.lines().filter_map(|line| line.strip_prefix("alias ")?.split_once(' '));
    // NAME.alias=pci:v…, which ends with NUL
    let built_in = built_in.unwrap_or_default();
    let mut built_in = built_in.split('\0').filter_map(|entry| entry.split_once(".alias="));
    let unbound = format!("no driver is bound to {modem}");
    let (problem, remedy) = if let Some((driver, _)) = built_in.find(|(_, alias)| is_alias_of(alias, device)) {
        (unbound, format!("this kernel contains the driver {driver}; the kernel log says why it did not start"))
    } else if let Some((_, module)) = of_modules.find(|(alias, _)| is_alias_of(alias, device)) {
        (unbound, format!("modprobe {module}"))
    } else if is_known {
        let problem = format!("this kernel ({release}) has no driver for {modem}");
        let [first, second, third] = PCI_DRIVERS;
        (problem, format!("use a kernel whose driver {first}, {second} or {third} knows {}", device.id))
    } else {
        (unbound, format!("modprobe -a {}", PCI_DRIVERS.join(" ")))
    };
    diagnosis.add(problem, remedy);
}

/// Whether a driver's alias (`pci:v000017CBd00000306sv000018D7sd*bc*sc*i*`) matches this PCI device.
fn is_alias_of(alias: &str, device: &Device) -> bool {
    let id = format!("pci:v{:08X}d{:08X}sv", device.id.vendor, device.id.product);
    let Some((vendor, rest)) = alias.strip_prefix(&id).and_then(|rest| rest.split_once("sd")) else { return false };
    let subsystem = device.subsystem();
    let is = |pattern: &str, number: Option<u16>| {
        pattern == "*" || number.is_some_and(|number| pattern == format!("{number:08X}"))
    };
    is(vendor, subsystem.map(|it| it.vendor))
        && rest.split_once("bc").is_some_and(|(card, _)| is(card, subsystem.and_then(|it| it.device)))
}

/// Finds system calls that SELinux denied.
fn selinux(root: &Root, diagnosis: &mut Diagnosis) {
    if diagnosis.read(root, "/sys/fs/selinux/enforce").is_none_or(|enforce| enforce.trim() != "1") {
        return;
    }
    let log = diagnosis.read(root, "/var/log/audit/audit.log").unwrap_or_default();
    let denied = |line: &&str| line.contains("avc:  denied") && line.contains("comm=\"wwan-quirks\"");
    let count = log.lines().filter(denied).count();
    if count == 0 {
        return;
    }
    // Another name than that of the packaged module, which it would replace.
    let local = "ausearch -c wwan-quirks --raw | audit2allow -M wwan-quirks-local && semodule -i wwan-quirks-local.pp";
    let module = paths::data(root).join("wwan-quirks.cil");
    let remedy = match root.at(&module).is_file() {
        true => {
            let module = module.display();
            // Without an event since boot, there is no state.
            let relabel = "{ [ ! -d /run/wwan-quirks ] || restorecon -R /run/wwan-quirks; }";
            format!("semodule -i {module} && {relabel}; if denials follow, {local}")
        }
        false => local.to_owned(),
    };
    diagnosis.add(format!("SELinux denials for wwan-quirks: {count} (/var/log/audit/audit.log)"), remedy);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_only_root_can_read_is_not_checked() {
        let path = || "/etc/wwan-quirks/config.toml".into();
        let denied = || LoadError::from(FileError::Io { path: path(), source: ErrorKind::PermissionDenied.into() });
        let found = |error: &LoadError, is_root| {
            let mut diagnosis = Diagnosis::default();
            diagnosis.add_found(error, is_root);
            (diagnosis.problems.len(), diagnosis.unreadable.len())
        };
        assert_eq!(found(&denied(), false), (0, 1));
        assert_eq!(found(&denied(), true), (1, 0));
        let other = LoadError::from(FileError::Io { path: path(), source: ErrorKind::IsADirectory.into() });
        assert_eq!(found(&other, false), (1, 0));
    }

    #[test]
    fn the_remedy_for_a_file_is_the_one_that_its_problem_needs() {
        let mut diagnosis = Diagnosis::default();
        diagnosis.add_found(&FileError::Insecure { path: "/etc/a.toml".into() }.into(), true);
        diagnosis.add_found(&FileError::NotText { path: "/etc/a.toml".into() }.into(), true);
        let problem = |problem: &str, remedy: &str| Problem { problem: problem.to_owned(), remedy: remedy.to_owned() };
        let expected = [
            problem(
                "/etc/a.toml: users other than root can change it",
                "chown root /etc/a.toml && chmod go-w /etc/a.toml",
            ),
            problem("/etc/a.toml: not UTF-8", "correct the file"),
        ];
        assert_eq!(diagnosis.problems, expected);
    }
}
