//! The USB compositions that modems store: `compositions.toml` in the three layers.
//!
//! A layer adds its families to those of the layers below. If two layers have families for an ID, those of the higher
//! layer come first. Sierra's table is taken from the highest layer that has one.

mod composition;
pub(crate) mod family;
pub(crate) mod pattern;
pub(crate) mod sierra;

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use crate::bus::DeviceId;
use crate::database::diagnostic::{Diagnostic, LoadError, unsupported};
use crate::database::layers;
use crate::host::root::Root;
pub use composition::{Composition, Confidence, NoComposition, Provenance, Value, Wanted, names};
pub(crate) use composition::{Functions, spelling};
pub(crate) use family::Family;
pub use sierra::Sierra;

/// The name of the file.
pub(crate) const FILE: &str = "compositions.toml";
const SCHEMA: u32 = 1;

/// All families, those of the highest layer first.
#[derive(Debug, Default)]
pub struct Compositions {
    pub sierra: Option<Sierra>,
    pub families: Vec<Family>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    schema: Spanned<u32>,
    sierra: Option<Spanned<Sierra>>,
    #[serde(default)]
    family: Vec<Spanned<Family>>,
}

impl Compositions {
    /// Reads the files of all layers. A file with an error has no effect.
    pub fn load(root: &Root) -> (Compositions, Vec<LoadError>) {
        let mut all = Compositions::default();
        let mut errors = Vec::new();
        for file in layers::in_each_layer(root, FILE).into_iter().rev() {
            let parsed = match layers::read(root, &file) {
                Ok(text) => text.map(|text| parse(&file.path, &text)),
                Err(error) => Some(Err(vec![error.into()])),
            };
            match parsed {
                Some(Ok(mut layer)) => {
                    all.families.append(&mut layer.families);
                    all.sierra = all.sierra.or(layer.sierra);
                }
                Some(Err(found)) => errors.extend(found),
                // The file masks those of lower layers.
                None => break,
            }
        }
        (all, errors)
    }

    /// Whether a modem with this ID may have a composition that can be read.
    pub fn knows(&self, id: DeviceId) -> bool {
        self.sierra.as_ref().is_some_and(|sierra| sierra.knows(id)) || self.families_of(id).next().is_some()
    }

    /// The families that a modem with this ID may belong to, in the order in which to ask the modem.
    pub(crate) fn families_of(&self, id: DeviceId) -> impl Iterator<Item = &Family> {
        self.families.iter().filter(move |family| family.includes(id))
    }
}

fn parse(path: &Path, text: &str) -> Result<Compositions, Vec<LoadError>> {
    if layers::has_no_key(text) {
        return Ok(Compositions::default());
    }
    let Fragment { schema, sierra, family } =
        toml::from_str(text).map_err(|error| vec![Diagnostic::from_toml(path, text, &error).into()])?;
    let mut errors = Vec::new();
    let mut report = |span, message: String| errors.push(Diagnostic::at(path, text, span, message).into());
    if let Some(message) = unsupported(&schema, SCHEMA) {
        report(schema.span(), message);
    }
    if let Some(sierra) = &sierra {
        for message in sierra.get_ref().errors() {
            report(sierra.span(), message);
        }
    }
    for family in &family {
        for (span, message) in family.get_ref().errors(family.span()) {
            report(span, message);
        }
    }
    let sierra = sierra.map(Spanned::into_inner);
    let families = family.into_iter().map(Spanned::into_inner).collect();
    if errors.is_empty() { Ok(Compositions { sierra, families }) } else { Err(errors) }
}

/// The errors in the text of one file.
pub fn check(path: &Path, text: &str) -> Vec<LoadError> {
    parse(path, text).err().unwrap_or_default()
}

#[cfg(test)]
pub use tests::shipped;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Bus;
    use crate::host::root::tests::TempRoot;

    pub(super) const SHIPPED: &str = include_str!("../../../config/compositions.toml");

    pub fn shipped() -> Compositions {
        parse(Path::new("config/compositions.toml"), SHIPPED).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    #[test]
    fn errors_have_their_location() {
        let family = "[[family]]\nname = \"x\"\nids = [\"1234:*\"]\nconfidence = \"sure\"\nseen = \"no\"\n\
                      read = { command = \"AT+X?\", answer = [\"+X: {value}\"] }\n\
                      test = { command = \"AT+X=?\", answer = [\"+X: {values}\"] }\n\
                      set = \"AT+X={value}\"\nat-interfaces = [2]\n";
        let values = "values = [{ value = \"1\", functions = [\"qmi\", \"serial\"] }]\n";
        let whole = format!("schema = 1\n{family}{values}");
        assert!(check(Path::new("f"), &whole).is_empty(), "{:?}", check(Path::new("f"), &whole));
        let mut wrong = Vec::new();
        for (from, to, expected) in [
            ("schema = 1", "schema = 2", "f:1:10: unsupported schema 2 (expected 1): "),
            ("1234:*", "1234", "f:4:7: \"1234\" is neither"),
            ("\"sure\"", "\"surely\"", "f:5:14: unknown variant `surely`"),
            ("+X: {value}", "+X: {walue}", "f:7:38: unknown placeholder {walue}"),
            ("+X: {value}", "+X: 1", "f:2:1: the answer of `read`"),
            ("AT+X={value}", "AT+X", "f:2:1: `set` has no {value}"),
            ("AT+X={value}", "X={value}", "f:2:1: "),
            ("\"qmi\", ", "\"gps\", ", "f:11:39: unknown variant `gps`"),
            ("at-interfaces = [2]\n", "", "f:2:1: "),
            ("test = ", "tset = ", "f:8:1: unknown field `tset`"),
            ("test = { command = \"AT+X=?\", answer = [\"+X: {values}\"] }\n", "", "f:2:1: without `test`"),
            (values, "values = []\n", "f:2:1: "),
        ] {
            let text = whole.replace(from, to);
            assert_ne!(text, whole, "{from}");
            let errors: Vec<String> = check(Path::new("f"), &text).iter().map(ToString::to_string).collect();
            if !errors.first().is_some_and(|error| error.starts_with(expected)) {
                wrong.push(format!("{from} -> {to}: {errors:?}"));
            }
        }
        let line = |start: &str| SHIPPED.lines().take_while(|line| !line.starts_with(start)).count() + 1;
        let (nine, sierra) = (line("9 = "), line("[sierra]"));
        let unknown = "composition 9 has the unknown interface \"mbimm\"";
        for (from, to, expected) in [
            ("\n9 = ", "\nx9 = ", format!("f:{nine}:1: ")),
            ("\n9 = ", "\n900 = ", format!("f:{nine}:1: ")),
            ("\n9 = [\"mbim\"]", "\n9 = [\"mbimm\"]", format!("f:{sierra}:1: {unknown}")),
        ] {
            let errors: Vec<String> =
                check(Path::new("f"), &SHIPPED.replace(from, to)).iter().map(ToString::to_string).collect();
            if !errors.first().is_some_and(|error| error.starts_with(&expected)) {
                wrong.push(format!("{from} -> {to}: {errors:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn an_administrators_family_comes_first_and_does_not_hide_others() {
        let root = TempRoot::new("compositions");
        for (layer, text) in [(layers::Layer::Shipped, SHIPPED), (layers::Layer::Administrator, OWN)] {
            root.write(layer.directory(&root).join(FILE).to_str().unwrap(), text);
        }
        let (all, errors) = Compositions::load(&root);
        assert!(errors.is_empty(), "{errors:?}");
        let names: Vec<&str> =
            all.families_of("2c7c:0125".parse().unwrap()).map(|family| family.name.as_str()).collect();
        assert_eq!(names.first(), Some(&"own"));
        // Its confidence is "weak".
        let read_only = all.families.iter().map(|family| family.read_only(Bus::Usb).is_some());
        assert_eq!(read_only.take(2).collect::<Vec<_>>(), [true, false]);
        assert!(names.len() > 1 && all.sierra.is_some());
        // An empty file masks the shipped ones.
        root.write(layers::Layer::Administrator.directory(&root).join(FILE).to_str().unwrap(), "");
        let (all, errors) = Compositions::load(&root);
        assert!(errors.is_empty() && all.families.is_empty() && all.sierra.is_none(), "{errors:?}");
    }

    const OWN: &str = r#"schema = 1
[[family]]
name = "own"
ids = ["2c7c:0125"]
confidence = "weak"
seen = "no"
at-interfaces = [2]
read = { command = "AT+X?", answer = ["+X: {value}"] }
set = "AT+X={value}"
values = [{ value = "1", functions = ["qmi", "serial"] }]
"#;
}
