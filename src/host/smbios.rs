//! The FCC type of this computer, from SMBIOS records of type 133.
//!
//! Laptop vendors store the OEM string of their FCC lock in such a record. The string has 14 characters. Two formats
//! are known: a record with a string, and a record of 44 bytes with the characters in its body. A computer can have
//! both, in any order, even in one record.

use std::iter;

use crate::host::root::Root;

/// Every kernel with SMBIOS has this file. `/sys/firmware/dmi/entries` needs the module dmi-sysfs.
const TABLE: &str = "/sys/firmware/dmi/tables/DMI";
/// The maximum number of bytes of the table.
const LIMIT: usize = 1 << 20;
const FCC_TYPE: u8 = 133;
const END_OF_TABLE: u8 = 127;
/// Type, length and handle.
const HEADER: usize = 4;
const LENGTH: usize = 14;
/// The maximum number of OEM strings. A modem may count wrong keys permanently.
const MOST: usize = 8;

/// An OEM string, and the name that dmi-sysfs gives its record (`133-0`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FccType {
    pub entry: String,
    pub oem_string: String,
}

/// The first OEM strings of this computer, in the order of their records. Only root can read the table.
pub(crate) fn fcc_types(root: &Root) -> Vec<FccType> {
    let table = root.read(TABLE, LIMIT).inspect_err(|error| log::debug!("{TABLE}: {error}"));
    table.map_or(Vec::new(), |table| in_table(&table))
}

/// The first OEM strings in an SMBIOS table.
pub fn in_table(table: &[u8]) -> Vec<FccType> {
    let records = records(table).filter(|record| record.first() == Some(&FCC_TYPE));
    let found = records.enumerate().flat_map(|(number, record)| {
        let entry = format!("{FCC_TYPE}-{number}");
        oem_strings(record).into_iter().map(move |oem_string| FccType { entry: entry.clone(), oem_string })
    });
    found.take(MOST).collect()
}

/// The records before the end of the table, or before the first malformed one. A record is a header, a body, and strings
/// that end with two NULs.
fn records(table: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = table;
    iter::from_fn(move || {
        let length = usize::from(*rest.get(1)?);
        let end = length + rest.get(length..)?.windows(2).position(|pair| pair == [0, 0])? + 2;
        let (record, after) = rest.split_at_checked(end)?;
        rest = after;
        (length >= HEADER && record.first() != Some(&END_OF_TABLE)).then_some(record)
    })
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
    use crate::host::root::tests::TempRoot;

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
    fn all_records_of_the_type_are_read_in_their_order() {
        let root = TempRoot::new("smbios");
        let bios = [&[0, 24, 1, 0][..], &[0x20; 20], b"maker\0version\0\0"].concat();
        let other = with_string("KHOIHGIUCCHHII");
        let table = [
            &bios[..],
            &with_string("too short"),
            &[&[134][..], &other[1..]].concat(),
            &in_body("DW5931EFCCLOCK"),
            // A record without strings.
            &[133, 4, 9, 0, 0, 0],
            &with_string(&["WNCHPCEFCCLOCK"; 20].join("\0")),
        ]
        .concat();
        root.write(TABLE, table);
        let found = fcc_types(&root);
        std::fs::remove_file(root.at(TABLE)).unwrap();
        let found: Vec<_> = found.iter().map(|found| (found.entry.as_str(), found.oem_string.as_str())).collect();
        assert_eq!(found[0], ("133-1", "DW5931EFCCLOCK"));
        assert_eq!(found[1..], [("133-3", "WNCHPCEFCCLOCK"); MOST - 1]);
        assert_eq!(fcc_types(&root), []);
    }

    #[test]
    fn a_table_ends_at_its_end_and_at_a_malformed_record() {
        let record = with_string("KHOIHGIUCCHHII");
        let count = |rest: &[u8]| in_table(&[&record, rest].concat()).len();
        assert_eq!(count(&record), 2);
        for (what, rest) in [
            ("end of table", [&[127, 4, 0, 0, 0, 0], &record[..]].concat()),
            ("length of three", [&[1, 3, 0, 0, 0], &record[..]].concat()),
            ("length of zero", [&[0; 4], &record[..]].concat()),
            ("longer than the table", [&[133, 255, 0, 0], &record[..]].concat()),
            ("one NUL", record[..record.len() - 1].to_vec()),
            ("only a type", vec![133]),
            ("only a header", vec![133, 4, 0, 0]),
        ] {
            assert_eq!(count(&rest), 1, "{what}");
        }
        assert_eq!(in_table(&[]), []);
    }
}
