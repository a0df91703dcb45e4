use std::env;
use std::process::ExitCode;

use wwan_quirks::verbs::{self, fcc_unlock};

fn main() -> ExitCode {
    // udev's call needs no command line parser: building its description takes a tenth of a hook's time.
    let exit = if env::args_os().skip(1).eq(["hook"]) {
        verbs::run_hook()
    } else if let Some(ports) = fcc_unlock::called_for(env::args_os()) {
        verbs::run_fcc_unlock(&ports)
    } else {
        verbs::run_cli()
    };
    ExitCode::from(exit as u8)
}
