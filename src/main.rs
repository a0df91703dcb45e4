use std::env;
use std::process::ExitCode;

use wwan_quirks::verbs::{self, fcc_unlock};

fn main() -> ExitCode {
    // The hook skips the command line parser, which would take a tenth of its run time.
    let exit = if env::args_os().skip(1).eq(["hook"]) {
        verbs::run_hook()
    } else if let Some(ports) = fcc_unlock::called_for(env::args_os()) {
        verbs::run_fcc_unlock(&ports)
    } else {
        verbs::run_cli(env::args_os())
    };
    ExitCode::from(exit as u8)
}
