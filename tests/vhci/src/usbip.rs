//! USB/IP as `vhci_hcd` speaks it: 48-byte big-endian headers, followed by data (Documentation/usb/usbip_protocol.rst).
//! Isochronous transfers are not supported.

use std::io::{self, Read};

const CMD_SUBMIT: u32 = 1;
const CMD_UNLINK: u32 = 2;
const RET_SUBMIT: u32 = 3;
const RET_UNLINK: u32 = 4;

const HEADER: usize = 48;
/// A longer buffer of a URB means a broken stream.
const MAX_TRANSFER: usize = 1 << 24;

pub(crate) const EPIPE: i32 = -32;
pub(crate) const EPROTO: i32 = -71;
pub(crate) const ECONNRESET: i32 = -104;

/// A command from the host controller.
#[derive(Debug, PartialEq)]
pub enum Command {
    Submit(Submit),
    /// Cancels the URB `victim`.
    Unlink {
        seqnum: u32,
        victim: u32,
    },
}

/// One URB.
#[derive(Debug, PartialEq)]
pub struct Submit {
    /// Identifies the URB in its completion.
    pub seqnum: u32,
    /// Address with the direction in bit 7, as in an endpoint descriptor.
    pub endpoint: u8,
    /// The setup packet of a control transfer; zeros otherwise.
    pub setup: [u8; 8],
    /// The size of the buffer (IN) or of the data (OUT), in bytes.
    pub length: usize,
    /// Empty for IN.
    pub data: Vec<u8>,
}

fn be32(header: &[u8; HEADER], at: usize) -> u32 {
    u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
}

/// Reads the next command. An error means that the host controller has closed the connection.
pub(crate) fn read(stream: &mut impl Read) -> io::Result<Command> {
    let mut header = [0; HEADER];
    stream.read_exact(&mut header)?;
    let seqnum = be32(&header, 4);
    match be32(&header, 0) {
        CMD_SUBMIT => {
            let input = be32(&header, 12) == 1;
            let length = be32(&header, 24) as usize;
            if length > MAX_TRANSFER {
                return Err(io::Error::other("transfer too long"));
            }
            let mut data = vec![0; if input { 0 } else { length }];
            stream.read_exact(&mut data)?;
            let mut setup = [0; 8];
            setup.copy_from_slice(&header[40..48]);
            let endpoint = be32(&header, 16) as u8 & 0x0f | if input { 0x80 } else { 0 };
            Ok(Command::Submit(Submit { seqnum, endpoint, setup, length, data }))
        }
        CMD_UNLINK => Ok(Command::Unlink { seqnum, victim: be32(&header, 20) }),
        other => Err(io::Error::other(format!("unknown USB/IP command {other}"))),
    }
}

fn header(command: u32, seqnum: u32, status: i32, actual: usize) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes[0..4].copy_from_slice(&command.to_be_bytes());
    bytes[4..8].copy_from_slice(&seqnum.to_be_bytes());
    bytes[20..24].copy_from_slice(&status.to_be_bytes());
    bytes[24..28].copy_from_slice(&(actual as u32).to_be_bytes());
    bytes
}

/// Completes a URB. `actual` is the number of bytes transferred, and `data` has the bytes of an IN transfer.
pub(crate) fn ret_submit(seqnum: u32, status: i32, actual: usize, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(RET_SUBMIT, seqnum, status, actual);
    bytes.extend_from_slice(data);
    bytes
}

/// Answers an unlink: `ECONNRESET` if the URB was still pending, 0 if it had been completed.
pub(crate) fn ret_unlink(seqnum: u32, status: i32) -> Vec<u8> {
    header(RET_UNLINK, seqnum, status, 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[u32]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn the_sierra_switch_is_parsed() {
        let mut wire = words(&[1, 7, 0, 0, 0, 0, 0, 0, 0, 0]);
        wire.extend([0x40, 0x0b, 1, 0, 0, 0, 0, 0]);
        let command = read(&mut wire.as_slice()).unwrap();
        let setup = [0x40, 0x0b, 1, 0, 0, 0, 0, 0];
        assert_eq!(command, Command::Submit(Submit { seqnum: 7, endpoint: 0, setup, length: 0, data: vec![] }));
    }

    #[test]
    fn out_data_follows_the_header_and_in_data_does_not() {
        let mut wire = words(&[1, 8, 0, 0, 2, 0, 3, 0, 0, 0, 0, 0]);
        wire.extend([1, 2, 3]);
        wire.extend(words(&[1, 9, 0, 1, 1, 0, 512, 0, 0, 0, 0, 0]));
        let mut wire = wire.as_slice();
        let Command::Submit(out) = read(&mut wire).unwrap() else { panic!() };
        assert_eq!((out.endpoint, out.data), (0x02, vec![1, 2, 3]));
        let Command::Submit(input) = read(&mut wire).unwrap() else { panic!() };
        assert_eq!((input.endpoint, input.length), (0x81, 512));
    }

    #[test]
    fn unlink_names_its_victim() {
        let wire = words(&[2, 10, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&mut wire.as_slice()).unwrap(), Command::Unlink { seqnum: 10, victim: 9 });
        assert_eq!(ret_unlink(10, ECONNRESET)[20..24], (-104i32).to_be_bytes());
    }

    #[test]
    fn completion_carries_status_length_and_data() {
        let wire = ret_submit(7, 0, 2, &[0xaa, 0xbb]);
        assert_eq!(wire.len(), 50);
        assert_eq!(wire[..8], words(&[3, 7]));
        assert_eq!(wire[24..28], 2u32.to_be_bytes());
        assert_eq!(wire[48..], [0xaa, 0xbb]);
    }

    #[test]
    fn a_truncated_stream_is_an_error() {
        assert!(read(&mut &words(&[1, 7, 0])[..]).is_err());
        assert!(read(&mut &words(&[9, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])[..]).is_err());
    }
}
