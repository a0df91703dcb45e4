//! The kernel's virtual host controller: a port of it, and the socket behind the port.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const VHCI: &str = "/sys/devices/platform/vhci_hcd.0";
const SPEED_HIGH: u8 = 3;
/// How long a port may take to be free again after its socket was shut down.
const DETACH: Duration = Duration::from_secs(10);

/// A row of `status`.
#[derive(Debug, PartialEq)]
struct Port {
    number: u32,
    high_speed: bool,
    free: bool,
}

/// Reads `hub port sta spd dev sockfd local_busid` rows; `sta` 004 is a port without device.
fn parse_status(text: &str) -> Vec<Port> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let hub = fields.next()?;
        let number = fields.next()?.parse().ok()?;
        Some(Port { number, high_speed: hub == "hs", free: fields.next()? == "004" })
    };
    text.lines().filter_map(row).collect()
}

fn ports() -> io::Result<Vec<Port>> {
    let mut ports = parse_status(&std::fs::read_to_string(format!("{VHCI}/status"))?);
    for controller in 1.. {
        let Ok(text) = std::fs::read_to_string(format!("{VHCI}/status.{controller}")) else { break };
        ports.extend(parse_status(&text));
    }
    Ok(ports)
}

fn attach_to(port: u32) -> io::Result<UnixStream> {
    let (ours, kernels) = UnixStream::pair()?;
    let devid = 1;
    let line = format!("{port} {} {devid} {SPEED_HIGH}", kernels.as_raw_fd());
    std::fs::write(format!("{VHCI}/attach"), line)?;
    Ok(ours)
}

/// Plugs a high-speed device into `port`, or into the first free one.
/// Returns the port and our end of the wire; shutting that down unplugs the device.
pub fn attach(port: Option<u32>) -> io::Result<(u32, UnixStream)> {
    if !Path::new(VHCI).exists() {
        return Err(io::Error::other("no vhci_hcd here (modprobe vhci-hcd)"));
    }
    if let Some(port) = port {
        let deadline = Instant::now() + DETACH;
        while !ports()?.iter().any(|p| p.number == port && p.free) {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("vhci port {port} is not free")));
            }
            sleep(Duration::from_millis(2));
        }
        return Ok((port, attach_to(port)?));
    }
    // Another modem may take the port between the look and the write: then the next one.
    for port in ports()?.iter().filter(|p| p.high_speed && p.free) {
        if let Ok(stream) = attach_to(port.number) {
            return Ok((port.number, stream));
        }
    }
    Err(io::Error::other("no free high-speed port on vhci_hcd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_table() {
        let text = "hub port sta spd dev      sockfd local_busid\n\
                    hs  0000 006 003 00010002 000003 1-1\n\
                    hs  0001 004 000 00000000 000000 0-0\n\
                    ss  0008 004 000 00000000 000000 0-0\n";
        let port = |number, high_speed, free| Port { number, high_speed, free };
        assert_eq!(parse_status(text), [port(0, true, false), port(1, true, true), port(8, false, true)]);
    }
}
