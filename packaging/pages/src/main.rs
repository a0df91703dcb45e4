//! Generates files from the command line and the database: the man page of the program, completions for three shells, the
//! AppStream metainfo, the device list as Markdown and as a searchable HTML page, and pictures of the program's output.
//!
//! The generated files are checked in, so that building a package does not need this program. A test fails if they are out of
//! date. `make pages` updates them.

mod devices;
mod screens;

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::{Arg, Command, CommandFactory};
use clap_complete::{Shell, generate};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, italic, roman};
use wwan_quirks::bus::{Bus, DeviceId};
use wwan_quirks::database::compositions::{self, Compositions};
use wwan_quirks::database::load;
use wwan_quirks::database::quirks::Quirk;
use wwan_quirks::host::root::Root;
use wwan_quirks::verbs::cli::Cli;

const PACKAGING: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const DATABASE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config");

/// The date of the release, from `packaging/debian/changelog`.
const RELEASED: &str = "2026-11-21";

/// The sections that are not generated from the command line.
const MORE: &str = r#".SH ENVIRONMENT
.TP
.B NO_COLOR
If this is set and not empty,
.B status
prints no colours.
.TP
.B TERM
If this is not set, or is
.BR dumb ,
.B status
prints no colours.
.TP
.BR ACTION ", " DEVPATH ", " SUBSYSTEM ", " DEVTYPE ", " SYNTH_UUID ", " WWAN_QUIRKS
Describe the udev event that
.B hook
handles.
The other verbs ignore these variables.
.SH FILES
.TP
.I /etc/wwan\-quirks/config.toml, /etc/wwan\-quirks/config.d/*.toml
The policy; see
.BR wwan\-quirks\-config (5).
.TP
.I /etc/wwan\-quirks/quirks.d/*.toml
Your own quirks; see
.BR wwan\-quirks\-quirks (5).
.TP
.I /etc/wwan\-quirks/compositions.toml
Your own families for
.BR composition .
They take precedence over the shipped ones.
The comment at the top of the shipped file explains each key.
.TP
.I /usr/share/wwan\-quirks
The policy, the quirks and the compositions that the package ships.
.TP
.I /usr/share/wwan\-quirks/fcc\-unlock.available.d
Links for ModemManager.
To let ModemManager unlock a certain modem with this program, create a link to the modem's file in
.IR /etc/ModemManager/fcc\-unlock.d .
.TP
.I /etc/udev/rules.d/86\-wwan\-quirks\-local.rules
Rules for your own IDs, printed by
.BR "wwan\-quirks rules" .
.TP
.I /run/wwan\-quirks/lock/PORT
The lock file of a port.
It also stores the earlier actions that the guard against loops counts.
Only root can open it.
.TP
.I /run/wwan\-quirks/state/PORT
The last results of a port, until the next boot.
.SH EXAMPLES
Show all modems, and ask each modem for the state of its radio:
.PP
.nf
wwan\-quirks status \-\-query
.fi
.PP
Show which quirk and which policy apply to a device, even if it is not plugged in:
.PP
.nf
wwan\-quirks explain 12d1:1446
.fi
.PP
Print what would be sent to the modem on port 1\-1.2, then send it:
.PP
.nf
wwan\-quirks apply \-\-dry\-run \-v 1\-1.2
wwan\-quirks apply 1\-1.2
.fi
.PP
Show the USB composition of a Quectel modem, change it to ECM, and wait until the modem is back:
.PP
.nf
wwan\-quirks composition 2c7c:0125
wwan\-quirks composition 2c7c:0125 ecm \-\-reset
.fi
.PP
Add udev rules for your own quirks:
.PP
.nf
wwan\-quirks check && wwan\-quirks rules > /etc/udev/rules.d/86\-wwan\-quirks\-local.rules
udevadm control \-\-reload
.fi
.PP
Check the files of a system image:
.PP
.nf
wwan\-quirks \-\-root image check
.fi
.SH SEE ALSO
.BR wwan\-quirks\-config (5),
.BR wwan\-quirks\-quirks (5),
.BR udev (7),
.BR journalctl (1),
.BR ModemManager (8)
"#;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    for (path, text) in files()? {
        let path = Path::new(PACKAGING).join(path);
        fs::create_dir_all(path.parent().ok_or("a file lies in a folder")?)?;
        fs::write(path, text)?;
    }
    Ok(())
}

/// Paths below `packaging`, and the text of each file.
fn files() -> Result<Vec<(String, String)>> {
    let quirks = shipped()?;
    let pages = [
        ("man/wwan-quirks.8", man_page()?),
        ("completions/wwan-quirks.bash", completions(Shell::Bash)?),
        ("completions/_wwan-quirks", completions(Shell::Zsh)?),
        ("completions/wwan-quirks.fish", completions(Shell::Fish)?),
        ("metainfo/wwan-quirks.metainfo.xml", metainfo(&quirks)),
        ("../docs/devices.md", devices::markdown(&quirks)),
        ("../docs/devices.html", devices::html(&quirks)),
    ];
    let screens = screens::all()?.into_iter().map(|(name, text)| (format!("../docs/screens/{name}"), text));
    Ok(pages.into_iter().map(|(path, text)| (path.to_owned(), text)).chain(screens).collect())
}

fn command_line() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

/// One page for all verbs.
fn man_page() -> Result<String> {
    let command = command_line();
    let about_exits = command.get_after_help().ok_or("the command line tells its exit status")?.to_string();
    let version = command.get_version().unwrap_or_default();
    let about = command.get_long_about().ok_or("the command line says what the program does")?.to_string();
    // The first paragraph is the text of NAME.
    let (_, about) = about.split_once("\n\n").ok_or("the description has two paragraphs")?;
    let help = |arg: Arg| arg.long_help("Print a summary (-h) or the full help (--help)");
    let shown = command.clone().subcommand_help_heading("VERB").long_about(about.to_owned()).mut_arg("help", help);
    let man = Man::new(shown);
    let mut page =
        format!(".TH wwan\\-quirks 8 {RELEASED} \"wwan\\-quirks {version}\" \"System administration\"\n").into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;

    let mut roff = Roff::new();
    roff.control("SH", ["VERBS"]);
    for verb in command.get_subcommands() {
        let usage = verb.clone().render_usage().to_string();
        roff.control("SS", [usage.trim_start_matches("Usage: ")]);
        let about = verb.get_long_about().or(verb.get_about()).ok_or("a verb says what it does")?;
        roff.text([roman(about.to_string())]);
        for arg in own_arguments(verb) {
            roff.control("TP", []);
            roff.text(match (arg.get_long(), arg.get_value_names()) {
                (Some(long), Some(values)) if arg.get_action().takes_values() => {
                    vec![bold(format!("--{long}")), roman(" "), italic(values.join(" "))]
                }
                (Some(long), _) => vec![bold(format!("--{long}"))],
                (None, values) => {
                    vec![italic(values.map_or_else(|| arg.get_id().to_string(), |values| values.join(" ")))]
                }
            });
            roff.text([roman(arg.get_help().ok_or("an argument says what it is")?.to_string())]);
        }
    }
    families(&mut roff)?;
    roff.control("SH", ["EXIT STATUS"]);
    roff.text([roman(about_exits.trim_start_matches("Exit status: "))]);
    roff.to_writer(&mut page)?;
    // clap_mangen leaves out the values of options in the synopsis.
    let page = String::from_utf8(page)?.replace("[\\fB\\-\\-root\\fR]", "[\\fB\\-\\-root\\fR \\fIDIR\\fR]");
    Ok(bold_code(&page) + MORE)
}

/// The text with the parts between backticks in bold, as man pages show commands.
fn bold_code(page: &str) -> String {
    let parts = page.split('`').enumerate();
    parts.map(|(number, part)| if number % 2 == 1 { format!("\\fB{part}\\fR") } else { part.to_owned() }).collect()
}

/// The families of modems whose compositions the program knows, each with its values.
fn families(roff: &mut Roff) -> Result<()> {
    let Compositions { sierra, families } = with_database(|root| match Compositions::load(root) {
        (compositions, errors) if errors.is_empty() => Ok(compositions),
        (_, errors) => Err(format!("{errors:?}").into()),
    })?;
    roff.control("SH", ["COMPOSITIONS"]);
    roff.text([roman("Families of modems, their commands, and their known values. ")]);
    roff.text([roman("A value is set only if the modem lists it and, except for Sierra, also the current one, or if `without-test` in compositions.toml says why the change can be reverted. sure: two sources, or a test on a device; likely: one good source; weak: unconfirmed, read only.")]);
    let mut entry = |name: &str, confidence: String, text: String| {
        roff.control("TP", []);
        roff.text([bold(name), roman(format!(" ({confidence})"))]);
        roff.text([roman(text)]);
    };
    let sierra = sierra.ok_or("compositions.toml has no table [sierra]")?.provenance();
    let text = "QMI, AT!UDUSBCOMP, AT!USBCOMP or AT!UDPID: the values that the modem lists";
    entry(&sierra.name, sierra.confidence.to_string(), text.to_owned());
    for family in &families {
        let values = family.values().map(|value| {
            let composition = family.composition(value);
            let at_port = if composition.has_at_port() { "" } else { " without AT port" };
            let functions = composition.functions();
            // An AT port does not count as a function here, but a composition may have nothing else.
            let is_serial = functions.is_empty() && composition.has_at_port();
            let names = if is_serial { "serial".to_owned() } else { compositions::names(&functions) };
            format!("{value} {names}{at_port}")
        });
        let mut values: Vec<String> = values.collect();
        if values.is_empty() {
            values.push("read only".to_owned());
        }
        let text = format!("{}: {}", family.read.command, values.join(", "));
        entry(&family.name, family.provenance().confidence.to_string(), text);
    }
    Ok(())
}

/// The arguments of a verb, without those that all verbs have.
fn own_arguments(verb: &Command) -> impl Iterator<Item = &Arg> {
    verb.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help" && !arg.is_hide_set())
}

fn completions(shell: Shell) -> Result<String> {
    let mut shown = Cli::command();
    let verbs: Vec<String> = shown.get_subcommands().map(|verb| verb.get_name().to_owned()).collect();
    // `mut_subcommand` moves a verb to the end. Moving all of them keeps their order.
    for verb in verbs {
        shown = shown.mut_subcommand(verb, without_hidden);
    }
    let mut text = Vec::new();
    generate(shell, &mut shown, "wwan-quirks", &mut text);
    Ok(String::from_utf8(text)?)
}

/// The verb without its hidden options, which clap_complete would offer. Only `apply` has some, for the units.
fn without_hidden(verb: Command) -> Command {
    if verb.get_name() != "apply" {
        return verb;
    }
    let shown: Vec<Arg> = verb.get_arguments().filter(|arg| !arg.is_hide_set()).cloned().collect();
    Command::new("apply").about(verb.get_about().cloned().unwrap_or_default()).args(shown)
}

/// The shipped database.
fn shipped() -> Result<Vec<Quirk>> {
    let (quirks, errors) = with_database(|root| Ok(load::all(root)))?;
    match errors.into_iter().next() {
        Some(error) => Err(error.into()),
        None => Ok(quirks),
    }
}

/// Calls `read` with a root that holds the shipped database.
fn with_database<T>(read: impl FnOnce(&Root) -> Result<T>) -> Result<T> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("wwan-quirks-pages.{}.{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let root = std::env::temp_dir().join(name);
    let database = root.join("usr/share/wwan-quirks");
    for folder in ["", "quirks.d"] {
        fs::create_dir_all(database.join(folder))?;
        for entry in fs::read_dir(Path::new(DATABASE).join(folder))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), database.join(folder).join(entry.file_name()))?;
            }
        }
    }
    let result = read(&Root::new(&root));
    fs::remove_dir_all(&root)?;
    result
}

/// The AppStream metainfo. Software centres use it to offer the package to users who have such a modem. `make install` fills in the values of
/// `packaging/project.env`.
fn metainfo(quirks: &[Quirk]) -> String {
    let ids: BTreeSet<DeviceId> = quirks.iter().flat_map(Quirk::ids).collect();
    let names: BTreeSet<&str> = quirks.iter().flat_map(|quirk| quirk.ids().map(|id| quirk.name_of(id))).collect();
    let keyword = |name: &&str| format!("    <keyword>{}</keyword>\n", devices::escaped(name));
    let keywords: String = names.iter().map(keyword).collect();
    let aliases: String = ids
        .iter()
        .map(|DeviceId { bus, vendor, product }| match bus {
            Bus::Usb => format!("    <modalias>usb:v{vendor:04X}p{product:04X}d*</modalias>\n"),
            Bus::Pci => format!("    <modalias>pci:v{vendor:08X}d{product:08X}sv*</modalias>\n"),
        })
        .collect();
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<component type="driver">
  <id>@APPSTREAM_ID@</id>
  <metadata_license>MIT</metadata_license>
  <project_license>MIT</project_license>
  <name>wwan-quirks</name>
  <summary>Make WWAN modems on USB and PCI work when they are plugged in</summary>
  <description>
    <p>
      Many WWAN modems first appear as a CD-ROM with drivers for another system, start in the wrong USB configuration,
      or have a radio that the laptop vendor has locked. udev runs this short-lived helper for each modem in its database. It
      switches the modem out of install mode, sets the USB configuration that the administrator prefers, and unlocks
      the radio.
    </p>
  </description>
  <url type="homepage">@HOMEPAGE@</url>
  <developer_name>The wwan-quirks authors</developer_name>
  <keywords>
{keywords}  </keywords>
  <provides>
    <binary>wwan-quirks</binary>
{aliases}  </provides>
</component>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checked_in_files_match_the_command_line_and_the_database() {
        for (path, text) in files().unwrap() {
            let checked_in = fs::read_to_string(Path::new(PACKAGING).join(&path)).unwrap_or_default();
            assert!(checked_in == text, "packaging/{path} is out of date: run `make pages` and check it in");
        }
    }

    /// `--help`, the man page and the completions name the same verbs and the same options.
    #[test]
    fn flags_help_and_pages_agree() {
        let mut command = command_line();
        let page = man_page().unwrap().replace("\\-", "-");
        let shells = [Shell::Bash, Shell::Zsh, Shell::Fish].map(|shell| completions(shell).unwrap());
        let (options, verbs) = page.split_once("\n.SH VERBS\n").unwrap();
        for flag in flags(&command.render_long_help().to_string()) {
            assert!(flags(options).contains(&flag), "the page lacks {flag}");
        }
        let sections: Vec<_> = verbs.split("\n.SH ").next().unwrap().split(".SS ").skip(1).collect();
        assert_eq!(sections.len(), command.get_subcommands().count());
        for (verb, section) in command.get_subcommands_mut().zip(sections) {
            let name = verb.get_name().to_owned();
            assert!(section.starts_with(&format!("\"wwan-quirks {name}")), "{name}: {section}");
            let globals = ["--root", "--verbose", "--quiet", "--help"];
            let mut helped = flags(&verb.render_long_help().to_string());
            helped.retain(|flag| !globals.contains(&flag.as_str()));
            assert_eq!(flags(section), helped, "{name}");
            let hidden = verb.get_arguments().filter(|arg| arg.is_hide_set()).filter_map(Arg::get_long);
            let hidden: Vec<String> = hidden.flat_map(|long| [format!("--{long}"), format!("-l {long}")]).collect();
            for shell in &shells {
                assert!(!hidden.iter().any(|option| shell.contains(option)), "{name}: {hidden:?}");
                assert!(shell.contains(&name) && helped.iter().all(|flag| shell.contains(&flag[2..])), "{name}");
            }
        }
    }

    /// The long options that a text names.
    fn flags(text: &str) -> BTreeSet<String> {
        let end = |rest: &str| rest.find(|c: char| c != '-' && !c.is_ascii_lowercase()).unwrap_or(rest.len());
        let found = text.match_indices("--").map(|(at, _)| &text[at..at + end(&text[at..])]);
        found.filter(|flag| flag.len() > 2).map(str::to_owned).collect()
    }

    /// The manual pages of the file formats name every key that the program accepts. The program lists its keys when it
    /// finds an unknown key.
    #[test]
    fn the_pages_for_files_name_every_key() {
        let page = |name: &str| fs::read_to_string(Path::new(PACKAGING).join("man").join(name)).unwrap();
        let entry = "schema = 1\n[[device]]\nid = \"1199:9071\"\nname = \"x\"\nsteps = [STEP]\n";
        let step = |step: &str| entry.replace("STEP", step);
        for (name, file, text) in [
            ("wwan-quirks-config.5", "config.toml", "none = 1\n".to_owned()),
            ("wwan-quirks-config.5", "config.toml", "[timeouts]\nnone = 1\n".to_owned()),
            ("wwan-quirks-config.5", "config.toml", "[[device]]\nnone = 1\n".to_owned()),
            ("wwan-quirks-config.5", "config.toml", "[[device]]\nmatch = { none = 1 }\n".to_owned()),
            ("wwan-quirks-config.5", "config.toml", "prefer = \"none\"\n".to_owned()),
            ("wwan-quirks-quirks.5", "quirks.d/1199-x.toml", "none = 1\n".to_owned()),
            ("wwan-quirks-quirks.5", "quirks.d/1199-x.toml", "schema = 1\n[[device]]\nnone = 1\n".to_owned()),
            (
                "wwan-quirks-quirks.5",
                "quirks.d/1199-x.toml",
                step("").replace("\"1199:9071\"", "{ id = \"1199:9071\", none = 1 }"),
            ),
            ("wwan-quirks-quirks.5", "quirks.d/1199-x.toml", step("{ none = 1 }")),
            ("wwan-quirks-quirks.5", "quirks.d/1199-x.toml", step("{ fcc-auth = \"none\" }")),
            ("wwan-quirks-quirks.5", "quirks.d/1199-x.toml", step("{ switch = { none = 1 } }")),
            (
                "wwan-quirks-quirks.5",
                "quirks.d/1199-x.toml",
                step("{ switch = { do = [{ control = { none = 1 } }] } }"),
            ),
        ] {
            let page = page(name).replace("\\-", "-");
            let keys = keys(file, &text);
            assert!(!keys.is_empty(), "{text}");
            for key in keys {
                let mut words = page.split(|c: char| c != '-' && !c.is_ascii_alphanumeric());
                assert!(words.any(|word| word == key), "{name} does not name {key}, which is valid in {file}:\n{text}");
            }
        }
    }

    /// The keys that the program lists, in backquotes, when it finds the unknown key `none`.
    fn keys(file: &str, text: &str) -> Vec<String> {
        let root = std::env::temp_dir().join(format!("wwan-quirks-keys.{}", std::process::id()));
        let path = root.join("etc/wwan-quirks").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        let mut said = Vec::new();
        let ended = wwan_quirks::verbs::check::run(&Root::new(&root), &[], false, &mut said);
        fs::remove_dir_all(&root).unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8(said).unwrap(),
            ended.map_or_else(|error| error.chain(), |_| String::new())
        );
        let (_, expected) = said.split_once("expected ").unwrap_or_else(|| panic!("{text}{said}"));
        let line = expected.lines().next().unwrap_or_default();
        line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }
}
