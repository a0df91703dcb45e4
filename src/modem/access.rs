//! Who else has a port open.
//!
//! The kernel lets anybody open a cdc-wdm port who may, and gives an answer to whoever reads first: a port that
//! somebody holds is not to be opened beside them. libqmi's and libmbim's proxies hold it for several programs, and let
//! us in too.

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::modem::device::ControlPort;
use crate::modem::link::stream::Stream;
use crate::modem::link::tty::Tty;
use crate::modem::link::wdm::Wdm;
use crate::modem::link::{Link, LinkError};
use crate::modem::transport::{Protocol, Transport};
use log::debug;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::fmt;
use std::fs;
use std::path::Path;

/// A process that has the port open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub pid: u32,
    /// As in `/proc/PID/comm`, which the process may change.
    pub name: String,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// A proxy, by what it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Qmi,
    Mbim,
}

impl Proxy {
    /// The name of its program, and of its abstract socket.
    pub fn name(self) -> &'static str {
        match self {
            Proxy::Qmi => "qmi-proxy",
            Proxy::Mbim => "mbim-proxy",
        }
    }

    pub fn protocol(self) -> Protocol {
        match self {
            Proxy::Qmi => Protocol::Qmi,
            Proxy::Mbim => Protocol::Mbim,
        }
    }

    pub fn connect(self) -> nix::Result<Stream> {
        Stream::connect_abstract(self.name())
    }
}

/// How to reach a modem beside those that use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Nobody has the port open.
    Free,
    /// This proxy holds it.
    Through(Proxy),
    /// Others hold it, and there is no way beside them.
    Held(Vec<Holder>),
}

/// The way to the port of this path, such as `/dev/cdc-wdm0`.
///
/// Looks at every descriptor of every process, which takes milliseconds, and sees only those that the caller may see.
pub fn way(root: &Root, port: &Path) -> Way {
    let holders = holders(root, port);
    let proxy = [Proxy::Qmi, Proxy::Mbim].into_iter().find(|proxy| holders.iter().any(|by| by.name == proxy.name()));
    match proxy {
        Some(proxy) => Way::Through(proxy),
        None if holders.is_empty() => Way::Free,
        None => Way::Held(holders),
    }
}

/// Why a port is not spoken to.
#[derive(Debug, thiserror::Error)]
pub enum Barred {
    #[error("the port {port} is held by {}", .holders.iter().map(Holder::to_string).collect::<Vec<_>>().join(", "))]
    Held { port: String, holders: Vec<Holder> },
    #[error("{0}")]
    NotOpened(String),
}

/// Has `talk` with the modem over this port, through the proxy where one holds it.
pub fn over<T>(
    root: &Root,
    port: &ControlPort,
    protocol: Protocol,
    talk: impl FnOnce(Transport) -> T,
) -> Result<T, Barred> {
    let path = root.at("/dev").join(&port.name);
    match (way(root, &path), protocol) {
        (Way::Held(holders), _) => Err(Barred::Held { port: path.display().to_string(), holders }),
        (Way::Through(proxy), _) => {
            let mut stream = proxy.connect().map_err(|error| {
                let (name, path) = (proxy.name(), path.display());
                Barred::NotOpened(format!("{name} holds {path} and takes no connection: {error}"))
            })?;
            Ok(talk(Transport { port: &mut stream, protocol: proxy.protocol(), proxied: Some(&path) }))
        }
        (Way::Free, Protocol::At) => {
            let tty = Tty::open(&path, port.number).map_err(|error| Barred::NotOpened(error.to_string()))?;
            Ok(talk(Transport { port: &mut Alone::over(tty, root, &path), protocol, proxied: None }))
        }
        (Way::Free, _) => {
            let wdm = Wdm::open(&path, port.number).map_err(|error| Barred::NotOpened(error.to_string()))?;
            Ok(talk(Transport { port: &mut Alone::over(wdm, root, &path), protocol, proxied: None }))
        }
    }
}

/// All processes but this one that have the port open, by their numbers.
pub fn holders(root: &Root, port: &Path) -> Vec<Holder> {
    let processes = fs::read_dir(root.at("/proc")).into_iter().flatten().flatten();
    let others = processes
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .filter(|(pid, _)| *pid != std::process::id());
    let mut holders: Vec<Holder> = others
        .filter(|(_, process)| holds(process, port))
        .map(|(pid, process)| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            Holder { pid, name: name.trim_end().to_owned() }
        })
        .collect();
    holders.sort_unstable_by_key(|holder| holder.pid);
    holders
}

fn holds(process: &Path, port: &Path) -> bool {
    let descriptors = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target == port))
}

/// A port that was nobody else's when it was opened. Should somebody open it too, the next message is not sent, once:
/// [`LinkError::Shared`]. What is sent after that is what puts things in order.
pub struct Alone<P> {
    port: P,
    opens: Option<Inotify>,
    stands: Stands,
}

#[derive(PartialEq, Eq)]
enum Stands {
    Alone,
    /// Somebody came, and it was not told yet.
    Joined,
    Told,
}

impl<P: Link> Alone<P> {
    /// `port` is open, and `path` is its node.
    pub fn over(port: P, root: &Root, path: &Path) -> Alone<P> {
        let opens = watch(path).inspect_err(|errno| debug!("who opens {} is not seen: {errno}", path.display())).ok();
        // Somebody may have come after the look at who holds the port, and before the watch.
        let stands = if holders(root, path).is_empty() { Stands::Alone } else { Stands::Joined };
        Alone { port, opens, stands }
    }

    fn somebody_opened(&self) -> bool {
        self.opens.as_ref().is_some_and(|opens| opens.read_events().is_ok_and(|events| !events.is_empty()))
    }
}

fn watch(path: &Path) -> nix::Result<Inotify> {
    let opens = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    opens.add_watch(path, AddWatchFlags::IN_OPEN)?;
    Ok(opens)
}

impl<P: Link> Link for Alone<P> {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        let joined = match self.stands {
            Stands::Alone => self.somebody_opened(),
            Stands::Joined => true,
            Stands::Told => false,
        };
        if joined {
            self.stands = Stands::Told;
            return Err(LinkError::Shared);
        }
        self.port.send(message, by)
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.port.receive(by)
    }

    fn longest(&self) -> usize {
        self.port.longest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    struct Fake(PathBuf);

    impl Fake {
        fn new(name: &str) -> Fake {
            let path = std::env::temp_dir().join(format!("wwan-quirks-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("proc/self")).unwrap();
            Fake(path)
        }

        fn process(&self, pid: u32, name: &str, files: &[&str]) {
            let process = self.0.join(format!("proc/{pid}"));
            fs::create_dir_all(process.join("fd")).unwrap();
            fs::write(process.join("comm"), format!("{name}\n")).unwrap();
            for (number, file) in files.iter().enumerate() {
                symlink(file, process.join(format!("fd/{number}"))).unwrap();
            }
        }

        fn way(&self) -> Way {
            way(&Root::new(&self.0), Path::new("/dev/cdc-wdm0"))
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn those_who_hold_the_port_are_found() {
        let fake = Fake::new("holders");
        fake.process(1, "systemd", &["/dev/null", "/dev/cdc-wdm1", "socket:[1]"]);
        fake.process(std::process::id(), "wwan-quirks", &["/dev/cdc-wdm0"]);
        assert_eq!(fake.way(), Way::Free);
        fake.process(812, "ModemManager", &["/dev/null", "/dev/cdc-wdm0"]);
        fake.process(90, "qmicli", &["/dev/cdc-wdm0"]);
        let Way::Held(holders) = fake.way() else { panic!() };
        assert_eq!(holders.iter().map(Holder::to_string).collect::<Vec<_>>(), ["qmicli (90)", "ModemManager (812)"]);
        fake.process(813, "mbim-proxy", &["/dev/cdc-wdm0"]);
        assert_eq!(fake.way(), Way::Through(Proxy::Mbim));
    }

    #[test]
    fn a_proxy_of_another_port_is_none() {
        let fake = Fake::new("proxies");
        fake.process(813, "qmi-proxy", &["/dev/cdc-wdm1"]);
        assert_eq!(fake.way(), Way::Free);
        fake.process(814, "qmi-proxy", &["/dev/cdc-wdm0"]);
        assert_eq!(fake.way(), Way::Through(Proxy::Qmi));
    }

    #[test]
    fn it_is_told_once_that_somebody_opened_the_port_too() {
        let soon = || Deadline::after(std::time::Duration::from_secs(1));
        let path = std::env::temp_dir().join(format!("wwan-quirks-alone-{}", std::process::id()));
        fs::write(&path, "").unwrap();
        let (ours, _modems) = std::os::unix::net::UnixStream::pair().unwrap();
        let fake = Fake::new("joined");
        let mut port = Alone::over(Stream::over(ours), &Root::new(&fake.0), &path);
        assert_eq!(port.send(b"ask", soon()), Ok(()));
        fs::File::open(&path).unwrap();
        assert_eq!(port.send(b"ask", soon()), Err(LinkError::Shared));
        assert_eq!(port.send(b"release", soon()), Ok(()));
        fs::File::open(&path).unwrap();
        assert_eq!(port.send(b"release", soon()), Ok(()));
        fs::remove_file(&path).unwrap();

        fake.process(90, "qmicli", &["/dev/null"]);
        let (ours, _modems) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut port = Alone::over(Stream::over(ours), &Root::new(&fake.0), Path::new("/dev/null"));
        assert_eq!(port.send(b"ask", soon()), Err(LinkError::Shared));
    }

    #[test]
    fn a_process_of_another_is_seen_in_the_real_proc() {
        let name = std::env::temp_dir().join(format!("wwan-quirks-held-{}", std::process::id()));
        let file = fs::File::create(&name).unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").stdin(file).spawn().unwrap();
        let found = holders(&Root::new("/"), &name);
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(&name).unwrap();
        assert_eq!(found.iter().map(|holder| holder.pid).collect::<Vec<_>>(), [child.id()]);
    }
}
