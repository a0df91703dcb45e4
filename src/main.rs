use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;
use wwan_quirks::cli::{Cli, Verb};
use wwan_quirks::root::Root;
use wwan_quirks::{apply, check, explain, fcc_unlock, hook, import, list, rules, status};

fn main() -> ExitCode {
    if let Some(ports) = fcc_unlock::called_for(env::args_os()) {
        return fcc_unlock::run(&Root::new("/"), &ports).into();
    }
    // udev's own call is not worth building a command line's whole description, which is a tenth of its time.
    let cli = if env::args_os().skip(1).eq(["hook"]) { Cli::hook() } else { Cli::parse() };
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).format_timestamp(None).init();

    let root = Root::new(&cli.root);
    let mut out = io::stdout().lock();
    let ended = match cli.verb {
        Verb::Hook => hook::run(&root),
        Verb::Apply { devices, unlock, dry_run, output } => {
            apply::run(&root, &devices.device, unlock, dry_run, output.json, &mut out)
        }
        Verb::Status { devices, output } => status::run(&root, &devices.device, output.json, &mut out),
        Verb::Explain { device, output } => explain::run(&root, &device, output.json, &mut out),
        Verb::List { output } => list::run(&root, output.json, &mut out),
        Verb::Check { file, output } => check::run(&root, &file, output.json, &mut out),
        Verb::Rules => rules::run(&root, &mut out),
        Verb::Import { file } => import::run(&file, &mut out),
    };
    let ended = ended.and_then(|exit| Ok(out.flush().map(|()| exit)?));
    ended.map_or_else(
        |error| {
            eprintln!("wwan-quirks: {}", error.chain());
            error.exit().into()
        },
        ExitCode::from,
    )
}
