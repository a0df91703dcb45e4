//! The FCC type of this computer, from SMBIOS records of type 133.
//!
//! Laptop vendors store the OEM string of their FCC lock in such a record. The string has 14 characters. Two formats
//! are known: a record with a string, and a record of 44 bytes with the characters in its body. A computer can have
//! both, in any order.

use std::fs::{self, File};

use crate::host::root::{Root, read_limited};

const ENTRIES: &str = "/sys/firmware/dmi/entries";
const TYPE: &str = "133-";
/// Type, length and handle.
const HEADER: usize = 4;
const LENGTH: usize = 14;
/// The maximum number of bytes that are read from a record.
const LIMIT: usize = 4096;

/// An OEM string, and the name of its record in sysfs (`133-0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FccType {
    pub entry: String,
    pub oem_string: String,
}

/// The OEM strings of this computer, in the order of their records. Only root can read the records.
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
        let bytes = bytes.inspect_err(|error| log::debug!("{}: {error}", path.display())).ok()?;
        Some(FccType { oem_string: oem_string(&bytes)?, entry })
    };
    entries.into_iter().filter_map(|(_, entry)| read(entry)).collect()
}

/// The first string of the right length. Otherwise the first run of printable characters in the body that has this
/// length.
fn oem_string(record: &[u8]) -> Option<String> {
    let (body, strings) = record.split_at_checked(usize::from(*record.get(1)?))?;
    let printable = |text: &[u8]| text.len() == LENGTH && text.iter().all(u8::is_ascii_graphic);
    let of_strings = strings.split(|byte| *byte == 0).map(<[u8]>::trim_ascii).find(|text| printable(text));
    let of_body = || body.get(HEADER..)?.split(|byte| !byte.is_ascii_graphic()).find(|run| printable(run));
    of_strings.or_else(of_body).map(|text| String::from_utf8_lossy(text).into_owned())
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
        assert_eq!(oem_string(&with_string("KHOIHGIUCCHHII")).as_deref(), Some("KHOIHGIUCCHHII"));
        assert_eq!(oem_string(&with_string("other\0DW5931EFCCLOCK")).as_deref(), Some("DW5931EFCCLOCK"));
        assert_eq!(oem_string(&with_string(" KHOIHGIUCCHHII ")).as_deref(), Some("KHOIHGIUCCHHII"));
        assert_eq!(oem_string(&in_body("DW5823EFCCLOCK")).as_deref(), Some("DW5823EFCCLOCK"));
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
            assert_eq!(oem_string(record), None, "{record:02x?}");
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
        write("133-10", &with_string("WNCHPCEFCCLOCK"));
        write("133-2", &in_body("DW5931EFCCLOCK"));
        write("133-0", &with_string("too short"));
        write("133-1", &vec![0; LIMIT + 1]);
        write("134-0", &with_string("KHOIHGIUCCHHII"));
        let found = fcc_types(&Root::new(&path));
        fs::remove_dir_all(&path).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.entry.as_str(), found.oem_string.as_str())).collect();
        assert_eq!(found, [("133-2", "DW5931EFCCLOCK"), ("133-10", "WNCHPCEFCCLOCK")]);
        assert_eq!(fcc_types(&Root::new("/nonexistent")), []);
    }
}
