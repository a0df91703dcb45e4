use clap::Parser;
fn main() { let c = wwan_quirks::cli::Cli::parse(); env_logger::init();
 let root = wwan_quirks::root::Root::new(c.root);
 let v: toml::Value = toml::from_str("a=1").unwrap_or(toml::Value::Boolean(true)); println!("{v:?}");
 for d in wwan_quirks::device::Device::all(&root).unwrap_or_default() { println!("{} {}", d.port, d.id); if let Ok(mut n) = wwan_quirks::link::usb::Node::open(&root, &d) { use wwan_quirks::link::usb::*; n.control_out(Setup{request_type:0x40,request:11,value:1,index:0}, &[], std::time::Duration::from_secs(1)).ok(); } }
 let j = wwan_quirks::journal::Journal::open(&root); j.send(wwan_quirks::journal::Kind::Done, "x", &[]);
 let mut s = wwan_quirks::state::State::forgetful(); s.save().ok();
}
