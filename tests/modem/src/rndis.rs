//! RNDIS, as far as the kernel's rndis_host needs it to create a network interface.

const INITIALIZE: u32 = 2;
const QUERY: u32 = 4;
const SET: u32 = 5;
const KEEPALIVE: u32 = 8;
const COMPLETION: u32 = 0x8000_0000;
const NOT_SUPPORTED: u32 = 0xc000_00bb;
const PERMANENT_ADDRESS: u32 = 0x0101_0101;
const ADDRESS: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// The response to a message. `None` if it has none.
pub(crate) fn response(message: &[u8]) -> Option<Vec<u8>> {
    let word = |at: usize| Some(u32::from_le_bytes(message.get(at..at + 4)?.try_into().ok()?));
    let (kind, request) = (word(0)?, word(8)?);
    let (body, data): (Vec<u32>, &[u8]) = match kind {
        // Status, version 1.0, connectionless, 802.3, one packet of at most 2048 bytes, no alignment, no address families.
        INITIALIZE => (vec![0, 1, 0, 1, 0, 1, 2048, 0, 0, 0], &[]),
        // Status, length, and offset from the request ID.
        QUERY if word(12)? == PERMANENT_ADDRESS => (vec![0, 6, 16], &ADDRESS),
        QUERY => (vec![NOT_SUPPORTED, 0, 0], &[]),
        SET | KEEPALIVE => (vec![0], &[]),
        _ => return None,
    };
    let length = (12 + 4 * body.len() + data.len()) as u32;
    let head = [kind | COMPLETION, length, request];
    let words = head.iter().chain(&body).flat_map(|word| word.to_le_bytes());
    Some(words.chain(data.iter().copied()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_requests_of_the_kernel_are_answered() {
        let message = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let initialized = response(&message(&[INITIALIZE, 24, 7, 1, 0, 16384])).unwrap();
        assert_eq!((initialized.len(), &initialized[..12]), (52, &message(&[0x8000_0002, 52, 7])[..]));
        let address = response(&message(&[QUERY, 28, 8, PERMANENT_ADDRESS, 0, 0, 0])).unwrap();
        assert_eq!((address.len(), &address[24..]), (30, &ADDRESS[..]));
        assert_eq!(response(&[1, 2, 3]), None);
    }
}
