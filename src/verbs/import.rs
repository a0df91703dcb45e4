//! `import`: turns usb_modeswitch configuration files into quirks.
//!
//! A file is named by what it is for (`12d1:1446`, `05c6:1000:uMa=Option`) or says so itself (`DefaultVendor`,
//! `DefaultProduct`), and holds lines `Key=value`. Key names and meanings are those of usb_modeswitch 2.6.1. A key
//! that has no meaning here is told, once for all files that have it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::database::diagnostic::Diagnostic;
use crate::database::layers::FileError;
use crate::database::quirks::switch::Bytes;
use crate::host::root::read_limited;
use crate::serve::error::{Error, Exit};
use crate::usb::UsbId;
use crate::verbs::output::{print_json, report_errors};

/// Far longer than any that exists.
const FILE_LIMIT: usize = 1 << 16;

/// Keys that stand for a method of their own.
const METHODS: [(&str, &str); 15] = [
    ("HuaweiMode", "huawei"),
    ("HuaweiNewMode", "huawei-new"),
    ("HuaweiAltMode", "huawei-alternative"),
    ("SierraMode", "sierra"),
    ("SonyMode", "sony"),
    ("GCTMode", "gct"),
    ("KobilMode", "kobil"),
    ("SequansMode", "sequans"),
    ("MobileActionMode", "mobile-action"),
    ("CiscoMode", "cisco"),
    ("QisdaMode", "qisda"),
    ("QuantaMode", "quanta"),
    ("OptionMode", "option"),
    ("BlackberryMode", "blackberry"),
    ("PantechMode", "pantech"),
];

/// Keys without a meaning here, and why.
const WITHOUT_MEANING: [(&str, &str); 10] = [
    ("TargetVendor", AFTERWARDS),
    ("TargetProduct", AFTERWARDS),
    ("TargetProductList", AFTERWARDS),
    ("CheckSuccess", "whether a device left is seen at once, and its return is an event of its own"),
    ("NeedResponse", "the answer to a CBW is always read, and that to anything else never"),
    ("NoDriverLoading", "drivers are the kernel's and udev's matter"),
    ("InquireDevice", "devices are told apart by manufacturer, product, serial and scsi-vendor"),
    ("NoMBIMCheck", "which configuration is taken is for `prefer` in the policy to say"),
    ("DefaultVendor", "the entry's id says it"),
    ("DefaultProduct", "the entry's id says it"),
];
const AFTERWARDS: &str = "a device that comes back has an event and an entry of its own, whatever its ID is then";

/// Prints the quirks that `paths`, files and folders of them, come to.
pub fn run(paths: &[PathBuf], json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let mut import = Import::default();
    let mut exit = Exit::Fine;
    for path in paths {
        let files = match path.is_dir() {
            true => configurations(path),
            false => Ok(vec![path.clone()]),
        };
        let errors = match files {
            Ok(files) => files.iter().filter_map(|file| import.file(file).err()).collect(),
            Err(source) => vec![FileError::Io { path: path.clone(), source }],
        };
        exit = exit.max(report_errors(errors.into_iter().map(Error::from)));
    }
    if json {
        let keys = import.without_meaning.iter().map(
            |(key, uses)| json!({ "key": key, "reason": uses.reason, "first-file": uses.first, "files": uses.files }),
        );
        let keys: Vec<Value> = keys.collect();
        let body = json!({ "toml": import.toml(), "diagnostics": import.faults, "ignored-keys": keys });
        print_json(out, "import", &body)?;
    } else {
        out.write_all(import.toml().as_bytes())?;
    }
    for fault in &import.faults {
        eprintln!("{fault}");
    }
    for (key, uses) in &import.without_meaning {
        eprintln!("{key}, {uses}");
    }
    Ok(if import.faults.is_empty() { exit } else { exit.max(Exit::Failed) })
}

/// The configuration files in a folder, in the order of their names.
fn configurations(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| is_configuration(path)).collect();
    files.sort_unstable();
    Ok(files)
}

/// Leaves out what package managers and editors put beside configuration files.
fn is_configuration(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    path.is_file()
        && !name.starts_with('.')
        && !name.contains(".dpkg")
        && !name.contains(".rpm")
        && !name.ends_with('~')
}

/// What files come to.
#[derive(Debug, Default)]
pub struct Import {
    entries: Vec<Entry>,
    /// What is wrong with them. A file with a fault gives no entry.
    pub faults: Vec<Diagnostic>,
    /// Keys that were left out.
    pub without_meaning: BTreeMap<String, Uses>,
}

/// Where a key without a meaning was found, and why it has none.
#[derive(Debug)]
pub struct Uses {
    reason: &'static str,
    first: PathBuf,
    files: usize,
}

impl fmt::Display for Uses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in {}", self.first.display())?;
        match self.files - 1 {
            0 => {}
            1 => f.write_str(" and one more file")?,
            more => write!(f, " and {more} more files")?,
        }
        write!(f, ", has no meaning here: {}", self.reason)
    }
}

#[derive(Debug)]
struct Entry {
    id: UsbId,
    name: String,
    /// What stands behind the ID in the name of the file, by which usb_modeswitch orders its choice.
    suffix: String,
    /// `key = "text"` lines that narrow the match.
    matchers: Vec<String>,
    /// The value of `steps`.
    steps: String,
}

impl Import {
    /// Reads one file.
    pub fn file(&mut self, path: &Path) -> Result<(), FileError> {
        let bytes = fs::File::open(path).and_then(|file| read_limited(file, FILE_LIMIT));
        let bytes = bytes.map_err(|source| FileError::Io { path: path.to_owned(), source })?;
        // Some of the files that exist are in Latin-1, in comments.
        self.add(path, &String::from_utf8_lossy(&bytes));
        Ok(())
    }

    /// Takes in the text of a file.
    pub fn add(&mut self, path: &Path, text: &str) {
        let mut reader = Reader { path, text, keys: keys(text), faults: Vec::new(), ignored: Vec::new() };
        let entry = reader.entry();
        self.faults.append(&mut reader.faults);
        for (key, reason) in reader.ignored {
            let uses = Uses { reason, first: path.to_owned(), files: 0 };
            self.without_meaning.entry(key.to_owned()).or_insert(uses).files += 1;
        }
        self.entries.extend(entry);
    }

    /// The entries, those of one vendor that share their steps as one.
    pub fn toml(&self) -> String {
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        // Of those that match equally well the last counts, with usb_modeswitch the last by name.
        entries.sort_unstable_by(|a, b| (a.id, &a.suffix).cmp(&(b.id, &b.suffix)));
        let mut groups: Vec<Vec<&Entry>> = Vec::new();
        for entry in entries {
            let same = |group: &&mut Vec<&Entry>| {
                group.first().is_some_and(|first| {
                    first.id.vendor == entry.id.vendor
                        && first.steps == entry.steps
                        && first.matchers.is_empty()
                        && entry.matchers.is_empty()
                })
            };
            match groups.iter_mut().find(same) {
                Some(group) => group.push(entry),
                None => groups.push(vec![entry]),
            }
        }
        let mut text = "schema = 1\n".to_owned();
        for group in &groups {
            // Writing to a String does not fail.
            let _ = write_group(&mut text, group);
        }
        text
    }
}

fn write_group(text: &mut String, group: &[&Entry]) -> fmt::Result {
    let Some(first) = group.first() else { return Ok(()) };
    writeln!(text, "\n[[device]]")?;
    if group.len() == 1 {
        writeln!(text, "id = \"{}\"\nname = {}", first.id, quoted(&first.name))?;
    } else {
        writeln!(text, "id = [")?;
        for entry in group {
            writeln!(text, "    \"{}\", # {}", entry.id, entry.name)?;
        }
        writeln!(text, "]\nname = {}", quoted(&format!("{} and {} more", first.name, group.len() - 1)))?;
    }
    for line in &first.matchers {
        writeln!(text, "{line}")?;
    }
    writeln!(text, "steps = {}", first.steps)
}

/// `text` as a TOML string.
fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// A key, its value, and where the value stands.
type Key<'a> = (&'a str, &'a str, Range<usize>);

/// All `Key=value` lines. A `;`, `#` or `!` before the equals sign makes a comment, and of a key that stands twice the
/// first counts.
fn keys(text: &str) -> Vec<Key<'_>> {
    let mut keys: Vec<Key<'_>> = Vec::new();
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let begin = start;
        start += line.len();
        let Some((key, value)) = line.split_once('=') else { continue };
        if key.contains([';', '#', '!']) || keys.iter().any(|(known, ..)| *known == key.trim()) {
            continue;
        }
        let at = begin + key.len() + 1 + (value.len() - value.trim_start().len());
        let value = value.trim();
        let value = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next().unwrap_or_default(),
            None => value.split([' ', '\t', ';', '#']).next().unwrap_or_default(),
        };
        let at = if text.get(at..).is_some_and(|rest| rest.starts_with('"')) { at + 1 } else { at };
        keys.push((key.trim(), value, at..at + value.len()));
    }
    keys
}

/// The first comment, which in usb_modeswitch's files is the name of the device.
fn first_comment(text: &str) -> Option<String> {
    let comments = text.lines().filter_map(|line| line.trim().strip_prefix('#'));
    let comment = comments.map(|comment| comment.trim_matches(['#', ' ', '\t'])).find(|comment| !comment.is_empty())?;
    Some(comment.chars().filter(|character| !character.is_control()).collect())
}

struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
    keys: Vec<Key<'a>>,
    faults: Vec<Diagnostic>,
    ignored: Vec<(&'a str, &'static str)>,
}

impl<'a> Reader<'a> {
    fn entry(&mut self) -> Option<Entry> {
        let (id, matchers) = self.subject()?;
        let steps = self.steps();
        let known = ["StandardEject", "DetachStorageOnly", "MessageContent", "MessageContent2", "MessageContent3"];
        let parameters = [
            "TargetClass",
            "MessageEndpoint",
            "ResponseEndpoint",
            "ResetUSB",
            "Interface",
            "Configuration",
            "AltSetting",
            "ReleaseDelay",
            "WaitBefore",
        ];
        for (key, _, span) in self.keys.clone() {
            if let Some((_, reason)) = WITHOUT_MEANING.iter().find(|(name, _)| *name == key) {
                self.ignored.push((key, reason));
            } else if !known.contains(&key)
                && !parameters.contains(&key)
                && METHODS.iter().all(|(name, _)| *name != key)
            {
                let message = format!("usb_modeswitch knows no key {key}");
                self.faults.push(Diagnostic::at(self.path, self.text, span, message));
            }
        }
        let name = first_comment(self.text).unwrap_or_else(|| id.to_string());
        let suffix = self.name().splitn(3, ':').nth(2).unwrap_or_default().to_owned();
        self.faults.is_empty().then_some(Entry { id, name, suffix, matchers, steps })
    }

    fn name(&self) -> &'a str {
        self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// The ID and the texts that the file is for.
    fn subject(&mut self) -> Option<(UsbId, Vec<String>)> {
        let mut parts = self.name().split(':');
        let named = format!("{}:{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Ok(id) = named.parse() else {
            let (vendor, product) =
                (self.number("DefaultVendor", 16, 0xffff), self.number("DefaultProduct", 16, 0xffff));
            let id = vendor.zip(product).and_then(|(vendor, product)| {
                Some(UsbId { vendor: u16::try_from(vendor).ok()?, product: u16::try_from(product).ok()? })
            });
            if id.is_none() {
                self.fault(0..0, "neither its name (VID:PID) nor DefaultVendor and DefaultProduct say what it is for");
            }
            return Some((id?, Vec::new()));
        };
        let mut matchers = Vec::new();
        for part in parts {
            let key = match part.split_once('=') {
                Some(("uMa", text)) => Some(("manufacturer", text)),
                Some(("uPr", text)) => Some(("product", text)),
                Some(("uSe", text)) => Some(("serial", text)),
                Some(("sVe", text)) => Some(("scsi-vendor", text)),
                Some(("sMo", text)) => Some(("scsi-model", text)),
                Some(("sRe", text)) => Some(("scsi-revision", text)),
                _ => None,
            };
            let Some((key, text)) = key else {
                self.fault(0..0, &format!("its name ends in {part:?}, which names no text of a device"));
                return None;
            };
            matchers.push(format!("{key} = {}", quoted(text)));
        }
        Some((id, matchers))
    }

    /// What usb_modeswitch would do, in its order: the method or the messages, the configuration, the alternate
    /// setting, the reset.
    fn steps(&mut self) -> String {
        let mut acts = self.acts();
        let configuration = self.number("Configuration", 16, 0xff);
        let mut after = Vec::new();
        if let Some(value) = self.number("AltSetting", 16, 0xff) {
            after.push(format!("{{ alternate-setting = {value} }}"));
        }
        if self.flag("ResetUSB") {
            after.extend(["{ sleep = 1 }".to_owned(), "\"reset\"".to_owned()]);
        }
        let mut steps = Vec::new();
        let configuration = match configuration {
            // "Look for an MBIM configuration": which one it is to be is the policy's matter here.
            Some(0) => Some("\"preferred\"".to_owned()),
            Some(value) if !acts.is_empty() || !after.is_empty() => {
                acts.push(format!("{{ set-configuration = {value} }}"));
                None
            }
            value => value.map(|value| value.to_string()),
        };
        acts.extend(after);
        if !acts.is_empty() {
            steps.push(format!("{{ switch = {} }}", self.switch(&acts)));
        }
        steps.extend(configuration.map(|value| format!("{{ configuration = {value} }}")));
        format!("[{}]", steps.join(", "))
    }

    fn acts(&mut self) -> Vec<String> {
        let methods: Vec<(&str, &str)> =
            METHODS.into_iter().filter(|(key, _)| self.flag(key) || (*key == "PantechMode" && self.has(key))).collect();
        let messages: Vec<String> = ["MessageContent", "MessageContent2", "MessageContent3"]
            .into_iter()
            .filter_map(|key| self.message(key))
            .collect();
        let mut acts = Vec::new();
        if self.flag("DetachStorageOnly") {
            acts.push("\"detach\"".to_owned());
        }
        match methods.as_slice() {
            [] => {}
            [(key, method)] => {
                if self.flag("StandardEject") || !messages.is_empty() {
                    self.ignore("MessageContent", "beside a mode of its own, usb_modeswitch passes it over");
                }
                let mode = if *key == "PantechMode" { self.number(key, 10, 0xffff) } else { None };
                match mode {
                    // The device switches by itself.
                    Some(1 | 3) => {}
                    None | Some(2) => acts.push(format!("\"{method}\"")),
                    Some(mode) => acts.extend([
                        "\"detach\"".to_owned(),
                        format!("{{ control = {{ request-type = 0x40, request = 0x70, value = {mode} }} }}"),
                    ]),
                }
                return acts;
            }
            [_, (second, _), ..] => {
                let span = self.get(second).map_or(0..0, |(_, span)| span);
                self.fault(span, "two modes at once, which usb_modeswitch refuses");
            }
        }
        if self.flag("StandardEject") {
            acts.push("\"eject\"".to_owned());
            // With an eject, one message is sent and the others are passed over.
            acts.extend(messages.into_iter().take(1));
        } else {
            acts.extend(messages);
        }
        acts
    }

    fn message(&mut self, key: &str) -> Option<String> {
        let (value, span) = self.get(key)?;
        match value.parse::<Bytes>() {
            Err(message) => self.fault(span, &message),
            Ok(bytes) => match bytes.fault() {
                Some(message) => self.fault(span, &message),
                None => return Some(format!("{{ bulk = \"{bytes}\" }}")),
            },
        }
        None
    }

    /// The value of a `switch` step.
    fn switch(&mut self, acts: &[String]) -> String {
        let mut keys = Vec::new();
        let mut number = |key: &str, name: &str| {
            if let Some(value) = self.number(key, 16, 0xff) {
                keys.push(format!("{name} = 0x{value:02x}"));
            }
        };
        number("Interface", "interface");
        number("MessageEndpoint", "out");
        if self.number("ResponseEndpoint", 16, 0xff).is_some_and(|endpoint| endpoint & 0x80 == 0) {
            self.ignore("ResponseEndpoint", "it names an endpoint that goes to the device");
        } else if let Some(value) = self.number("ResponseEndpoint", 16, 0xff) {
            keys.push(format!("in = 0x{value:02x}"));
        }
        if let Some(value) = self.number("WaitBefore", 10, 60) {
            keys.push(format!("wait-before = {value}"));
        }
        if let Some(milliseconds) = self.number("ReleaseDelay", 10, 60_000) {
            keys.push(format!("release-delay = {}", f64::from(milliseconds) / 1000.0));
        }
        if let Some(value) = self.number("TargetClass", 16, 0xff) {
            keys.push(format!("target-class = 0x{value:02x}"));
        }
        let list = format!("[{}]", acts.join(", "));
        // A message is 62 characters long; what does not fit on a line beside others has one of its own.
        let lines = format!("[\n    {},\n]", acts.join(",\n    "));
        let list = if list.len() + keys.join(", ").len() < 86 { list } else { lines };
        match (keys.as_slice(), acts) {
            ([], [name]) if name.starts_with('"') => name.clone(),
            ([], _) => list,
            _ => format!("{{ {}, do = {list} }}", keys.join(", ")),
        }
    }

    fn get(&self, key: &str) -> Option<(&'a str, Range<usize>)> {
        self.keys.iter().find(|(name, ..)| *name == key).map(|(_, value, span)| (*value, span.clone()))
    }

    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|(value, _)| value.starts_with(['1', 'y', 'Y', 't', 'T']))
    }

    /// A number from 0 to `most`; a fault where it is none.
    fn number(&mut self, key: &str, radix: u32, most: u32) -> Option<u32> {
        let (value, span) = self.get(key)?;
        let digits = if radix == 16 { value.trim_start_matches("0x").trim_start_matches("0X") } else { value };
        let number = u32::from_str_radix(digits, radix).ok().filter(|number| *number <= most);
        if number.is_none() && self.faults.iter().all(|fault| !fault.message.starts_with(key)) {
            self.fault(
                span,
                &format!(
                    "{key} is no number from 0 to {}",
                    if radix == 16 { format!("{most:x}") } else { most.to_string() }
                ),
            );
        }
        number
    }

    fn ignore(&mut self, key: &'a str, reason: &'static str) {
        self.ignored.push((key, reason));
    }

    fn fault(&mut self, span: Range<usize>, message: &str) {
        self.faults.push(Diagnostic::at(self.path, self.text, span, message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn import(name: &str, text: &str) -> Import {
        let mut import = Import::default();
        import.add(Path::new(name), text);
        import
    }

    /// The `steps` that a file comes to.
    fn steps(text: &str) -> String {
        let import = import("1234:5678", text);
        assert!(import.faults.is_empty(), "{:?}", import.faults);
        import.toml().split_once("steps = ").unwrap().1.trim_end().to_owned()
    }

    fn without_meaning(text: &str) -> Vec<String> {
        import("1234:5678", text).without_meaning.into_keys().collect()
    }

    const REZERO: &str = "55534243123456780000000000000601000000000000000000000000000000";

    #[test]
    fn keys_become_steps_in_usb_modeswitchs_order() {
        assert_eq!(steps("StandardEject=1\n"), "[{ switch = \"eject\" }]");
        assert_eq!(steps("HuaweiNewMode = yes"), "[{ switch = \"huawei-new\" }]");
        assert_eq!(steps("Configuration=0"), "[{ configuration = \"preferred\" }]");
        assert_eq!(steps("Configuration=0x0a"), "[{ configuration = 10 }]");
        assert_eq!(
            steps(&format!("MessageContent=\"{REZERO}\"")),
            format!("[{{ switch = [{{ bulk = \"{REZERO}\" }}] }}]")
        );
        assert_eq!(
            steps("SonyMode=1\nConfiguration=2\nTargetClass=0x02"),
            "[{ switch = { target-class = 0x02, do = [\"sony\", { set-configuration = 2 }] } }]"
        );
        assert_eq!(
            steps("OptionMode=1\nAltSetting=1\nResetUSB=1\nConfiguration=1"),
            "[{ switch = [\n    \"option\",\n    { set-configuration = 1 },\n    { alternate-setting = 1 },\n    \
             { sleep = 1 },\n    \"reset\",\n] }]"
        );
        assert_eq!(steps("DetachStorageOnly=1"), "[{ switch = \"detach\" }]");
        assert_eq!(
            steps(
                "StandardEject=1\nInterface=1\nWaitBefore=2\nReleaseDelay=4000\nMessageEndpoint=05\nResponseEndpoint=85"
            ),
            "[{ switch = { interface = 0x01, out = 0x05, in = 0x85, wait-before = 2, release-delay = 4, do = [\"eject\"] } }]"
        );
        assert_eq!(steps("PantechMode=2"), "[{ switch = \"pantech\" }]");
        assert!(steps("PantechMode=4").contains("value = 4"));
        assert_eq!(steps("PantechMode=1"), "[]");
    }

    #[test]
    fn what_usb_modeswitch_passes_over_is_passed_over() {
        let eject = steps(&format!("StandardEject=1\nMessageContent={REZERO}\nMessageContent2={REZERO}"));
        assert_eq!(eject.matches("bulk").count(), 1);
        assert_eq!(steps(&format!("CiscoMode=1\nMessageContent={REZERO}")), "[{ switch = \"cisco\" }]");
        assert_eq!(steps("StandardEject=0\nHuaweiMode=1\nHuaweiMode=0"), "[{ switch = \"huawei\" }]");
        assert_eq!(steps("; StandardEject=1\n #HuaweiMode=1\n!SierraMode=1"), "[]");
        assert_eq!(
            without_meaning("NeedResponse=1\nTargetVendor=0x1234\nStandardEject=1\nCheckSuccess=40"),
            ["CheckSuccess", "NeedResponse", "TargetVendor"]
        );
        assert_eq!(without_meaning("StandardEject=1\nResponseEndpoint=0x01"), ["ResponseEndpoint"]);
    }

    #[test]
    fn a_key_without_meaning_is_told_once() {
        let mut import = Import::default();
        for name in ["1234:0001", "1234:0002", "1234:0003"] {
            import.add(Path::new(name), "StandardEject=1\nNeedResponse=1\n");
        }
        let told = import.without_meaning.get("NeedResponse").unwrap().to_string();
        assert!(told.starts_with("in 1234:0001 and 2 more files, has no meaning here: the answer to a CBW"), "{told}");
        assert_eq!(import.toml().matches("[[device]]").count(), 1);
    }

    #[test]
    fn the_name_says_what_it_is_for() {
        let toml = import("05C6:1000:uMa=A \"B\":sRe=2", "# ## Some stick\nStandardEject=1").toml();
        assert!(toml.contains("id = \"05c6:1000\"\nname = \"Some stick\"\n"), "{toml}");
        assert!(toml.contains("manufacturer = 'A \"B\"'\nscsi-revision = \"2\"\n"), "{toml}");
        let toml = import("1234:5678", "# a\u{1b}[2J\tb\nStandardEject=1").toml();
        assert!(toml.contains("name = \"a[2Jb\""), "{toml}");
        let toml = import("my.conf", "DefaultVendor=0x12d1\nDefaultProduct=0x1446\nHuaweiNewMode=1").toml();
        assert!(toml.contains("id = \"12d1:1446\"\nname = \"12d1:1446\""), "{toml}");
    }

    #[test]
    fn of_equal_matches_the_last_by_name_is_the_last() {
        let mut import = Import::default();
        for name in ["05c6:1000:uMa=Option", "05c6:1000:sVe=Option", "05c6:1000"] {
            import.add(Path::new(name), "OptionMode=1");
        }
        let toml = import.toml();
        let at = |text: &str| toml.find(text).unwrap();
        assert!(at("scsi-vendor") < at("manufacturer"));
        assert_eq!(toml.matches("[[device]]").count(), 3, "{toml}");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place_and_gives_no_entry() {
        for (name, text, place, message) in [
            ("1234:5678", "StandardEject=1\nHuaweMode=1", "2:11", "knows no key HuaweMode"),
            ("1234:5678", "HuaweiMode=1\nSierraMode=1", "2:12", "two modes at once"),
            ("1234:5678", "MessageContent=\"5553424\"", "1:17", "hex digits"),
            ("1234:5678", "MessageContent=5553424312345678", "1:16", "31 bytes"),
            ("1234:5678", "Configuration=x", "1:15", "Configuration is no number"),
            ("1234:5678", "StandardEject=1\nWaitBefore=61", "2:12", "WaitBefore is no number from 0 to 60"),
            ("1234:5678", "StandardEject=1\nInterface=100", "2:11", "Interface is no number from 0 to ff"),
            ("1234:5678:uXx=1", "StandardEject=1", "1:1", "names no text"),
            ("my.conf", "StandardEject=1", "1:1", "DefaultVendor"),
        ] {
            let import = import(name, text);
            let [fault] = import.faults.as_slice() else { panic!("{text}: {:?}", import.faults) };
            assert_eq!(format!("{}:{}", fault.line, fault.column), place, "{text}");
            assert!(fault.message.contains(message), "{fault}");
            assert!(!import.toml().contains("[[device]]"));
        }
    }

    /// Whatever the files hold, what comes out can be read, and holds as many IDs as there are files without fault.
    #[test]
    fn no_text_gives_quirks_that_cannot_be_read() {
        let seed = "# Nàme \"x\"\nTargetClass=0xff\nInterface=09\nMessageEndpoint=0x05\nResponseEndpoint=85\nWaitBefore=2\n\
            ReleaseDelay=400\nStandardEject=1\nMessageContent=\"0f00\"\nMessageContent2=10\nConfiguration=2\nAltSetting=1\n\
            ResetUSB=1\nPantechMode=4\nHuaweiMode=0\nDetachStorageOnly=1\n";
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from((state >> 8) % below as u64).unwrap()
        };
        let mut usable = 0;
        for _ in 0..3000 {
            let mut text: Vec<char> = seed.chars().collect();
            for _ in 0..random(6) {
                let at = random(text.len().max(1));
                match random(4) {
                    0 if text.len() > 1 => drop(text.remove(at)),
                    0 => {}
                    1 => text.insert(at.min(text.len()), ['\n', '=', '"', '\'', '#', '\u{7}', '9', 'f'][random(8)]),
                    2 => text[at] = ['1', '0', 'x', '\\', '\r', ']', 'ß', '-'][random(8)],
                    _ => text.truncate(at.max(1)),
                }
            }
            let import = import("1234:5678:uMa=a'\"\\b\t", &text.iter().collect::<String>());
            let file = crate::database::layers::ConfigFile {
                layer: crate::database::layers::Layer::Shipped,
                path: "x.toml".into(),
            };
            let (quirks, errors) = crate::database::quirks::fragment::parse(&file, &import.toml());
            assert_eq!(errors, [], "{}", import.toml());
            assert_eq!(quirks.len(), usize::from(import.faults.is_empty()));
            usable += quirks.len();
        }
        assert!(usable > 300, "{usable}");
    }
}
