# A package for nixpkgs. In a checkout, first run `packaging/fill`, which replaces the placeholders. Add the package to
# `services.udev.packages` and to `systemd.packages`. NixOS ignores `*.wants` links from packages:
#
#   systemd.services.wwan-quirks-sleep.wantedBy = [ "sleep.target" ];
#   systemd.services.wwan-quirks-resume.wantedBy =
#     [ "suspend.target" "hibernate.target" "hybrid-sleep.target" "suspend-then-hibernate.target" ];
{ lib, rustPlatform, pkg-config, libusb1 }:

rustPlatform.buildRustPackage {
  pname = "wwan-quirks";
  version = "0.1.0";

  # Cargo's directory is not part of the source.
  src = lib.cleanSourceWith {
    src = lib.cleanSource ../..;
    filter = path: _: path != toString ../../target;
  };
  cargoLock.lockFile = ../../Cargo.lock;

  nativeBuildInputs = [ pkg-config ];
  buildInputs = [ libusb1 ];

  # The Makefile builds the program, and installs udev rules and units with paths in the store.
  dontCargoBuild = true;
  dontCargoInstall = true;
  buildFlags = [ "build" ];
  # A build cannot write to /etc.
  installTargets = [
    "install-program"
    "install-udev"
    "install-systemd"
    "install-modemmanager"
    "install-pages"
  ];
  installFlags = [
    "PREFIX=${placeholder "out"}"
    "SBINDIR=${placeholder "out"}/bin"
  ];
  # CI runs the tests. `make unit` runs those that need no virtual machine.
  doCheck = false;

  meta = {
    description = "Make WWAN modems on USB and PCI work when they are plugged in";
    homepage = "@HOMEPAGE@";
    license = lib.licenses.mit;
    mainProgram = "wwan-quirks";
    platforms = lib.platforms.linux;
  };
}
