//! Bulk-only mass storage (USB MSC BOT 1.0): CBWs in, data and CSWs out, and the SCSI commands that `usb-storage`,
//! `sr_mod` and `sd_mod` send to a new drive.

use crate::faults::Faults;
use crate::models::Scsi;
use crate::transcript::hex;

/// A Command Block Wrapper.
#[derive(Debug, PartialEq)]
pub(crate) struct Cbw<'a> {
    pub tag: [u8; 4],
    pub length: usize,
    pub input: bool,
    pub lun: u8,
    pub cdb: &'a [u8],
}

impl<'a> Cbw<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Cbw<'a>> {
        let [b'U', b'S', b'B', b'C', t0, t1, t2, t3, l0, l1, l2, l3, flags, lun, _, cdb @ ..] = bytes else {
            return None;
        };
        (cdb.len() == 16).then(|| Cbw {
            tag: [*t0, *t1, *t2, *t3],
            length: u32::from_le_bytes([*l0, *l1, *l2, *l3]) as usize,
            input: flags & 0x80 != 0,
            lun: lun & 0x0f,
            cdb,
        })
    }
}

/// A Command Status Wrapper. `status` is 0 (passed) or 1 (failed).
pub(crate) fn csw(tag: [u8; 4], residue: usize, status: u8) -> Vec<u8> {
    let mut bytes = b"USBS".to_vec();
    bytes.extend(tag);
    bytes.extend((residue as u32).to_le_bytes());
    bytes.push(status);
    bytes
}

/// Sense key and additional sense code.
type Sense = (u8, u8);
const NO_SENSE: Sense = (0, 0);
const INVALID_COMMAND: Sense = (5, 0x20);
const INVALID_FIELD: Sense = (5, 0x24);

const CD_BLOCK: usize = 2048;
const DISK_BLOCK: usize = 512;
/// The size of a medium without given contents: it is all zeros, and writes are ignored.
const BLOCKS: u32 = 512;
/// A host that requests more at once is broken.
const MAX_DATA: usize = 1 << 20;

/// Whether this CBW ejects the medium: START STOP UNIT with LoEj.
pub(crate) fn is_eject(bytes: &[u8]) -> bool {
    Cbw::parse(bytes).is_some_and(|cbw| matches!(cbw.cdb, [0x1b, _, _, _, 2, ..]))
}

pub(crate) struct Storage {
    scsi: Scsi,
    sense: Sense,
    /// The remaining bytes of an OUT data stage, and the CSW that follows them.
    data_out: Option<(usize, Vec<u8>)>,
}

/// The reply of the drive on its bulk IN endpoint.
pub(crate) enum Reply {
    Nothing,
    Packets(Vec<Vec<u8>>),
    Stall,
}

impl Storage {
    pub(crate) fn new(scsi: Scsi) -> Storage {
        Storage { scsi, sense: NO_SENSE, data_out: None }
    }

    /// Takes one bulk OUT transfer.
    pub(crate) fn receive(&mut self, bytes: &[u8], faults: &Faults) -> Reply {
        if let Some((left, csw)) = self.data_out.take() {
            if bytes.len() < left {
                self.data_out = Some((left - bytes.len(), csw));
                return Reply::Nothing;
            }
            return with_faults(Vec::new(), csw, faults);
        }
        let Some(cbw) = Cbw::parse(bytes) else { return Reply::Stall };
        let answer = self.command(&cbw);
        let status = u8::from(answer.is_err());
        let mut data = answer.unwrap_or_else(|sense| {
            self.sense = sense;
            Vec::new()
        });
        data.truncate(cbw.length);
        if !cbw.input && cbw.length > 0 {
            self.data_out = Some((cbw.length, csw(cbw.tag, 0, status)));
            return Reply::Nothing;
        }
        let csw = csw(cbw.tag, cbw.length - data.len(), status);
        // If a data stage was announced and is empty, a short packet ends it.
        let data = if cbw.length > 0 { vec![data] } else { Vec::new() };
        with_faults(data, csw, faults)
    }

    fn command(&mut self, cbw: &Cbw) -> Result<Vec<u8>, Sense> {
        let block = if self.scsi.cdrom { CD_BLOCK } else { DISK_BLOCK };
        let medium = &self.scsi.medium;
        let blocks = if medium.is_empty() { BLOCKS } else { (medium.len() / block) as u32 };
        let protected = u8::from(!medium.is_empty()) << 7;
        if cbw.lun > 0 {
            return Err((5, 0x25));
        }
        match cbw.cdb[0] {
            // TEST UNIT READY, START STOP UNIT, PREVENT ALLOW, VERIFY, SYNCHRONIZE CACHE, WRITE
            0x00 | 0x1b | 0x1e | 0x2f | 0x35 | 0x0a | 0x2a => Ok(Vec::new()),
            0x03 => {
                let (key, code) = std::mem::replace(&mut self.sense, NO_SENSE);
                Ok(vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0, 0, 0, 0, 0])
            }
            0x12 if cbw.cdb[1] & 1 != 0 => Err(INVALID_FIELD),
            0x12 => Ok(self.inquiry()),
            // MODE SENSE (6) and (10): no pages.
            0x1a => Ok(vec![3, 0, protected, 0]),
            0x5a => Ok(vec![0, 6, 0, protected, 0, 0, 0, 0]),
            0x23 => Ok([&[0, 0, 0, 8], &blocks.to_be_bytes()[..], &[2, 0], &(block as u16).to_be_bytes()].concat()),
            0x25 => Ok([(blocks - 1).to_be_bytes(), (block as u32).to_be_bytes()].concat()),
            0x28 => {
                let count = usize::from(u16::from_be_bytes([cbw.cdb[7], cbw.cdb[8]]));
                let first = u32::from_be_bytes([cbw.cdb[2], cbw.cdb[3], cbw.cdb[4], cbw.cdb[5]]) as usize;
                let wanted = medium.iter().skip(first.saturating_mul(block)).copied();
                Ok(wanted.chain(std::iter::repeat(0)).take((count * block).min(MAX_DATA)).collect())
            }
            // READ TOC: one data track and the lead-out.
            0x43 if self.scsi.cdrom => {
                let track = |number: u8, at: u32| [&[0, 0x14, number, 0], &at.to_be_bytes()[..]].concat();
                Ok([vec![0, 18, 1, 1], track(1, 0), track(0xaa, blocks)].concat())
            }
            // GET EVENT STATUS NOTIFICATION: medium present, no event.
            0x4a if self.scsi.cdrom => Ok(vec![0, 6, 4, 0x10, 0, 2, 0, 0]),
            _ => Err(INVALID_COMMAND),
        }
    }

    fn inquiry(&self) -> Vec<u8> {
        let mut bytes = vec![if self.scsi.cdrom { 5 } else { 0 }, 0x80, 2, 2, 31, 0, 0, 0];
        let texts = [(&self.scsi.vendor, 8), (&self.scsi.model, 16), (&self.scsi.revision, 4)];
        for (text, size) in texts {
            bytes.extend(text.bytes().chain(std::iter::repeat(b' ')).take(size));
        }
        bytes
    }
}

fn with_faults(mut packets: Vec<Vec<u8>>, mut csw: Vec<u8>, faults: &Faults) -> Reply {
    if faults.has("no-csw") {
        return Reply::Packets(packets);
    }
    if faults.has("stall-csw") {
        return Reply::Stall;
    }
    if faults.has("failed-csw") {
        csw[12] = 1;
    }
    if faults.has("short-csw") {
        csw.truncate(4);
    }
    packets.push(csw);
    Reply::Packets(packets)
}

/// The CDB for the transcript.
pub(crate) fn name(bytes: &[u8]) -> String {
    let Some(cbw) = Cbw::parse(bytes) else { return String::new() };
    let name = match cbw.cdb[0] {
        0x00 => "TEST UNIT READY",
        0x01 => "REZERO UNIT",
        0x03 => "REQUEST SENSE",
        0x12 => "INQUIRY",
        0x1a | 0x5a => "MODE SENSE",
        0x1b => "START STOP UNIT",
        0x1e => "PREVENT ALLOW MEDIUM REMOVAL",
        0x25 => "READ CAPACITY",
        0x28 => "READ",
        0x43 => "READ TOC",
        0x4a => "GET EVENT STATUS",
        _ => return format!(" lun {} cdb {}", cbw.lun, hex(cbw.cdb)),
    };
    format!(" lun {} {name}", cbw.lun)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn storage() -> Storage {
        let text = str::to_owned;
        let scsi = Scsi {
            vendor: text("Sierra"),
            model: text("TRU-Install"),
            revision: text("2.31"),
            cdrom: true,
            medium: Vec::new(),
        };
        Storage::new(scsi)
    }

    fn command(length: u32, input: bool, cdb: &[u8]) -> Vec<u8> {
        let mut bytes = b"USBC\x01\x02\x03\x04".to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([u8::from(input) << 7, 0, cdb.len() as u8]);
        bytes.extend(cdb);
        bytes.resize(31, 0);
        bytes
    }

    fn packets(storage: &mut Storage, bytes: &[u8], fault: &str) -> Vec<Vec<u8>> {
        let mut faults = Faults::default();
        if !fault.is_empty() {
            faults.set(fault).unwrap();
        }
        match storage.receive(bytes, &faults) {
            Reply::Packets(packets) => packets,
            _ => panic!("no packets"),
        }
    }

    #[test]
    fn inquiry_then_a_csw_with_its_tag() {
        let reply = packets(&mut storage(), &command(36, true, &[0x12, 0, 0, 0, 36]), "");
        assert_eq!(reply[0].len(), 36);
        assert_eq!(&reply[0][8..27], b"Sierra  TRU-Install");
        assert_eq!(reply[1], *b"USBS\x01\x02\x03\x04\0\0\0\0\0");
    }

    #[test]
    fn an_unknown_command_fails_and_request_sense_says_why() {
        let mut storage = storage();
        assert_eq!(packets(&mut storage, &command(0, false, &[0x11, 6]), "")[0][12], 1);
        let sense = packets(&mut storage, &command(18, true, &[3]), "");
        assert_eq!((sense[0][2], sense[0][12]), (5, 0x20));
    }

    #[test]
    fn the_residue_is_the_unsent_length() {
        let reply = packets(&mut storage(), &command(64, true, &[0x12]), "");
        assert_eq!(reply[1][8..12], 28u32.to_le_bytes());
    }

    #[test]
    fn an_out_data_stage_comes_before_the_csw() {
        let mut storage = storage();
        let write = command(1024, false, &[0x2a]);
        assert!(matches!(storage.receive(&write, &Faults::default()), Reply::Nothing));
        assert!(matches!(storage.receive(&[0; 512], &Faults::default()), Reply::Nothing));
        assert_eq!(packets(&mut storage, &[0; 512], "").len(), 1);
    }

    #[test]
    fn a_medium_is_read_and_protected() {
        let mut storage = storage();
        storage.scsi.medium = (0..3 * CD_BLOCK).map(|at| (at / CD_BLOCK) as u8).collect();
        let data =
            |storage: &mut Storage, length, cdb: &[u8]| packets(storage, &command(length, true, cdb), "").remove(0);
        assert_eq!(data(&mut storage, 8, &[0x25])[..4], 2u32.to_be_bytes());
        assert_eq!(data(&mut storage, 4, &[0x1a]), [3, 0, 0x80, 0]);
        let read = data(&mut storage, 4096, &[0x28, 0, 0, 0, 0, 2, 0, 0, 2]);
        assert_eq!((read[0], read[CD_BLOCK - 1], read[CD_BLOCK], read.len()), (2, 2, 0, 2 * CD_BLOCK));
    }

    #[test]
    fn faults_of_the_csw() {
        let ready = command(0, false, &[0]);
        assert_eq!(packets(&mut storage(), &ready, "short-csw")[0].len(), 4);
        assert_eq!(packets(&mut storage(), &ready, "failed-csw")[0][12], 1);
        assert!(packets(&mut storage(), &ready, "no-csw").is_empty());
        let mut faults = Faults::default();
        faults.set("stall-csw").unwrap();
        assert!(matches!(storage().receive(&ready, &faults), Reply::Stall));
        assert!(matches!(storage().receive(b"no CBW", &Faults::default()), Reply::Stall));
    }
}
