//! The policy: `config.toml` and `config.d/*.toml` in the three layers.
//!
//! Each key is resolved separately. From the strongest to the weakest: the administrator's `[[device]]` that matches
//! the modem, the administrator's global key, the quirk, the shipped default. The administrator's files are those in
//! `/etc` and `/run`. Among files of the same strength, a drop-in is stronger than `config.toml`, a drop-in with a
//! later name is stronger than one with an earlier name, and `/etc/…/config.toml` is stronger than
//! `/run/…/config.toml`.
//!
//! A drop-in replaces the drop-ins of the same name in lower layers. `config.toml` does not: all layers are read, so
//! that a key that the administrator does not set keeps the value that the package ships.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::bus::DeviceId;
use crate::bus::Port;
use crate::database::diagnostic::{Diagnostic, LoadError, Location, line_of};
use crate::database::layers::{self, ConfigFile, Layer};
use crate::database::list::{List, Listed};
use crate::host::root::Root;
use crate::usb::Function;

/// Seconds. A modem cannot answer faster than the lower limit. The upper limit of HOOK is far below the 180 s that udevd
/// allows for an event.
const HOOK: RangeInclusive<f64> = 0.1..=30.0;
const MODEM_READY: RangeInclusive<f64> = 1.0..=600.0;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Prefer {
    Mbim,
    Qmi,
    Keep,
}

impl Prefer {
    /// The preferred function. `None` for what the kernel chose.
    pub fn function(self) -> Option<Function> {
        match self {
            Prefer::Mbim => Some(Function::Mbim),
            Prefer::Qmi => Some(Function::Qmi),
            Prefer::Keep => None,
        }
    }
}

impl fmt::Display for Prefer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.function().map_or("keep", Function::name))
    }
}

/// What a Huawei stick becomes when it leaves install mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Huawei {
    /// What the database entry says.
    Entry,
    /// A network card, with its own NAT.
    Network,
    /// A modem with a network interface and AT ports.
    Modem,
    /// A modem with serial ports.
    Serial,
}

impl Huawei {
    /// The switch method. `None` for the method of the entry.
    pub fn method(self) -> Option<&'static str> {
        match self {
            Huawei::Entry => None,
            Huawei::Network => Some("huawei-new"),
            Huawei::Modem => Some("huawei-alternative"),
            Huawei::Serial => Some("huawei-serial"),
        }
    }
}

impl fmt::Display for Huawei {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Huawei::Entry => "entry",
            Huawei::Network => "network",
            Huawei::Modem => "modem",
            Huawei::Serial => "serial",
        })
    }
}

/// Where a value is set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// The value is in no file: the shipped `config.toml` is missing or lacks the key.
    BuiltIn,
    /// The value is in a file. With `device`, it is in a `[[device]]` table.
    File {
        #[serde(flatten)]
        location: Location,
        device: bool,
    },
}

impl Origin {
    /// Whether an administrator, rather than the package, set the value.
    pub(crate) fn is_administrator(&self) -> bool {
        matches!(self, Origin::File { location, .. } if location.layer != Layer::Shipped)
    }

    /// Whether the value is set for certain modems only.
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Origin::File { device: true, .. })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in default"),
            Origin::File { location, device: true } => write!(f, "{location}, [[device]]"),
            Origin::File { location, device: false } => write!(f, "{location}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

/// A value, for display in the notation of the files and in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum Value {
    Prefer(Prefer),
    Huawei(Huawei),
    Flag(bool),
    Seconds(f64),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Prefer(value) => value.fmt(f),
            Value::Huawei(value) => value.fmt(f),
            Value::Flag(value) => value.fmt(f),
            Value::Seconds(value) => value.fmt(f),
        }
    }
}

/// The policy for one modem, or the values of one table: a key that the table lacks has [`Origin::BuiltIn`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub prefer: Setting<Prefer>,
    pub switch: Setting<bool>,
    pub huawei: Setting<Huawei>,
    pub fcc_auth: Setting<bool>,
    /// How long one run inside a udev event may take in total.
    pub hook: Setting<Duration>,
    /// How long to keep retrying a modem that is not ready.
    pub modem_ready: Setting<Duration>,
}

impl Default for Resolved {
    fn default() -> Resolved {
        fn built_in<T>(value: T) -> Setting<T> {
            Setting { value, origin: Origin::BuiltIn }
        }
        Resolved {
            prefer: built_in(Prefer::Mbim),
            switch: built_in(true),
            huawei: built_in(Huawei::Entry),
            fcc_auth: built_in(true),
            hook: built_in(Duration::from_millis(1500)),
            modem_ready: built_in(Duration::from_secs(60)),
        }
    }
}

impl Resolved {
    /// Each key with its value. A key in a table has the form `table.key`.
    pub(crate) fn entries(&self) -> [(&'static str, Value, &Origin); 6] {
        let Resolved { prefer, switch, huawei, fcc_auth, hook, modem_ready } = self;
        let seconds = |timeout: &Setting<Duration>| Value::Seconds(timeout.value.as_secs_f64());
        [
            ("prefer", Value::Prefer(prefer.value), &prefer.origin),
            ("switch", Value::Flag(switch.value), &switch.origin),
            ("huawei", Value::Huawei(huawei.value), &huawei.origin),
            ("fcc-auth", Value::Flag(fcc_auth.value), &fcc_auth.origin),
            ("timeouts.hook", seconds(hook), &hook.origin),
            ("timeouts.modem-ready", seconds(modem_ready), &modem_ready.origin),
        ]
    }
}

/// The keys of a file besides `device`, and `match` in a `[[device]]`.
pub(crate) const KEYS: [&str; 6] = ["match", "prefer", "switch", "huawei", "fcc-auth", "timeouts"];

/// Keys that only files of the database have.
const OF_QUIRKS: [&str; 4] = ["schema", "id", "name", "steps"];

/// Whether a file that is in no directory of the program has policy: `match`, or keys of the policy and none of
/// the database.
pub(crate) fn is_policy(text: &str) -> bool {
    let Ok(table) = toml::from_str::<toml::Table>(text) else { return false };
    let devices = table.get("device").and_then(toml::Value::as_array).into_iter().flatten();
    let tables: Vec<&toml::Table> = devices.filter_map(toml::Value::as_table).chain([&table]).collect();
    let has = |keys: &[&str]| tables.iter().any(|table| keys.iter().any(|key| table.contains_key(*key)));
    has(&["match"]) || (has(&KEYS) && !has(&OF_QUIRKS))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Fragment {
    prefer: Option<Spanned<Prefer>>,
    switch: Option<Spanned<bool>>,
    huawei: Option<Spanned<Huawei>>,
    fcc_auth: Option<Spanned<bool>>,
    timeouts: Option<Timeouts>,
    #[serde(default)]
    device: List<DeviceFragment>,
}

impl Listed for DeviceFragment {
    const LIST: &'static str = "the header [[device]], with two pairs of brackets";
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table [[device]]")]
struct DeviceFragment {
    r#match: Spanned<Match>,
    prefer: Option<Spanned<Prefer>>,
    switch: Option<Spanned<bool>>,
    huawei: Option<Spanned<Huawei>>,
    fcc_auth: Option<Spanned<bool>>,
    timeouts: Option<Timeouts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", expecting = "a table like { hook = 1.5, modem-ready = 60 }")]
struct Timeouts {
    hook: Option<Spanned<Seconds>>,
    modem_ready: Option<Spanned<Seconds>>,
}

/// A number of seconds, as an integer or a float.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged, expecting = "expected a number of seconds")]
enum Seconds {
    Whole(i64),
    Fraction(f64),
}

impl Seconds {
    fn get(self) -> f64 {
        match self {
            Seconds::Whole(seconds) => seconds as f64,
            Seconds::Fraction(seconds) => seconds,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table like { id = \"1199:9071\" }")]
struct Match {
    id: Option<Spanned<String>>,
    serial: Option<Spanned<String>>,
    port: Option<Spanned<String>>,
}

#[derive(Debug, Default)]
struct Selector {
    id: Option<Setting<DeviceId>>,
    serial: Option<Setting<String>>,
    port: Option<Port>,
}

impl Selector {
    /// Whether the modem has the ID and the port.
    fn has(&self, id: DeviceId, port: Option<&Port>) -> bool {
        self.id.as_ref().is_none_or(|wanted| wanted.value == id)
            && self.port.as_ref().is_none_or(|wanted| Some(wanted) == port)
    }

    /// Whether every modem that `self` matches also matches `other`.
    fn is_within(&self, other: &Selector) -> bool {
        let same_id = |wanted: &Setting<DeviceId>| self.id.as_ref().is_some_and(|own| own.value == wanted.value);
        other.id.as_ref().is_none_or(same_id)
            && other.port.as_ref().is_none_or(|wanted| self.port.as_ref() == Some(wanted))
            && other.has_serial(|| self.serial.as_ref().map(|own| own.value.clone()))
    }

    /// Whether the modem has the serial number. `serial` is called only if it matters.
    fn has_serial(&self, serial: impl Fn() -> Option<String>) -> bool {
        let is = |wanted: &Setting<String>| serial().is_some_and(|serial| words(&serial).eq(words(&wanted.value)));
        self.serial.as_ref().is_none_or(is)
    }
}

/// The parts of a serial number between spaces. In udev's properties, `_` stands for spaces.
fn words(serial: &str) -> impl Iterator<Item = &str> {
    serial.split(|character: char| character == '_' || character.is_whitespace()).filter(|word| !word.is_empty())
}

/// One table of a file: its global keys, or a `[[device]]`.
#[derive(Debug)]
struct Table {
    by_administrator: bool,
    /// `None` for the global keys.
    selector: Option<Selector>,
    settings: Resolved,
}

impl Table {
    /// A higher value is stronger. The quirk is between the package's values and the administrator's.
    fn strength(&self) -> (bool, bool) {
        (self.by_administrator, self.selector.is_some())
    }
}

/// The tables of all files, from the weakest to the strongest.
#[derive(Debug, Default)]
pub struct Policy(Vec<Table>);

impl Policy {
    /// Reads all files. A file with an error is left out.
    pub fn load(root: &Root) -> (Policy, Vec<LoadError>) {
        let mut errors: Vec<LoadError> = Vec::new();
        let mut texts: Vec<(ConfigFile, String)> = Vec::new();
        for file in layers::in_each_layer(root, "config.toml") {
            match layers::read(root, &file) {
                Ok(Some(text)) => texts.push((file, text)),
                // An empty file masks lower layers, but never the values that the package ships.
                Ok(None) => texts.retain(|(lower, _)| lower.layer == Layer::Shipped),
                Err(error) => errors.push(error.into()),
            }
        }
        let (drop_ins, unreadable) = layers::files(root, "config.d", |_, _| true);
        errors.extend(unreadable.into_iter().map(LoadError::from));
        for file in drop_ins {
            match layers::read(root, &file) {
                Ok(text) => texts.extend(text.map(|text| (file, text))),
                Err(error) => errors.push(error.into()),
            }
        }
        let mut policy = Policy::default();
        for (file, text) in &texts {
            errors.extend(policy.add(file, text).into_iter().map(LoadError::from));
        }
        (policy, errors)
    }

    /// Adds the tables of a file, or returns its errors. Call it for weaker files first.
    pub fn add(&mut self, file: &ConfigFile, text: &str) -> Vec<Diagnostic> {
        let fragment: Fragment = match toml::from_str(text) {
            Ok(fragment) => fragment,
            Err(error) => {
                let hint = |_: &str, _: &str| {
                    "; quirks belong in quirks.d, and the policy selects a modem with `match`".to_owned()
                };
                return vec![Diagnostic::from_toml_with_hint(&file.path, text, &error, &OF_QUIRKS, hint)];
            }
        };
        let by_administrator = file.layer != Layer::Shipped;
        let mut reader = Reader { file, text, device: false, errors: Vec::new() };
        let settings =
            reader.settings(fragment.prefer, fragment.switch, fragment.huawei, fragment.fcc_auth, fragment.timeouts);
        let mut tables = vec![Table { by_administrator, selector: None, settings }];
        reader.device = true;
        for entry in fragment.device.0 {
            let selector = Some(reader.selector(entry.r#match));
            let settings = reader.settings(entry.prefer, entry.switch, entry.huawei, entry.fcc_auth, entry.timeouts);
            tables.push(Table { by_administrator, selector, settings });
        }
        if reader.errors.is_empty() {
            self.0.extend(tables);
            // The sort is stable: among tables of the same strength, a later file stays the stronger one.
            self.0.sort_by_key(Table::strength);
        }
        reader.errors
    }

    /// The IDs that select modems, with their locations.
    pub(crate) fn ids(&self) -> impl Iterator<Item = (DeviceId, &Location)> {
        let ids = self.0.iter().filter_map(|table| table.selector.as_ref()?.id.as_ref());
        ids.filter_map(|id| match &id.origin {
            Origin::File { location, .. } => Some((id.value, location)),
            Origin::BuiltIn => None,
        })
    }

    /// The policy for one modem. `serial` is called only if a `[[device]]` names a serial number. Without a port, the
    /// result is the policy for an ID on any port.
    pub fn resolve(&self, id: DeviceId, port: Option<&Port>, serial: impl Fn() -> Option<String>) -> Resolved {
        let mut resolved = Resolved::default();
        let matches = |selector: &Selector| selector.has(id, port) && selector.has_serial(&serial);
        for Table { settings, .. } in self.0.iter().filter(|table| table.selector.as_ref().is_none_or(matches)) {
            take(&mut resolved.prefer, &settings.prefer);
            take(&mut resolved.switch, &settings.switch);
            take(&mut resolved.huawei, &settings.huawei);
            take(&mut resolved.fcc_auth, &settings.fcc_auth);
            take(&mut resolved.hook, &settings.hook);
            take(&mut resolved.modem_ready, &settings.modem_ready);
        }
        resolved
    }

    /// The keys in a `[[device]]` that never apply, because a stronger `[[device]]` sets them for more modems, or for the
    /// same modems in the same file: a drop-in may override another file. Each with its location and that of the stronger
    /// key.
    pub(crate) fn overridden(&self) -> Vec<(&'static str, &Location, &Location)> {
        let mut overridden = Vec::new();
        for (at, weak) in self.0.iter().enumerate() {
            let Some(selector) = &weak.selector else { continue };
            let stronger = || self.0.iter().skip(at + 1).filter(|table| table.strength() == weak.strength()).rev();
            for (key, _, origin) in weak.settings.entries() {
                let Origin::File { location, .. } = origin else { continue };
                overridden.extend(stronger().find_map(|strong| {
                    let wider = strong.selector.as_ref().filter(|wider| selector.is_within(wider))?;
                    let (_, _, origin) = strong.settings.entries().into_iter().find(|(other, ..)| *other == key)?;
                    let Origin::File { location: by, .. } = origin else { return None };
                    (!wider.is_within(selector) || by.path == location.path).then_some((key, location, by))
                }));
            }
        }
        overridden
    }

    /// The serial numbers of the `[[device]]` tables that do not match the modem only because it has another one.
    pub(crate) fn other_serials(
        &self,
        id: DeviceId,
        port: &Port,
        serial: impl Fn() -> Option<String>,
    ) -> impl Iterator<Item = (&str, &Location)> {
        let selectors = self.0.iter().filter_map(|table| table.selector.as_ref());
        let others = selectors.filter(move |selector| selector.has(id, Some(port)) && !selector.has_serial(&serial));
        others.filter_map(|selector| match selector.serial.as_ref()? {
            Setting { value, origin: Origin::File { location, .. } } => Some((value.as_str(), location)),
            _ => None,
        })
    }
}

fn take<T: Clone>(current: &mut Setting<T>, new: &Setting<T>) {
    if new.origin != Origin::BuiltIn {
        *current = new.clone();
    }
}

struct Reader<'a> {
    file: &'a ConfigFile,
    text: &'a str,
    device: bool,
    errors: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn settings(
        &mut self,
        prefer: Option<Spanned<Prefer>>,
        switch: Option<Spanned<bool>>,
        huawei: Option<Spanned<Huawei>>,
        fcc_auth: Option<Spanned<bool>>,
        timeouts: Option<Timeouts>,
    ) -> Resolved {
        let (hook, modem_ready) = timeouts.map_or((None, None), |timeouts| (timeouts.hook, timeouts.modem_ready));
        let unset = Resolved::default();
        Resolved {
            prefer: prefer.map_or(unset.prefer, |value| self.setting(value)),
            switch: switch.map_or(unset.switch, |value| self.setting(value)),
            huawei: huawei.map_or(unset.huawei, |value| self.setting(value)),
            fcc_auth: fcc_auth.map_or(unset.fcc_auth, |value| self.setting(value)),
            hook: hook.and_then(|value| self.duration(value, HOOK)).unwrap_or(unset.hook),
            modem_ready: modem_ready.and_then(|value| self.duration(value, MODEM_READY)).unwrap_or(unset.modem_ready),
        }
    }

    fn setting<T>(&self, value: Spanned<T>) -> Setting<T> {
        let line = line_of(self.text, value.span().start);
        let location = Location { layer: self.file.layer, path: self.file.path.clone(), line };
        Setting { value: value.into_inner(), origin: Origin::File { location, device: self.device } }
    }

    fn duration(&mut self, value: Spanned<Seconds>, range: RangeInclusive<f64>) -> Option<Setting<Duration>> {
        let seconds = value.get_ref().get();
        if !range.contains(&seconds) {
            let message = format!("expected {} to {} seconds, got {seconds}", range.start(), range.end());
            self.errors.push(Diagnostic::at(&self.file.path, self.text, value.span(), message));
            return None;
        }
        let Setting { origin, .. } = self.setting(value);
        Some(Setting { value: Duration::from_secs_f64(seconds), origin })
    }

    fn selector(&mut self, r#match: Spanned<Match>) -> Selector {
        let span = r#match.span();
        let Match { id, serial, port } = r#match.into_inner();
        if id.is_none() && serial.is_none() && port.is_none() {
            let message =
                "match needs at least one of id, serial and port; settings for all modems belong above [[device]]";
            self.errors.push(Diagnostic::at(&self.file.path, self.text, span, message));
        }
        let id = id.and_then(|id| {
            let parsed = id.get_ref().parse::<DeviceId>();
            let value = parsed.map_err(|error| self.error(&id, error.to_string())).ok()?;
            Some(Setting { value, origin: self.setting(id).origin })
        });
        let serial = serial.map(|serial| {
            if words(serial.get_ref()).next().is_none() {
                self.error(&serial, "no modem has an empty serial number: select it by `id` or `port`".to_owned());
            }
            self.setting(serial)
        });
        let port = port.and_then(|port| {
            let parsed = Port::new(port.get_ref());
            match (&parsed, &id) {
                (None, _) => {
                    let text = port.get_ref();
                    self.error(&port, format!("expected a port such as \"1-1.2\" or \"0000:08:00.0\", got {text:?}"));
                }
                (Some(parsed), Some(Setting { value: id, .. })) if parsed.bus() != id.bus => {
                    let (of_port, of_id) = (parsed.bus(), id.bus);
                    self.error(&port, format!("no modem has both: the port is on {of_port}, and {id} is a {of_id} ID"));
                }
                _ => {}
            }
            parsed
        });
        Selector { id, serial, port }
    }

    fn error<T>(&mut self, value: &Spanned<T>, message: String) {
        self.errors.push(Diagnostic::at(&self.file.path, self.text, value.span(), message));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::root::tests::TempRoot;

    /// Tables that can set a key, from the weakest to the strongest: the file, and whether it is a `[[device]]`.
    const TABLES: [(&str, bool); 12] = [
        ("/usr/share/wwan-quirks/config.toml", false),
        ("/usr/share/wwan-quirks/config.d/50-package.toml", false),
        ("/usr/share/wwan-quirks/config.toml", true),
        ("/usr/share/wwan-quirks/config.d/50-package.toml", true),
        ("/run/wwan-quirks/config.toml", false),
        ("/etc/wwan-quirks/config.toml", false),
        ("/run/wwan-quirks/config.d/20-run.toml", false),
        ("/etc/wwan-quirks/config.d/30-etc.toml", false),
        ("/run/wwan-quirks/config.toml", true),
        ("/etc/wwan-quirks/config.toml", true),
        ("/run/wwan-quirks/config.d/20-run.toml", true),
        ("/etc/wwan-quirks/config.d/30-etc.toml", true),
    ];
    /// Each key with two values that differ from the built-in one, if the key has that many.
    const KEYS: [(&str, [&str; 2]); 6] = [
        ("prefer", ["\"qmi\"", "\"keep\""]),
        ("switch", ["false", "true"]),
        ("huawei", ["\"serial\"", "\"network\""]),
        ("fcc-auth", ["false", "true"]),
        ("timeouts.hook", ["2.5", "3.5"]),
        ("timeouts.modem-ready", ["70", "80"]),
    ];
    const SHIPPED: &str = TABLES[0].0;
    const RUNTIME: &str = TABLES[4].0;
    const ADMINISTRATOR: &str = TABLES[5].0;

    struct Files(TempRoot);

    impl Files {
        fn new(name: &str) -> Files {
            Files(TempRoot::new(&format!("policy-{name}")))
        }

        fn write(&self, path: &str, text: &str) {
            self.0.write(path, text);
        }

        /// Loads the policy that sets `values`: each is a table, a key and a value.
        fn resolve(&self, values: &[(usize, &str, &str)]) -> BTreeMap<&'static str, (String, Origin)> {
            let mut texts: BTreeMap<&str, (String, String)> = BTreeMap::new();
            for (table, key, value) in values {
                let (path, device) = TABLES[*table];
                let (global, of_device) = texts.entry(path).or_default();
                let text = if device { of_device } else { global };
                text.push_str(&format!("{key} = {value}\n"));
            }
            let _ = fs::remove_dir_all(self.0.at("/"));
            for (path, (global, of_device)) in &texts {
                // An empty file would mask other files.
                self.write(
                    path,
                    &format!("# {path}\n{global}[[device]]\nmatch = {{ id = \"1199:9079\" }}\n{of_device}"),
                );
            }
            self.load()
        }

        fn load(&self) -> BTreeMap<&'static str, (String, Origin)> {
            let (policy, errors) = Policy::load(&self.0);
            assert!(errors.is_empty(), "{errors:?}");
            let resolved = policy.resolve("1199:9079".parse().unwrap(), None, || None);
            let entries = resolved.entries().into_iter();
            entries.map(|(key, value, origin)| (key, (value.to_string(), origin.clone()))).collect()
        }
    }

    /// Checks that the value is `value`, and that `table` sets it.
    fn check(found: &(String, Origin), table: usize, value: &str, context: &str) {
        let (path, in_device) = TABLES[table];
        let Origin::File { location, device } = &found.1 else { panic!("{context}: {found:?}") };
        let value = value.trim_matches('"');
        assert_eq!((found.0.as_str(), location.path.to_str().unwrap(), *device), (value, path, in_device), "{context}");
        assert_eq!(found.1.is_administrator(), !path.starts_with("/usr"), "{context}");
    }

    #[test]
    fn every_key_can_be_set_in_every_table() {
        let files = Files::new("alone");
        for table in 0..TABLES.len() {
            for (key, [value, _]) in KEYS {
                let found = files.resolve(&[(table, key, value)]);
                check(&found[key], table, value, key);
                for (other, (_, origin)) in found.iter().filter(|(other, _)| **other != key) {
                    assert_eq!(*origin, Origin::BuiltIn, "{key} in {table} sets {other}");
                }
            }
        }
    }

    #[test]
    fn the_stronger_of_two_tables_sets_the_key() {
        let files = Files::new("same-key");
        for weak in 0..TABLES.len() {
            for strong in weak + 1..TABLES.len() {
                let values = KEYS.map(|(key, [stronger, weaker])| [(weak, key, weaker), (strong, key, stronger)]);
                let found = files.resolve(values.as_flattened());
                for (key, [stronger, _]) in KEYS {
                    check(&found[key], strong, stronger, &format!("{key} in {weak} and {strong}"));
                }
            }
        }
    }

    #[test]
    fn a_table_does_not_hide_keys_that_it_does_not_set() {
        let files = Files::new("two-keys");
        for (one, other) in (0..TABLES.len()).flat_map(|one| (0..TABLES.len()).map(move |other| (one, other))) {
            // The other table sets a neighbour of the key.
            let mut index = 0;
            let values = KEYS.map(|(key, [value, _])| {
                index += 1;
                (if index % 2 == 0 { one } else { other }, key, value)
            });
            let found = files.resolve(&values);
            for (table, key, value) in values {
                check(&found[key], table, value, &format!("{key} in {table} of {one} and {other}"));
            }
        }
    }

    /// `make install FCC_AUTH=false`: an administrator must write the key to change it.
    #[test]
    fn what_the_package_ships_holds_until_an_administrator_sets_the_key() {
        let files = Files::new("package");
        let shipped = || {
            let _ = fs::remove_dir_all(files.0.at("/"));
            files.write(SHIPPED, "fcc-auth = false\n");
            files.write(RUNTIME, "prefer = \"qmi\"\n");
        };
        shipped();
        assert_eq!(files.load()["prefer"].0, "qmi");
        for text in ["", "# empty but for this line\n", "prefer = \"keep\"\n", "[timeouts]\n"] {
            shipped();
            files.write(ADMINISTRATOR, text);
            check(&files.load()["fcc-auth"], 0, "false", text);
        }
        // An empty file and a link to /dev/null mask the file in /run.
        shipped();
        files.write(ADMINISTRATOR, "");
        assert_eq!(files.load()["prefer"].1, Origin::BuiltIn);
        fs::remove_file(files.0.at(ADMINISTRATOR)).unwrap();
        symlink("/dev/null", files.0.at(ADMINISTRATOR)).unwrap();
        check(&files.load()["fcc-auth"], 0, "false", "/dev/null");
        assert_eq!(files.load()["prefer"].1, Origin::BuiltIn);
        fs::remove_file(files.0.at(ADMINISTRATOR)).unwrap();
        files.write(ADMINISTRATOR, "fcc-auth = true\n");
        check(&files.load()["fcc-auth"], 5, "true", "fcc-auth = true");
    }

    #[test]
    fn a_drop_in_replaces_the_drop_ins_of_its_name_in_lower_layers() {
        let files = Files::new("drop-in");
        files.write("/usr/share/wwan-quirks/config.d/50-package.toml", "fcc-auth = false\nswitch = false\n");
        files.write("/etc/wwan-quirks/config.d/50-package.toml", "switch = true\n");
        let found = files.load();
        assert_eq!((found["fcc-auth"].1.clone(), found["switch"].0.as_str()), (Origin::BuiltIn, "true"));
        files.write("/etc/wwan-quirks/config.d/50-package.toml", "");
        assert_eq!(files.load()["switch"].1, Origin::BuiltIn);
    }

    #[test]
    fn an_entry_for_another_modem_changes_nothing() {
        let files = Files::new("other");
        for wanted in ["id = \"1199:9071\"", "port = \"1-1\"", "serial = \"X\"", "id = \"1199:9079\", port = \"1-1\""] {
            files.write(ADMINISTRATOR, &format!("[[device]]\nmatch = {{ {wanted} }}\nswitch = false\n"));
            assert_eq!(files.load()["switch"].1, Origin::BuiltIn, "{wanted}");
        }
    }

    /// `udevadm info` prints the properties of udev, and the modem may pad its serial number.
    #[test]
    fn a_serial_number_may_be_written_like_in_the_properties_of_udev() {
        let file = ConfigFile { layer: Layer::Administrator, path: "config.toml".into() };
        let (id, port) = ("1199:9079".parse().unwrap(), Port::new("1-1").unwrap());
        for (wanted, serial, expected) in [
            ("AB_123", Some("AB 123 "), true),
            ("AB 123", Some("  AB 123"), true),
            ("AB  123_", Some("AB_123"), true),
            ("AB123", Some("AB 123"), false),
            ("AB", Some("AB 123"), false),
            ("ab 123", Some("AB 123"), false),
            ("AB", Some(" "), false),
            ("AB", None, false),
        ] {
            let mut policy = Policy::default();
            let text = format!("[[device]]\nmatch = {{ serial = \"{wanted}\" }}\nswitch = false\n");
            assert_eq!(policy.add(&file, &text), []);
            let serial = || serial.map(str::to_owned);
            let found = policy.resolve(id, Some(&port), serial).switch;
            assert_eq!(found.origin != Origin::BuiltIn, expected, "{wanted:?} {:?}", serial());
            let others: Vec<_> = policy.other_serials(id, &port, serial).map(|(serial, _)| serial).collect();
            assert_eq!(others.is_empty(), expected, "{others:?}");
        }
        for empty in ["", " ", "_"] {
            let text = format!("[[device]]\nmatch = {{ serial = \"{empty}\" }}\n");
            assert_eq!(Policy::default().add(&file, &text).len(), 1, "{empty:?}");
        }
    }

    /// The man page and the shipped file state the same values that the program uses without any file.
    #[test]
    fn the_shipped_policy_sets_every_key_to_its_default() {
        let files = Files::new("shipped");
        files.write(SHIPPED, include_str!("../../config/config.toml"));
        let shipped = files.load();
        fs::remove_file(files.0.at(SHIPPED)).unwrap();
        for (key, (value, _)) in files.load() {
            check(&shipped[key], 0, &value, key);
        }
    }
}
