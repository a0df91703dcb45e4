//! `SECURITY.md` names tests for each promise. These tests check that the named tests exist, and check some of the
//! promises against the source text.

mod fake;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use fake::{Root, mc7710};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

const TOP: &str = env!("CARGO_MANIFEST_DIR");
const EVENT: [(&str, &str); 4] =
    [("ACTION", "add"), ("DEVPATH", "/devices/pci0000:00/usb1/1-1"), ("SUBSYSTEM", "usb"), ("DEVTYPE", "usb_device")];

/// All Rust files below `folder`.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(TOP).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push((path.clone(), fs::read_to_string(path).unwrap()));
            }
        }
    }
    found
}

#[test]
fn each_promise_has_tests_that_exist() {
    let text = fs::read_to_string(Path::new(TOP).join("SECURITY.md")).unwrap();
    let (_, promises) = text.split_once("## Promises").unwrap();
    let mut tests = BTreeSet::new();
    for (_, source) in sources("src").into_iter().chain(sources("tests")) {
        let after = source.split("#[test]\n").skip(1).map(str::trim_start).map(str::to_owned);
        tests.extend(after.filter_map(|text| Some(text.strip_prefix("fn ")?.split_once('(')?.0.to_owned())));
    }
    for entry in fs::read_dir(Path::new(TOP).join("tests/vm/scenarios")).unwrap() {
        tests.insert(entry.unwrap().file_name().into_string().unwrap());
    }
    // An item begins with its number and its name in bold, and ends where the next one begins.
    let items: Vec<&str> = promises.split(". **").skip(1).collect();
    assert_eq!(items.len(), 12);
    for item in items {
        let names = item.split('`').skip(1).step_by(2);
        assert!(names.clone().any(|name| tests.contains(name)), "no test is named for {item:?}");
        // Scenarios begin with their number, and functions have several words.
        let is_function = |name: &str| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        let is_test = |name: &&str| name.starts_with(|c: char| c.is_ascii_digit()) || is_function(name);
        for name in names.filter(is_test) {
            assert!(tests.contains(name), "there is no test {name}");
        }
    }
}

/// The source without its test module, which is at its end.
fn without_tests<'a>(name: &str, source: &'a str) -> &'a str {
    let is_module = |at: &usize| {
        let line = source[*at..].lines().nth(1).unwrap_or_default();
        line == "pub(crate) mod tests {" || line.starts_with("mod ") && line.ends_with(" {")
    };
    let Some(start) = source.match_indices("#[cfg(test)]\n").map(|(at, _)| at).find(is_module) else { return source };
    let (code, tests) = source.split_at(start);
    assert_eq!(tests.find("\n}\n"), Some(tests.len() - 3), "{name} has code after its test module");
    code
}

#[test]
fn only_the_test_module_at_the_end_of_a_source_is_skipped() {
    let code = "mod dms;\n#[cfg(test)]\nmod tests;\nuse a::b;\nfn run() {\n    Command::new();\n}\n";
    let tests = "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
    assert_eq!(without_tests("", code), code);
    assert_eq!(without_tests("", &[code, tests].concat()), code);
}

#[test]
fn the_sources_keep_the_promises() {
    for (path, source) in sources("src") {
        let name = path.strip_prefix(TOP).unwrap().display().to_string();
        assert!(!source.contains("unsafe_code") || name == "src/host/sys.rs", "unsafe in {name}");
        let source = without_tests(&name, &source);
        // `report` is for people, and runs journalctl.
        let people = name == "src/verbs/report.rs";
        // It starts no other program: the child continues after an event.
        let forks = name == "src/host/sys.rs";
        if name.ends_with("/tests.rs") {
            continue;
        }
        // The variables of an event, and the colours of `status`.
        let reads = ["src/serve/event.rs", "src/verbs/status.rs"].contains(&name.as_str());
        assert!(reads || !source.contains("env::var"), "env::var in {name}");
        for word in
            ["Command::new", "TcpStream", "UdpSocket", "TcpListener", "temp_dir", "\"/tmp", "fork(", "execv", ".exec("]
        {
            let code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
            let found = code.clone().find(|line| line.contains(word) && !line.contains("PROT_EXEC"));
            assert!(
                found.is_none() || (people && word == "Command::new") || (forks && word == "fork("),
                "{word} in {name}"
            );
        }
    }
}

#[test]
fn no_other_variable_is_read() {
    let planted = [
        ("PRODUCT", "12d1/1446/0"),
        ("DEVNAME", "/etc/shadow"),
        ("ID_VENDOR_ID", "12d1"),
        ("BUSNUM", "../../.."),
        ("DEVNUM", "999"),
        ("MAJOR", "8"),
        ("MINOR", "0"),
        ("RUST_LOG", "trace"),
        ("LIBUSB_DEBUG", "4"),
        ("PATH", ""),
        ("HOME", "/nowhere"),
        ("TMPDIR", "/nowhere"),
        ("TZ", "/etc/shadow"),
        ("LANG", "\u{1b}[2J"),
    ];
    let ended = |more: &[(&str, &str)]| {
        let root = Root::new();
        // A busy machine needs longer than an event has by default.
        root.policy("[timeouts]\nhook = 10\n");
        let device = root.plug("1-1", "1199:68a2", &mc7710());
        let ended = root.hook(&[&EVENT[..], more].concat());
        (ended.code, ended.stdout, ended.stderr, root.read(&format!("{device}/bConfigurationValue")))
    };
    let plain = ended(&[]);
    assert_eq!((plain.0, plain.3.trim()), (0, "2"));
    assert_eq!(ended(&planted), plain);
}

#[ignore = "takes 20 s; `make unit` runs it"]
#[test]
fn a_run_that_the_kernel_blocks_is_ended() {
    let root = Root::new();
    root.policy("[timeouts]\nhook = 0.1\n");
    let device = root.plug("1-1", "1199:68a2", &mc7710());
    // The open of a FIFO does not return without a writer.
    let descriptors = root.0.join(&device[1..]).join("descriptors");
    fs::remove_file(&descriptors).unwrap();
    mkfifo(&descriptors, Mode::S_IRUSR).unwrap();
    let mut command = fake::program();
    command.arg("--root").arg(&root.0).arg("hook").env_clear().envs(EVENT);
    let mut run = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(120);
    let status = loop {
        match run.try_wait().unwrap() {
            Some(status) => break Some(status),
            None if Instant::now() > end => break None,
            None => sleep(Duration::from_millis(20)),
        }
    };
    run.kill().unwrap();
    run.wait().unwrap();
    assert_eq!(status.and_then(|status| status.signal()), Some(Signal::SIGALRM as i32));
}
