//! Finds the entries of a file that can have a certain ID, and parses only them.

use std::iter::Peekable;
use std::ops::Range;
use std::str::{self, Utf8Error};

use memchr::memmem;
use serde::Deserialize;
use toml::Spanned;

use super::entry::{IdOr, ModelEntries, ModelTable};
use super::{HEADER, parse, parse_entries, parse_entry, split};
use crate::bus::{Bus, DeviceId};
use crate::database::diagnostic::Diagnostic;
use crate::database::layers::{ConfigFile, Layer};
use crate::database::quirks::Quirk;

/// Like [`parse`], but parses only the entries that can have `id`, so that a large file takes little longer than a small
/// one. `check` reports errors in the rest. An entry of the administrator is parsed if it names `id` anywhere: it may say
/// to leave the modem alone, and an error must not hide it. In a shipped file, the other models of a list are left out.
///
/// # Errors
/// A part that it parses is not UTF-8.
pub fn parse_for(file: &ConfigFile, bytes: &[u8], id: DeviceId) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Utf8Error> {
    match file.layer {
        Layer::Shipped => parse_shipped_for(file, bytes, id),
        // The search would miss an error in a file without entries.
        _ if memmem::find(bytes, HEADER.as_bytes()).is_none() => Ok(parse(file, str::from_utf8(bytes)?)),
        _ if may_name(bytes, id) => Ok(parse_naming(file, str::from_utf8(bytes)?, id)),
        _ => Ok((Vec::new(), Vec::new())),
    }
}

/// Whether the numbers of `id` are anywhere in the text, or characters of an ID may be written as escapes.
fn may_name(text: &[u8], id: DeviceId) -> bool {
    let [numbers, _] = DeviceId { bus: Bus::Usb, ..id }.forms();
    let has_numbers = memchr::memchr_iter(b':', text).any(|colon| {
        let at = colon.checked_sub(4).and_then(|start| text.get(start..start + numbers.len()));
        at.is_some_and(|at| at.eq_ignore_ascii_case(numbers.as_bytes()))
    });
    // A backslash at the end of a line joins two lines of a string.
    let is_escape = |at: usize| matches!(text.get(at + 1), Some(b'u' | b'U' | b'x' | b' ' | b'\t' | b'\r' | b'\n'));
    has_numbers || memchr::memchr_iter(b'\\', text).any(is_escape)
}

/// The quirks and errors of the entries that may name `id`.
fn parse_naming(file: &ConfigFile, text: &str, id: DeviceId) -> (Vec<Quirk>, Vec<Diagnostic>) {
    match split(text) {
        Some((head, entries)) if !may_name(head.as_bytes(), id) => {
            parse_entries(file, head, entries, |entry| may_name(entry.as_bytes(), id))
        }
        _ => parse(file, text),
    }
}

fn parse_shipped_for(
    file: &ConfigFile,
    bytes: &[u8],
    id: DeviceId,
) -> Result<(Vec<Quirk>, Vec<Diagnostic>), Utf8Error> {
    let whole = || Ok(parse(file, str::from_utf8(bytes)?));
    let text = |from, to| str::from_utf8(bytes.get(from..to).unwrap_or_default());
    let header_after = |from: usize| Some(from + memmem::find(bytes.get(from..)?, HEADER.as_bytes())?);
    // The search would miss an ID in a string with escapes, and cut a line end of two characters.
    let (Some(first), None) = (header_after(0), memchr::memchr2(b'\\', b'\r', bytes)) else { return whole() };
    // Inside a multi-line string, the text of a header is not a header.
    if [b"\"\"\"", b"'''"].iter().any(|quotes| memmem::find(bytes, *quotes).is_some()) {
        return whole();
    }
    let (mut quirks, mut errors) = (Vec::new(), Vec::new());
    let mut read = 0;
    let forms = id.forms();
    let mut hits: Vec<_> =
        needles(&forms).into_iter().map(|needle| memmem::find_iter(bytes, needle).peekable()).collect();
    let mut next = |from| hits.iter_mut().filter_map(|hits| skip_to(hits, from)).min();
    while let Some(at) = next(read) {
        let is_id = |form: &String| bytes.get(at..).is_some_and(|rest| rest.starts_with(form.as_bytes()));
        if !forms.iter().any(is_id) {
            read = at + 1;
            continue;
        }
        if at < first {
            return whole();
        }
        let start = memmem::rfind(bytes.get(..at).unwrap_or_default(), HEADER.as_bytes()).unwrap_or(first);
        if is_target(text(start, at)?) {
            read = at + 1;
            continue;
        }
        let end = header_after(at).unwrap_or(bytes.len());
        let (head, entry) = (text(0, first)?, text(start, end)?);
        // The number of lines that are left out.
        let skipped = memchr::memchr_iter(b'\n', bytes.get(first..start).unwrap_or_default()).count();
        let (mut more, mut wrong) = match parse_entry(file, head, skipped, &only_model(entry, &forms)) {
            (quirks, errors) if errors.is_empty() => (quirks, errors),
            _ => parse_entry(file, head, skipped, entry),
        };
        quirks.append(&mut more);
        errors.append(&mut wrong);
        read = end;
    }
    Ok((quirks, errors))
}

/// The search strings that find both forms of an ID: the common part, if that is more than the vendor.
fn needles(forms: &[String; 2]) -> Vec<&str> {
    const PRODUCT: usize = 4;
    let [lower, upper] = forms;
    let common = lower.bytes().zip(upper.bytes()).take_while(|(lower, upper)| lower == upper).count();
    match lower.get(..common) {
        Some(common) if common.len() + PRODUCT > lower.len() => vec![common],
        _ => vec![lower, upper],
    }
}

/// The first of `hits` at or after `from`.
fn skip_to(hits: &mut Peekable<impl Iterator<Item = usize>>, from: usize) -> Option<usize> {
    while hits.next_if(|at| *at < from).is_some() {}
    hits.peek().copied()
}

/// Whether the text that follows `before` in an entry is an element of a list of targets.
fn is_target(before: &str) -> bool {
    let Some(list) = memmem::rfind(before.as_bytes(), b"becomes = [") else { return false };
    let (before, list) = before.split_at(list);
    let line = before.rsplit('\n').next().unwrap_or_default();
    // In a comment or a string, these words have no meaning.
    let is_in_string = line.contains('\'') || line.bytes().filter(|byte| *byte == b'"').count() % 2 == 1;
    !line.contains('#') && !is_in_string && !list.contains(']')
}

/// How the line of a model in a list begins and ends, in the shipped files and in the output of `import`.
const MODEL: (&str, &str) = ("    { id = \"", "},\n");

/// The text of an entry, with empty lines in place of the models whose ID is not in `forms`. If a target is indented
/// like a model, the whole text.
fn only_model(entry: &str, forms: &[String; 2]) -> String {
    let mut kept = String::with_capacity(entry.len());
    let (mut is_other, mut lists_targets) = (false, false);
    for line in entry.split_inclusive('\n') {
        let begins = line.strip_prefix(MODEL.0);
        if begins.is_some() && lists_targets {
            return entry.to_owned();
        }
        let rest = line.split_once("becomes = [").map(|(_, rest)| rest).or(lists_targets.then_some(line));
        lists_targets = rest.is_some_and(|rest| !rest.contains(']'));
        if let Some(rest) = begins {
            is_other = !forms.iter().any(|form| rest.starts_with(form.as_str()));
        }
        kept.push_str(if is_other { "\n" } else { line });
        is_other &= !(line.ends_with(MODEL.1) && (begins.is_some() || !line.starts_with("     ")));
    }
    kept
}

/// The location of the model `id` in `text`, which begins with the header of its entry.
pub(crate) fn place_of(text: &str, id: DeviceId) -> Option<Range<usize>> {
    #[derive(Deserialize)]
    struct Entries {
        device: Vec<Ids>,
    }
    #[derive(Deserialize)]
    struct Ids {
        id: Spanned<ModelEntries>,
    }
    // Inside a multi-line string, the text of a header is not a header.
    let end = text.find(HEADER).map_or(text.len(), |newline| newline + 1);
    let entries: Entries = toml::from_str(text.get(..end)?).or_else(|_| toml::from_str(text)).ok()?;
    let models = ModelEntries::with_spans(entries.device.into_iter().next()?.id);
    let mut places = models.into_iter().map(|(span, model)| match model {
        IdOr::Id(text) => (span, text),
        IdOr::Table(ModelTable { id, .. }) => (id.span(), id.into_inner()),
    });
    // A span includes the quotes.
    places.find(|(_, text)| text.parse() == Ok(id)).map(|(span, _)| span.start + 1..span.end - 1)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{TEXT, file};
    use super::*;
    use crate::database::quirks::Seen;

    fn parse_for(file: &ConfigFile, text: &str, id: DeviceId) -> (Vec<Quirk>, Vec<Diagnostic>) {
        super::parse_for(file, text.as_bytes(), id).unwrap()
    }

    #[test]
    fn only_entries_that_can_have_the_id_are_parsed_and_lines_keep_their_numbers() {
        let (quirks, errors) = parse_for(&file("1199-x.toml"), TEXT, "1199:68a2".parse().unwrap());
        assert_eq!(errors, []);
        assert_eq!(quirks.len(), 1);
        assert_eq!((quirks[0].name.as_str(), quirks[0].location.line), ("B", 10));
        // A lookup reports an error at the same location as a check of the whole file.
        let (_, errors) = parse_for(&file("1199-x.toml"), TEXT, "1199:0fff".parse().unwrap());
        assert_eq!(errors, parse(&file("1199-x.toml"), TEXT).1);
        assert_eq!(errors.len(), 1);
    }

    #[test]
    fn line_ends_of_two_characters_are_line_ends() {
        let text = TEXT.replace('\n', "\r\n");
        for id in ["1199:9071", "1199:68a2"] {
            let (quirks, _) = parse_for(&file("1199-x.toml"), &text, id.parse().unwrap());
            let names: Vec<_> = quirks.iter().map(|quirk| (quirk.name.as_str(), quirk.location.line)).collect();
            assert_eq!(names, [("A", 3), ("B", 10)], "{id}");
        }
        let messages = |text: &str| {
            let errors = parse(&file("1199-x.toml"), text).1;
            errors.into_iter().map(|error| (error.line, error.column, error.message)).collect::<Vec<_>>()
        };
        let wrong = TEXT.replace("1199:9071", "1199:zzzz");
        assert_eq!(messages(&wrong).len(), 2);
        assert_eq!(messages(&wrong.replace('\n', "\r\n")), messages(&wrong));
    }

    #[test]
    fn an_entry_is_found_although_a_string_looks_like_a_list_of_targets() {
        for (quote, note) in [('"', "it becomes = [a modem"), ('\'', "it becomes = [a \" modem")] {
            let text = format!(
                "schema = 1\n[[device]]\nnote = {quote}{note}{quote}\nid = \"1199:9071\"\nname = \"A\"\nsteps = []\n"
            );
            assert_eq!(parse_for(&file("1199-x.toml"), &text, "1199:9071".parse().unwrap()).0.len(), 1, "{note}");
        }
    }

    #[test]
    fn targets_in_the_indentation_of_a_model_are_kept() {
        let text = "schema = 1\n[[device]]\nid = { id = \"1199:2222\", becomes = [\n    { id = \"1199:3333\", name = \"net\" },\n] }\n\
            name = \"B\"\nsteps = []\n";
        let (quirks, errors) = parse_for(&file("1199-x.toml"), text, "1199:2222".parse().unwrap());
        assert_eq!((quirks[0].models[0].becomes.len(), errors), (1, vec![]));
    }

    #[test]
    fn a_file_without_a_key_has_no_entry() {
        for text in ["\n", "\u{feff}# 1199:9071\n", "# 1199:9071\r\n\t# schema = 1\n", "#"] {
            assert_eq!(parse(&file("1199-x.toml"), text), (Vec::new(), Vec::new()), "{text:?}");
            assert_eq!(parse_for(&file("1199-x.toml"), text, "1199:9071".parse().unwrap()), (Vec::new(), Vec::new()));
        }
        let missing = parse(&file("1199-x.toml"), "# x\ndevice = []\n").1;
        assert!(missing.len() == 1 && missing[0].message.contains("missing field `schema`"), "{missing:?}");
    }

    /// Models in tables of several lines. One of them has lines that look complete, but are not.
    const MODELS: &str = "schema = 1\n[[device]]\nid = [\n    \"12d1:0001\",\n    { id = \"12d1:0002\", name = \"B\" },\n    \
        { id = \"12d1:0003\", becomes = [\n        \"12d1:0002\", { id = \"12d1:0004\", name = \"D\" },\n    ] },\n    \
        { id = \"12d1:0005\", becomes = [{ id = \"12d1:0006\", name = \"F\" },\n        \"12d1:0001\"] },\n]\n\
        name = \"A\"\nsource = \"S\"\nseen = \"hint\"\nsteps = []\n";

    #[test]
    fn a_lookup_takes_one_model_of_a_list() {
        let file = file("own.toml");
        let (all, errors) = parse(&file, MODELS);
        assert_eq!(errors, []);
        assert_eq!(all[0].ids().count(), 4);
        assert_eq!((all[0].source.as_deref(), all[0].seen), (Some("S"), Some(Seen::Hint)));
        for (id, name, becomes) in [
            ("12d1:0001", "A", vec![]),
            ("12d1:0002", "B", vec![]),
            ("12d1:0003", "A", vec!["12d1:0002", "12d1:0004, D"]),
        ] {
            let id = id.parse().unwrap();
            let (found, errors) = parse_for(&file, MODELS, id);
            assert_eq!(errors, []);
            let model = found[0].model(id).unwrap();
            assert_eq!(found[0].name_of(id), name);
            assert_eq!(model.becomes.iter().map(ToString::to_string).collect::<Vec<_>>(), becomes);
            assert_eq!(Some(model), all[0].model(id));
        }
        let id = "12d1:0005".parse().unwrap();
        let (found, errors) = parse_for(&file, MODELS, id);
        assert_eq!((found[0].model(id), errors), (all[0].model(id), vec![]));
        // An entry that only has the ID as a target is not parsed.
        let of = |id: &str| parse_for(&file, MODELS, id.parse().unwrap());
        assert_eq!(of("12d1:0004"), (Vec::new(), Vec::new()));
        assert_eq!(of("12d1:0006"), (Vec::new(), Vec::new()));
        let commented = MODELS.replace("id = [\n", "id = [ # becomes = [\n");
        assert_eq!(parse_for(&file, &commented, "12d1:0001".parse().unwrap()).0.len(), 1);
        // Other models are not parsed: an error in their lines is for `check`. If lines only look complete, all are parsed.
        let (before, rest) = MODELS.split_once("    { id = \"12d1:0005\"").unwrap();
        let broken = before.replace("name = \"B\"", "nam = 1") + rest.split_once("\"12d1:0001\"] },\n").unwrap().1;
        assert_eq!(parse_for(&file, &broken, "12d1:0003".parse().unwrap()).1, []);
        assert_eq!(parse_for(&file, &broken, "12d1:0002".parse().unwrap()).1.len(), 1);
    }

    #[test]
    fn an_id_with_escapes_is_found() {
        let text = "schema = 1\n[[device]]\nid = \"\\u0031199:9071\"\nname = \"A\"\nsteps = []\n[[device]]\nid = \"1199:1111\"\n\
            name = \"\"\"\n[[device]]\n9071\"\"\"\nsteps = []\n";
        let (quirks, errors) = parse_for(&file("own.toml"), text, "1199:9071".parse().unwrap());
        assert_eq!((errors.len(), quirks.len()), (0, 2));
    }

    #[test]
    fn an_escape_elsewhere_does_not_spread_an_error() {
        let own = ConfigFile { layer: Layer::Administrator, path: "own.toml".into() };
        let entry = |id: &str, more: &str| format!("[[device]]\nid = \"{id}\"\nname = \"A\"\n{more}\nsteps = []\n");
        let note = entry("1199:9071", "note = \"a \\\" and a \\\\ b\"");
        let look_up = |wrong: &str, id: &str| {
            let text = ["schema = 1\n", &note, &entry(wrong, "nam = 1"), &entry("12d1:1446", "")].concat();
            let (quirks, errors) = parse_for(&own, &text, id.parse().unwrap());
            (quirks.iter().any(|quirk| quirk.model(id.parse().unwrap()).is_some()), errors.len())
        };
        for (id, expected) in [("1199:9071", (true, 0)), ("12d1:1446", (true, 0)), ("1bbb:0002", (false, 1))] {
            assert_eq!(look_up("1bbb:0002", id), expected, "{id}");
        }
        // An ID that is written with escapes may be any ID.
        for escaped in ["\\u0031bbb:0002", "\\U00000031bbb:0002"] {
            assert_eq!(look_up(escaped, "12d1:1446"), (true, 1), "{escaped}");
        }
        let text = format!("schema = 1\n{}", entry("\\u00312d1:1446", ""));
        assert_eq!(parse_for(&own, &text, "12d1:1446".parse().unwrap()).0.len(), 1);
        let split = "schema = 1\n[[device]]\nid = \"\"\"12d1:\\\n  1446\"\"\"\nname = \"A\"\nsteps = []\n";
        assert_eq!(parse_for(&own, split, "12d1:1446".parse().unwrap()).0.len(), 1);
    }

    #[test]
    fn both_forms_of_an_id_are_found() {
        for id in ["1199:9071", "1199:90ab", "1199:ab01", "12d1:14ac", "pci:17cb:0308"] {
            for form in id.parse::<DeviceId>().unwrap().forms() {
                let text = format!(
                    "schema = 1\n[[device]]\nid = \"1199:90ac\"\nname = \"A\"\nsteps = []\n[[device]]\nid = \"{form}\"\nname = \"B\"\nsteps = []\n"
                );
                let text =
                    if form.starts_with("pci") { text.replace("steps", "subsystem = \"105b:*\"\nsteps") } else { text };
                let (quirks, _) = parse_for(&file("own.toml"), &text, id.parse().unwrap());
                assert_eq!(quirks.len(), 1, "{form}");
            }
        }
    }

    /// An entry that may say to leave the modem alone must not be skipped.
    #[test]
    fn an_entry_of_the_administrator_is_parsed_if_it_names_the_modem_in_any_way() {
        let own = ConfigFile { layer: Layer::Administrator, path: "own.toml".into() };
        let id: DeviceId = "12d1:14fe".parse().unwrap();
        let look_up = |ids: &str, more: &str| {
            let entry = |ids: &str, more: &str| format!("[[device]]\nid = {ids}\nname = \"A\"\n{more}\nsteps = []\n");
            let text =
                ["schema = 1\n", &entry("\"1199:9071\"", ""), &entry(ids, more), "[[device]]\nid = 5\n"].concat();
            let (quirks, errors) = parse_for(&own, &text, id);
            let all = parse(&own, &text).1;
            assert!(errors.iter().all(|error| all.contains(error)), "{errors:?} {all:?}");
            (quirks.len(), errors.len())
        };
        for (ids, more, found) in [
            ("\"12d1:14fe\"", "", (1, 0)),
            ("\"12D1:14FE\"", "", (1, 0)),
            ("\"12d1:14FE\"", "", (0, 1)),
            ("\"12D1:14fe\"", "", (0, 1)),
            ("[{ id = \"12d1:aaaa\", becomes = [\"12d1:1001\" },\n    { id = \"12d1:14fe\" },\n]", "", (0, 1)),
            ("[\n    { id = \"12d1:14fe\" },\n    { id = \"12d1:14-6\" },\n]", "", (0, 1)),
            ("\"12d1:14fe\"", "note = 'becomes = ['", (1, 0)),
            ("\"12d1:0001\"", "note = 5 # 12d1:14fe", (0, 1)),
            ("\"12d1:0001\"", "note = 5", (0, 0)),
        ] {
            assert_eq!(look_up(ids, more), found, "{ids} {more}");
        }
        // In a file with a string of several lines, each error counts.
        assert_eq!(look_up("\"12d1:14fe\"", "note = \"\"\"\nbecomes = [\n\"\"\""), (0, 1));
        let text =
            "schema = 1\n[[device]]\nnote = '''\nbecomes = [\n'''\nid = \"12d1:14fe\"\nname = \"A\"\nsteps = []\n";
        for file in [&own, &file("12d1-x.toml")] {
            assert_eq!(parse_for(file, text, id).0.len(), 1);
        }
    }

    /// Only the parsed parts must be text.
    #[test]
    fn bytes_elsewhere_do_not_matter() {
        let entry = |id: &str| [b"[[device]]\nid = \"", id.as_bytes(), b"\"\nname = \"A\"\nsteps = []\n"].concat();
        let bytes = [b"schema = 1\n", &entry("1199:9071")[..], b"# \xff\n", &entry("1199:9079")[..]].concat();
        let find = |id: &str| super::parse_for(&file("own.toml"), &bytes, id.parse().unwrap());
        assert_eq!(find("1199:9079").unwrap().0.len(), 1);
        assert!(find("1199:9071").is_err());
        assert!(super::parse_for(&file("own.toml"), b"\xff", "1199:9071".parse().unwrap()).is_err());
    }

    #[test]
    fn a_header_in_a_string_is_ignored() {
        let text = "schema = 1\n[[device]]\nid = \"1199:0001\"\nname = \"A\"\nnote = QQQ\n[[device]]\nQQQ\n# 1199:9071\nsteps = []\n\
            [[device]]\nid = \"1199:9071\"\nname = \"B\"\nsteps = []\n";
        for quotes in ["\"\"\"", "'''"] {
            let (quirks, errors) =
                parse_for(&file("own.toml"), &text.replace("QQQ", quotes), "1199:9071".parse().unwrap());
            assert_eq!((quirks.len(), errors), (2, Vec::new()), "{quotes}");
        }
    }
}
