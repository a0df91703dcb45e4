//! Runs `check` on databases and policies with errors. Each directory in `tests/check` is a case: it has one or several
//! `*.toml`, or a root in `etc` and `usr`. The file `expected` has the output and the exit status.
//!
//! `BLESS=1 cargo test --test check` writes the actual output to `expected`.

mod fake;

use std::fs;
use std::path::Path;

#[test]
fn an_error_is_printed_with_its_location() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check");
    let mut folders: Vec<_> = fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    let mut wrong = Vec::new();
    for folder in &folders {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut files: Vec<String> = names.filter(|name| name.ends_with(".toml")).collect();
        files.sort();
        let mut check = fake::program();
        let ended = check.current_dir(folder).args(["--root", ".", "check"]).args(files).output().unwrap();
        let printed = String::from_utf8(ended.stdout).unwrap() + &String::from_utf8(ended.stderr).unwrap();
        let printed = format!("{printed}exit status {}\n", ended.status.code().unwrap());
        let expected = folder.join("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(expected, printed).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != printed {
            wrong.push(format!("{}:\n{printed}", folder.display()));
        }
    }
    assert!(folders.len() > 10 && wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The directory of a file says what kind of file it is, also if the given path has no directory.
#[test]
fn a_drop_in_can_be_named_from_inside_its_folder() {
    let root = fake::Root::new();
    root.write("/etc/wwan-quirks/config.d/50-fleet.toml", "prefer = \"mbin\"\n");
    let folder = root.0.join("etc/wwan-quirks/config.d");
    for (working, path) in [
        (folder.as_path(), "50-fleet.toml"),
        (&folder, "./50-fleet.toml"),
        (&root.0, "etc/wwan-quirks/config.d/50-fleet.toml"),
    ] {
        let ended = fake::program().current_dir(working).args(["check", path]).output().unwrap();
        let printed = String::from_utf8(ended.stdout).unwrap();
        assert!(printed.starts_with(&format!("{path}:1:10: unknown variant `mbin`")), "{path}: {printed}");
    }
}

/// A policy that is named has the same findings as an installed one.
#[test]
fn a_named_policy_is_checked_against_the_database() {
    let root = fake::Root::new();
    let text = |id: &str| format!("[[device]]\nmatch = {{ id = \"{id}\" }}\nfcc-auth = false\n");
    for (id, code, expected) in [
        ("1eac:1007", 3, "no entry has the USB ID 1eac:1007; did you mean pci:1eac:1007?\n"),
        ("1234:5678", 0, "warning: no entry of the database has this ID: "),
        ("1199:9079", 0, "no errors\n"),
    ] {
        root.policy(&text(id));
        let file = root.0.join("etc/wwan-quirks/config.toml").display().to_string();
        let ended = root.run(&["check", &file]);
        assert!(ended.code == code && ended.stdout.contains(expected), "{ended:?}");
        assert_eq!(ended.stdout.replace(&file, "/etc/wwan-quirks/config.toml"), root.run(&["check"]).stdout);
    }
    // Without a database, no ID is known.
    fs::remove_dir_all(root.0.join("usr")).unwrap();
    root.policy(&text("1199:9079"));
    let file = root.0.join("etc/wwan-quirks/config.toml").display().to_string();
    assert_eq!(root.run(&["check", &file]).stdout, "no errors\n");
}

/// Before the files are installed together.
#[test]
fn a_named_policy_may_have_ids_that_another_named_file_adds() {
    let root = fake::Root::new();
    root.write("home/config.d/x.toml", "[[device]]\nmatch = { id = \"1234:5678\" }\nswitch = false\n");
    let policy = root.0.join("home/config.d/x.toml").display().to_string();
    let own = root.0.join("home/quirks.d/own.toml").display().to_string();
    let quirk = "schema = 1\n[[device]]\nid = \"1234:5678\"\nname = \"A\"\nsteps = []\n";
    for (text, expected) in [(quirk, 0), (&quirk.replace("5678", "5679"), 1), (&quirk.replace("steps", "stops"), 0)] {
        root.write("home/quirks.d/own.toml", text);
        for files in [[&own, &policy], [&policy, &own]] {
            let ended = root.run(&["check", files[0], files[1]]);
            assert_eq!(ended.stdout.matches("no entry of the database has this ID").count(), expected, "{ended:?}");
        }
    }
}

/// A file in no directory of the program, with a key that policy does not have.
#[test]
fn a_file_that_selects_modems_is_a_policy() {
    let root = fake::Root::new();
    root.write("home/x.toml", "[[device]]\nmatch = { id = \"1199:9079\" }\nname = \"office\"\nswitch = false\n");
    let ended = root.run(&["check", &root.0.join("home/x.toml").display().to_string()]);
    assert!(ended.stdout.contains(":3:1: unknown field `name`"), "{ended:?}");
}

/// The installed file of its name is replaced, so its entries do not count.
#[test]
fn a_named_file_replaces_the_installed_file_of_its_name() {
    let root = fake::Root::new();
    let text = |id: &str| format!("schema = 1\n[[device]]\nid = \"{id}\"\nname = \"A\"\nsteps = []\n");
    root.write("etc/wwan-quirks/quirks.d/own.toml", text("1234:5678"));
    root.write("home/config.d/x.toml", "[[device]]\nmatch = { id = \"1234:5678\" }\nswitch = false\n");
    root.write("home/quirks.d/own.toml", text("1234:5679"));
    let [quirks, policy] =
        ["home/quirks.d/own.toml", "home/config.d/x.toml"].map(|path| root.0.join(path).display().to_string());
    let ended = root.run(&["check", &policy]);
    assert_eq!(ended.stdout, "no errors\n", "{ended:?}");
    let ended = root.run(&["check", &quirks, &policy]);
    assert!(ended.stdout.contains("no entry of the database has this ID"), "{ended:?}");
}

/// Narrower shipped entries are not in the file.
#[test]
fn a_named_quirk_is_compared_with_the_database() {
    let root = fake::Root::new();
    let quirk = "schema = 1\n[[device]]\nid = \"8888:6500\"\nname = \"A\"\nproduct = \"CDMA USB\"\nsteps = []\n";
    let installed = "etc/wwan-quirks/quirks.d/own.toml";
    for name in ["home/own.toml", installed] {
        root.write(name, quirk);
        let ended = root.run(&["check", &root.0.join(name).display().to_string()]);
        let found = ":3:7: warning: this entry does not apply to modems that the narrower entry at /usr/share/";
        assert_eq!((ended.code, ended.stdout.matches(found).count()), (0, 1), "{ended:?}");
    }
    // A file replaces the shipped one of its name.
    let mut shipped =
        fs::read_dir(root.0.join("usr/share/wwan-quirks/quirks.d")).unwrap().map(|file| file.unwrap().path());
    let shipped = shipped.find(|path| fs::read_to_string(path).unwrap().contains("8888:6500")).unwrap();
    let name = format!("home/{}", shipped.file_name().unwrap().to_str().unwrap());
    root.write(&name, quirk);
    let ended = root.run(&["check", &root.0.join(&name).display().to_string()]);
    assert_eq!(ended.stdout, "no errors\n");
}

/// Before a file is copied to its directory, its keys say what kind of file it is.
#[test]
fn a_policy_can_be_checked_anywhere() {
    let root = fake::Root::new();
    let check = |name: &str, text: &str| {
        root.write(name, text);
        root.run(&["check", &root.0.join(name).display().to_string()])
    };
    let of_device = "[[device]]\nmatch = { id = \"1199:9079\" }\nfcc-auth = false\n";
    for text in ["fcc-auth = false\n", "[timeouts]\nhook = 2\n", of_device] {
        assert_eq!(check("home/10-fcc.toml", text).stdout, "no errors\n", "{text}");
    }
    let wrong = check("home/10-fcc.toml", "fcc-auth = 1\n");
    assert!(wrong.stdout.contains(":1:12: invalid type: integer `1`, expected a boolean"), "{wrong:?}");
    // A quirk with mistakes is not a policy.
    let quirk = check("home/quirk.toml", "[[device]]\nid = \"1199:9079\"\nname = \"A\"\nswitch = \"sierra\"\n");
    assert!(quirk.stdout.contains("; an action belongs in `steps`: `steps = [{ switch = … }]`\n"), "{quirk:?}");
    // In the directory of the database, it is a quirk in any case.
    let quirk = check("etc/wwan-quirks/quirks.d/10-fcc.toml", of_device);
    assert!(
        quirk.stdout.contains("; this is a key of the policy, which belongs in config.toml or config.d\n"),
        "{quirk:?}"
    );
}

/// A small file with the name of a shipped one, or a copy that is older than the package.
#[test]
fn a_file_that_replaces_another_one_without_all_of_its_ids_is_a_warning() {
    let root = fake::Root::new();
    let quirk = |id: &str| format!("[[device]]\nid = \"{id}\"\nname = \"A\"\nsteps = []\n");
    let text = |ids: &[&str]| "schema = 1\n".to_owned() + &ids.iter().map(|id| quirk(id)).collect::<String>();
    let (shipped, own) = ("/usr/share/wwan-quirks/quirks.d/1199-x.toml", "/etc/wwan-quirks/quirks.d/1199-x.toml");
    root.write(shipped, text(&["1199:0001", "1199:0004", "1199:0003", "1199:0002"]));
    let warning = |lost: &str, ids: &str| {
        format!(
            "{own}: warning: this file replaces {shipped}, and {lost} an entry ({ids}); rename this file to keep the \
             other one\n"
        )
    };
    let no_errors = || "no errors\n".to_owned();
    for (ids, expected) in [
        (&["1199:0001"][..], warning("3 IDs of that file no longer have", "1199:0002, 1199:0003, 1199:0004")),
        (&["1199:0001", "1199:0002", "1199:0003"], warning("1 ID of that file no longer has", "1199:0004")),
        (&["1199:9071"], warning("4 IDs of that file no longer have", "1199:0001, 1199:0002, 1199:0003, …")),
        (&["1199:0001", "1199:0002", "1199:0003", "1199:0004"], no_errors()),
    ] {
        root.write(own, text(ids));
        let ended = root.run(&["check"]);
        assert_eq!((ended.code, ended.stdout), (0, expected), "{ids:?}");
    }
    // Another file may have the entry, and an empty file is a mask.
    root.write("/etc/wwan-quirks/quirks.d/own.toml", text(&["1199:0002", "1199:0003", "1199:0004"]));
    root.write(own, text(&["1199:0001"]));
    assert_eq!(root.run(&["check"]).stdout, no_errors());
    fs::remove_file(root.0.join("etc/wwan-quirks/quirks.d/own.toml")).unwrap();
    root.write(own, "");
    assert_eq!(root.run(&["check"]).stdout, no_errors());
}

#[test]
fn a_quirk_for_the_package_is_checked_like_a_shipped_one() {
    let root = fake::Root::new();
    let quirk = "schema = 1\n[[device]]\nid = \"413c:81b6\"\nname = \"A\"\nsteps = []\n";
    let folders = ["usr/share/wwan-quirks/quirks.d", "source/config/quirks.d", "etc/wwan-quirks/quirks.d"];
    for (folder, is_shipped) in folders.into_iter().zip([true, true, false]) {
        root.write(&format!("{folder}/1199-own.toml"), quirk);
        let ended = root.run(&["check", &root.0.join(folder).join("1199-own.toml").display().to_string()]);
        let found = ended.code == 3 && ended.stdout.contains(":3:6: a lookup of 413c:81b6 does not read this file");
        assert!(found == is_shipped && (found || ended.stdout == "no errors\n"), "{ended:?}");
    }
}

#[test]
fn a_file_that_is_not_read_is_a_warning() {
    let root = fake::Root::new();
    let elsewhere = ["policy.toml", "quirks.toml", "10-own.toml", "state"];
    let misnamed = ["config.d/10-x.conf", "quirks.d/foo.TOML", "quirks.d/foo.toml.txt", "quirks.d/more/own.toml"];
    let text = "schema = 1\n";
    for name in elsewhere.iter().chain(&misnamed) {
        root.write(&format!("etc/wwan-quirks/{name}"), text);
    }
    root.write("run/wwan-quirks/config.d/20-run", text);
    for name in [
        ".hidden",
        "config.toml~",
        "config.toml.dpkg-old",
        "config.d/a.rpmsave",
        "quirks.d/README",
        "quirks.d/.#a.toml",
    ] {
        root.write(&format!("etc/wwan-quirks/{name}"), text);
    }
    for name in ["config.toml", "state/1-1", "lock/1-1"] {
        root.write(&format!("run/wwan-quirks/{name}"), "# nothing\n");
    }
    let ended = root.run(&["check"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    let warning = |path: &str, read| format!("/{path}: warning: not read: the program reads only {read} here\n");
    let own = ["quirks.d/foo.TOML", "quirks.d/foo.toml.txt", "quirks.d/more"]
        .map(|name| warning(&format!("etc/wwan-quirks/{name}"), "*.toml"));
    for expected in own.iter().chain(&[
        warning("run/wwan-quirks/config.d/20-run", "*.toml"),
        warning("etc/wwan-quirks/config.d/10-x.conf", "*.toml"),
    ]) {
        assert!(ended.stdout.contains(expected), "{expected}: {}", ended.stdout);
    }
    for name in elsewhere {
        let read = "config.toml, compositions.toml, config.d/*.toml and quirks.d/*.toml";
        assert!(ended.stdout.contains(&warning(&format!("etc/wwan-quirks/{name}"), read)), "{name}: {}", ended.stdout);
    }
    assert_eq!(ended.stdout.lines().count(), 9, "{}", ended.stdout);
    let json: serde_json::Value = serde_json::from_str(&root.run(&["check", "--json"]).stdout).unwrap();
    assert_eq!(json["warnings"][0]["path"], "/run/wwan-quirks/config.d/20-run");
    assert_eq!(json["warnings"][0]["message"], "not read: the program reads only *.toml here");
}
