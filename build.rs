//! How the program is linked. A run lasts milliseconds, so that what the loader does shows: the program lies where it
//! was linked to, which spares it all relocations, and asks for no library but the C library.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=link.ld");
    let target = |name: &str| env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        let directory = env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
        println!("cargo::rustc-link-arg-bins=-no-pie");
        println!("cargo::rustc-link-arg-bins=-Wl,-T,{directory}/link.ld");
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
