//! Asks systemd to start a unit.
//!
//! One D-Bus call, `StartUnit`, over systemd's own socket: no bus daemon, which may not run yet, and no program, which
//! a helper of udev had better not start. Only what that call needs of the D-Bus specification is here.

use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use nix::libc;
use nix::poll::PollFlags;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, socket};

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::host::sys;

const METHOD_RETURN: u8 = 2;
const ERROR: u8 = 3;
/// systemd answers within milliseconds, unless the machine has much to do, as at boot.
const PATIENCE: Duration = Duration::from_secs(2);
/// What a caller with little time had better keep back for [`Start::ask`].
pub const KEPT_BACK: Duration = Duration::from_millis(300);

/// "30" is the user ID "0" in hex: systemd compares it with whom the kernel says we are.
const GREETING: &[u8] = b"\0AUTH EXTERNAL 30\r\nBEGIN\r\n";

/// Whether `root` is run by systemd (`sd_booted(3)`).
pub fn is_running(root: &Root) -> bool {
    root.at("/run/systemd/system").is_dir()
}

/// The start of a unit, ready to be asked for: its socket is open, and what is said can no longer be changed.
pub struct Start {
    socket: OwnedFd,
    /// The socket's address, the greeting, and the call, one after the other in memory that nothing writes to.
    prepared: &'static [u8],
    greeting: usize,
    call: usize,
}

impl Start {
    /// Prepares the start of `unit`, and says nothing to systemd yet.
    pub fn prepare(root: &Root, unit: &str) -> io::Result<Start> {
        let path = root.at("/run/systemd/private").into_os_string().into_vec();
        // struct sockaddr_un: the family, and a path of at most 107 bytes with its NUL.
        if path.len() > 107 {
            return Err(io::Error::other("the path of its socket is too long"));
        }
        let mut bytes = (libc::AF_UNIX as libc::sa_family_t).to_ne_bytes().to_vec();
        bytes.extend(path);
        bytes.push(0);
        let greeting = bytes.len();
        bytes.extend(GREETING);
        let call = bytes.len();
        bytes.extend(start_unit(unit));
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        Ok(Start { socket, prepared: sys::sealed(&bytes)?, greeting, call })
    }

    /// Queues the start, and returns without waiting for the unit to run.
    pub fn ask(&self) -> io::Result<()> {
        let mut answers = Answers { socket: self.socket.as_fd(), deadline: Deadline::after(PATIENCE) };
        sys::connect(self.socket.as_fd(), self.address())?;
        self.say(self.greeting())?;
        let line = until_line_end(&mut answers)?;
        if !line.starts_with(b"OK ") {
            return Err(io::Error::other(format!("systemd refused us: {}", String::from_utf8_lossy(&line).trim_end())));
        }
        // Not before: what comes along with the greeting, systemd leaves lying until more comes.
        self.say(self.call())?;
        loop {
            let mut header = [0; 16];
            answers.read_exact(&mut header)?;
            match header {
                [b'l', METHOD_RETURN, ..] => return Ok(()),
                [b'l', ERROR, ..] => return Err(io::Error::other("it does not start it (is the unit installed?)")),
                [b'l', _, _, _, b0, b1, b2, b3, _, _, _, _, f0, f1, f2, f3] => {
                    let body = u64::from(u32::from_le_bytes([b0, b1, b2, b3]));
                    let fields = u64::from(u32::from_le_bytes([f0, f1, f2, f3])).next_multiple_of(8);
                    io::copy(&mut (&mut answers).take(fields + body), &mut io::sink())?;
                }
                _ => return Err(io::Error::other("systemd gave an answer that makes no sense")),
            }
        }
    }

    fn say(&self, bytes: &[u8]) -> io::Result<()> {
        match send(self.socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL)? {
            sent if sent == bytes.len() => Ok(()),
            // A new socket takes 200 kB at once.
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    pub fn descriptor(&self) -> u32 {
        self.socket.as_raw_fd().unsigned_abs()
    }

    pub fn address(&self) -> &[u8] {
        self.prepared.get(..self.greeting).unwrap_or_default()
    }

    pub fn greeting(&self) -> &[u8] {
        self.prepared.get(self.greeting..self.call).unwrap_or_default()
    }

    pub fn call(&self) -> &[u8] {
        self.prepared.get(self.call..).unwrap_or_default()
    }
}

/// What systemd says, until it has been waited for long enough.
struct Answers<'a> {
    socket: BorrowedFd<'a>,
    deadline: Deadline,
}

impl Read for Answers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if sys::wait(self.socket, PollFlags::POLLIN, self.deadline, sys::stops())?.is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(nix::unistd::read(self.socket, buffer)?)
    }
}

fn until_line_end(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") && line.len() < 256 {
        stream.read_exact(&mut byte)?;
        line.extend(byte);
    }
    Ok(line)
}

/// The call `org.freedesktop.systemd1.Manager.StartUnit(unit, "replace")`, little-endian, serial 1.
fn start_unit(unit: &str) -> Vec<u8> {
    let mut body = Vec::new();
    string(&mut body, unit);
    string(&mut body, "replace");

    let mut fields = Vec::new();
    for (code, kind, value) in [
        (1, b'o', "/org/freedesktop/systemd1"),
        (2, b's', "org.freedesktop.systemd1.Manager"),
        (3, b's', "StartUnit"),
        (6, b's', "org.freedesktop.systemd1"),
        (8, b'g', "ss"),
    ] {
        align(&mut fields, 8);
        fields.extend([code, 1, kind, 0]);
        if kind == b'g' {
            fields.push(value.len() as u8);
            fields.extend(value.bytes());
            fields.push(0);
        } else {
            string(&mut fields, value);
        }
    }

    let mut message = vec![b'l', 1, 0, 1];
    message.extend((body.len() as u32).to_le_bytes());
    message.extend(1_u32.to_le_bytes());
    message.extend((fields.len() as u32).to_le_bytes());
    message.extend(fields);
    align(&mut message, 8);
    message.extend(body);
    message
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend(text.bytes());
    bytes.push(0);
}

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(bytes.len().next_multiple_of(to), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixListener;

    fn answered_with(answer: &'static [u8]) -> (io::Result<()>, Vec<u8>) {
        let directory =
            std::env::temp_dir().join(format!("wwan-quirks-systemd-{}-{}", std::process::id(), answer.len()));
        std::fs::create_dir_all(directory.join("run/systemd")).unwrap();
        let listener = UnixListener::bind(directory.join("run/systemd/private")).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut greeting = [0; GREETING.len()];
            stream.read_exact(&mut greeting).unwrap();
            let (line, reply) = answer.split_at(answer.iter().position(|byte| *byte == b'\n').unwrap() + 1);
            stream.write_all(line).unwrap();
            let mut call = Vec::new();
            if !reply.is_empty() {
                call.resize(start_unit("wwan-quirks@1-1.service").len(), 0);
                stream.read_exact(&mut call).unwrap();
                stream.write_all(reply).unwrap();
            }
            (greeting, call)
        });
        let result = Start::prepare(&Root::new(&directory), "wwan-quirks@1-1.service").and_then(|start| start.ask());
        let (greeting, call) = server.join().unwrap();
        assert_eq!(greeting, GREETING);
        std::fs::remove_dir_all(directory).unwrap();
        (result, call)
    }

    #[test]
    fn a_unit_is_started_by_one_call() {
        let (result, call) = answered_with(
            // A signal comes before the answer.
            b"OK 0123456789abcdef\r\nl\x04\x01\x01\x02\0\0\0\x09\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\
              l\x02\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0",
        );
        result.unwrap();
        let message = call.as_slice();
        assert_eq!(message.len() % 4, 0);
        let text = String::from_utf8_lossy(message);
        for part in ["StartUnit\0", "wwan-quirks@1-1.service\0", "replace\0"] {
            assert!(text.contains(part), "{part}");
        }
        // The body begins at a multiple of eight and is as long as the header says.
        let fields = u32::from_le_bytes(message[12..16].try_into().unwrap()) as usize;
        let body = u32::from_le_bytes(message[4..8].try_into().unwrap()) as usize;
        assert_eq!((16 + fields).next_multiple_of(8) + body, message.len());
    }

    #[test]
    fn a_refusal_is_told() {
        assert!(answered_with(b"REJECTED\r\n").0.is_err());
        assert!(answered_with(b"OK 0\r\nl\x03\x01\x01\0\0\0\0\0\0\0\0\0\0\0\0").0.is_err());
    }
}
