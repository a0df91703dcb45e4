//! The command line.

use std::ffi::OsStr;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, PossibleValue, TypedValueParser};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use crate::database::compositions::Wanted;

/// The ways to name a device.
const DEVICE: &str =
    "Port (1-1.2, 0000:08:00.0), ID (VID:PID, pci:VID:PID), /dev/cdc-wdmN, /dev/wwanNxxxN or /dev/bus/usb/BBB/DDD";

/// Make WWAN modems on USB and PCI work: leave install mode, set the USB configuration, unlock the radio
///
/// udev runs `wwan-quirks hook` for every modem in the quirks database; the other verbs are for people and scripts.
#[derive(Debug, Parser)]
#[command(name = "wwan-quirks", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
#[command(after_help = "Exit status: 0 done, or nothing to do; 1 a step failed, a request was not \
                        carried out (busy, not finished, not authorized, not allowed by the policy, no quirk applies), \
                        or doctor found a problem; 2 usage error, or a named device or file does not exist; 3 invalid database or policy.")]
pub struct Cli {
    /// Use DIR instead of `/` as the root directory, for tests and images
    #[arg(long, value_name = "DIR", default_value = "/", global = true, hide_default_value = true, value_parser = folder())]
    pub root: PathBuf,
    /// Also print informational messages to standard error; -vv prints all messages
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Print only errors to standard error
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Handle one udev event, described by the environment
    Hook,
    /// Do now what the hook would do; reconfigure a modem that is in use only if DEVICE names it
    Apply(Apply),
    /// Show each modem's identity, mode, configuration and last result
    Status {
        #[command(flatten)]
        devices: Devices,
        /// Ask the modem for the state of its radio, through the proxy if one holds its port
        #[arg(long)]
        query: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Show which quirk and which policy apply to a modem, and the plan; with -v, also the messages in hex
    Explain {
        #[arg(help = DEVICE)]
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show the USB composition of a modem, or set it permanently
    Composition {
        #[arg(help = DEVICE)]
        device: String,
        #[command(flatten)]
        setting: Setting,
        #[command(flatten)]
        output: Output,
    },
    /// Print what a maintainer needs to add or fix a quirk, with serial numbers masked
    Report {
        #[arg(help = format!("{DEVICE}; default: the only modem that is plugged in"))]
        device: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Find problems on this system, and show their remedies
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Print the database, one quirk per line
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Validate the database and the policy, or the named files
    Check {
        /// Quirks files, files of the policy, or `compositions.toml`. Quirks and policy are compared with the installed database
        file: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Print the udev rules for the installed database
    Rules {
        #[command(flatten)]
        output: Output,
    },
    /// Print the database in a format for other programs, or write it to a directory
    Export {
        /// usb-modeswitch (files in DIR), usb-mode.json (OpenWrt's usbmode), json (everything) or ids (ID, tab, name)
        #[arg(value_enum, hide_possible_values = true)]
        format: Format,
        /// Directory for the usb-modeswitch files
        #[arg(required_if_eq("format", "usb-modeswitch"))]
        dir: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Convert usb_modeswitch configuration files, or the output of `export json`, into quirks
    Import {
        /// Files named VID:PID…, directories of such files, or JSON files
        #[arg(required = true)]
        file: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

impl Verb {
    /// The name of the verb if it prints JSON.
    pub(crate) fn json(&self) -> Option<&'static str> {
        let (name, output) = match self {
            Verb::Hook => return None,
            Verb::Apply(apply) => ("apply", &apply.output),
            Verb::Status { output, .. } => ("status", output),
            Verb::Explain { output, .. } => ("explain", output),
            Verb::Composition { output, .. } => ("composition", output),
            Verb::Report { output, .. } => ("report", output),
            Verb::Doctor { output } => ("doctor", output),
            Verb::List { output } => ("list", output),
            Verb::Check { output, .. } => ("check", output),
            Verb::Rules { output } => ("rules", output),
            Verb::Export { output, .. } => ("export", output),
            Verb::Import { output, .. } => ("import", output),
        };
        output.json.then_some(name)
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Format {
    UsbModeswitch,
    #[value(name = "usb-mode.json")]
    UsbMode,
    Json,
    Ids,
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub devices: Devices,
    /// Only unlock radios
    #[arg(long)]
    pub unlock: bool,
    /// Print the plan and send nothing; with -v, also the messages in hex
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// For units and boot scripts: do not disturb programs that use the modem
    #[arg(long, hide = true)]
    pub unit: bool,
    /// For the sleep unit: check the radios within a second, and change nothing
    #[arg(long, hide = true, conflicts_with_all = ["unlock", "dry_run"])]
    pub(crate) before_sleep: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Devices {
    #[arg(value_name = "DEVICE", help = format!("{DEVICE}; default: all known modems"))]
    pub device: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Setting {
    /// Composition to set: a value that the modem lists (8, 0x100d, 9011), or its functions (qmi, mbim, qmi+mbim)
    #[arg(value_parser = WantedParser, hide_possible_values = true)]
    pub value: Option<Wanted>,
    /// Allow a composition that has no AT port, or whose functions are not known
    #[arg(long, requires = "value")]
    pub(crate) no_at_port: bool,
    /// Reset the modem and wait until it returns with the new composition
    #[arg(long, requires = "value")]
    pub reset: bool,
    /// Password for AT!ENTERCND; default: the factory password
    #[arg(long, value_name = "PASSWORD", value_parser = password)]
    pub password: Option<String>,
}

fn folder() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(|path| if path.is_dir() { Ok(path) } else { Err("not a directory") })
}

/// Accepts any value. Shells complete the functions.
#[derive(Clone)]
struct WantedParser;

impl TypedValueParser for WantedParser {
    type Value = Wanted;

    fn parse_ref(
        &self,
        command: &clap::Command,
        arg: Option<&clap::Arg>,
        value: &OsStr,
    ) -> clap::error::Result<Wanted> {
        str::parse::<Wanted>.parse_ref(command, arg, value)
    }

    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        let functions = ["qmi", "mbim", "qmi+mbim", "ecm", "ncm", "rndis"];
        Some(Box::new(functions.into_iter().map(PossibleValue::new)))
    }
}

/// Letters and digits only, because the password is part of a quoted string in a command.
fn password(text: &str) -> Result<String, &'static str> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| text.to_owned()).ok_or("the password must consist of 1 to 32 letters and digits")
}

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
