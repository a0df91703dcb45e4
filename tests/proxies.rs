//! Unlocks a modem through libqmi's and libmbim's own proxies, which hold the port of the modem. The modem is the other
//! end of a pty. These tests need root and the proxies, which `make deps` installs. `make unit` runs them as root.

use modem::{models, port, radio::Modem};
use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::{Signal, killpg};
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{Pid, geteuid};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use wwan_quirks::database::quirks::Procedure;
use wwan_quirks::host::deadline::Deadline;
use wwan_quirks::host::root::Root;
use wwan_quirks::modem::access::{Proxy, users};
use wwan_quirks::modem::device::{ControlPort, DeviceNumber};
use wwan_quirks::modem::link::stream::Stream;
use wwan_quirks::modem::transport::Transport;
use wwan_quirks::modem::wire::{mbim, qmi};
use wwan_quirks::outcome::Outcome;
use wwan_quirks::steps::fcc_auth::{Keys, run};

/// Answers what the proxy writes to the pty, and reports the names of the QMI messages. Reading fails when the proxy
/// closes the port at the end of the test.
fn serve(mut pty: PtyMaster, proxy: Proxy, seen: Sender<String>) {
    let mut modem = Modem::of(&models::row("em7455").unwrap().model());
    modem.faults.set("auth-delay=0").unwrap();
    let (mut framer, mut port) = match proxy {
        Proxy::Qmi => (qmi::framer(), port::Port::qmi(modem)),
        Proxy::Mbim => (mbim::framer(), port::Port::mbim(modem, 4096)),
    };
    let mut read = [0; 4096];
    while let Ok(length) = pty.read(&mut read) {
        framer.push(&read[..length]);
        while let Some(message) = framer.next_message() {
            let (_, replies) = port.receive(message);
            // The run ends with the last reply. Report its request first.
            port.modem.seen.drain(..).for_each(|name| seen.send(name).unwrap());
            for reply in replies {
                pty.write_all(&reply).unwrap();
            }
        }
    }
}

fn plug_in(proxy: Proxy) -> (PathBuf, Receiver<String>) {
    let pty = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY).unwrap();
    grantpt(&pty).unwrap();
    unlockpt(&pty).unwrap();
    let path = PathBuf::from(ptsname_r(&pty).unwrap());
    let tty = File::options().read(true).write(true).open(&path).unwrap();
    let mut raw = tcgetattr(&tty).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&tty, SetArg::TCSANOW, &raw).unwrap();
    let (seen, messages) = channel();
    std::thread::spawn(move || {
        // Keep the tty open, so that the pty always has another end until the proxy opens it.
        let _tty = tty;
        serve(pty, proxy, seen);
    });
    (path, messages)
}

/// A proxy with its parent, in a process group of their own. A child of this process would not count as a user of the
/// port.
struct Running(Child);

impl Running {
    fn start(program: &Path) -> Running {
        let mut shell = Command::new("sh");
        shell.args(["-c", "\"$0\" --no-exit & wait"]).arg(program).process_group(0);
        Running(shell.spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL).unwrap();
        self.0.wait().unwrap();
    }
}

fn connect(proxy: Proxy) -> Stream {
    let end = Deadline::after(Duration::from_secs(10));
    loop {
        match Stream::connect_abstract(proxy.name()) {
            Ok(stream) => return stream,
            Err(error) if end.has_passed() => panic!("{} does not listen: {error}", proxy.name()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

fn unlock_through(proxy: Proxy) {
    let program = Path::new("/usr/libexec").join(proxy.name());
    assert!(geteuid().is_root(), "needs root");
    assert!(program.exists(), "needs {}: run tests/deps", program.display());
    // A proxy that already runs works as well, and owns the name of the socket.
    let _running = Stream::connect_abstract(proxy.name()).is_err().then(|| Running::start(&program));
    let (port, messages) = plug_in(proxy);
    let unlock = || {
        let mut stream = connect(proxy);
        let transport = Transport { port: &mut stream, protocol: proxy.protocol(), proxied: Some(&port) };
        run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(Duration::from_secs(20)))
    };
    assert_eq!(unlock(), Outcome::Online { text: "unlocked; the radio is online".to_owned(), unlocked: true });
    let seen: Vec<String> = messages.try_iter().filter(|name| name.contains("CTL") || name.contains("DMS")).collect();
    let [version, allocate, release] = ["CTL Get Version Info", "CTL Allocate CID", "CTL Release CID"];
    let look = "DMS Get Operating Mode";
    assert_eq!(seen, [version, allocate, look, "DMS Set FCC Authentication", look, release]);
    assert_eq!(unlock(), Outcome::Online { text: "the radio is already online".to_owned(), unlocked: false });

    // While another program uses the proxy, the proxy holds the port.
    let mut other = connect(proxy);
    let transport = Transport { port: &mut other, protocol: proxy.protocol(), proxied: Some(&port) };
    run(transport, &Procedure::Sierra, Keys::none(), None, Deadline::after(Duration::from_secs(20)));
    let node = ControlPort {
        name: port.file_name().unwrap().to_str().unwrap().to_owned(),
        driver: None,
        wwan_type: None,
        number: DeviceNumber::of(&port.metadata().unwrap()).unwrap(),
    };
    let users = users(&Root::new("/"), &node).unwrap();
    assert!(users.iter().any(|user| user.name == proxy.name() && user.uid == 0), "{users:?}");
}

#[ignore = "needs root and the proxies; `make unit` runs it as root"]
#[test]
fn qmi_proxy_lets_us_in() {
    unlock_through(Proxy::Qmi);
}

#[ignore = "needs root and the proxies; `make unit` runs it as root"]
#[test]
fn mbim_proxy_lets_us_in() {
    unlock_through(Proxy::Mbim);
}
