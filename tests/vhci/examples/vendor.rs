//! A device with one vendor-specific interface, for as long as the program runs. `lsusb -v -d 1209:0001` shows it.

use std::io;
use std::sync::mpsc;

use vhci::{Command, Submit};

const DEVICE: [u8; 18] = [18, 1, 0x00, 0x02, 0, 0, 0, 64, 0x09, 0x12, 0x01, 0x00, 0x00, 0x01, 0, 0, 0, 1];
/// One configuration with one interface and no endpoints.
const CONFIGURATION: [u8; 18] = [9, 2, 18, 0, 1, 1, 0, 0x80, 50, 9, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0];

/// The reply on endpoint 0. `None` is a STALL.
fn answer(urb: &Submit) -> Option<&'static [u8]> {
    let [request_type, request, _, kind, ..] = urb.setup;
    match (request_type, request, kind) {
        // GET_DESCRIPTOR
        (0x80, 6, 1) => Some(&DEVICE),
        (0x80, 6, 2) => Some(&CONFIGURATION),
        // GET_STATUS
        (0x80..=0x82, 0, _) => Some(&[0, 0]),
        // SET_CONFIGURATION, SET_INTERFACE
        (0, 9, _) | (1, 11, _) => Some(&[]),
        _ => None,
    }
}

fn main() -> io::Result<()> {
    let (sender, commands) = mpsc::channel();
    let (port, mut link) = vhci::plug(None, move |command| sender.send(command).is_ok())?;
    println!("plugged into port {port}");
    while let Ok(Some(command)) = commands.recv() {
        match command {
            Command::Unlink { seqnum, victim } => link.unlink(seqnum, victim),
            Command::Submit(urb) => match answer(&urb) {
                Some(data) => {
                    let data = &data[..data.len().min(urb.length)];
                    link.done(urb.seqnum, data.len(), data);
                }
                None => link.stall(urb.seqnum),
            },
        }
    }
    Ok(())
}
