use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use log::LevelFilter;
use wwan_quirks::host::root::Root;
use wwan_quirks::serve::error::{Error, Exit};
use wwan_quirks::verbs::apply;
use wwan_quirks::verbs::check;
use wwan_quirks::verbs::cli::{Cli, Verb};
use wwan_quirks::verbs::composition;
use wwan_quirks::verbs::doctor;
use wwan_quirks::verbs::explain;
use wwan_quirks::verbs::fcc_unlock;
use wwan_quirks::verbs::hook;
use wwan_quirks::verbs::import;
use wwan_quirks::verbs::list;
use wwan_quirks::verbs::report;
use wwan_quirks::verbs::rules;
use wwan_quirks::verbs::status;

fn main() -> ExitCode {
    // udev's call needs no command line parser: building its description takes a tenth of a hook's time.
    let exit = if env::args_os().skip(1).eq(["hook"]) {
        ended(hook::run(&Root::new("/")))
    } else if let Some(ports) = fcc_unlock::called_for(env::args_os()) {
        fcc_unlock::run(&Root::new("/"), &ports)
    } else {
        seldom(Cli::parse())
    };
    ExitCode::from(exit as u8)
}

/// What a person asks for.
fn seldom(cli: Cli) -> Exit {
    let level = match (cli.quiet, cli.verbose) {
        (true, _) => LevelFilter::Error,
        (false, 0) => LevelFilter::Warn,
        (false, 1) => LevelFilter::Info,
        (false, _) => LevelFilter::Trace,
    };
    env_logger::Builder::new().filter_level(level).format_timestamp(None).init();

    let verbose = cli.verbose > 0;
    let root = Root::new(&cli.root);
    let mut out = io::stdout().lock();
    let exit = match cli.verb {
        Verb::Hook => hook::run(&root),
        Verb::Apply { devices, unlock, dry_run, output } => {
            apply::run(&root, &devices.device, unlock, dry_run, verbose, output.json, &mut out)
        }
        Verb::Status { devices, query, output } => status::run(&root, &devices.device, query, output.json, &mut out),
        Verb::Explain { device, output } => explain::run(&root, &device, verbose, output.json, &mut out),
        Verb::Composition { device, setting, output } => {
            composition::run(&root, &device, &setting, output.json, &mut out)
        }
        Verb::Report { device, output } => report::run(&root, &device, output.json, &mut out),
        Verb::Doctor { output } => doctor::run(&root, output.json, &mut out),
        Verb::List { output } => list::run(&root, output.json, &mut out),
        Verb::Check { file, output } => check::run(&root, &file, output.json, &mut out),
        Verb::Rules { output } => rules::run(&root, output.json, &mut out),
        Verb::Import { file, output } => import::run(&file, output.json, &mut out),
    };
    ended(exit.and_then(|exit| Ok(out.flush().map(|()| exit)?)))
}

fn ended(exit: Result<Exit, Error>) -> Exit {
    exit.unwrap_or_else(|error| {
        if error.is_reader_gone() {
            return Exit::Fine;
        }
        eprintln!("wwan-quirks: {}", error.chain());
        error.exit()
    })
}
