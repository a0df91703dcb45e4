//! What no single entry tells: entries that are there twice, that can never apply, or that udev knows nothing of.

use std::collections::BTreeMap;

use super::{Place, Quirk, is_part};
use crate::database::udev_rules::Ruled;
use crate::usb::UsbId;

/// Something wrong with the entry at `place`, for `id`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding<'a> {
    pub place: &'a Place,
    pub id: UsbId,
    pub message: String,
}

/// What is wrong with `quirks`, which are in the order in which they count. Entries of different layers override each
/// other, and that is as it should be.
pub fn audit<'a>(quirks: &'a [Quirk], ruled: Option<&Ruled>) -> Vec<Finding<'a>> {
    let mut findings = Vec::new();
    let mut entries: BTreeMap<UsbId, Vec<&Quirk>> = BTreeMap::new();
    for quirk in quirks {
        for &id in &quirk.ids {
            let known = entries.entry(id).or_default();
            for earlier in known.iter().filter(|earlier| earlier.place.layer == quirk.place.layer) {
                if let Some(message) = conflict(earlier, quirk) {
                    findings.push(Finding { place: &earlier.place, id, message });
                }
            }
            known.push(quirk);
            let message = "the installed udev rules do not name this ID, and nothing is done when it is plugged in: \
                           `wwan-quirks rules > /etc/udev/rules.d/86-wwan-quirks-local.rules`";
            if ruled.is_some_and(|ruled| !ruled.covers(quirk, id)) {
                findings.push(Finding { place: &quirk.place, id, message: message.to_owned() });
            }
        }
    }
    findings
}

/// Why `earlier` never applies beside `later`, if so: whatever device matches it matches `later` as narrowly.
fn conflict(earlier: &Quirk, later: &Quirk) -> Option<String> {
    let covers = earlier.strings.len() == later.strings.len()
        && later.strings.iter().all(|(text, part)| earlier.strings.get(text).is_some_and(|whole| is_part(part, whole)));
    covers.then(|| match earlier.place == later.place {
        true => "this ID stands twice in its entry".to_owned(),
        false if earlier.steps == later.steps => {
            format!("this never applies: {} says the same, and counts", later.place)
        }
        false => format!("this never applies: {} says otherwise, and counts", later.place),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::database::layers::{Layer, Layered};
    use crate::database::quirks::fragment;

    fn quirks(layer: Layer, text: &str) -> Vec<Quirk> {
        let (quirks, errors) =
            fragment::parse(&Layered { layer, path: "x.toml".into() }, &format!("schema = 1\n{text}"));
        assert_eq!(errors, []);
        quirks
    }

    fn found(quirks: &[Quirk]) -> Vec<(usize, String)> {
        audit(quirks, None).into_iter().map(|finding| (finding.place.line, finding.message)).collect()
    }

    const PLAIN: &str = "[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 1 }]\n";

    #[test]
    fn what_never_applies_is_found() {
        let narrow = PLAIN.replace("steps", "product = \"MC 74\"\nsteps");
        for (second, expected) in [
            (PLAIN.to_owned(), Some("says the same")),
            (PLAIN.replace("= 1 }", "= 2 }"), Some("says otherwise")),
            (narrow.clone(), None),
            (PLAIN.replace("9071", "9079"), None),
        ] {
            let found = found(&quirks(Layer::Shipped, &format!("{PLAIN}{second}")));
            assert_eq!(found.len(), usize::from(expected.is_some()), "{second}: {found:?}");
            assert!(found.iter().all(|(line, message)| *line == 2 && message.contains(expected.unwrap())), "{found:?}");
        }
        // A later text that is part of an earlier one takes all its devices, an earlier one does not.
        let wide = narrow.replace("MC 74", "C_7");
        assert_eq!(found(&quirks(Layer::Shipped, &format!("{narrow}{wide}"))).len(), 1);
        assert_eq!(found(&quirks(Layer::Shipped, &format!("{wide}{narrow}"))), []);
        let twice = PLAIN.replace("\"1199:9071\"", "[\"1199:9071\", \"1199:9071\"]");
        assert!(found(&quirks(Layer::Shipped, &twice))[0].1.contains("twice"));
    }

    #[test]
    fn a_higher_layer_may_override() {
        let mut both = quirks(Layer::Shipped, PLAIN);
        both.extend(quirks(Layer::Administrator, &PLAIN.replace("= 1 }", "= 2 }")));
        assert_eq!(found(&both), []);
    }

    #[test]
    fn an_id_without_a_rule_is_found() {
        let quirks = quirks(Layer::Administrator, PLAIN);
        let rules = crate::database::udev_rules::text(&quirks, "/usr/sbin/wwan-quirks".as_ref());
        assert_eq!(audit(&quirks, Some(&Ruled::read(&rules))), []);
        let findings = audit(&quirks, Some(&Ruled::read(&rules.replace("9071", "9079"))));
        assert!(findings[0].message.contains("do not name this ID"), "{findings:?}");
    }
}
