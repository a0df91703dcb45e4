//! Where the program and its data are installed, and whether systemd runs.
//!
//! The program derives the path of its data from its own path, so that one build works with every prefix:
//! `/usr/local/sbin/wwan-quirks` reads `/usr/local/share/wwan-quirks`. `make install` creates a link there if `DATADIR`
//! is another directory.

use std::env;
use std::path::{Path, PathBuf};

use crate::host::root::Root;

/// Used if the running program is not installed, for example in a build tree.
const PROGRAM: &str = "/usr/sbin/wwan-quirks";
/// Where the program may be installed in a root other than the one that it runs from.
const PROGRAMS: [&str; 2] = [PROGRAM, "/usr/local/sbin/wwan-quirks"];
const DATA: &str = "/usr/share/wwan-quirks";

/// The path of the installed program, for udev rules.
pub(crate) fn program(root: &Root) -> PathBuf {
    in_root(root).map_or_else(|| PROGRAM.into(), |(program, _)| program)
}

/// The directory of the shipped database and policy.
pub(crate) fn data(root: &Root) -> PathBuf {
    in_root(root).map_or_else(|| DATA.into(), |(_, data)| data)
}

/// Whether systemd runs, as sd_booted(3) determines it.
pub(crate) fn has_systemd(root: &Root) -> bool {
    root.at("/run/systemd/system").is_dir()
}

/// The paths of the program and of its data, if both are installed below `root`. The running program comes first.
fn in_root(root: &Root) -> Option<(PathBuf, PathBuf)> {
    let mut programs = env::current_exe().into_iter().chain(PROGRAMS.map(PathBuf::from));
    programs.find_map(|program| installed(root, &program))
}

fn installed(root: &Root, program: &Path) -> Option<(PathBuf, PathBuf)> {
    let top = root.at("/").canonicalize().ok()?;
    let inside = |path: &Path| path.strip_prefix(&top).ok().map(|path| Path::new("/").join(path));
    // A program outside of the root may be installed at the same path inside the root.
    let program = inside(program).unwrap_or_else(|| program.to_owned());
    let prefix = match program.parent()?.parent()? {
        // `/sbin` belongs to the prefix `/usr`.
        prefix if prefix == Path::new("/") => Path::new("/usr"),
        prefix => prefix,
    };
    let data = root.at(prefix.join("share/wwan-quirks")).canonicalize().ok()?;
    root.at(&program).is_file().then_some((program, inside(&data)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::root::tests::TempRoot;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_root_may_have_the_program_in_usr_local() {
        let root = TempRoot::new("local");
        let (installed, shipped) = ("/usr/local/sbin/wwan-quirks", "/usr/local/share/wwan-quirks");
        fs::create_dir_all(root.at(shipped)).unwrap();
        let without_program = data(&root);
        fs::create_dir_all(root.at("/usr/local/sbin")).unwrap();
        fs::write(root.at(installed), "").unwrap();
        let found = (program(&root), data(&root));
        assert_eq!((without_program, found), (DATA.into(), (installed.into(), shipped.into())));
    }

    #[test]
    fn the_data_is_beside_the_folder_of_the_program() {
        let root = TempRoot::new("paths");
        let found = |program: &str| installed(&root, Path::new(program));
        let both = |program: &str, data: &str| Some((PathBuf::from(program), PathBuf::from(data)));
        for (program, data) in [
            ("/usr/sbin/wwan-quirks", "/usr/share/wwan-quirks"),
            ("/usr/local/bin/wwan-quirks", "/usr/local/share/wwan-quirks"),
            ("/sbin/wwan-quirks", "/usr/share/wwan-quirks"),
        ] {
            assert_eq!(found(program), None);
            fs::create_dir_all(root.at(program).parent().unwrap()).unwrap();
            fs::write(root.at(program), "").unwrap();
            fs::create_dir_all(root.at(data)).unwrap();
            assert_eq!(found(program), both(program, data));
            // The path of a program inside another root is relative to that root.
            assert_eq!(found(root.at(program).to_str().unwrap()), both(program, data));
        }
        let data = root.at("/usr/local/share/wwan-quirks");
        fs::remove_dir(&data).unwrap();
        assert_eq!(found("/usr/local/bin/wwan-quirks"), None);
        // A link to the data is followed, but not to a place outside of the root.
        fs::create_dir_all(root.at("/srv/data")).unwrap();
        symlink("../../../srv/data", &data).unwrap();
        assert_eq!(found("/usr/local/bin/wwan-quirks"), both("/usr/local/bin/wwan-quirks", "/srv/data"));
        fs::remove_file(&data).unwrap();
        symlink("/", &data).unwrap();
        assert_eq!(found("/usr/local/bin/wwan-quirks"), None);
        assert_eq!(found("/target/release/wwan-quirks"), None);
    }
}
