//! Plugs in a software modem and serves it. `modem` without arguments prints its usage.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc::{self, Sender};

use modem::device::{Device, Event};
use modem::models::{self, Model};
use modem::radio::Modem;
use modem::{faults, install, pci, transcript};

const USAGE: &str = "\
usage:
modem list                     print the models: NAME  VID:PID  description
modem faults                   print the faults that --fault accepts
modem methods                  print the methods to leave install mode that --method accepts
modem run MODEL [OPTIONS]      plug in a modem, and serve it until SIGTERM or `quit`
modem run --report FILE        plug in a modem that is described by the output of `wwan-quirks report`
modem ask PATH COMMAND…        send one command to the control socket of a running modem, and print the reply

options of all modems:
  --control PATH               create this Unix socket: one command per line, one reply per line
                               unplug | plug | reset | relock | quit | fault NAME[=VALUE] | clear [NAME] |
                               get KEY | set KEY VALUE
  --transcript PATH            append one line per event to this file
  --fault NAME[=VALUE]         set a fault; may be repeated
  --unlocked                   start unlocked and online
  --imei TEXT                  the IMEI that the modem reports
  --oem-string TEXT            the OEM string that is the key of the challenge (KHOIHGIUCCHHII)
  --id VID:PID                 the ID after plug-in (in install mode, if the model has one)

options of USB modems:
  --port N                     the vhci port (default: the first free high-speed port)
  --serial, --manufacturer, --product TEXT
                               the strings of the device descriptor
  --max-control-message N      wMaxControlMessage of MBIM (4096)

options of PCI modems:
  --subsystem VID:PID          the subsystem ID

options of the install mode, for the model `install` or with --method:
  --method NAME                what the modem waits for before it leaves install mode (eject)
  --message HEX                a message that the method `message` waits for; may be repeated
  --value N                    the value that some methods wait for
  --target VID:PID             the ID after install mode
  --then MODEL                 the model after install mode
  --interface N                the interface number (0)
  --class CC:SS:PP             the class of the interface (08:06:50)
  --scsi-vendor, --scsi-model TEXT
                               the names of the drive
  --disk                       the drive is a disk instead of a CD-ROM
  --medium FILE                the content of the drive
  --mbim N, --ecm N            add a configuration with this number, and MBIM or ECM
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["list"] => {
            for row in models::rows() {
                println!("{:<14} {:04x}:{:04x}  {}", row.name, row.id.0, row.id.1, row.note);
            }
            for row in pci::ROWS {
                println!("{:<14} pci:{:04x}:{:04x}  {}", row.name, row.id.0, row.id.1, row.note);
            }
            Ok(())
        }
        ["faults"] => {
            faults::FAULTS.iter().for_each(|(form, what)| println!("{form:<24} {what}"));
            Ok(())
        }
        ["methods"] => {
            install::METHODS.iter().for_each(|(name, what)| println!("{name:<14} {what}"));
            Ok(())
        }
        [] | ["--help" | "-h" | "help"] => {
            print!("{USAGE}");
            Ok(())
        }
        ["run", rest @ ..] => run(rest),
        ["ask", path, words @ ..] if !words.is_empty() => ask(path, &words.join(" ")),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("modem: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The options of `run`.
#[derive(Default)]
struct Options {
    model: Option<String>,
    report: Option<String>,
    port: Option<u32>,
    control: Option<PathBuf>,
    transcript: Option<PathBuf>,
    faults: faults::Faults,
    unlocked: bool,
    serial: Option<String>,
    imei: Option<String>,
    oem_string: Option<String>,
    manufacturer: Option<String>,
    product: Option<String>,
    id: Option<(u16, u16)>,
    subsystem: Option<(u16, u16)>,
    max_control_message: Option<u16>,
    install: install::Options,
    target: Option<(u16, u16)>,
    then: Option<String>,
}

fn options(words: &[&str]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().map(|value| value.to_string()).ok_or(format!("{word} requires a value"));
        let id = |text: String| models::parse_id(&text).ok_or(format!("{text} is not VID:PID"));
        fn number<T: std::str::FromStr>(text: String) -> Result<T, String> {
            text.parse().map_err(|_| format!("{text} is not a number"))
        }
        match *word {
            "--port" => options.port = Some(number(value()?)?),
            "--control" => options.control = Some(value()?.into()),
            "--transcript" => options.transcript = Some(value()?.into()),
            "--fault" => options.faults.set(&value()?)?,
            "--unlocked" => options.unlocked = true,
            "--serial" => options.serial = Some(value()?),
            "--oem-string" => options.oem_string = Some(value()?),
            "--imei" => options.imei = Some(value()?),
            "--manufacturer" => options.manufacturer = Some(value()?),
            "--product" => options.product = Some(value()?),
            "--id" => options.id = Some(id(value()?)?),
            "--subsystem" => options.subsystem = Some(id(value()?)?),
            "--report" => options.report = Some(value()?),
            "--max-control-message" => options.max_control_message = Some(number(value()?)?),
            "--method" => options.install.method = Some(value()?),
            "--message" => {
                let text = value()?;
                let message = transcript::from_hex(&text).ok_or(format!("{text} is not hex"))?;
                options.install.messages.push(message);
            }
            "--value" => options.install.value = Some(number(value()?)?),
            "--interface" => options.install.interface = number(value()?)?,
            "--class" => {
                let text = value()?;
                options.install.class = Some(install::parse_class(&text).ok_or(format!("{text} is not CC:SS:PP"))?);
            }
            "--scsi-vendor" => options.install.scsi_vendor = Some(value()?),
            "--scsi-model" => options.install.scsi_model = Some(value()?),
            "--disk" => options.install.disk = true,
            "--medium" => {
                let path = value()?;
                options.install.medium = std::fs::read(&path).map_err(|error| format!("{path}: {error}"))?;
            }
            "--mbim" => options.install.mbim = Some(number(value()?)?),
            "--ecm" => options.install.ecm = Some(number(value()?)?),
            "--target" => options.target = Some(id(value()?)?),
            "--then" => options.then = Some(value()?),
            name if !name.starts_with('-') && options.model.is_none() => options.model = Some(name.to_owned()),
            other => return Err(format!("unknown option {other}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn named(name: &str) -> Result<Model, String> {
    Ok(models::row(name).ok_or(format!("unknown model: {name} (see `modem list`)"))?.model())
}

fn model(options: &Options) -> Result<Model, String> {
    let mut model = match (&options.model, &options.report) {
        (Some(name), None) => named(name)?,
        (None, Some(path)) => {
            let text = std::fs::read_to_string(path).map_err(|error| format!("{path}: {error}"))?;
            models::from_report(&text).map_err(|error| format!("{path}: {error}"))?
        }
        _ => return Err("run requires a model or --report".into()),
    };
    if let Some(name) = &options.then {
        let first = model.forms.remove(0);
        model = named(name)?;
        model.forms.retain(|form| !form.installs());
        model.forms.insert(0, first);
    }
    let is_install = options.model.as_deref() == Some("install");
    if is_install || options.install.method.is_some() {
        model.with_install(&options.install)?;
    }
    if let (Some(id), Some(form)) = (options.target, model.forms.last_mut()) {
        form.set_id(id);
    }
    let strings = [&options.manufacturer, &options.product, &options.serial];
    for (index, text) in strings.into_iter().enumerate() {
        if let Some(text) = text {
            model.forms.iter_mut().for_each(|form| form.strings[index].clone_from(text));
        }
    }
    if let Some(id) = options.id {
        model.forms[0].set_id(id);
    }
    Ok(model)
}

fn run(words: &[&str]) -> Result<(), String> {
    let options = options(words)?;
    let pci = options.model.as_deref().and_then(pci::row);
    let mut model = match pci {
        Some(row) => row.model(),
        None => model(&options)?,
    };
    if let Some(imei) = &options.imei {
        model.identity.imei.clone_from(imei);
    }
    let mut modem = Modem::of(&model);
    modem.faults = options.faults;
    if let Some(text) = options.oem_string {
        modem.oem_string = text;
    }
    if let Some(path) = &options.transcript {
        modem.transcript =
            transcript::Transcript::append_to(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    for fault in modem.faults.names().split_whitespace() {
        modem.transcript.event("fault", fault);
    }
    let (sender, events) = mpsc::channel();
    if let Some(path) = &options.control {
        listen(path, sender.clone()).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(row) = pci {
        let mut device = pci::Device::new(row, modem, options.unlocked, sender).map_err(|error| error.to_string())?;
        options.id.into_iter().for_each(|id| device.set_id(id));
        options.subsystem.into_iter().for_each(|id| device.set_subsystem(id));
        return device.run(&events).map_err(|error| error.to_string());
    }
    let mut device = Device::new(model, modem, options.unlocked, options.port, sender);
    if let Some(size) = options.max_control_message {
        device.set_max_control_message(size);
    }
    // SIGTERM needs no handler: the socket closes with the process, which unplugs the modem.
    device.run(&events).map_err(|error| error.to_string())
}

/// Sends one line to a running modem. A reply that is an error becomes an error of this program.
fn ask(path: &str, line: &str) -> Result<(), String> {
    let talk = || {
        let mut socket = UnixStream::connect(path)?;
        writeln!(socket, "{line}")?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().map_err(|error: std::io::Error| format!("{path}: {error}"))?;
    if answer.is_empty() {
        return Err(format!("{path}: no answer"));
    }
    match answer.trim_end() {
        error if error.starts_with("error: ") => Err(error["error: ".len()..].to_owned()),
        answer => {
            println!("{answer}");
            Ok(())
        }
    }
}

/// Serves the control socket with one thread for each client.
fn listen(path: &Path, events: Sender<Event>) -> std::io::Result<()> {
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let events = events.clone();
            std::thread::spawn(move || serve(client, &events));
        }
    });
    Ok(())
}

fn serve(client: UnixStream, events: &Sender<Event>) {
    let Ok(reader) = client.try_clone() else { return };
    for line in BufReader::new(reader).lines().map_while(Result::ok) {
        let Ok(client) = client.try_clone() else { return };
        if events.send(Event::Control(line.trim().to_owned(), client)).is_err() {
            return;
        }
    }
}
