//! `explain`: which quirk and which policy apply, from which file and line, and the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bus::{DeviceId, Port};
use crate::database::audit;
use crate::database::diagnostic::{Location, merge};
use crate::database::load::{self, Hidden, Lookup};
use crate::database::policy::{self, Policy};
use crate::database::quirks::{self, DeviceString, Matchers, Quirk};
use crate::host::deadline::Deadline;
use crate::host::journal::{print_error, printable};
use crate::host::root::Root;
use crate::modem::device::Device;
use crate::serve::error::{Error, Exit};
use crate::serve::event::Scope;
use crate::serve::lookup::{self, MatchedDevice};
use crate::serve::plan::{PlanLine, plan_without_device};
use crate::serve::preview::preview_lines;
use crate::serve::run::{LONGEST_PROBE, Run};
use crate::serve::trigger::Trigger;
use crate::verbs::output::{errors_json, print_json, report_errors};
use crate::verbs::select::{Found, devices, look_up, without_database};

/// Explains a device that is plugged in, or an ID. With `verbose`, the plan has each message in hex.
pub(crate) fn run(root: &Root, name: &str, verbose: bool, json: bool, out: &mut impl Write) -> Result<Exit, Error> {
    let (explained, mut errors) = match (devices(root, &[name.to_owned()]), name.parse::<DeviceId>()) {
        (Ok(devices), _) => {
            let (mut explained, mut errors) = (Vec::new(), Vec::new());
            for device in devices {
                let Some(found) = look_up(root, device, &mut errors) else { continue };
                let Found { device, matched, complete } = found;
                let plan = match &matched {
                    Some(matched) if complete => {
                        Run::to_preview(root, &device, &Scope::All, Trigger::Named).preview(matched, verbose)
                    }
                    _ => Ok(Vec::new()),
                };
                let plan = plan.unwrap_or_else(|error| {
                    errors.push(error.into());
                    Vec::new()
                });
                let (others, settings, strings) = others(root, &device, matched.is_some());
                explained.push(Explanation {
                    port: Some(device.port),
                    id: device.id,
                    hidden: if matched.is_none() { hidden(root, device.id) } else { Vec::new() },
                    matched,
                    others,
                    settings,
                    strings,
                    complete,
                    plan,
                });
            }
            (explained, errors)
        }
        (Err(_), Ok(id)) => {
            let (explained, errors) = explain_id(root, id);
            (vec![explained], errors)
        }
        (Err(error), Err(_)) => return Err(error),
    };
    if errors.is_empty() && explained.iter().all(|explained| explained.matched.is_none()) {
        errors.extend(without_database(root));
    }
    let without = explained.iter().filter(|explained| explained.is_without_quirk());
    let without: Vec<Error> = without.map(|explained| Error::NoQuirk(explained.title())).collect();
    let found = if without.is_empty() { Exit::Success } else { Exit::Failed };
    // The text says so already.
    errors.extend(without.into_iter().filter(|_| json));
    let exit = report_errors(&errors).max(found);
    if json {
        let values: Vec<Value> = explained.iter().map(Explanation::json).collect();
        print_json(out, "explain", &json!({ "devices": values }), &errors_json(&errors))?;
    } else {
        for explained in &explained {
            explained.print(out)?;
        }
    }
    Ok(exit)
}

/// Explains an ID without a device. The strings of the device are unknown.
fn explain_id(root: &Root, id: DeviceId) -> (Explanation, Vec<Error>) {
    let Lookup { quirk, mut errors } = load::lookup(root, id, |_| None);
    let (policy, policy_errors) = Policy::load(root);
    merge(&mut errors, policy_errors);
    errors.extend(audit::policy_errors(root, &policy, id));
    let complete = errors.is_empty();
    let (all, _) = load::all(root);
    if !quirks::knows(&all, id) && quirks::knows(&all, id.on_pci()) {
        print_error(format_args!("wwan-quirks: {id} is a USB ID; did you mean {}?", id.on_pci()));
    }
    let others = all.into_iter().filter(|quirk| quirk.model(id).is_some() && !quirk.matchers.is_empty());
    let others = others.map(|quirk| Other::new(quirk, id)).collect();
    let matched = quirk.map(|quirk| MatchedDevice { policy: policy.resolve(id, None, || None), quirk });
    let plan = matched.iter().filter(|_| complete);
    let plan = plan.flat_map(|matched| plan_without_device(&matched.quirk, &matched.policy)).collect();
    let errors = errors.into_iter().map(Error::from).collect();
    let hidden = if matched.is_none() { hidden(root, id) } else { Vec::new() };
    let (settings, strings) = (Vec::new(), Strings::new());
    (Explanation { port: None, id, matched, others, settings, strings, hidden, complete, plan }, errors)
}

/// Strings of a device. `None`: it has no such string.
type Strings = BTreeMap<DeviceString, Option<String>>;

/// A quirk, or settings of the policy, for a device with certain strings.
#[derive(Serialize)]
struct Other {
    name: String,
    matchers: Matchers,
    location: Location,
}

impl Other {
    fn new(quirk: Quirk, id: DeviceId) -> Other {
        Other { name: quirk.name_of(id).to_owned(), matchers: quirk.matchers, location: quirk.location }
    }
}

/// An entry in a file that a file of a higher layer replaces or masks.
#[derive(Serialize)]
struct HiddenEntry {
    name: String,
    location: Location,
    by: String,
    masked: bool,
}

/// The hidden entries for an ID.
fn hidden(root: &Root, id: DeviceId) -> Vec<HiddenEntry> {
    let mut entries = Vec::new();
    for Hidden { by, is_masked, quirks, .. } in load::hidden(root) {
        entries.extend(quirks.into_iter().filter(|quirk| quirk.model(id).is_some()).map(|quirk| HiddenEntry {
            name: quirk.name_of(id).to_owned(),
            location: quirk.location,
            by: by.display().to_string(),
            masked: is_masked,
        }));
    }
    entries
}

/// The quirks for the ID of `device` that need other strings. If a quirk applies, also the settings for other serial
/// numbers. Then what the device has instead.
fn others(root: &Root, device: &Device, has_quirk: bool) -> (Vec<Other>, Vec<Other>, Strings) {
    let (mut others, _) = load::all(root);
    others.retain(|quirk| quirk.model(device.id).is_some() && !quirk.matchers.is_empty());
    let deadline = Deadline::after(LONGEST_PROBE);
    let read = |string| lookup::text(device, string, deadline).ok().flatten();
    let names = others.iter().flat_map(|quirk| quirk.matchers.keys().copied());
    let mut strings: Strings = names.collect::<BTreeSet<_>>().into_iter().map(|name| (name, read(name))).collect();
    let fits = |(name, part): (&DeviceString, &String)| {
        strings.get(name).and_then(Option::as_ref).is_some_and(|whole| quirks::matches(*name, part, whole))
    };
    others.retain(|quirk| !quirk.matchers.iter().all(fits));
    let others: Vec<Other> = others.into_iter().map(|quirk| Other::new(quirk, device.id)).collect();
    let mut settings = Vec::new();
    if has_quirk {
        let (policy, _) = Policy::load(root);
        let serials = policy.other_serials(device.id, &device.port, || read(DeviceString::Serial));
        settings.extend(serials.map(|(serial, location)| {
            let matchers = Matchers::from([(DeviceString::Serial, serial.to_owned())]);
            strings.entry(DeviceString::Serial).or_insert_with(|| read(DeviceString::Serial));
            Other { name: "[[device]]".to_owned(), matchers, location: location.clone() }
        }));
    }
    strings.retain(|name, _| others.iter().chain(&settings).any(|other| other.matchers.contains_key(name)));
    (others, settings, strings)
}

/// How many settings for other serial numbers the text has. The policy of a fleet has one for each modem.
const FEW: usize = 3;

struct Explanation {
    /// `None`: not plugged in.
    port: Option<Port>,
    id: DeviceId,
    matched: Option<MatchedDevice>,
    /// For a device with this ID and with certain strings, which this device lacks if it is plugged in.
    others: Vec<Other>,
    /// For this ID and another serial number, in the policy.
    settings: Vec<Other>,
    /// The device's own strings of those kinds.
    strings: Strings,
    /// Entries in hidden files, if no quirk applies.
    hidden: Vec<HiddenEntry>,
    /// All files that concern the device were read.
    complete: bool,
    plan: Vec<PlanLine>,
}

impl Explanation {
    fn title(&self) -> String {
        format!("{} ({})", self.id, self.port.as_ref().map_or("not plugged in", Port::as_str))
    }

    /// Whether it is certain that no quirk applies. Without a device, its strings may select one of `others`.
    fn is_without_quirk(&self) -> bool {
        self.matched.is_none() && self.complete && (self.port.is_some() || self.others.is_empty())
    }

    fn print(&self, out: &mut impl Write) -> Result<(), Error> {
        let title = self.title();
        match &self.matched {
            Some(matched) => {
                writeln!(out, "{title}: {}", printable(matched.quirk.name_of(self.id)))?;
                self.print_match(matched, out)?;
            }
            None if self.is_without_quirk() => writeln!(out, "{title}: no quirk applies")?,
            None if self.port.is_none() && !self.others.is_empty() => {
                writeln!(out, "{title}: depends on the device's strings")?;
            }
            None => writeln!(out, "{title}: unknown: a file of the database has an error")?,
        }
        for Other { name, matchers, location } in self.others.iter().chain(self.settings.iter().take(FEW)) {
            let strings: Vec<String> = matchers.iter().map(|(name, part)| format!("{name} {part:?}")).collect();
            let line = format!("{name} ({location}), for {}", strings.join(" and "));
            writeln!(out, "  other   {}", printable(&line))?;
        }
        if self.settings.len() > FEW {
            writeln!(out, "  other   … and {} more [[device]]", self.settings.len() - FEW)?;
        }
        for (name, text) in &self.strings {
            let line = text.as_ref().map_or(format!("no {name}"), |text| format!("{name} {text:?}"));
            writeln!(out, "  device  {}", printable(&line))?;
        }
        for HiddenEntry { name, location, by, masked } in &self.hidden {
            let how = if *masked { "masked" } else { "replaced" };
            writeln!(out, "  hidden  {}", printable(&format!("{name} ({location}): {how} by {by}")))?;
        }
        Ok(())
    }

    fn print_match(&self, matched: &MatchedDevice, out: &mut impl Write) -> Result<(), Error> {
        let quirk = &matched.quirk;
        writeln!(out, "  quirk   {}", printable(&quirk.location.to_string()))?;
        if let Some(note) = &quirk.note {
            writeln!(out, "  note    {}", printable(note))?;
        }
        let seen = quirk.seen.map(|seen| format!("seen = {}", seen.name()));
        let source: Vec<String> = seen.into_iter().chain(quirk.source.clone()).collect();
        if !source.is_empty() {
            writeln!(out, "  source  {}", printable(&source.join("; ")))?;
        }
        let targets = quirk.model(self.id).into_iter().flat_map(|model| &model.becomes);
        let (named, others): (Vec<_>, Vec<_>) = targets.partition(|target| target.name.is_some());
        for target in named {
            writeln!(out, "  becomes {}", printable(&target.to_string()))?;
        }
        for targets in others.chunks(8) {
            let ids: Vec<String> = targets.iter().map(ToString::to_string).collect();
            writeln!(out, "  becomes {}", ids.join(" "))?;
        }
        for (key, value, origin) in matched.policy.entries() {
            if !matches!(value, policy::Value::Huawei(_)) || quirk.is_install_mode() {
                writeln!(out, "  policy  {key} = {value}  ({origin})")?;
            }
        }
        for line in preview_lines(self.complete, &self.plan) {
            writeln!(out, "  plan    {line}")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let matched = self.matched.as_ref();
        let model = matched.and_then(|matched| matched.quirk.model(self.id));
        let policy = matched.map(|matched| {
            let mut policy = json!({});
            for (key, value, origin) in matched.policy.entries() {
                let setting = json!({ "value": value, "origin": origin });
                match key.split_once('.') {
                    Some((table, key)) => policy[table][key] = setting,
                    None => policy[key] = setting,
                }
            }
            policy
        });
        json!({
            "port": self.port,
            "id": self.id,
            "complete": self.complete,
            "name": matched.map(|matched| matched.quirk.name_of(self.id)),
            "note": matched.and_then(|matched| matched.quirk.note.as_ref()),
            "source": matched.and_then(|matched| matched.quirk.source.as_ref()),
            "seen": matched.and_then(|matched| matched.quirk.seen),
            "becomes": model.map(|model| &model.becomes),
            "quirk": matched.map(|matched| &matched.quirk.location),
            "others": self.others.iter().chain(&self.settings).collect::<Vec<_>>(),
            "strings": self.strings,
            "hidden": self.hidden,
            "policy": policy,
            "plan": self.plan,
        })
    }
}
