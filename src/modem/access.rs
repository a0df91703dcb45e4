//! Who uses a port, and the one way to open it.
//!
//! The kernel lets every permitted process open a cdc-wdm or WWAN port, and delivers a reply to whichever process reads
//! first. For this reason this program does not open a port that is in use. qmi-proxy (libqmi) and mbim-proxy (libmbim)
//! hold a port for several programs, and accept this program as another client.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use log::debug;
use nix::fcntl::OFlag;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::host::deadline::Deadline;
use crate::host::root::Root;
use crate::host::sys::{self, AS_ROOT};
use crate::modem::device::{ControlPort, Device, DeviceNumber, is_tty};
use crate::modem::link::stream::Stream;
use crate::modem::link::wdm::Wdm;
use crate::modem::link::{Link, LinkError, OpenError, tty, wwan};
use crate::modem::transport::{Protocol, Transport};

/// A process that has the port open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortUser {
    pub(crate) pid: u32,
    pub uid: u32,
    /// `/proc/PID/comm`, which the process may change.
    pub name: String,
    /// `false` if the kernel hides what the process has open. It may be the proxy of a container, for another port.
    pub(crate) is_certain: bool,
}

impl fmt::Display for PortUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

/// The users, separated by commas.
pub fn names(users: &[PortUser]) -> String {
    users.iter().map(PortUser::to_string).collect::<Vec<_>>().join(", ")
}

/// A proxy, by its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proxy {
    Qmi,
    Mbim,
}

impl Proxy {
    const ALL: [Proxy; 2] = [Proxy::Qmi, Proxy::Mbim];

    /// The name of the program and of its abstract socket.
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

    /// The proxy for the protocol of this port.
    fn of_port(port: &ControlPort) -> Option<Proxy> {
        Proxy::ALL.into_iter().find(|proxy| Protocol::of_port(port) == Some(proxy.protocol()))
    }
}

/// Whether other programs may already use the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// The port is new. No other program knows it before its udev event ends.
    New,
    Possible,
    /// The run may only use a proxy that holds the port: the kernel may block the open of a port that no process holds.
    Proxied,
}

/// Why a port is not used.
#[derive(Debug, thiserror::Error)]
pub enum PortUnavailable {
    #[error("the modem disconnected")]
    Left,
    #[error("{port} is held by {}", names(.users))]
    Held { port: PathBuf, users: Vec<PortUser> },
    #[error("{name} holds {port}, but does not accept connections: {source}")]
    Proxy { port: PathBuf, name: &'static str, source: io::Error },
    /// The process that holds the port, or that owns the proxy's socket, is neither root nor the owner of the port.
    #[error("{name} holds {port}, but another process answers on its socket")]
    UntrustedProxy { port: PathBuf, name: &'static str },
    #[error("no proxy holds {port}")]
    NotProxied { port: PathBuf },
    #[error("cannot determine which programs use {port}: {source}")]
    UsersUnknown { port: PathBuf, source: io::Error },
    #[error(transparent)]
    Open(OpenError),
}

impl PortUnavailable {
    /// What a person can do about the problem.
    pub fn remedy(&self) -> &'static str {
        match self {
            PortUnavailable::Left => "plug the modem in again",
            PortUnavailable::Held { .. } => {
                "stop that program and run `wwan-quirks apply`, or let it use qmi-proxy or mbim-proxy"
            }
            PortUnavailable::Proxy { .. } | PortUnavailable::UntrustedProxy { .. } => {
                "stop it, then run `wwan-quirks apply`"
            }
            PortUnavailable::NotProxied { .. } => "let qmi-proxy or mbim-proxy hold it",
            PortUnavailable::UsersUnknown { source, .. } if sys::lacks_root(source) => AS_ROOT,
            PortUnavailable::UsersUnknown { .. } => "mount /proc so that root sees all processes",
            PortUnavailable::Open(error) => error.remedy(),
        }
    }
}

/// A port that is open for one conversation.
pub struct OpenPort {
    link: Box<dyn Link>,
    protocol: Protocol,
    proxied: Option<PathBuf>,
}

impl OpenPort {
    pub fn transport(&mut self) -> Transport<'_> {
        Transport { port: &mut *self.link, protocol: self.protocol, proxied: self.proxied.as_deref() }
    }
}

/// Opens `port` of `device`, or a connection to the proxy that holds the port. The open of a WWAN port or a tty may take
/// long. It ends by the deadline.
///
/// # Errors
/// `Left` if the device or the port has left, or the device was enumerated again. `Held` if a program other than a proxy
/// holds the port. `NotProxied` if no program holds the port, but `sharing` allows only a proxy.
pub fn open(
    root: &Root,
    device: &Device,
    port: &ControlPort,
    protocol: Protocol,
    sharing: Sharing,
    deadline: Deadline,
) -> Result<OpenPort, PortUnavailable> {
    let path = root.at("/dev").join(&port.name);
    let enumeration = device.enumeration_id();
    let mut ignored = Vec::new();
    if sharing != Sharing::New {
        let mut users = match users(root, port) {
            Ok(users) => users,
            Err(source) => return Err(PortUnavailable::UsersUnknown { port: path, source }),
        };
        if let Some(proxy) = proxy_among(&users) {
            match connect(proxy, proxy.name(), &users, path.clone()) {
                Err(PortUnavailable::Proxy { source, .. })
                    if source.kind() == io::ErrorKind::ConnectionRefused
                        && users.iter().all(|user| !user.is_certain) =>
                {
                    ignored = std::mem::take(&mut users);
                }
                connected => return connected,
            }
        }
        if !users.is_empty() {
            return Err(PortUnavailable::Held { port: path, users });
        }
        if sharing == Sharing::Proxied {
            return Err(PortUnavailable::NotProxied { port: path });
        }
    }
    let opened = open_link(&path, port, protocol, deadline);
    // The node was opened before this check. If the device still has the port, the device number cannot belong to
    // another device.
    let link = match opened {
        _ if device.enumeration_id() != enumeration || !has_port(device, port) => return Err(PortUnavailable::Left),
        opened => opened.map_err(PortUnavailable::Open)?,
    };
    let link: Box<dyn Link> = match sharing {
        Sharing::New => link,
        Sharing::Possible | Sharing::Proxied => Box::new(ExclusivePort::over(link, root, &path, port, &ignored)),
    };
    Ok(OpenPort { link, protocol, proxied: None })
}

fn open_link(
    path: &Path,
    port: &ControlPort,
    protocol: Protocol,
    deadline: Deadline,
) -> Result<Box<dyn Link>, OpenError> {
    Ok(match protocol {
        _ if port.wwan_type.is_some() => Box::new(wwan::open(path, port.number, deadline)?),
        Protocol::At => Box::new(tty::open(path, port.number, deadline)?),
        Protocol::Qmi | Protocol::Mbim | Protocol::XmmRpc => Box::new(Wdm::open(path, port.number)?),
    })
}

/// Whether the port is still part of the device. A PCI function outlives its WWAN ports, and a USB device outlives the
/// ports of a configuration.
fn has_port(device: &Device, port: &ControlPort) -> bool {
    let is_same = |other: &ControlPort| (&other.name, other.number) == (&port.name, port.number);
    let ports = if is_tty(&port.name) { device.ttys() } else { device.control_ports() };
    ports.is_ok_and(|ports| ports.iter().any(is_same))
}

fn proxy_among(users: &[PortUser]) -> Option<Proxy> {
    Proxy::ALL.into_iter().find(|proxy| users.iter().any(|user| user.name == proxy.name()))
}

/// Whether a program other than a proxy holds the port, as far as is known.
pub(crate) fn is_held(root: &Root, port: &ControlPort) -> bool {
    users(root, port).is_ok_and(|users| !users.is_empty() && proxy_among(&users).is_none())
}

/// Any process can call itself qmi-proxy and listen on its abstract socket. The process behind the socket must be
/// one of those that hold the port, and must run as root or as the owner of the port's node.
fn connect(proxy: Proxy, socket: &str, users: &[PortUser], port: PathBuf) -> Result<OpenPort, PortUnavailable> {
    let name = proxy.name();
    let connected = Stream::connect_abstract(socket).and_then(|stream| Ok((stream.peer()?, stream)));
    let (peer, stream) =
        connected.map_err(|errno| PortUnavailable::Proxy { port: port.clone(), name, source: errno.into() })?;
    let is_peer = |user: &PortUser| user.pid == peer.pid && user.name == name && is_trusted(user.uid, &port);
    if !is_trusted(peer.uid, &port) || !users.iter().any(is_peer) {
        return Err(PortUnavailable::UntrustedProxy { port, name });
    }
    Ok(OpenPort { link: Box::new(stream), protocol: proxy.protocol(), proxied: Some(port) })
}

/// Whether a process of this user is trusted as the proxy for the port with this node.
fn is_trusted(uid: u32, node: &Path) -> bool {
    uid == 0 || fs::metadata(node).is_ok_and(|node| node.uid() == uid)
}

/// All processes that have `port` open, in the order of their PIDs. Excludes this process and its children, which keep
/// a WWAN port open for it.
///
/// Looks at every descriptor of every process, which takes milliseconds. Compares device numbers, not names: a container
/// can have the node under another name, and can give any file the name `/dev/cdc-wdm0`.
///
/// Without `CAP_SYS_PTRACE`, as when ModemManager calls the program, root may not see what a process with more
/// capabilities has open. A proxy for the protocol of the port then counts as a user: it opens the port if it does not
/// hold it. Other such processes are not found. PID 1 always has more capabilities, and is therefore never found.
///
/// # Errors
/// If `/proc` does not list this process, because other processes are then hidden, too. `PermissionDenied` if no process
/// was found, but this process is not root and may not look at all of them.
pub fn users(root: &Root, port: &ControlPort) -> io::Result<Vec<PortUser>> {
    let node = root.at("/dev").join(&port.name);
    let mut users = Vec::new();
    let (mut is_listed, mut denied) = (false, None);
    for entry in fs::read_dir(root.at("/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if pid == std::process::id() {
            is_listed = true;
            continue;
        }
        let process = entry.path();
        match holds(&process, port) {
            Ok(true) if parent(&process) != Some(std::process::id()) => users.push(user(&process, pid)),
            Ok(_) => {}
            Err(error) if sys::lacks_root(&error) => denied = Some(error),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let user = PortUser { is_certain: false, ..user(&process, pid) };
                let is_proxy = Proxy::of_port(port).is_some_and(|proxy| proxy.name() == user.name);
                users.extend(Some(user).filter(|user| is_proxy && is_trusted(user.uid, &node)));
            }
            Err(_) => {}
        }
    }
    if root.is_live() && !is_listed {
        return Err(io::Error::new(io::ErrorKind::NotFound, "/proc does not list this process"));
    }
    users.sort_unstable_by_key(|user| user.pid);
    denied.filter(|_| users.is_empty()).map_or(Ok(users), Err)
}

fn user(process: &Path, pid: u32) -> PortUser {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let uid = fs::metadata(process).map_or(u32::MAX, |metadata| metadata.uid());
    PortUser { pid, uid, name: name.trim_end().to_owned(), is_certain: true }
}

fn parent(process: &Path) -> Option<u32> {
    let status = fs::read_to_string(process.join("status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Whether the process has `port` open. Considers only nodes in a directory named `dev`, including that of a container.
/// Checking all other files would be slow, could block on a dead network mount, and would cause SELinux denials.
///
/// # Errors
/// `PermissionDenied` if this process may not see what the other one has open.
fn holds(process: &Path, port: &ControlPort) -> io::Result<bool> {
    let is_port = |path: &Path| fs::metadata(path).is_ok_and(|node| DeviceNumber::of(&node) == Some(port.number));
    for entry in fs::read_dir(process.join("fd"))?.flatten() {
        let path = entry.path();
        let target = match fs::read_link(&path) {
            Ok(target) => target,
            // Root may list the descriptors of every process, but may not see all their targets.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            // Closed meanwhile.
            Err(_) => continue,
        };
        // An earlier modem may have had this number: the kernel frees it when the modem leaves, and removes the node.
        let is_removed = target.as_os_str().as_encoded_bytes().ends_with(b" (deleted)");
        let is_node = target.iter().any(|name| name == "dev") && !is_removed;
        if is_node && is_port(&path) && !is_reference(&process.join("fdinfo").join(entry.file_name())) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the descriptor is an `O_PATH` one. Every user can have such a descriptor of a node without permission for the
/// node, and it does not open the port.
fn is_reference(fdinfo: &Path) -> bool {
    let fdinfo = fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = fdinfo.lines().find_map(|line| i32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & OFlag::O_PATH.bits() != 0)
}

/// A port that no other process had open. If another process opens it later, the next `send` fails once with
/// [`LinkError::Contended`]; later sends succeed, so that cleanup can finish. If another process opens the port later
/// through another node, as in a container, that is not noticed.
struct ExclusivePort {
    link: Box<dyn Link>,
    opens: Option<Inotify>,
    contention: Contention,
}

#[derive(PartialEq, Eq)]
enum Contention {
    None,
    Detected,
    Reported,
}

impl ExclusivePort {
    /// `link` is open, and `path` is its node. The users in `ignored` do not have the port open.
    fn over(link: Box<dyn Link>, root: &Root, path: &Path, port: &ControlPort, ignored: &[PortUser]) -> ExclusivePort {
        let opens = watch(path).inspect_err(|errno| debug!("{} is not watched: {errno}", path.display())).ok();
        // Another process may have opened the port after the search for users and before the watch.
        let is_alone = users(root, port).is_ok_and(|users| users.iter().all(|user| ignored.contains(user)));
        ExclusivePort { link, opens, contention: if is_alone { Contention::None } else { Contention::Detected } }
    }

    fn was_opened(&self) -> bool {
        self.opens.as_ref().is_some_and(|opens| opens.read_events().is_ok_and(|events| !events.is_empty()))
    }
}

fn watch(path: &Path) -> nix::Result<Inotify> {
    let opens = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    opens.add_watch(path, AddWatchFlags::IN_OPEN)?;
    Ok(opens)
}

impl Link for ExclusivePort {
    fn send(&mut self, message: &[u8], by: Deadline) -> Result<(), LinkError> {
        if self.contention == Contention::None && self.was_opened() {
            self.contention = Contention::Detected;
        }
        if self.contention == Contention::Detected {
            self.contention = Contention::Reported;
            return Err(LinkError::Contended);
        }
        self.link.send(message, by)
    }

    fn receive(&mut self, by: Deadline) -> Result<Option<&[u8]>, LinkError> {
        self.link.receive(by)
    }

    fn longest(&self) -> usize {
        self.link.longest()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::deadline::clock::soon;
    use crate::host::root::tests::TempRoot;
    use nix::sys::stat::Mode;
    use std::io::BufRead;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixStream;

    fn process(root: &TempRoot, pid: u32, name: &str, files: &[&str]) {
        let process = format!("/proc/{pid}");
        root.write(&format!("{process}/comm"), format!("{name}\n"));
        fs::create_dir_all(root.at(&process).join("fd")).unwrap();
        for (number, file) in files.iter().enumerate() {
            symlink(file, root.at(&process).join(format!("fd/{number}"))).unwrap();
        }
    }

    /// A character device that exists on every system.
    fn null() -> ControlPort {
        ControlPort {
            name: "null".to_owned(),
            driver: None,
            wwan_type: None,
            number: DeviceNumber { major: 1, minor: 3 },
        }
    }

    #[test]
    fn processes_that_hold_the_port_are_found() {
        let root = TempRoot::new("users");
        process(&root, 1, "systemd", &["/dev/zero", "socket:[1]"]);
        process(&root, std::process::id(), "wwan-quirks", &["/dev/null"]);
        assert_eq!(users(&root, &null()).unwrap(), []);
        process(&root, 812, "ModemManager", &["/dev/zero", "/dev/null"]);
        process(&root, 90, "qmicli", &["/dev/null"]);
        assert_eq!(names(&users(&root, &null()).unwrap()), "qmicli (90), ModemManager (812)");
        assert_eq!(proxy_among(&users(&root, &null()).unwrap()), None);
        process(&root, 813, "mbim-proxy", &["/dev/null"]);
        assert_eq!(proxy_among(&users(&root, &null()).unwrap()), Some(Proxy::Mbim));
    }

    #[test]
    fn a_file_of_the_same_name_is_not_the_port() {
        let root = TempRoot::new("lookalike");
        let file = root.at("/null");
        root.write("/null", "");
        process(&root, 813, "qmi-proxy", &[file.to_str().unwrap()]);
        assert_eq!(users(&root, &null()).unwrap(), []);
    }

    #[test]
    fn a_node_of_another_name_is_the_port() {
        let root = TempRoot::new("renamed");
        let node = root.at("/container/dev/modem");
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        symlink("/dev/null", &node).unwrap();
        process(&root, 7, "gpsd", &[node.to_str().unwrap(), "pipe:[1]", "/proc/self/status"]);
        assert_eq!(names(&users(&root, &null()).unwrap()), "gpsd (7)");
    }

    #[test]
    fn a_descriptor_of_an_earlier_modem_is_not_the_port() {
        let root = TempRoot::new("earlier");
        // How the kernel shows a node that was removed while a process had it open.
        let node = root.at("/dev/cdc-wdm0 (deleted)");
        fs::create_dir_all(node.parent().unwrap()).unwrap();
        symlink("/dev/null", &node).unwrap();
        process(&root, 7, "uqmi", &[node.to_str().unwrap()]);
        assert_eq!(users(&root, &null()).unwrap(), []);
    }

    #[test]
    fn a_proc_that_cannot_be_read_is_an_error() {
        let root = Root::new("/nonexistent");
        assert!(users(&root, &null()).is_err());
    }

    #[test]
    fn a_process_is_seen_in_the_real_proc() {
        let file = fs::File::open("/dev/null").unwrap();
        // The shell is a child of this process and is excluded. The child of the shell is not.
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdin(file.try_clone().unwrap())
            .stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut line = String::new();
        io::BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let other: u32 = line.trim().parse().unwrap();
        let found = users(&Root::new("/"), &null()).unwrap();
        std::process::Command::new("kill").args([other, shell.id()].map(|pid| pid.to_string())).status().unwrap();
        shell.wait().unwrap();
        assert!(found.iter().any(|user| user.pid == other), "{found:?}");
        assert!(found.iter().all(|user| user.pid != shell.id()), "{found:?}");
    }

    #[test]
    fn a_descriptor_that_does_not_open_the_port_does_not_hold_it() {
        use std::process::{Command, Stdio};
        // Unlike /dev/null, no process has this device open.
        let full = ControlPort { name: "full".to_owned(), number: DeviceNumber { major: 1, minor: 7 }, ..null() };
        for (flags, expected) in [(OFlag::empty(), true), (OFlag::O_PATH, false)] {
            let descriptor = nix::fcntl::open("/dev/full", flags | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
            let mut sleep = Command::new("sleep");
            sleep.arg("60").stdin(descriptor).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut sleep = sleep.spawn().unwrap();
            let found = holds(Path::new(&format!("/proc/{}", sleep.id())), &full).unwrap();
            sleep.kill().unwrap();
            sleep.wait().unwrap();
            assert_eq!(found, expected, "{flags:?}");
        }
    }

    /// Whether root without capabilities sees this. Each thread has its own capabilities.
    fn root_without_capabilities_sees(what: impl FnOnce() -> bool + Send) -> bool {
        std::thread::scope(|scope| scope.spawn(|| sys::drop_capabilities().is_ok() && what()).join().unwrap())
    }

    /// ModemManager's unit has few capabilities, and its unlock programs inherit the limit.
    #[test]
    fn a_process_whose_descriptors_are_hidden_holds_the_port_only_if_it_is_its_proxy() {
        use std::os::unix::fs::PermissionsExt;
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let root = TempRoot::new("hidden");
        for (pid, name) in [(1, "systemd"), (812, "qmicli"), (813, "mbim-proxy"), (814, "qmi-proxy")] {
            process(&root, pid, name, &["/dev/null"]);
            // Like the kernel, this lets a process list the descriptors, but not read the links.
            let descriptors = root.at(format!("/proc/{pid}/fd"));
            fs::set_permissions(descriptors, fs::Permissions::from_mode(0o400)).unwrap();
        }
        for (wwan_type, expected) in [("MBIM", "mbim-proxy (813)"), ("QMI", "qmi-proxy (814)"), ("AT", "")] {
            let port = ControlPort { wwan_type: Some(wwan_type.to_owned()), ..null() };
            let found = || users(&root, &port).is_ok_and(|users| names(&users) == expected);
            assert!(root_without_capabilities_sees(found), "{wwan_type}");
        }
        // A proxy of an ordinary user is not trusted with root's port.
        std::os::unix::fs::chown(root.at("/proc/813"), Some(12345), None).unwrap();
        let port = ControlPort { wwan_type: Some("MBIM".to_owned()), ..null() };
        assert!(root_without_capabilities_sees(|| users(&root, &port).is_ok_and(|users| users.is_empty())));
        // The kernel hides what a process with capabilities has open.
        let hidden = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let descriptors = format!("/proc/{}", other.id());
        let refused = root_without_capabilities_sees(|| holds(Path::new(&descriptors), &null()).is_err_and(hidden));
        other.kill().unwrap();
        other.wait().unwrap();
        assert!(refused);
    }

    /// A connection to a socket that this process serves.
    fn connect_to_this_process(users: &[PortUser]) -> Result<OpenPort, PortUnavailable> {
        use std::os::linux::net::SocketAddrExt;
        use std::os::unix::net::{SocketAddr, UnixListener};
        // A qmi-proxy may run on this machine.
        let socket = format!("wwan-quirks-test-proxy-{}", std::process::id());
        let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&socket).unwrap()).unwrap();
        connect(Proxy::Qmi, &socket, users, "/dev/null".into())
    }

    #[test]
    fn only_the_process_that_holds_the_port_is_trusted_as_its_proxy() {
        let (uid, this) = (nix::unistd::getuid().as_raw(), std::process::id());
        let user = |pid| PortUser { pid, uid, name: "qmi-proxy".to_owned(), is_certain: true };
        // The first process may be the proxy of a container.
        for users in [&[user(this)][..], &[PortUser { is_certain: false, ..user(1) }, user(this)]] {
            // A process of an ordinary user is not trusted as the proxy for root's port.
            assert_eq!(connect_to_this_process(users).is_ok(), uid == 0);
        }
        for another in [
            user(this + 1),
            PortUser { uid: 12345, ..user(this) },
            PortUser { name: "mbim-proxy".to_owned(), ..user(this) },
        ] {
            assert!(matches!(connect_to_this_process(&[another]), Err(PortUnavailable::UntrustedProxy { .. })));
        }
    }

    #[test]
    fn a_hidden_proxy_that_does_not_listen_does_not_hold_the_port() {
        use std::os::unix::fs::PermissionsExt;
        // A proxy may run on this machine.
        if !nix::unistd::geteuid().is_root() || Stream::connect_abstract(Proxy::Mbim.name()).is_ok() {
            return;
        }
        let root = TempRoot::new("container");
        let write = |path: &str, text: &str| root.write(&format!("/sys/devices/pci0000:00/0000:08:00.0/{path}"), text);
        write("vendor", "0x8086\n");
        write("device", "0x7560\n");
        write("wwan/wwan0/wwan0mbim0/dev", "240:0\n");
        write("wwan/wwan0/wwan0mbim0/type", "MBIM\n");
        let device = Device::at_devpath(&root, "/devices/pci0000:00/0000:08:00.0").unwrap();
        let port = device.control_ports().unwrap().remove(0);
        process(&root, 813, "mbim-proxy", &["/dev/null"]);
        fs::set_permissions(root.at("/proc/813/fd"), fs::Permissions::from_mode(0o400)).unwrap();
        let open = |sharing| super::open(&root, &device, &port, Protocol::Mbim, sharing, soon()).err();
        // The port has no node.
        let is_missing = || matches!(open(Sharing::Possible), Some(PortUnavailable::Open(OpenError::Missing { .. })));
        assert!(root_without_capabilities_sees(is_missing));
        let is_not_proxied = || matches!(open(Sharing::Proxied), Some(PortUnavailable::NotProxied { .. }));
        assert!(root_without_capabilities_sees(is_not_proxied));
    }

    #[test]
    fn contention_is_reported_once() {
        let root = TempRoot::new("joined");
        fs::create_dir_all(root.at("/proc")).unwrap();
        let path = root.at("/node");
        root.write("/node", "");
        let over = |path: &Path, ignored: &[PortUser]| {
            let (ours, modems) = UnixStream::pair().unwrap();
            let port = ExclusivePort::over(Box::new(Stream::over(ours)), &root, path, &null(), ignored);
            (port, modems)
        };
        let (mut port, _modem) = over(&path, &[]);
        assert_eq!(port.send(b"ask", soon()), Ok(()));
        fs::File::open(&path).unwrap();
        assert_eq!(port.send(b"ask", soon()), Err(LinkError::Contended));
        assert_eq!(port.send(b"release", soon()), Ok(()));
        fs::File::open(&path).unwrap();
        assert_eq!(port.send(b"release", soon()), Ok(()));

        process(&root, 90, "qmicli", &["/dev/null"]);
        let (mut port, _modem) = over(Path::new("/dev/null"), &[]);
        assert_eq!(port.send(b"ask", soon()), Err(LinkError::Contended));
        let (mut port, _modem) = over(Path::new("/dev/null"), &users(&root, &null()).unwrap());
        assert_eq!(port.send(b"ask", soon()), Ok(()));
    }

    #[test]
    fn a_pci_modem_without_its_port_has_left() {
        let root = TempRoot::new("outlived");
        let write = |path: &str, text: &str| root.write(&format!("/sys/devices/pci0000:00/0000:08:00.0/{path}"), text);
        write("vendor", "0x8086\n");
        write("device", "0x7560\n");
        write("wwan/wwan0/wwan0at0/dev", "240:0\n");
        write("wwan/wwan0/wwan0at0/type", "AT\n");
        let device = Device::at_devpath(&root, "/devices/pci0000:00/0000:08:00.0").unwrap();
        let port = device.control_ports().unwrap().remove(0);
        let open = || super::open(&root, &device, &port, Protocol::At, Sharing::New, soon()).err().unwrap();
        // The port has no node.
        assert!(matches!(open(), PortUnavailable::Open(OpenError::Missing { .. })));
        write("wwan/wwan0/wwan0at0/dev", "240:1\n");
        assert!(matches!(open(), PortUnavailable::Left));
        fs::remove_dir_all(device.path().join("wwan")).unwrap();
        assert!(device.is_present() && matches!(open(), PortUnavailable::Left));
    }

    #[test]
    fn a_tty_that_another_modem_has_now_is_not_used() {
        let root = TempRoot::new("rebound");
        let write = |path: &str, text: &str| root.write(&format!("/sys/devices/usb1/1-1/{path}"), text);
        write("idVendor", "33f8\n");
        write("idProduct", "01a8\n");
        write("1-1:1.3/bInterfaceNumber", "03\n");
        write("1-1:1.3/ttyUSB1/tty/ttyUSB1/dev", "188:1\n");
        let device = Device::at_devpath(&root, "/devices/usb1/1-1").unwrap();
        let port = device.tty(3).unwrap().unwrap();
        let open = || super::open(&root, &device, &port, Protocol::At, Sharing::New, soon()).err().unwrap();
        // The port has no node.
        let before = open();
        // The driver bound the interface again.
        write("1-1:1.3/ttyUSB2/tty/ttyUSB2/dev", "188:2\n");
        fs::remove_dir_all(device.path().join("1-1:1.3/ttyUSB1")).unwrap();
        let after = open();
        assert!(matches!(before, PortUnavailable::Open(OpenError::Missing { .. })), "{before}");
        assert!(matches!(after, PortUnavailable::Left), "{after}");
    }
}
