//! Checks on entries that are valid on their own: duplicate IDs, entries that never apply, IDs without a udev rule, IDs
//! in the policy that are on the other bus or in no entry, settings in the policy that never apply, files that replace
//! others, and weak points.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::bus::DeviceId;
use crate::database::diagnostic::{Diagnostic, LoadError, Location, line_start};
use crate::database::layers::{self, ConfigFile, FileError, Layer, Severity};
use crate::database::load;
use crate::database::policy::Policy;
use crate::database::quirks::fragment::search::place_of;
use crate::database::quirks::{self, DeviceString, Matchers, Quirk, Select, Step, matches, narrowness};
use crate::database::udev_rules::RuledIds;
use crate::host::root::Root;
use crate::modem::device::vendor_interfaces::VendorInterfaces;
use crate::usb::Function;

/// Unassigned vendor IDs that manufacturers of cheap chips use.
const SHARED: [u16; 4] = [0x1111, 0x6000, 0x8888, 0x257a];

/// A problem at `location`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    pub location: &'a Location,
    /// The ID that the problem concerns. `None`: it concerns the whole line.
    pub id: Option<DeviceId>,
    pub severity: Severity,
    pub message: String,
}

impl<'a> Finding<'a> {
    fn error(location: &'a Location, id: DeviceId, message: String) -> Finding<'a> {
        Finding { location, id: Some(id), severity: Severity::Error, message }
    }

    fn warning(location: &'a Location, id: DeviceId, message: String) -> Finding<'a> {
        Finding { location, id: Some(id), severity: Severity::Warning, message }
    }

    /// This finding as a diagnostic that points at its place in its file, or the error of reading that file.
    pub(crate) fn read(&self, root: &Root) -> LoadError {
        let Location { layer, path, .. } = self.location;
        match layers::read(root, &ConfigFile { layer: *layer, path: path.clone() }) {
            Ok(text) => self.locate(path, &text.unwrap_or_default()).into(),
            Err(error) => error.into(),
        }
    }

    /// This finding as a diagnostic that points at its place in `text`.
    pub(crate) fn locate(&self, path: &Path, text: &str) -> Diagnostic {
        let entry = line_start(text, self.location.line);
        let rest = text.get(entry..).unwrap_or_default();
        // A list `device = [{ … }]` has no headers, and the policy has other tables.
        let search = |id: DeviceId| {
            let id = id.to_string();
            rest.to_ascii_lowercase().find(&id).map(|at| at..at + id.len())
        };
        let whole_line = || {
            let line = rest.lines().next().unwrap_or_default().trim_end();
            line.len() - line.trim_start().len()..line.len()
        };
        let place = match self.id {
            Some(id) => place_of(rest, id).or_else(|| search(id)).unwrap_or_default(),
            None => whole_line(),
        };
        let found = Diagnostic::at(path, text, entry + place.start..entry + place.end, self.message.clone());
        Diagnostic { severity: self.severity, ..found }
    }
}

/// The conflicts between `quirks`, which must be in the order of their files. An entry may override an entry of a lower layer.
pub(crate) fn audit(quirks: &[Quirk]) -> Vec<Finding<'_>> {
    let mut findings = Vec::new();
    let mut entries: BTreeMap<DeviceId, Vec<&Quirk>> = BTreeMap::new();
    for quirk in quirks {
        for id in quirk.ids() {
            let known = entries.entry(id).or_default();
            for earlier in known.iter().filter(|earlier| earlier.location.layer == quirk.location.layer) {
                let conflict = conflict(earlier, quirk);
                let finding = conflict.map(|message| Finding::error(&earlier.location, id, message));
                // An entry can list an ID more than twice.
                findings.extend(finding.filter(|finding| !findings.contains(finding)));
            }
            known.push(quirk);
        }
    }
    findings
}

/// The IDs for which the rules have no line.
pub(crate) fn without_rule<'a>(quirks: &'a [Quirk], ruled: &RuledIds) -> Vec<Finding<'a>> {
    let message = "the installed udev rules lack this ID: plugging in the device has no effect; to add it: \
                   `wwan-quirks check && wwan-quirks rules > /etc/udev/rules.d/86-wwan-quirks-local.rules`";
    let ids = quirks.iter().flat_map(|quirk| quirk.ids().map(move |id| (quirk, id)));
    ids.filter(|(quirk, id)| !ruled.covers(quirk, *id))
        .map(|(quirk, id)| Finding::warning(&quirk.location, id, message.to_owned()))
        .collect()
}

/// The IDs in the policy that lack the prefix `pci:`. They select no modem.
pub(crate) fn without_bus<'a>(quirks: &[Quirk], policy: &'a Policy) -> Vec<Finding<'a>> {
    let ids = policy.ids().filter(|(id, _)| !quirks::knows(quirks, *id) && quirks::knows(quirks, id.on_pci()));
    ids.map(|(id, location)| {
        let message = format!("no entry has the USB ID {id}; did you mean {}?", id.on_pci());
        Finding::error(location, id, message)
    })
    .collect()
}

/// The IDs of the policy that no entry has, on neither bus. They select no modem.
pub(crate) fn unknown_ids<'a>(quirks: &[Quirk], policy: &'a Policy) -> Vec<Finding<'a>> {
    let ids = policy.ids().filter(|(id, _)| !quirks::knows(quirks, *id) && !quirks::knows(quirks, id.on_pci()));
    ids.map(|(id, location)| {
        let message = "no entry of the database has this ID: these settings have no effect".to_owned();
        Finding::warning(location, id, message)
    })
    .collect()
}

/// The keys in a `[[device]]` that never apply, because a stronger `[[device]]` sets them for the same modems.
pub(crate) fn overridden(policy: &Policy) -> Vec<Finding<'_>> {
    let keys = policy.overridden().into_iter();
    keys.map(|(key, location, by)| {
        let message = format!(
            "`{key}` has no effect: {by} sets it for the same modems, and the last [[device]] wins; write general ones \
             first"
        );
        Finding { location, id: None, severity: Severity::Warning, message }
    })
    .collect()
}

/// The files that replace another file without having an entry for each of its IDs. A mask is deliberate.
pub(crate) fn incomplete_copies(root: &Root, quirks: &[Quirk]) -> Vec<FileError> {
    let known: BTreeSet<DeviceId> = quirks.iter().flat_map(Quirk::ids).collect();
    let replaced = load::hidden(root).into_iter().filter(|hidden| !hidden.is_masked);
    let copies = replaced.filter_map(|load::Hidden { by, path: lower, quirks, .. }| {
        let lost: BTreeSet<DeviceId> = quirks.iter().flat_map(Quirk::ids).filter(|id| !known.contains(id)).collect();
        let ids: Vec<DeviceId> = lost.into_iter().collect();
        (!ids.is_empty()).then_some(FileError::Replaces { path: by, lower, ids })
    });
    copies.collect()
}

/// The entries of the administrator that lose to a narrower entry of a lower layer, although the administrator's layer
/// would win if both were equally narrow.
pub(crate) fn outranked(quirks: &[Quirk]) -> Vec<Finding<'_>> {
    let mut findings = Vec::new();
    for quirk in quirks.iter().filter(|quirk| quirk.location.layer != Layer::Shipped) {
        for id in quirk.ids() {
            let narrower = quirks.iter().filter(|other| {
                other.location.layer < quirk.location.layer
                    && other.model(id).is_some()
                    && narrowness(&other.matchers) > narrowness(&quirk.matchers)
                    && may_share(&quirk.matchers, &other.matchers)
            });
            findings.extend(narrower.map(|other| {
                let lacking: Vec<String> = other
                    .matchers
                    .iter()
                    .filter(|(string, _)| **string == DeviceString::Subsystem || !quirk.matchers.contains_key(string))
                    .map(|(string, part)| format!("{string} = {part:?}"))
                    .collect();
                let message = format!(
                    "this entry does not apply to modems that the narrower entry at {} matches: add {}; to \
                     leave a modem alone, set `switch` or `fcc-auth` to false in a [[device]] of the policy",
                    other.location,
                    lacking.join(", ")
                );
                Finding::warning(&quirk.location, id, message)
            }));
        }
    }
    findings
}

/// Whether a device can match both: for each string that both have, one text contains the other.
fn may_share(one: &Matchers, other: &Matchers) -> bool {
    one.iter().all(|(string, part)| {
        other.get(string).is_none_or(|whole| matches(*string, part, whole) || matches(*string, whole, part))
    })
}

/// The errors of [`without_bus`] that concern the modem `id`: the policy may say to leave it alone.
pub(crate) fn policy_errors(root: &Root, policy: &Policy, id: DeviceId) -> Vec<LoadError> {
    let lacks_bus = |other: DeviceId| other != id && other.on_pci() == id;
    if !policy.ids().any(|(other, _)| lacks_bus(other)) {
        return Vec::new();
    }
    let (quirks, _) = load::all(root);
    let findings = without_bus(&quirks, policy).into_iter().filter(|finding| finding.id.is_some_and(lacks_bus));
    findings.map(|finding| finding.read(root)).collect()
}

/// Warnings about weak points in valid quirks.
pub fn warnings(quirks: &[Quirk]) -> Vec<Finding<'_>> {
    let mut findings = Vec::new();
    for quirk in quirks {
        let mut warn = |id: DeviceId, message: String| findings.push(Finding::warning(&quirk.location, id, message));
        for model in &quirk.models {
            let id = model.id;
            if SHARED.contains(&id.vendor) && quirk.matchers.is_empty() {
                let message = "other devices may use this ID, because its vendor ID is not assigned: add a string that narrows the match, such as `product`";
                warn(id, message.to_owned());
            }
            if model.becomes.iter().any(|target| target.id == id) {
                warn(id, format!("{id} becomes {id}: a device that keeps its ID needs no `becomes`"));
            }
            for step in &quirk.steps {
                let Step::Configuration { select, .. } = step else { continue };
                let qmi = VendorInterfaces::of(id, &quirk.qmi_interfaces);
                match select {
                    Select::Value(value) if quirk.source.is_none() => warn(
                        id,
                        format!(
                            "configuration {value} may have other functions in other firmware: add a `source`, or select a function"
                        ),
                    ),
                    Select::Function(Function::Qmi) | Select::Preferred if qmi.lacks_qmi() => {
                        warn(id, format!("no QMI interface is known for {id}: add `qmi-interfaces`"));
                    }
                    _ => {}
                }
            }
        }
    }
    findings
}

/// The error if every device that matches `earlier` also matches `later`, and the matches are equally narrow.
fn conflict(earlier: &Quirk, later: &Quirk) -> Option<String> {
    let covers = narrowness(&earlier.matchers) == narrowness(&later.matchers)
        && later
            .matchers
            .iter()
            .all(|(string, part)| earlier.matchers.get(string).is_some_and(|whole| matches(*string, part, whole)));
    covers.then(|| match earlier.location == later.location {
        true => "the entry lists this ID twice".to_owned(),
        false if earlier.steps == later.steps => {
            format!("this entry is shadowed by {}, which has the same steps", later.location)
        }
        false => format!("this entry is shadowed by {}, which has other steps", later.location),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::layers::ConfigFile;
    use crate::database::quirks::fragment;

    fn quirks(layer: Layer, text: &str) -> Vec<Quirk> {
        let (quirks, errors) =
            fragment::parse(&ConfigFile { layer, path: "x.toml".into() }, &format!("schema = 1\n{text}"));
        assert_eq!(errors, []);
        quirks
    }

    fn found(quirks: &[Quirk]) -> Vec<(usize, String)> {
        audit(quirks).into_iter().map(|finding| (finding.location.line, finding.message)).collect()
    }

    const PLAIN: &str = "[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 1 }]\n";

    #[test]
    fn an_entry_that_never_applies_is_found() {
        let narrow = PLAIN.replace("steps", "product = \"MC 74\"\nsteps");
        for (second, expected) in [
            (PLAIN.to_owned(), Some("the same steps")),
            (PLAIN.replace("= 1 }", "= 2 }"), Some("other steps")),
            (narrow.clone(), None),
            (PLAIN.replace("9071", "9079"), None),
        ] {
            let found = found(&quirks(Layer::Shipped, &format!("{PLAIN}{second}")));
            assert_eq!(found.len(), usize::from(expected.is_some()), "{second}: {found:?}");
            assert!(found.iter().all(|(line, message)| *line == 2 && message.contains(expected.unwrap())), "{found:?}");
        }
        // A later matcher that is a substring of an earlier one matches all its devices. The reverse is not true.
        let wide = narrow.replace("MC 74", "C_7");
        assert_eq!(found(&quirks(Layer::Shipped, &format!("{narrow}{wide}"))).len(), 1);
        assert_eq!(found(&quirks(Layer::Shipped, &format!("{wide}{narrow}"))), []);
        let twice = PLAIN.replace("\"1199:9071\"", "[\"1199:9071\", \"1199:9071\"]");
        assert!(found(&quirks(Layer::Shipped, &twice))[0].1.contains("twice"));
        let thrice = twice.replace("id = [", "id = [\"1199:9071\", ");
        assert_eq!(found(&quirks(Layer::Shipped, &thrice)), found(&quirks(Layer::Shipped, &twice)));
    }

    #[test]
    fn a_higher_layer_may_override() {
        let mut both = quirks(Layer::Shipped, PLAIN);
        both.extend(quirks(Layer::Administrator, &PLAIN.replace("= 1 }", "= 2 }")));
        assert_eq!(found(&both), []);
    }

    #[test]
    fn an_entry_that_loses_to_a_narrower_one_of_a_lower_layer_is_found() {
        let narrow = PLAIN.replace("steps", "manufacturer = \"SW\"\nproduct = \"MC 74\"\nsteps");
        let product = |part: &str| PLAIN.replace("steps", &format!("product = \"{part}\"\nsteps"));
        for (shipped, own, expected) in [
            (&narrow, PLAIN.to_owned(), Some("add manufacturer = \"SW\", product = \"MC 74\"; ")),
            (&narrow, product("MC 74"), Some("add manufacturer = \"SW\"; ")),
            (&narrow, product("MC 7400"), Some("add manufacturer = \"SW\"; ")),
            // No modem matches both.
            (&narrow, product("EM"), None),
            (&narrow, narrow.clone(), None),
            (&PLAIN.to_owned(), narrow.clone(), None),
            (&narrow, PLAIN.replace("9071", "9079"), None),
        ] {
            let mut both = quirks(Layer::Shipped, &format!("{shipped}{}", PLAIN.replace("9071", "9070")));
            assert_eq!(outranked(&both), []);
            both.extend(quirks(Layer::Administrator, &own));
            let findings = outranked(&both);
            assert_eq!(findings.len(), usize::from(expected.is_some()), "{own}: {findings:?}");
            for finding in findings {
                assert!(finding.message.contains(expected.unwrap()), "{own}: {}", finding.message);
                assert_eq!(finding.location.layer, Layer::Administrator);
            }
        }
        // A whole subsystem is narrower than its vendor.
        let pci = |part: &str| {
            PLAIN
                .replace("1199", "pci:17cb")
                .replace("steps = [{ configuration = 1 }]", &format!("subsystem = \"{part}\"\nsteps = []"))
        };
        for (own, expected) in [("17cb:*", 1), ("105b:*", 0), ("17cb:010c", 0)] {
            let mut both = quirks(Layer::Shipped, &pci("17cb:010c"));
            both.extend(quirks(Layer::Runtime, &pci(own)));
            assert_eq!(outranked(&both).len(), expected, "{own}");
        }
    }

    #[test]
    fn an_id_without_a_rule_is_found() {
        let quirks = quirks(Layer::Administrator, PLAIN);
        let rules = crate::database::udev_rules::text(&quirks, "/usr/sbin/wwan-quirks".as_ref());
        assert_eq!(without_rule(&quirks, &RuledIds::read(&rules)), []);
        let findings = without_rule(&quirks, &RuledIds::read(&rules.replace("9071", "9079")));
        let findings: Vec<_> = findings.iter().map(|finding| &finding.message).collect();
        assert!(findings[0].contains("rules lack this ID"), "{findings:?}");
    }
}
