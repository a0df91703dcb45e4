//! Runs `make install` with different prefixes. The program, its udev rules, units, links and pages agree on all paths.

mod fake;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TOP: &str = env!("CARGO_MANIFEST_DIR");

/// A directory that `make install` wrote to.
struct Stage(PathBuf);

impl Stage {
    fn new(name: &str) -> Stage {
        // /tmp may be mounted noexec.
        let stage =
            Stage(Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("install-{}-{name}", std::process::id())));
        fs::create_dir_all(&stage.0).unwrap();
        stage
    }

    /// Runs `make` with `arguments` on the program of this test, without a compiler.
    fn try_make(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new("make");
        command.env_remove("MAKEFLAGS").args(["-s", "-C", TOP, "CARGO=false"]);
        command.arg(format!("BIN={}", env!("CARGO_BIN_EXE_wwan-quirks"))).arg(format!("DESTDIR={}", self.0.display()));
        command.args(arguments).output().unwrap()
    }

    fn make(&self, arguments: &[&str]) {
        let output = self.try_make(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// The path of `absolute` in this directory, links followed.
    fn real(&self, absolute: &str) -> Option<PathBuf> {
        self.0.join(absolute.trim_start_matches('/')).canonicalize().ok()
    }

    /// All files and links, with the text of the files.
    fn files(&self) -> Vec<(PathBuf, String)> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path);
                } else {
                    // The program, and links that lead to it, have no text.
                    let text = fs::metadata(&path).is_ok_and(|metadata| metadata.is_file() && metadata.len() < 1 << 20);
                    let text = if text { fs::read_to_string(&path).unwrap() } else { String::new() };
                    found.push((path, text));
                }
            }
        }
        found
    }

    /// What the installed program prints about this directory.
    fn run(&self, program: &str, verb: &[&str]) -> String {
        let program = self.real(program).unwrap();
        let output = fake::command(program).arg("--root").arg(&self.0).args(verb).env_clear().output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The words of `text` that end in `end`, or have a blank or a slash after it.
fn paths<'a>(text: &'a str, end: &str) -> BTreeSet<&'a str> {
    let words = text.split([' ', '"', '\'', '@', '=', '\n', '\t', ',', '`']);
    let up_to_end = |word: &'a str| word.find(end).map(|at| &word[..at + end.len()]);
    words.filter(|word| word.starts_with('/')).filter_map(up_to_end).collect()
}

#[test]
fn all_paths_agree_for_every_prefix() {
    const MERGED: &[(&str, &str)] = &[("usr/sbin", "bin"), ("sbin", "usr/bin")];
    type Case = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str, &'static str);
    let cases: [Case; 10] = [
        (&["PREFIX=/usr"], &[], "/usr/sbin", "/usr/share"),
        (&["PREFIX=/usr"], MERGED, "/usr/sbin", "/usr/share"),
        (&["PREFIX=/usr/local"], &[], "/usr/local/sbin", "/usr/local/share"),
        (&["PREFIX=/opt/x"], &[], "/opt/x/sbin", "/opt/x/share"),
        (&["PREFIX=/usr", "SBINDIR=/usr/bin"], MERGED, "/usr/bin", "/usr/share"),
        (&["PREFIX=/usr", "SBINDIR=/sbin"], &[], "/sbin", "/usr/share"),
        (&["PREFIX=/opt/x", "SBINDIR=/sbin"], MERGED, "/sbin", "/opt/x/share"),
        (&["PREFIX=/"], &[], "/sbin", "/share"),
        (&["PREFIX=/usr/", "DATADIR=/srv//data/"], &[], "/usr/sbin", "/srv/data"),
        (&["PREFIX=/opt/x/", "SBINDIR=/usr/lib/x/bin//", "UDEVDIR=/etc/udev/"], &[], "/usr/lib/x/bin", "/opt/x/share"),
    ];
    std::thread::scope(|scope| {
        for (number, (variables, links, sbindir, datadir)) in cases.into_iter().enumerate() {
            scope.spawn(move || {
                let stage = Stage::new(&format!("it's {number}"));
                fs::create_dir_all(stage.0.join("usr/bin")).unwrap();
                links.iter().for_each(|(link, target)| symlink(target, stage.0.join(link)).unwrap());
                stage.make(&[&["install", "install-mdev", "install-openwrt"], variables].concat());
                agree(&stage, sbindir, datadir, &format!("{variables:?} {links:?}"));
                // OpenRC's script has the same path as OpenWrt's.
                stage.make(&[&["install-openrc"], variables].concat());
                let script = fs::read_to_string(stage.0.join("etc/init.d/wwan-quirks")).unwrap();
                assert!(script.contains("#!/sbin/openrc-run\n"), "{script}");
                assert_eq!(paths(&script, "bin/wwan-quirks"), [&*format!("{sbindir}/wwan-quirks")].into());
            });
        }
    });
}

#[test]
fn unlocking_is_either_on_or_off_in_the_shipped_policy() {
    let stage = Stage::new("fcc-auth");
    for wrong in ["no", "0", "FALSE", ""] {
        let refused = stage.try_make(&["install-program", &format!("FCC_AUTH={wrong}")]);
        let error = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && error.contains("FCC_AUTH must be true or false, got "), "{error}");
    }
    for right in ["true", "false"] {
        stage.make(&["install-program", &format!("FCC_AUTH={right}")]);
        let policy = fs::read_to_string(stage.0.join("usr/share/wwan-quirks/config.toml")).unwrap();
        assert!(policy.contains(&format!("\nfcc-auth = {right}\n")), "{policy}");
    }
}

#[test]
fn a_prefix_with_a_blank_is_refused() {
    let stage = Stage::new("blank");
    let refused = stage.try_make(&["install-etc", "PREFIX=/opt/a b"]);
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && error.contains("must not contain a space, got \"/opt/a b/"), "{error}");
    assert_eq!(stage.files(), []);
}

#[test]
fn the_metainfo_has_the_licence_of_a_libusb_in_the_program() {
    let stage = Stage::new("licence");
    for (program, licence) in [("NEEDED libusb-1.0.so.0", "MIT"), ("vendored", "MIT AND LGPL-2.1-or-later")] {
        let path = stage.0.join("program");
        fs::write(&path, program).unwrap();
        stage.make(&["install-pages", &format!("BIN={}", path.display())]);
        let texts: String = stage.files().into_iter().map(|(_, text)| text).collect();
        assert!(texts.contains(&format!("<project_license>{licence}</project_license>")), "{program}");
    }
}

#[test]
fn an_installation_can_be_repeated() {
    let stage = Stage::new("again");
    let install = || stage.make(&["install", "PREFIX=/usr", "DATADIR=/srv/data"]);
    install();
    // Files of another version.
    let data = stage.0.join("srv/data/wwan-quirks");
    let others = [data.join("quirks.d/1199-zzz.toml"), data.join("fcc-unlock.available.d/1199:ffff")];
    fs::write(&others[0], "schema = 9\n").unwrap();
    symlink(stage.0.join("usr/sbin/wwan-quirks"), &others[1]).unwrap();
    // Nothing is removed before the new files are there.
    let sierra = data.join("quirks.d/1199-sierra.toml");
    fs::remove_file(&sierra).unwrap();
    fs::create_dir_all(&sierra).unwrap();
    assert!(!stage.try_make(&["install", "PREFIX=/usr", "DATADIR=/srv/data"]).status.success());
    assert!(others[0].exists() && data.join("quirks.d/0421-nokia.toml").exists());
    fs::remove_dir(&sierra).unwrap();
    install();
    others.iter().for_each(|path| assert!(!path.is_symlink() && !path.exists(), "{}", path.display()));
    agree_on_data(&stage, "/usr/sbin/wwan-quirks", "/srv/data/wwan-quirks", "again");
}

#[test]
fn uninstalling_leaves_only_the_files_of_the_administrator() {
    let stage = Stage::new("un install");
    let policy = stage.0.join("etc/wwan-quirks/config.toml");
    for variables in [&["PREFIX=/usr"][..], &["PREFIX=/opt/x", "SBINDIR=/usr/bin"], &["PREFIX=/usr", "DATADIR=/srv"]] {
        for init in ["install-openrc", "install-openwrt"] {
            stage.make(&[&["install", "install-mdev", init], variables].concat());
            fs::write(&policy, "switch = false\n").unwrap();
            stage.make(&[&["uninstall"], variables].concat());
            assert_eq!(stage.files(), [(policy.clone(), "switch = false\n".to_owned())], "{variables:?}");
        }
    }
}

fn agree(stage: &Stage, sbindir: &str, datadir: &str, case: &str) {
    let program = format!("{sbindir}/wwan-quirks");
    let data = format!("{datadir}/wwan-quirks");
    let real = stage.real(&program).unwrap();
    let mut named = BTreeSet::new();
    let mut unlock = 0;
    for (path, text) in stage.files() {
        let name = path.strip_prefix(&stage.0).unwrap().display().to_string();
        if path.is_symlink() {
            assert!(path.canonicalize().is_ok_and(|path| path.starts_with(&stage.0)), "{case}: {name} leads nowhere");
        }
        if name.contains("/fcc-unlock.available.d/") {
            assert_eq!(path.canonicalize().unwrap(), real, "{case}: {name}");
            unlock += 1;
        } else if path != real {
            let text = text.replace("\\-", "-");
            let programs = paths(&text, "bin/wwan-quirks");
            let others: Vec<_> = programs.iter().filter(|path| **path != program).collect();
            assert!(others.is_empty(), "{case}: {name} names {others:?}");
            if !programs.is_empty() {
                named.insert(path.file_name().unwrap().to_str().unwrap().to_owned());
            }
            let others: Vec<_> = paths(&text, "share/wwan-quirks").into_iter().filter(|path| *path != data).collect();
            assert!(others.is_empty(), "{case}: {name} names {others:?}");
        }
    }
    let expected = [
        "20-wwan-quirks",
        "85-wwan-quirks.rules",
        "mdev.conf",
        "wwan-quirks",
        "wwan-quirks-resume.service",
        "wwan-quirks-sleep.service",
        "wwan-quirks@.service",
    ];
    assert_eq!(named, expected.map(str::to_owned).into(), "{case}");
    assert!(unlock > 10, "{case}");
    for folder in ["config.d", "quirks.d"] {
        assert!(stage.0.join("etc/wwan-quirks").join(folder).is_dir(), "{case}: {folder}");
    }
    // The names for ModemManager do not contain the bus: USB with a control port, USB with a tty, and PCI.
    for name in ["1199:9079", "33f8:01a4", "1eac:1007"] {
        let link = format!("{data}/fcc-unlock.available.d/{name}");
        assert_eq!(stage.real(&link).as_ref(), Some(&real), "{case}: {link}");
    }

    agree_on_data(stage, &program, &data, case);
}

/// The program finds its database, prints its location, and prints rules that run the program itself.
fn agree_on_data(stage: &Stage, program: &str, data: &str, case: &str) {
    let rules = stage.run(program, &["rules"]);
    let runs = paths(&rules, "bin/wwan-quirks");
    assert!(!runs.is_empty() && runs.iter().all(|path| stage.real(path) == stage.real(program)), "{case}: {runs:?}");
    let explained = stage.run(program, &["explain", "1199:68a2"]);
    assert!(explained.contains(&format!(" {data}/quirks.d/1199-sierra.toml:")), "{case}: {explained}");
}

/// The remedies for units that systemd does not start.
fn remedies_for_units(stage: &Stage, program: &str) -> Vec<String> {
    fs::create_dir_all(stage.0.join("run/systemd/system")).unwrap();
    let said = stage.run(program, &["doctor"]);
    let lines: Vec<&str> = said.lines().collect();
    let units = lines.windows(2).filter(|pair| pair[0].starts_with("systemd does not start wwan-quirks"));
    units.map(|pair| pair[1].replace("  remedy: ", "")).collect()
}

#[test]
fn units_that_systemd_does_not_start_are_found() {
    const UNITS: &str = "/opt/x/lib/systemd/system";
    const RESUME: &str = "wwan-quirks-resume.service";
    const TARGETS: [&str; 4] = ["suspend", "hibernate", "hybrid-sleep", "suspend-then-hibernate"];
    let usual = Stage::new("units");
    usual.make(&["install", "PREFIX=/usr"]);
    assert_eq!(remedies_for_units(&usual, "/usr/sbin/wwan-quirks"), Vec::<String>::new());

    let stage = Stage::new("units-opt");
    stage.make(&["install", "PREFIX=/opt/x"]);
    let found = || remedies_for_units(&stage, "/opt/x/sbin/wwan-quirks");
    let link = |unit: &str, folder: &str| {
        let folder = stage.0.join("etc/systemd/system").join(folder);
        fs::create_dir_all(&folder).unwrap();
        symlink(stage.real(&format!("{UNITS}/{unit}")).unwrap(), folder.join(unit)).unwrap();
    };
    let sleep = "systemctl add-wants sleep.target wwan-quirks-sleep.service".to_owned();
    let resume = TARGETS.map(|target| format!("systemctl add-wants {target}.target {RESUME}")).join(" && ");
    let linked = |unit: &str, wants: &str| format!("systemctl link {UNITS}/{unit} && {wants}");
    let expected = [
        format!("systemctl link {UNITS}/wwan-quirks@.service"),
        linked("wwan-quirks-sleep.service", &sleep),
        linked(RESUME, &resume),
    ];
    assert_eq!(found(), expected);
    let sbindir = Stage::new("units-sbindir");
    sbindir.make(&["install", "PREFIX=/opt/x", "SBINDIR=/usr/bin"]);
    assert_eq!(remedies_for_units(&sbindir, "/usr/bin/wwan-quirks"), expected);
    // NixOS links the units of a package, and no `*.wants`.
    ["wwan-quirks@.service", "wwan-quirks-sleep.service", RESUME].into_iter().for_each(|unit| link(unit, ""));
    assert_eq!(found(), [sleep, resume]);
    link("wwan-quirks-sleep.service", "sleep.target.wants");
    TARGETS.into_iter().for_each(|target| link(RESUME, &format!("{target}.target.wants")));
    assert_eq!(found(), Vec::<String>::new());
}

#[test]
fn a_drop_in_that_systemd_does_not_read_is_found() {
    let drop_in = "systemd/system/usb_modeswitch@.service.d";
    let rule = "ATTR{idVendor}==\"1199\", ATTR{idProduct}==\"0fff\", RUN+=\"usb_modeswitch '%b/%k'\"\n";
    for (prefix, is_read) in [("/usr", true), ("/opt/x", false)] {
        let stage = Stage::new(&format!("drop-in-{is_read}"));
        stage.make(&["install", &format!("PREFIX={prefix}")]);
        fs::create_dir_all(stage.0.join("run/systemd/system")).unwrap();
        fs::create_dir_all(stage.0.join("etc/udev/rules.d")).unwrap();
        fs::write(stage.0.join("etc/udev/rules.d/40-usb_modeswitch.rules"), rule).unwrap();
        let said = || stage.run(&format!("{prefix}/sbin/wwan-quirks"), &["doctor"]);
        let remedy = format!(
            "  remedy: mkdir -p /etc/{drop_in} && ln -sf {prefix}/lib/{drop_in}/wwan-quirks.conf /etc/{drop_in}/ && \
             systemctl daemon-reload\n"
        );
        assert_eq!(said().contains(&remedy), !is_read, "{}", said());
        assert_eq!(said().contains("usb_modeswitch"), !is_read, "{}", said());
        // The remedy helps.
        fs::create_dir_all(stage.0.join("etc").join(drop_in)).unwrap();
        let file = stage.real(&format!("{prefix}/lib/{drop_in}/wwan-quirks.conf")).unwrap();
        symlink(file, stage.0.join("etc").join(drop_in).join("wwan-quirks.conf")).unwrap();
        assert!(!said().contains("usb_modeswitch"), "{}", said());
    }
}

#[test]
fn a_missing_database_is_found() {
    let stage = Stage::new("missing");
    stage.make(&["install", "PREFIX=/usr/local"]);
    let said = || stage.run("/usr/local/sbin/wwan-quirks", &["doctor"]);
    assert!(!said().contains("database"), "{}", said());
    let quirks = stage.0.join("usr/local/share/wwan-quirks/quirks.d");
    fs::remove_dir_all(&quirks).unwrap();
    assert!(
        said().contains("the database is missing: there is no /usr/local/share/wwan-quirks/quirks.d\n"),
        "{}",
        said()
    );
    fs::create_dir(&quirks).unwrap();
    assert!(said().contains("the database is empty: "), "{}", said());
    fs::remove_dir_all(Path::new(&quirks).parent().unwrap()).unwrap();
    assert!(said().contains("the database is missing: there is no /usr/share/wwan-quirks/quirks.d\n"), "{}", said());
}
