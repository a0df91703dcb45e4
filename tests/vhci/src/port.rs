//! The controller's ports, and the socket for each port.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::link::Link;
use crate::usbip::{self, Command};

const VHCI: &str = "/sys/devices/platform/vhci_hcd";
const SPEED_HIGH: u8 = 3;
/// How long a port may take to become free after its socket was shut down. A transfer that was pending at that time
/// ends only with its own time-out: vhci_hcd does not notify the driver that waits for it.
const DETACH: Duration = Duration::from_secs(30);

/// A row of `status`.
#[derive(Debug, PartialEq)]
struct Port {
    number: u32,
    high_speed: bool,
    free: bool,
}

/// Parses rows of the form `hub port sta spd dev sockfd local_busid`. A `sta` of 004 is a port without a device.
fn parse_status(text: &str) -> Vec<Port> {
    let row = |line: &str| {
        let mut fields = line.split_whitespace();
        let hub = fields.next()?;
        let number = fields.next()?.parse().ok()?;
        Some(Port { number, high_speed: hub == "hs", free: fields.next()? == "004" })
    };
    text.lines().filter_map(row).collect()
}

/// The ports of each controller in turn.
fn controllers() -> io::Result<Vec<Vec<Port>>> {
    let mut controllers = vec![parse_status(&fs::read_to_string(format!("{VHCI}.0/status"))?)];
    while let Ok(text) = fs::read_to_string(format!("{VHCI}.0/status.{}", controllers.len())) {
        controllers.push(parse_status(&text));
    }
    Ok(controllers)
}

/// The sysfs path of the device on a high-speed port. Port n of the controller is port n + 1 of its 480 Mbit/s root
/// hub.
fn device_on(port: u32) -> io::Result<Option<PathBuf>> {
    for (index, ports) in controllers()?.iter().enumerate() {
        let Some(place) = ports.iter().filter(|p| p.high_speed).position(|p| p.number == port) else { continue };
        for entry in fs::read_dir(format!("{VHCI}.{index}"))?.flatten() {
            let hub = entry.path();
            let bus = entry.file_name().to_string_lossy().strip_prefix("usb").map(str::to_owned);
            let speed = fs::read_to_string(hub.join("speed")).unwrap_or_default();
            if let (Some(bus), "480") = (bus, speed.trim()) {
                return Ok(Some(hub.join(format!("{bus}-{}", place + 1))));
            }
        }
    }
    Ok(None)
}

/// Whether the port is free, and the kernel has released the device that was on it. Before the release, the kernel
/// would take a device that returns quickly for the old one, and assume that it is configured.
fn is_free(port: u32) -> io::Result<bool> {
    let free = controllers()?.iter().flatten().any(|p| p.number == port && p.free);
    Ok(free && !device_on(port)?.is_some_and(|path| path.exists()))
}

fn attach_to(port: u32) -> io::Result<UnixStream> {
    let (ours, kernels) = UnixStream::pair()?;
    let devid = 1;
    let line = format!("{port} {} {devid} {SPEED_HIGH}", kernels.as_raw_fd());
    fs::write(format!("{VHCI}.0/attach"), line)?;
    Ok(ours)
}

/// Attaches to `port` once it is free, or to any free port. Returns the port and this end of the socket.
fn attach(port: Option<u32>) -> io::Result<(u32, UnixStream)> {
    if !Path::new(&format!("{VHCI}.0")).exists() {
        return Err(io::Error::other("no vhci_hcd here (modprobe vhci-hcd)"));
    }
    if let Some(port) = port {
        let deadline = Instant::now() + DETACH;
        while !is_free(port)? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("vhci port {port} is not free")));
            }
            sleep(Duration::from_millis(2));
        }
        return Ok((port, attach_to(port)?));
    }
    // Another device may take the port between the check and the write. The next port is tried then.
    for port in controllers()?.iter().flatten().filter(|p| p.high_speed && p.free) {
        if let Ok(stream) = attach_to(port.number) {
            return Ok((port.number, stream));
        }
    }
    Err(io::Error::other("no free high-speed port on vhci_hcd"))
}

/// Plugs a high-speed device into `port` of `vhci_hcd`, or into the first free one. Returns the port and the link that
/// completes URBs and unplugs the device.
///
/// A thread calls `serve` with each command of the host, and with `None` when the device has left the bus. The thread
/// ends after that, or when `serve` returns `false`.
///
/// # Errors
/// `vhci_hcd` is not loaded, its ports cannot be read or written, or no port becomes free within 30 s.
pub fn plug(
    port: Option<u32>,
    mut serve: impl FnMut(Option<Command>) -> bool + Send + 'static,
) -> io::Result<(u32, Link)> {
    let (port, stream) = attach(port)?;
    let mut wire = stream.try_clone()?;
    std::thread::spawn(move || {
        while let Ok(command) = usbip::read(&mut wire) {
            if !serve(Some(command)) {
                return;
            }
        }
        serve(None);
    });
    Ok((port, Link::new(stream)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_is_parsed() {
        let text = "hub port sta spd dev      sockfd local_busid\n\
                    hs  0000 006 003 00010002 000003 1-1\n\
                    hs  0001 004 000 00000000 000000 0-0\n\
                    ss  0008 004 000 00000000 000000 0-0\n";
        let port = |number, high_speed, free| Port { number, high_speed, free };
        assert_eq!(parse_status(text), [port(0, true, false), port(1, true, true), port(8, false, true)]);
    }
}
