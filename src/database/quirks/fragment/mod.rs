//! One file of the database: its TOML format, and its quirks.

mod entry;
pub mod search;
mod validate;

use serde::Deserialize;
use toml::Spanned;

use crate::bus::Bus;
use crate::database::diagnostic::{Diagnostic, Location, line_of, unsupported};
use crate::database::layers::{self, ConfigFile, Layer};
use crate::database::list::{List, Listed};
use crate::database::policy;
use crate::database::quirks::Quirk;
use entry::{Entry, quirk};

/// The version of the format.
const SCHEMA: u32 = 1;

/// The header of an entry. The same text in a multi-line string is not a header.
const HEADER: &str = "\n[[device]]";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fragment {
    schema: Spanned<u32>,
    #[serde(default)]
    device: List<Spanned<Entry>>,
}

impl Listed for Spanned<Entry> {
    const LIST: &'static str = "the header [[device]], with two pairs of brackets";
}

/// The quirks of a file, and all errors. An entry with an error is left out.
pub fn parse(file: &ConfigFile, text: &str) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let error = match parse_whole(file, text) {
        Ok(parsed) => return parsed,
        Err(error) => *error,
    };
    // The TOML parser stops at the first error. Parse the entries one by one to find the others.
    let Some((head, entries)) = split(text) else { return (Vec::new(), vec![error]) };
    let (quirks, mut errors) = parse_entries(file, head, entries, |_| true);
    if errors.is_empty() {
        errors.push(error);
    }
    (quirks, errors)
}

/// The text before the first entry, and the text of each entry. `None` if the text has no entry, or if something that
/// looks like a header may not be one.
fn split(text: &str) -> Option<(&str, Vec<&str>)> {
    let mut starts: Vec<usize> = text.match_indices(HEADER).map(|(at, _)| at).collect();
    for start in &mut starts {
        let ends_with_cr = text.get(..*start).is_some_and(|before| before.ends_with('\r'));
        *start -= usize::from(ends_with_cr);
    }
    let head = text.get(..*starts.first()?)?;
    // Text that looks like a header may be part of a string, and a header may be indented.
    let is_plain = !text.contains("\"\"\"") && !text.contains("'''") && !head.contains(HEADER.trim_start());
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    let entries = starts.iter().zip(ends).filter_map(|(start, end)| text.get(*start..end));
    is_plain.then(|| (head, entries.collect()))
}

/// Parses the entries that `is_wanted` accepts, each on its own.
fn parse_entries(
    file: &ConfigFile,
    head: &str,
    entries: Vec<&str>,
    is_wanted: impl Fn(&str) -> bool,
) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let head_lines = line_of(head, head.len());
    let (mut quirks, mut errors, mut skipped, mut is_first) = (Vec::new(), Vec::new(), 0, true);
    for entry in entries {
        if is_wanted(entry) {
            let (mut more, mut wrong) = parse_entry(file, head, skipped, entry);
            // An error before the first entry shows up with every entry.
            wrong.retain(|error| is_first || error.line > head_lines);
            quirks.append(&mut more);
            errors.append(&mut wrong);
            is_first = false;
        }
        skipped += entry.matches('\n').count();
    }
    (quirks, errors)
}

/// Parses the text before the first header, and then `entry`. Between them, `skipped` lines are left out.
fn parse_entry(file: &ConfigFile, head: &str, skipped: usize, entry: &str) -> (Vec<Quirk>, Vec<Diagnostic>) {
    let (mut quirks, mut errors) = match parse_whole(file, &[head, entry].concat()) {
        Ok(parsed) => parsed,
        Err(error) => (Vec::new(), vec![*error]),
    };
    quirks.iter_mut().for_each(|quirk| quirk.location.line += skipped);
    errors.iter_mut().filter(|error| error.line > line_of(head, head.len())).for_each(|error| error.line += skipped);
    (quirks, errors)
}

/// The quirks of a file and the errors in their values, or the error that stopped the TOML parser.
fn parse_whole(file: &ConfigFile, text: &str) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Box<Diagnostic>> {
    if layers::has_no_key(text) {
        return Ok((Vec::new(), Vec::new()));
    }
    let invalid = |span, message: String| Diagnostic::at(&file.path, text, span, message);
    let fragment: Fragment = toml::from_str(text)
        .map_err(|error| Diagnostic::from_toml_with_hint(&file.path, text, &error, &policy::KEYS, hint))?;
    if let Some(message) = unsupported(&fragment.schema, SCHEMA) {
        return Err(invalid(fragment.schema.span(), message).into());
    }
    let name = file.path.file_name().filter(|_| file.layer == Layer::Shipped);
    let vendor = name.and_then(|name| vendor_of(name.as_encoded_bytes()));
    let mut quirks = Vec::new();
    let mut errors = Vec::new();
    for entry in fragment.device.0 {
        let location = Location { layer: file.layer, path: file.path.clone(), line: line_of(text, entry.span().start) };
        match quirk(entry.into_inner(), vendor, location) {
            Ok(quirk) => quirks.push(quirk),
            Err((span, message)) => errors.push(invalid(span, message)),
        }
    }
    Ok((quirks, errors))
}

/// Where `key` belongs. `rest` is the text after it. `switch` and `fcc-auth` are keys of the policy and of steps.
fn hint(key: &str, rest: &str) -> String {
    let value = rest.trim_start().trim_start_matches('=').trim_start();
    match ["switch", "fcc-auth"].contains(&key) && !value.starts_with("true") && !value.starts_with("false") {
        true => format!("; an action belongs in `steps`: `steps = [{{ {key} = … }}]`"),
        false => "; this is a key of the policy, which belongs in config.toml or config.d".to_owned(),
    }
}

/// Bus and vendor of a shipped file with this name (`1199-sierra.toml`, `pci-1eac-quectel.toml`).
pub(crate) fn vendor_of(name: &[u8]) -> Option<(Bus, u16)> {
    let (bus, digits) = match *name {
        [a, b, c, d, b'-', ..] => (Bus::Usb, [a, b, c, d]),
        [b'p', b'c', b'i', b'-', a, b, c, d, b'-', ..] => (Bus::Pci, [a, b, c, d]),
        _ => return None,
    };
    let vendor = digits.iter().try_fold(0, |vendor, digit| Some((vendor << 4) | hex_digit(*digit)?))?;
    Some((bus, vendor))
}

/// Like [`char::to_digit`], but faster: every lookup calls this for every file name.
fn hex_digit(digit: u8) -> Option<u16> {
    let value = match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        b'A'..=b'F' => digit - b'A' + 10,
        _ => return None,
    };
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    pub(super) fn file(name: &str) -> ConfigFile {
        ConfigFile { layer: Layer::Shipped, path: PathBuf::from(name) }
    }

    pub(super) const TEXT: &str = "schema = 1\n\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = [\n]\n\n# x\n[[device]]\n\
        id = [\"1199:68A2\", \"1199:9041\"]\nname = \"B\"\nsteps = [{ configuration = 1 }]\n[[device]]\nid = \"1199:0fff\"\n";

    #[test]
    fn an_indented_first_header_gives_no_false_error() {
        let text = format!("schema = 1\n  {}", TEXT.split_once("\n\n").unwrap().1);
        let errors = parse(&file("1199-x.toml"), &text).1;
        assert_eq!(errors.len(), 1, "{errors:?}");
    }

    #[test]
    fn one_error_does_not_hide_others() {
        let (quirks, errors) = parse(&file("1199-x.toml"), &format!("{TEXT}[[device]]\nid = \"1199:1\nsteps = []\n"));
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!((quirks.len(), lines.as_slice()), (2, [14, 17].as_slice()), "{errors:?}");
        // An error before the first entry is reported once.
        let (quirks, errors) = parse(&file("1199-x.toml"), &TEXT.replace("schema", "shema"));
        let lines: Vec<usize> = errors.iter().map(|error| error.line).collect();
        assert_eq!((quirks.len(), lines.as_slice()), (0, [1, 14].as_slice()), "{errors:?}");
    }

    /// A lookup reads all files of an administrator, regardless of their names.
    #[test]
    fn the_name_of_an_administrators_file_does_not_restrict_its_ids() {
        let text = "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"A\"\nsteps = []\n";
        for (layer, expected) in [(Layer::Shipped, 0), (Layer::Runtime, 1), (Layer::Administrator, 1)] {
            let file = ConfigFile { layer, path: PathBuf::from("2025-site.toml") };
            let (quirks, errors) = parse(&file, text);
            assert_eq!((quirks.len(), errors.len()), (expected, 1 - expected), "{layer:?}: {errors:?}");
        }
    }

    #[test]
    fn an_error_has_its_location() {
        for (entry, location, message) in [
            ("id = \"1199:907\"\nname = \"A\"\nsteps = []", "1:6", "not a device ID"),
            ("id = [\"1199:9071\", \"x\"]\nname = \"A\"\nsteps = []", "1:20", "not a device ID"),
            ("id = \"1199:9071\"\nname = 1", "2:8", "invalid type"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ swich = \"sierra\" }]", "3:12", "unknown field `swich`"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 0 }]", "3:28", "from 1 to 255, got 0"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = \"mbin\" }]", "3:28", "invalid value"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = []\ncolour = 1", "4:1", "unknown field"),
            ("id = \"413c:9071\"\nname = \"A\"\nsteps = []", "1:6", "is for vendor 1199"),
            ("id = \"1199:90aB\"\nname = \"A\"\nsteps = []", "1:6", "all lower case or all upper case"),
            ("id = \"1199:9071\"\nname = \"A\"\nsteps = [{ switch = [{ bulk = \"55534243\" }] }]", "3:31", "31 bytes"),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = 1 }, { configuration = 2 }]",
                "3:9",
                "two configuration steps",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = \"sierra\" }, { fcc-auth = \"quectel\" }, { fcc-auth = \"sierra\" }]",
                "3:9",
                "the unlock procedure sierra occurs twice",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 1, unconfigured = 2 } }]",
                "3:28",
                "at most 1 second",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 1, fallback = 2 } }]",
                "3:28",
                "only a function can have a `fallback`",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ configuration = { select = 0 } }]",
                "3:39",
                "from 1 to 255, got 0",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = [\"X\"] } }]",
                "3:38",
                "invalid type",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { interface = 3, oem-strings = [] } } }]",
                "3:9",
                "at least one string",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { interface = 3, oem-strings = [\"\"] } } }]",
                "3:9",
                "none may be empty",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { interface = 3, oem-strings = [\"X\"], keys = [\"000000\"] } } }]",
                "3:82",
                "a key has 4 bytes (8 hex digits), got 3",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { intel-mutual-authentication = { oem-strings = [\"X\"], keys = [\"0000000g\"] } } }]",
                "3:85",
                "hex digits, got \"0000000g\"",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { gtfcclock = { oem-strings = [\"X\"] } } }]",
                "3:9",
                "gtfcclock needs `interface`",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { xmm-rpc = { oem-strings = [\"X\"] } } }]",
                "3:9",
                "fcc-auth=xmm-rpc is for PCI modems, but this is a USB ID",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ fcc-auth = { foxconn = \"\" } }]",
                "3:9",
                "foxconn needs the magic string",
            ),
            (
                "id = \"1199:9071\"\nname = \"A\"\nsteps = [{ switch = { out = 0x81, do = [\"eject\"] } }]",
                "3:29",
                "0x81 is the address of an IN endpoint",
            ),
            ("id = []\nname = \"A\"\nsteps = []", "1:6", "at least one"),
            ("id = { id = \"1199:907\" }\nname = \"A\"\nsteps = []", "1:13", "not a device ID"),
            ("id = [{ id = \"1199:9071\", nam = 1 }]\nname = \"A\"\nsteps = []", "1:27", "unknown field `nam`"),
            ("id = { id = \"1199:9071\", becomes = [\"1\"] }\nname = \"A\"\nsteps = []", "1:37", "not a device ID"),
            ("id = \"1199:9071\"\nname = \"A\"\nseen = \"x\"\nsteps = []", "3:8", "unknown variant `x`"),
            (
                "id = \"1199:9071\"\nname = \"A\"\nnew-id = { module = \"x;reboot\", driver = \"option1\", interface-class = 0xff }\nsteps = []",
                "3:10",
                "letters, digits",
            ),
        ] {
            let text = format!("schema = 1\n[[device]]\n{entry}\n");
            let errors = parse(&file("1199-x.toml"), &text).1;
            let [error] = errors.as_slice() else { panic!("{entry}: {errors:?}") };
            assert_eq!(format!("{}:{}", error.line - 2, error.column), location, "{entry}: {error}");
            assert!(error.message.contains(message), "{entry}: {error}");
        }
        assert_eq!(
            parse(&file("a.toml"), "schema = 2\n").1[0].message,
            "unsupported schema 2 (expected 1): this file needs a newer version of wwan-quirks"
        );
        assert_eq!(parse(&file("a.toml"), "[[device]]\n").1.len(), 1);
    }
}
