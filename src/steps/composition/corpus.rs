//! Every captured dialogue, and how the program reads it.

use std::path::Path;

use serde::Deserialize;

use super::sierra_at as sierra;
use crate::bus::DeviceId;
use crate::database::compositions::shipped;
use crate::database::compositions::sierra::Bits;
use crate::database::compositions::{Composition, Compositions, Family, Value};
use crate::modem::wire::at::{final_result, is_unsupported};

#[derive(Deserialize)]
struct Capture {
    modem: String,
    id: Option<String>,
    dialogue: Vec<(String, Vec<String>)>,
}

/// Commands in the captures that the program never sends, or whose replies only the unlock reads (`gtfcclock`).
const OTHERS: [&str; 10] =
    ["AT", "ATI", "ATZ", "AT+CGMR", "AT+CFUN?", "AT+COPS?", "AT+ZOPRT=5", "AT!USBINFO?", "AT!RESET", "AT+GTFCCLOCKGEN"];

/// The family of a captured modem. A PCI modem has the family of the same modem on a USB adapter.
fn family<'c>(all: &'c Compositions, id: Option<DeviceId>, modem: &str) -> Option<&'c Family> {
    let on_usb = || all.families.iter().find(|family| modem.contains("FM350") && family.name.contains("FM350"));
    id.and_then(|id| all.families_of(id).next()).or_else(on_usb)
}

fn judge(
    all: &Compositions,
    capture: &Capture,
    command: &str,
    lines: &[String],
    bits: &mut Bits,
) -> Result<(), String> {
    let id: Option<DeviceId> = capture.id.as_deref().and_then(|id| id.parse().ok());
    let end = lines.last().and_then(|line| final_result(line));
    let expect = |holds: bool, what: &str| if holds { Ok(()) } else { Err(what.to_owned()) };
    let table = all.sierra.as_ref().unwrap();
    let text = command.to_ascii_uppercase();
    if let Some(family) = family(all, id, &capture.modem) {
        if command == family.read.command {
            let values = family.read.read(lines);
            let [value] = values.as_slice() else { return Err(format!("read {values:?}")) };
            expect(lines[0].ends_with(value.as_str()), value)?;
            return expect(family.values().any(|known| known == value), "not in the table");
        }
        if let Some(test) = family.test.as_ref().filter(|test| command == test.command) {
            let listed = test.read(lines);
            expect(lines[0].split([',', '(', ')']).filter(|part| part.len() == 4).eq(&listed), "another list")?;
            return expect(family.values().all(|value| family.is_listed(value, &listed)), "a value is not listed");
        }
        if let Some(value) = family.values().find(|value| family.set(value).as_deref() == Some(command)) {
            let accepted = family.accepted.as_ref();
            let is_accepted = accepted.is_none_or(|accepted| lines.iter().any(|line| accepted.read(line).is_some()));
            return expect(is_accepted && end == Some(Ok(())), value);
        }
        if family.restart.as_deref() == Some(command) {
            return expect(end == Some(Ok(())), "refused");
        }
    }
    match text.as_str() {
        "AT!USBCOMP=?" => {
            *bits = sierra::bits(lines);
            let printed = lines.iter().filter(|line| line.contains("0x")).count();
            expect(bits.len() == printed && bits.get("mbim") == Some(&0x1000), "bits")?;
            expect(sierra::config_type(table, &[], lines) == Some((1, "Generic")), "configuration type")
        }
        "AT!USBCOMP?" => {
            let line = lines.iter().find(|line| line.starts_with("Interface bitmask")).unwrap();
            let mask = sierra::mask(line).ok_or("no mask")?;
            // The names that the modem prints are in the order of their bits.
            let names: Vec<&str> = line.split_once('(').unwrap().1.trim_end_matches(')').split(',').collect();
            expect(names.len() == mask.count_ones() as usize, "names")?;
            let set = (0..32).map(|bit| 1 << bit).filter(|bit| mask & bit != 0);
            let printed: Bits = names.iter().map(|name| (*name).to_owned()).zip(set).collect();
            expect(bits.is_empty() || printed.iter().all(|(name, bit)| bits.get(name) == Some(bit)), "other bits")?;
            let composition = table.of_mask(mask, &printed);
            expect(composition.has_at_port() == names.contains(&"modem"), "AT port")?;
            let has = |name: &str| composition.functions().iter().any(|function| function.name() == name);
            expect(has("mbim") == names.contains(&"mbim") && has("qmi") == names.contains(&"rmnet0"), "functions")?;
            expect(has("ecm") == names.contains(&"ecm"), "ECM")?;
            // Bits that the table does not know are kept.
            let unknown = printed.get("ubist").copied().unwrap_or(0);
            let keeps = |known: &Composition| matches!(known.value, Value::Mask(mask) if mask & unknown == unknown);
            expect(table.of_bits(&printed, mask).iter().all(keeps), "unknown bits")?;
            let printed =
                lines.iter().find_map(|line| line.strip_prefix("Config Type:  ")?.split(' ').next()?.parse().ok());
            expect(sierra::config_type(table, lines, &[]).map(|(number, _)| number) == printed, "configuration type")
        }
        "AT!UDUSBCOMP?" => {
            let printed: Option<u8> = lines.iter().find_map(|line| line.rsplit([' ', ':']).next()?.parse().ok());
            expect(lines.iter().find_map(|line| sierra::number(line)) == printed && printed.is_some(), "number")
        }
        "AT!UDPID=?" => {
            let printed = lines.iter().filter_map(|line| u16::from_str_radix(line, 16).ok());
            expect(sierra::products(lines).eq(printed), "products")
        }
        "AT+CFUN=1" => expect(end.is_some_and(|end| end.is_err_and(is_unsupported)), "a locked modem refuses it"),
        text if text.starts_with("AT!ENTERCND=") || text.starts_with("AT+GTFCC") || OTHERS.contains(&text) => {
            expect(lines.is_empty() || end.is_some(), "no end")
        }
        text => match text.split_once('=') {
            Some(("AT!USBCOMP", value)) => {
                let mask = value.strip_prefix("1,1,").and_then(|mask| u32::from_str_radix(mask, 16).ok());
                expect(mask == Some(0x10d), value)
            }
            Some(("AT!UDUSBCOMP", number)) => {
                expect(!table.of_number(number.parse().unwrap()).layout.is_empty(), number)
            }
            Some(("AT!UDPID", product)) => {
                let product = u16::from_str_radix(product, 16).unwrap();
                expect(table.of_product(product).has_at_port(), "product")
            }
            _ => Err("nothing reads this".to_owned()),
        },
    }
}

#[test]
fn every_captured_dialogue_is_parsed() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/at.json")).unwrap();
    let captures: Vec<Capture> = serde_json::from_str(&text).unwrap();
    let all = shipped();
    let mut wrong = Vec::new();
    for capture in &captures {
        let mut bits = Bits::new();
        for (command, lines) in &capture.dialogue {
            if let Err(what) = judge(&all, capture, command, lines, &mut bits) {
                wrong.push(format!("{}: {command}: {what}: {lines:?}", capture.modem));
            }
        }
    }
    assert!(captures.len() > 14, "{}", captures.len());
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// A small generator: xorshift64.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize
}

/// `line` with one character removed, replaced or inserted. `None` for a line without characters.
fn changed(line: &str, state: &mut u64) -> Option<String> {
    const CHARACTERS: [char; 12] = ['0', '9', 'f', 'x', ':', ',', '(', ')', '"', '=', ' ', 'é'];
    let mut characters: Vec<char> = line.chars().collect();
    let at = random(state).checked_rem(characters.len())?;
    let character = CHARACTERS[random(state) % CHARACTERS.len()];
    match random(state) % 4 {
        0 => drop(characters.remove(at)),
        1 => characters[at] = character,
        2 => characters.insert(at, character),
        _ => characters.truncate(at),
    }
    Some(characters.into_iter().collect())
}

/// The answers of a faulty modem are refused or misread, but nothing panics.
#[test]
fn changed_dialogues_are_read_without_a_panic() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/at.json")).unwrap();
    let captures: Vec<Capture> = serde_json::from_str(&text).unwrap();
    let all = shipped();
    let table = all.sierra.as_ref().unwrap();
    let answers: Vec<&Vec<String>> =
        captures.iter().flat_map(|capture| &capture.dialogue).map(|(_, lines)| lines).collect();
    let mut state = 0x1199_9071;
    for _ in 0..100 {
        for lines in &answers {
            let mut lines = (*lines).clone();
            for _ in 0..=random(&mut state) % 3 {
                let Some(at) = random(&mut state).checked_rem(lines.len()) else { break };
                lines[at] = changed(&lines[at], &mut state).unwrap_or_default();
            }
            let bits = sierra::bits(&lines);
            let _ = (sierra::config_type(table, &lines, &lines), sierra::products(&lines).count());
            for line in &lines {
                let _ = sierra::number(line).map(|number| table.of_number(number));
                let Some(mask) = sierra::mask(line) else { continue };
                let _ = (table.of_mask(mask, &bits), table.of_bits(&bits, mask).len());
            }
            for family in &all.families {
                let _ = (family.read.read(&lines), family.test.as_ref().map(|test| test.read(&lines)));
                let _ = family.accepted.as_ref().map(|accepted| lines.iter().find_map(|line| accepted.read(line)));
            }
        }
    }
}
