//! What can be asked of the program.

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::database::quirks::composition::Wanted;

/// Make USB WWAN modems work: out of install mode, in the right USB configuration, radio unlocked
///
/// udev runs `wwan-quirks hook` for every modem that the quirks database knows; the other verbs are for people.
#[derive(Debug, Parser)]
#[command(name = "wwan-quirks", version, disable_help_subcommand = true, arg_required_else_help = true)]
#[command(after_help = "Exit status: 0 done, or nothing to do; 1 a step failed; 2 wrong usage; \
                        3 database or policy invalid.")]
pub struct Cli {
    /// Take DIR for `/`: for tests and images
    #[arg(long, value_name = "DIR", default_value = "/", global = true, hide_default_value = true)]
    pub root: PathBuf,
    /// Say more on standard error
    #[arg(short, long, action = ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Serve one udev event, described by its environment
    Hook,
    /// Do now what the hook would do
    Apply(Apply),
    /// Show each modem's identity, mode, configuration and last result
    Status {
        #[command(flatten)]
        devices: Devices,
        /// Ask the modem itself how its radio stands, through the proxy where one holds its port
        #[arg(long)]
        query: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Say which quirk and which policy apply to a modem, and the plan that follows, with -v byte for byte
    Explain {
        /// Port (1-1.2), VID:PID, /dev/cdc-wdmN or /dev/bus/usb/BBB/DDD
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show, or set for good, a Sierra modem's USB composition
    Composition {
        /// Port (1-1.2), VID:PID, /dev/cdc-wdmN or /dev/bus/usb/BBB/DDD
        device: String,
        #[command(flatten)]
        setting: Setting,
        #[command(flatten)]
        output: Output,
    },
    /// Print what a maintainer needs to add a modem or to mend its quirk, without serial numbers and the like
    Report {
        /// Port (1-1.2), VID:PID, /dev/cdc-wdmN or /dev/bus/usb/BBB/DDD
        device: String,
        #[command(flatten)]
        output: Output,
    },
    /// Look for what on this system stands in the way of a modem, and say how to cure it
    Doctor {
        #[command(flatten)]
        output: Output,
    },
    /// Print the database, a line a quirk
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Validate the database and the policy, or the files named
    Check {
        /// Files of the quirks database, or `config.toml`
        file: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Print the udev rules for the database as it stands
    Rules {
        #[command(flatten)]
        output: Output,
    },
    /// Turn usb_modeswitch configuration files into quirks
    Import {
        /// Files named VID:PID…, or folders of them
        #[arg(required = true)]
        file: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub struct Apply {
    #[command(flatten)]
    pub devices: Devices,
    /// Unlock radios, and nothing else
    #[arg(long)]
    pub unlock: bool,
    /// Print the plan, with -v byte for byte, and touch nothing
    #[arg(long)]
    pub dry_run: bool,
    /// For the systemd units: disturb no program that uses the modem
    #[arg(long, hide = true)]
    pub unit: bool,
    /// For the unit before sleep: look at the radios within a second, and change nothing
    #[arg(long, hide = true, conflicts_with_all = ["unlock", "dry_run"])]
    pub before_sleep: bool,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct Devices {
    /// Port (1-1.2), VID:PID, /dev/cdc-wdmN or /dev/bus/usb/BBB/DDD; all modems where none is named
    #[arg(value_name = "DEVICE")]
    pub device: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Setting {
    /// Number (8), bitmask (0x100d) or functions (qmi, mbim, qmi+mbim) of the composition to set
    pub value: Option<Wanted>,
    /// Set a composition without AT port, too
    #[arg(long, requires = "value")]
    pub no_at_port: bool,
    /// Have the modem start again with it, and see that it does
    #[arg(long, requires = "value")]
    pub reset: bool,
    /// For AT!ENTERCND, where the modem wants another than the well-known one
    #[arg(long, value_name = "PASSWORD", value_parser = password)]
    pub password: Option<String>,
}

/// Of letters and digits alone, as modems have it: it stands between quotation marks in a command.
fn password(text: &str) -> Result<String, &'static str> {
    let fits = (1..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    fits.then(|| text.to_owned()).ok_or("a password has letters and digits, and no other characters")
}

#[derive(Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
