//! The three entry points of the program, and the verbs of its command line, one per file.

pub(crate) mod apply;
pub mod check;
pub mod cli;
pub(crate) mod composition;
pub(crate) mod doctor;
pub(crate) mod explain;
pub(crate) mod export;
pub mod fcc_unlock;
pub(crate) mod hook;
pub mod import;
pub(crate) mod list;
pub(crate) mod output;
pub(crate) mod report;
pub(crate) mod rules;
pub(crate) mod select;
pub(crate) mod status;

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};

use clap::Parser;
use log::LevelFilter;
use serde_json::json;

use crate::host::init::{Audience, init};
use crate::host::journal::print_error;
use crate::host::root::Root;
use crate::host::sandbox::Limits;
use crate::serve::error::{Error, Exit};
use cli::{Cli, Verb};
use output::{Stdout, error_json, print_json};

/// The entry point for udev, `wwan-quirks hook`.
pub fn run_hook() -> Exit {
    let root = Root::new("/");
    init(&root, Audience::Journal, Limits::All);
    finish(hook::run(&root, &mut Stdout(io::stdout())))
}

/// The entry point for ModemManager, through a link named `VID:PID`.
pub fn run_fcc_unlock(ports: &[String]) -> Exit {
    let root = Root::new("/");
    init(&root, Audience::Journal, Limits::All);
    fcc_unlock::run(&root, ports)
}

/// The entry point for the command line. The first argument is the name of the program.
pub fn run_cli(arguments: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(text) => return print_usage(&text),
    };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Trace,
    };
    let root = Root::new(&cli.root);
    let (audience, limits) = match cli.verb {
        Verb::Hook => (Audience::Journal, Limits::All),
        Verb::Apply(_) | Verb::Status { .. } | Verb::Composition { .. } => {
            (Audience::Person(level), Limits::ExceptFileSize)
        }
        // The other verbs send nothing to a device. They have no limits: `report` starts journalctl, and others write
        // long files.
        _ => (Audience::Person(level), Limits::None),
    };
    init(&root, audience, limits);
    let (verbose, json) = (cli.verbose > 0, cli.verb.json());
    let mut out = Stdout(io::stdout());
    let exit = match cli.verb {
        Verb::Hook => hook::run(&root, &mut out),
        Verb::Apply(options) => apply::run(&root, &options, verbose, &mut out),
        Verb::Status { devices, query, output } => status::run(&root, &devices.device, query, output.json, &mut out),
        Verb::Explain { device, output } => explain::run(&root, &device, verbose, output.json, &mut out),
        Verb::Composition { device, setting, output } => {
            composition::run(&root, &device, setting, output.json, &mut out)
        }
        Verb::Report { device, output } => report::run(&root, device.as_deref(), output.json, &mut out),
        Verb::Doctor { output } => doctor::run(&root, output.json, &mut out),
        Verb::List { output } => list::run(&root, output.json, &mut out),
        Verb::Check { file, output } => check::run(&root, &file, output.json, &mut out),
        Verb::Rules { output } => rules::run(&root, output.json, &mut out),
        Verb::Export { format, dir, output } => export::run(&root, format, dir.as_deref(), output.json, &mut out),
        Verb::Import { file, output } => import::run(&file, output.json, &mut out),
    };
    if let (Err(error), Some(verb)) = (&exit, json) {
        print_early_error(verb, error, &mut out);
    }
    finish(exit.and_then(|exit| Ok(out.flush().map(|()| exit)?)))
}

/// Prints the JSON of a verb that ended before it printed anything, with empty content.
fn print_early_error(verb: &str, error: &Error, out: &mut impl Write) {
    let empty = match verb {
        _ if matches!(error, Error::Output(_) | Error::Json(_)) => return,
        "composition" => composition::to_json(&[]),
        "export" => json!({ "device": [] }),
        "report" => report::empty(),
        // The other verbs have no such errors.
        _ => json!({ "devices": [] }),
    };
    // The error itself counts, also if it cannot be printed here.
    let _ = print_json(out, verb, &empty, &[error_json(error)]).and_then(|()| Ok(out.flush()?));
}

/// Prints the help, the version, or what is wrong with the command line.
fn print_usage(text: &clap::Error) -> Exit {
    let printed = text.print().and_then(|()| Stdout(io::stdout()).flush());
    match (text.use_stderr(), printed) {
        (true, _) => Exit::Usage,
        (false, Err(error)) if error.kind() != ErrorKind::BrokenPipe => finish(Err(error.into())),
        (false, _) => Exit::Success,
    }
}

/// Prints the error, and returns the exit status.
fn finish(exit: Result<Exit, Error>) -> Exit {
    exit.unwrap_or_else(|error| {
        print_error(format_args!("wwan-quirks: {}", error.chain()));
        error.exit()
    })
}
