//! The FCC type of this computer, from SMBIOS records of type 133.
//!
//! Laptop vendors store the OEM string of their FCC lock in such a record. The string has 14 characters. Two formats
//! are known: a record with a string, and a record of 44 bytes with the characters in its body. A computer can have
//! both, in any order, even in one record.

use std::fs::{self, File};

use crate::host::root::{Root, read_limited};

const ENTRIES: &str = "/sys/firmware/dmi/entries";
const TYPE: &str = "133-";
/// Type, length and handle.
const HEADER: usize = 4;
const LENGTH: usize = 14;
/// The maximum number of bytes that are read from a record.
const LIMIT: usize = 4096;
/// The maximum number of OEM strings. A modem may count wrong keys permanently.
const MOST: usize = 8;

/// An OEM string, and the name of its record in sysfs (`133-0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FccType {
    pub entry: String,
    pub oem_string: String,
}

/// The first OEM strings of this computer, in the order of their records. Only root can read the records.
pub fn fcc_types(root: &Root) -> Vec<FccType> {
    let directory = root.at(ENTRIES);
    let names = fs::read_dir(&directory).into_iter().flatten().flatten();
    let instance = |name: &str| name.strip_prefix(TYPE)?.parse::<u16>().ok();
    let mut entries: Vec<(u16, String)> = names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| Some((instance(&name)?, name)))
        .collect();
    entries.sort_unstable();
    let read = |entry: String| {
        let path = directory.join(&entry).join("raw");
        let bytes = File::open(&path).and_then(|file| read_limited(file, LIMIT));
        bytes
            .inspect_err(|error| log::debug!("{}: {error}", path.display()))
            .map_or(Vec::new(), |bytes| found(entry, &bytes))
    };
    entries.into_iter().flat_map(|(_, entry)| read(entry)).take(MOST).collect()
}

fn found(entry: String, record: &[u8]) -> Vec<FccType> {
    oem_strings(record).into_iter().map(|oem_string| FccType { entry: entry.clone(), oem_string }).collect()
}

/// The strings of the right length, and then the runs of printable characters in the body that have this length.
fn oem_strings(record: &[u8]) -> Vec<String> {
    let length = record.get(1).map_or(0, |length| usize::from(*length));
    let Some((body, strings)) = record.split_at_checked(length) else { return Vec::new() };
    let strings = strings.split(|byte| *byte == 0).map(<[u8]>::trim_ascii);
    let runs = body.get(HEADER..).unwrap_or_default().split(|byte| !byte.is_ascii_graphic());
    let candidates = strings.chain(runs).filter(|text| text.len() == LENGTH && text.iter().all(u8::is_ascii_graphic));
    candidates.map(|text| String::from_utf8_lossy(text).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_string(text: &str) -> Vec<u8> {
        [&[0x85, 5, 0x85, 0, 1], text.as_bytes(), &[0, 0]].concat()
    }

    fn in_body(text: &str) -> Vec<u8> {
        let mut record = [&[0x85, 0x2c, 0x86, 0, 7, 0], text.as_bytes()].concat();
        record.resize(0x2c, 0);
        [&record[..], &[0, 0]].concat()
    }

    #[test]
    fn both_formats_of_a_record_are_read() {
        assert_eq!(oem_strings(&with_string("KHOIHGIUCCHHII")), ["KHOIHGIUCCHHII"]);
        assert_eq!(oem_strings(&with_string("other\0DW5931EFCCLOCK")), ["DW5931EFCCLOCK"]);
        assert_eq!(oem_strings(&with_string(" KHOIHGIUCCHHII ")), ["KHOIHGIUCCHHII"]);
        assert_eq!(oem_strings(&in_body("DW5823EFCCLOCK")), ["DW5823EFCCLOCK"]);
    }

    #[test]
    fn a_record_can_have_several_strings() {
        let both = [&in_body("DW5823EFCCLOCK")[..0x2c], b"SERIAL12345678\0KHOIHGIUCCHHII\0\0"].concat();
        assert_eq!(oem_strings(&both), ["SERIAL12345678", "KHOIHGIUCCHHII", "DW5823EFCCLOCK"]);
    }

    #[test]
    fn a_record_without_such_a_string_has_none() {
        for record in [
            &b""[..],
            &[0x85],
            &[0x85, 5, 0x85, 0, 1],
            &[0x85, 200, 0x85, 0, 1],
            &with_string("KHOIHGIUCCHHI"),
            &with_string("KHOIHGIUCCHHIII"),
            &with_string("KHOI GIUCCHHII"),
            &in_body("DW5823EFCCLOCKX"),
            &with_string("\u{1b}HOIHGIUCCHHII"),
        ] {
            assert!(oem_strings(record).is_empty(), "{record:02x?}");
        }
    }

    #[test]
    fn all_entries_are_read_in_their_order() {
        let path = std::env::temp_dir().join(format!("wwan-quirks-smbios-{}", std::process::id()));
        let write = |entry: &str, record: &[u8]| {
            let directory = path.join("sys/firmware/dmi/entries").join(entry);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("raw"), record).unwrap();
        };
        write("133-10", &with_string(&["WNCHPCEFCCLOCK"; 20].join("\0")));
        write("133-2", &in_body("DW5931EFCCLOCK"));
        write("133-0", &with_string("too short"));
        write("133-1", &vec![0; LIMIT + 1]);
        write("134-0", &with_string("KHOIHGIUCCHHII"));
        let found = fcc_types(&Root::new(&path));
        fs::remove_dir_all(&path).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.entry.as_str(), found.oem_string.as_str())).collect();
        assert_eq!(found[0], ("133-2", "DW5931EFCCLOCK"));
        assert_eq!(found[1..], [("133-10", "WNCHPCEFCCLOCK"); MOST - 1]);
        assert_eq!(fcc_types(&Root::new("/nonexistent")), []);
    }
}
