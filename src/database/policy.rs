//! The administrator's word: `config.toml` and `config.d/*.toml` in the three layers.
//!
//! A setting is looked for in this order: the administrator's `[[device]]` that matches this modem, the
//! administrator's own global key (in `/etc` or `/run`), the quirk's own wish, the shipped default.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use crate::database::diagnostic::{Invalid, line_of};
use crate::database::layers::{self, Layer, LayerError, Layered};
use crate::database::quirks::Place;
use crate::host::root::Root;
use crate::usb::Function;
use crate::usb::Port;
use crate::usb::UsbId;

/// Seconds. Below the first a modem cannot answer; above the second udev would not wait, or nobody would.
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
    /// The function that is preferred; none for what the kernel chose.
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

/// Who set a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Origin {
    /// Nobody: it is built in.
    BuiltIn,
    /// A file; `device` where it stands in a `[[device]]`.
    File {
        #[serde(flatten)]
        place: Place,
        device: bool,
    },
}

impl Origin {
    /// Whether an administrator said it, rather than the distribution or nobody.
    pub fn is_administrator(&self) -> bool {
        matches!(self, Origin::File { place, .. } if place.layer != Layer::Shipped)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::BuiltIn => f.write_str("built-in default"),
            Origin::File { place, device: true } => write!(f, "{place}, [[device]]"),
            Origin::File { place, device: false } => write!(f, "{place}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting<T> {
    pub value: T,
    pub origin: Origin,
}

/// The policy for one modem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    pub prefer: Setting<Prefer>,
    pub switch: Setting<bool>,
    pub fcc_auth: Setting<bool>,
    /// What one run inside a udev event may take, all its waits together.
    pub hook: Setting<Duration>,
    /// What a modem then gets that does not answer yet.
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
            fcc_auth: built_in(true),
            hook: built_in(Duration::from_millis(1500)),
            modem_ready: built_in(Duration::from_secs(60)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error("{0}")]
    Invalid(#[from] Box<Invalid>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Fragment {
    prefer: Option<Spanned<Prefer>>,
    switch: Option<Spanned<bool>>,
    fcc_auth: Option<Spanned<bool>>,
    timeouts: Option<Timeouts>,
    #[serde(default)]
    device: Vec<DeviceFragment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct DeviceFragment {
    r#match: Spanned<Match>,
    prefer: Option<Spanned<Prefer>>,
    switch: Option<Spanned<bool>>,
    fcc_auth: Option<Spanned<bool>>,
    timeouts: Option<Timeouts>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Timeouts {
    hook: Option<Spanned<Seconds>>,
    modem_ready: Option<Spanned<Seconds>>,
}

/// A number of seconds, whole or not.
#[derive(Deserialize, Clone, Copy)]
#[serde(untagged)]
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
#[serde(deny_unknown_fields)]
struct Match {
    id: Option<Spanned<String>>,
    serial: Option<String>,
    port: Option<Spanned<String>>,
}

/// What one place of a file sets.
#[derive(Debug, Default)]
struct Settings {
    prefer: Option<Setting<Prefer>>,
    switch: Option<Setting<bool>>,
    fcc_auth: Option<Setting<bool>>,
    hook: Option<Setting<Duration>>,
    modem_ready: Option<Setting<Duration>>,
}

#[derive(Debug, Default)]
struct Selector {
    id: Option<UsbId>,
    serial: Option<String>,
    port: Option<Port>,
}

/// All that the files say.
#[derive(Debug, Default)]
pub struct Policy {
    global: Vec<Settings>,
    devices: Vec<(Selector, Settings)>,
}

impl Policy {
    /// Reads all files. One that is wrong is left out, and told in the errors.
    pub fn load(root: &Root) -> (Policy, Vec<PolicyError>) {
        let mut policy = Policy::default();
        let mut errors = Vec::new();
        let mut files: Vec<Layered> = layers::file(root, "config.toml").into_iter().collect();
        match layers::files(root, "config.d", |_| true) {
            Ok(more) => files.extend(more),
            Err(error) => errors.push(error.into()),
        }
        for file in files {
            match layers::read(root, &file) {
                Ok(None) => {}
                Ok(Some(text)) => {
                    errors.extend(policy.add(&file, &text).into_iter().map(|error| Box::new(error).into()));
                }
                Err(error) => errors.push(error.into()),
            }
        }
        (policy, errors)
    }

    /// Adds what a file says; what is wrong with it.
    pub fn add(&mut self, file: &Layered, text: &str) -> Vec<Invalid> {
        let fragment: Fragment = match toml::from_str(text) {
            Ok(fragment) => fragment,
            Err(error) => return vec![Invalid::from_toml(&file.path, text, &error)],
        };
        let mut reader = Reader { file, text, device: false, errors: Vec::new() };
        let global = reader.settings(fragment.prefer, fragment.switch, fragment.fcc_auth, fragment.timeouts);
        reader.device = true;
        let mut devices = Vec::new();
        for entry in fragment.device {
            let selector = reader.selector(entry.r#match);
            devices.push((selector, reader.settings(entry.prefer, entry.switch, entry.fcc_auth, entry.timeouts)));
        }
        let errors = reader.errors;
        if errors.is_empty() {
            self.global.push(global);
            self.devices.extend(devices);
        }
        errors
    }

    /// What holds for one modem. `serial` is asked for only where a `[[device]]` names one. Without a port, what holds
    /// for an ID wherever it is plugged in.
    pub fn resolve(&self, id: UsbId, port: Option<&Port>, serial: impl Fn() -> Option<String>) -> Resolved {
        let mut resolved = Resolved::default();
        let matching = self.devices.iter().filter(|(selector, _)| {
            selector.id.is_none_or(|wanted| wanted == id)
                && selector.port.as_ref().is_none_or(|wanted| Some(wanted) == port)
                && selector.serial.as_ref().is_none_or(|wanted| serial().as_ref() == Some(wanted))
        });
        // Later files come after earlier ones, and a modem's own entries after all that is said in general.
        for settings in self.global.iter().chain(matching.map(|(_, settings)| settings)) {
            take(&mut resolved.prefer, &settings.prefer);
            take(&mut resolved.switch, &settings.switch);
            take(&mut resolved.fcc_auth, &settings.fcc_auth);
            take(&mut resolved.hook, &settings.hook);
            take(&mut resolved.modem_ready, &settings.modem_ready);
        }
        resolved
    }
}

fn take<T: Clone>(current: &mut Setting<T>, new: &Option<Setting<T>>) {
    if let Some(new) = new {
        *current = new.clone();
    }
}

struct Reader<'a> {
    file: &'a Layered,
    text: &'a str,
    device: bool,
    errors: Vec<Invalid>,
}

impl Reader<'_> {
    fn settings(
        &mut self,
        prefer: Option<Spanned<Prefer>>,
        switch: Option<Spanned<bool>>,
        fcc_auth: Option<Spanned<bool>>,
        timeouts: Option<Timeouts>,
    ) -> Settings {
        let (hook, modem_ready) = timeouts.map_or((None, None), |timeouts| (timeouts.hook, timeouts.modem_ready));
        Settings {
            prefer: prefer.map(|value| self.setting(value)),
            switch: switch.map(|value| self.setting(value)),
            fcc_auth: fcc_auth.map(|value| self.setting(value)),
            hook: hook.and_then(|value| self.duration(value, HOOK)),
            modem_ready: modem_ready.and_then(|value| self.duration(value, MODEM_READY)),
        }
    }

    fn setting<T>(&self, value: Spanned<T>) -> Setting<T> {
        let line = line_of(self.text, value.span().start);
        let place = Place { layer: self.file.layer, path: self.file.path.clone(), line };
        Setting { value: value.into_inner(), origin: Origin::File { place, device: self.device } }
    }

    fn duration(&mut self, value: Spanned<Seconds>, range: RangeInclusive<f64>) -> Option<Setting<Duration>> {
        let seconds = value.get_ref().get();
        if !range.contains(&seconds) {
            let message = format!("{seconds} seconds: from {} to {} can be had", range.start(), range.end());
            self.errors.push(Invalid::at(&self.file.path, self.text, value.span(), message));
            return None;
        }
        let Setting { origin, .. } = self.setting(value);
        Some(Setting { value: Duration::from_secs_f64(seconds), origin })
    }

    fn selector(&mut self, r#match: Spanned<Match>) -> Selector {
        let span = r#match.span();
        let Match { id, serial, port } = r#match.into_inner();
        if id.is_none() && serial.is_none() && port.is_none() {
            let message = "match needs at least one of id, serial and port; for all modems, write the key at the top";
            self.errors.push(Invalid::at(&self.file.path, self.text, span, message));
        }
        let id = id.and_then(|id| {
            let parsed = id.get_ref().parse();
            parsed.map_err(|error: crate::usb::NoUsbId| self.fault(&id, error.to_string())).ok()
        });
        let port = port.and_then(|port| {
            let parsed = Port::new(port.get_ref());
            if parsed.is_none() {
                self.fault(&port, format!("{:?} is no port: they look like \"1-1.2\"", port.get_ref()));
            }
            parsed
        });
        Selector { id, serial, port }
    }

    fn fault<T>(&mut self, value: &Spanned<T>, message: String) {
        self.errors.push(Invalid::at(&self.file.path, self.text, value.span(), message));
    }
}

/// Checks one file that is not installed.
pub fn check(path: &Path, text: &str) -> Vec<Invalid> {
    let file = Layered { layer: Layer::Administrator, path: PathBuf::from(path) };
    Policy::default().add(&file, text)
}
