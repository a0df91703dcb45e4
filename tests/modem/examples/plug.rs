//! Plugs in a locked QMI modem with slow replies. Enter unplugs it, and prints what the host did in the meantime.
//! Needs root and `modprobe vhci-hcd`.

use std::error::Error;
use std::io::{self, BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread;

use modem::device::{Device, Event};
use modem::{models, radio::Modem};

/// Sends one line of the control protocol to the modem, and returns the reply.
fn ask(modem: &Sender<Event>, line: &str) -> io::Result<String> {
    let (ours, theirs) = UnixStream::pair()?;
    modem.send(Event::Control(line.to_owned(), theirs)).map_err(|_| io::Error::other("the modem has ended"))?;
    let mut reply = String::new();
    BufReader::new(ours).read_line(&mut reply)?;
    Ok(reply.trim_end().to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let model = models::row("em7455-qmi").ok_or("no such model")?.model();
    let mut modem = Modem::of(&model);
    modem.faults.set("late=700")?;
    let (sender, events) = mpsc::channel();
    let control = sender.clone();
    let user = thread::spawn(move || -> io::Result<()> {
        println!("Use the modem, for example: qmicli -d /dev/cdc-wdm0 --dms-get-operating-mode");
        println!("Press Enter to unplug it.");
        io::stdin().read_line(&mut String::new())?;
        for key in ["mode", "unlocks", "transfers"] {
            println!("{key}: {}", ask(&control, &format!("get {key}"))?);
        }
        ask(&control, "quit").map(drop)
    });
    // Returns after `quit`.
    Device::new(model, modem, false, None, sender).run(&events)?;
    user.join().map_err(|_| "the control thread panicked")??;
    Ok(())
}
