//! The link of one plugged device: URBs that wait for data, and data that waits for URBs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use crate::usbip::{self, ECONNRESET, EPIPE, EPROTO};

/// Completes a device's URBs. Endpoints are addresses with the direction in bit 7, as in an endpoint descriptor. The
/// `seqnum` identifies a URB.
pub struct Link {
    stream: UnixStream,
    /// For each endpoint, `seqnum` and buffer length of each pending URB.
    pending: BTreeMap<u8, VecDeque<(u32, usize)>>,
    outbox: BTreeMap<u8, VecDeque<Vec<u8>>>,
    halted: BTreeSet<u8>,
}

impl Link {
    /// A link on any socket, without a host controller, for tests.
    pub fn new(stream: UnixStream) -> Link {
        Link { stream, pending: BTreeMap::new(), outbox: BTreeMap::new(), halted: BTreeSet::new() }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The reader of the socket notices a broken connection.
        let _ = self.stream.write_all(bytes);
    }

    /// Completes a URB. `actual` is the number of bytes transferred, and `data` has the bytes of an IN transfer.
    pub fn done(&mut self, seqnum: u32, actual: usize, data: &[u8]) {
        self.send(&usbip::ret_submit(seqnum, 0, actual, data));
    }

    /// Completes a URB with a STALL.
    pub fn stall(&mut self, seqnum: u32) {
        self.send(&usbip::ret_submit(seqnum, EPIPE, 0, &[]));
    }

    /// Completes a URB with an error on the bus.
    pub fn fail(&mut self, seqnum: u32) {
        self.send(&usbip::ret_submit(seqnum, EPROTO, 0, &[]));
    }

    /// Removes a pending URB from the queue. Returns `false` if the host has unlinked it.
    pub fn resume(&mut self, endpoint: u8, seqnum: u32) -> bool {
        let Some(urbs) = self.pending.get_mut(&endpoint) else { return false };
        let before = urbs.len();
        urbs.retain(|(waiting, _)| *waiting != seqnum);
        urbs.len() < before
    }

    /// Keeps a URB with a buffer of `length` bytes pending until there is data for it.
    pub fn wait(&mut self, endpoint: u8, seqnum: u32, length: usize) {
        self.pending.entry(endpoint).or_default().push_back((seqnum, length));
    }

    /// Unlinks the URB `victim`, as [`Command::Unlink`](crate::Command::Unlink) requests.
    pub fn unlink(&mut self, seqnum: u32, victim: u32) {
        let mut found = false;
        for urbs in self.pending.values_mut() {
            let before = urbs.len();
            urbs.retain(|(seqnum, _)| *seqnum != victim);
            found |= urbs.len() < before;
        }
        self.send(&usbip::ret_unlink(seqnum, if found { ECONNRESET } else { 0 }));
    }

    /// Queues data for an IN endpoint.
    pub fn queue(&mut self, endpoint: u8, data: Vec<u8>) {
        self.outbox.entry(endpoint).or_default().push_back(data);
    }

    /// The next URB of the endpoint for which there is data, with as much data as fits into its buffer.
    pub fn ready(&mut self, endpoint: u8) -> Option<(u32, Vec<u8>)> {
        let urbs = self.pending.get_mut(&endpoint)?;
        let packets = self.outbox.get_mut(&endpoint)?;
        let (_, length) = *urbs.front()?;
        let mut packet = packets.pop_front()?;
        if packet.len() > length {
            packets.push_front(packet.split_off(length));
        }
        let (seqnum, _) = urbs.pop_front()?;
        Some((seqnum, packet))
    }

    /// Halts the endpoint: its URBs get a STALL until the halt is cleared. Its queued data is lost.
    pub fn halt(&mut self, endpoint: u8) {
        self.halted.insert(endpoint);
        self.outbox.remove(&endpoint);
        for (seqnum, _) in self.pending.remove(&endpoint).unwrap_or_default() {
            self.stall(seqnum);
        }
    }

    pub fn is_halted(&self, endpoint: u8) -> bool {
        self.halted.contains(&endpoint)
    }

    pub fn clear_halt(&mut self, endpoint: u8) {
        self.halted.remove(&endpoint);
    }

    /// Clears halts and queued data, for a new configuration.
    pub fn configured(&mut self) {
        self.outbox.clear();
        self.halted.clear();
    }

    /// Removes the device from the bus.
    pub fn unplug(self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn link() -> (Link, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Link::new(ours), theirs)
    }

    fn status(stream: &mut UnixStream) -> (u32, i32) {
        let mut header = [0; 48];
        stream.read_exact(&mut header).unwrap();
        let word = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        (word(4), word(20) as i32)
    }

    #[test]
    fn data_waits_for_urbs_and_is_split_to_fit_them() {
        let (mut link, _kernel) = link();
        link.queue(0x81, vec![1, 2, 3]);
        assert_eq!(link.ready(0x81), None);
        link.wait(0x81, 5, 2);
        link.wait(0x81, 6, 2);
        assert_eq!(link.ready(0x81), Some((5, vec![1, 2])));
        assert_eq!(link.ready(0x81), Some((6, vec![3])));
        assert_eq!(link.ready(0x81), None);
    }

    #[test]
    fn unlink_distinguishes_pending_and_completed_urbs() {
        let (mut link, mut kernel) = link();
        link.wait(0x81, 5, 2);
        link.unlink(7, 5);
        assert_eq!(status(&mut kernel), (7, ECONNRESET));
        link.unlink(8, 5);
        assert_eq!(status(&mut kernel), (8, 0));
        link.queue(0x81, vec![1]);
        assert_eq!(link.ready(0x81), None);
    }

    #[test]
    fn a_halted_endpoint_stalls_pending_urbs() {
        let (mut link, mut kernel) = link();
        link.wait(0x81, 5, 2);
        link.halt(0x81);
        assert_eq!(status(&mut kernel), (5, EPIPE));
        assert!(link.is_halted(0x81));
        link.clear_halt(0x81);
        assert!(!link.is_halted(0x81));
    }
}
