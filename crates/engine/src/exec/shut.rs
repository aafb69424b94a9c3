//! Keeping the data directory shut to programs, with Landlock.
//!
//! Landlock can only allow: what is to stay reachable needs a rule. So each folder on the way down from `/` to the data
//! directory has its other entries allowed, as they are when the program starts, and nothing else is. What is lost are
//! entries that come into those folders later; where nobody but root can make any, a program loses nothing that it had.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use landlock::{
    AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, RulesetStatus,
};
use rustix::fs::{Access, Mode, OFlags};
use selvedge_kernel::config::Landlock;

/// What is to be kept shut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shut {
    /// The data directory.
    pub data: PathBuf,
    /// The folder in it that programs use: their large inputs lie there.
    pub scratch: PathBuf,
    /// Whether it is.
    pub landlock: Landlock,
}

/// Whether programs can get at the data directory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Standing {
    /// They can neither read nor change what is in it.
    Shut,
    /// The same, but what they have the name of they can cut to nothing: Linux before 6.2 does not keep that.
    Truncatable,
    /// They can do what this user can.
    Open(Reason),
}

/// Why a data directory is not shut.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// Programs are started without a shim, and it is the shim that shuts it.
    NoShim,
    /// The configuration says so.
    Never,
    /// A folder on the way to it is one in which this user makes entries: they would be out of reach.
    Writable(PathBuf),
    /// A folder on the way to it cannot be listed, so that its other entries cannot be allowed.
    Unlistable(PathBuf, String),
    /// The kernel has none, or one that cannot do it.
    Kernel(String),
    /// It cannot be found, or is no folder in another one.
    NoFolder(PathBuf, String),
}

impl fmt::Display for Reason {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NoShim => out.write_str("they are started without the shim that would shut it: open it with `Config::shim`"),
            Reason::Never => out.write_str("the configuration says `landlock: never`"),
            Reason::Writable(folder) => write!(
                out,
                "this user makes entries in {}, and they would be out of reach as well: put it where no folder above it is this user's, as /var/lib/selvedge is, \
                 or write `landlock: always` and make none there while programs run",
                folder.display()
            ),
            Reason::Unlistable(folder, error) => {
                write!(out, "{} cannot be listed ({error}), so that what else is in it would be out of reach as well: let this user list it", folder.display())
            }
            Reason::Kernel(error) => {
                write!(out, "this kernel does not do it ({error}): it takes Linux 5.19 or a later one, with `landlock` among its security modules")
            }
            Reason::NoFolder(path, error) => write!(out, "{} cannot be shut: {error}", path.display()),
        }
    }
}

impl Shut {
    /// Whether programs that are started now can get at it. Nothing is restricted by asking.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self.rules() {
            Ok((_, standing)) => standing,
            Err(reason) => Standing::Open(reason),
        }
    }

    /// Shuts it to this thread, what it becomes and what it starts.
    ///
    /// # Errors
    /// With `landlock: always`, when it cannot be done; else only when the kernel refuses what it has offered.
    pub(super) fn enclose(&self) -> io::Result<()> {
        let rules = match self.rules() {
            Ok((rules, _)) => rules,
            Err(reason) if self.landlock == Landlock::Always => {
                return Err(io::Error::other(format!("`landlock: always` cannot keep the data directory shut to it: {reason}")));
            }
            Err(_) => return Ok(()),
        };
        let refused = |why: &dyn fmt::Display| io::Error::other(format!("Landlock does not shut the data directory to it: {why}"));
        match rules.restrict_self() {
            Ok(done) if done.ruleset != RulesetStatus::NotEnforced => Ok(()),
            Ok(_) => Err(refused(&"the kernel took the rules and does not enforce them")),
            Err(error) => Err(refused(&error)),
        }
    }

    fn rules(&self) -> Result<(RulesetCreated, Standing), Reason> {
        if self.landlock == Landlock::Never {
            return Err(Reason::Never);
        }
        let way = Way::to(&self.data)?;
        if self.landlock == Landlock::Auto
            && let Some(folder) = way.folders.iter().skip(1).find(|folder| rustix::fs::access(folder.as_path(), Access::WRITE_OK).is_ok())
        {
            return Err(Reason::Writable(folder.clone()));
        }
        let kernel = |error: RulesetError| Reason::Kernel(error.to_string());
        let (mut rules, standing) = ruleset().map_err(kernel)?;
        for entry in way.beside()? {
            // It may be gone since the folder was listed, and a link allows nothing: what it leads to has its own rule.
            if let Some(fd) = open(&entry) {
                rules = rules.add_rule(PathBeneath::new(fd, handled())).map_err(kernel)?;
            }
        }
        if let Ok(scratch) = self.scratch.canonicalize()
            && scratch.starts_with(&way.data)
            && scratch != way.data
            && let Some(fd) = open(&scratch)
        {
            rules = rules.add_rule(PathBeneath::new(fd, handled())).map_err(kernel)?;
        }
        Ok((rules, standing))
    }

    /// As arguments of the shim.
    pub(super) fn arguments(&self) -> [&OsStr; 3] {
        let word = match self.landlock {
            Landlock::Auto => "auto",
            Landlock::Always => "always",
            Landlock::Never => "never",
        };
        [OsStr::new(word), self.data.as_os_str(), self.scratch.as_os_str()]
    }

    /// What those arguments say.
    pub(super) fn from_arguments([word, data, scratch]: [&OsStr; 3]) -> Option<Shut> {
        let landlock = match word.to_str()? {
            "auto" => Landlock::Auto,
            "always" => Landlock::Always,
            "never" => Landlock::Never,
            _ => return None,
        };
        Some(Shut { data: data.into(), scratch: scratch.into(), landlock })
    }
}

/// The arguments where nothing is to be shut.
pub(super) const OPEN: [&str; 3] = ["never", "-", "-"];

/// The folders that lead to a data directory, from `/` down.
struct Way {
    data: PathBuf,
    folders: Vec<PathBuf>,
}

impl Way {
    fn to(data: &Path) -> Result<Way, Reason> {
        let path = data.canonicalize().map_err(|error| Reason::NoFolder(data.to_owned(), error.to_string()))?;
        let mut folders: Vec<PathBuf> = path.ancestors().skip(1).map(Path::to_path_buf).collect();
        folders.reverse();
        if folders.is_empty() {
            return Err(Reason::NoFolder(path, "it is the root of everything".to_owned()));
        }
        Ok(Way { data: path, folders })
    }

    /// What lies beside the way, in all of its folders.
    fn beside(&self) -> Result<Vec<PathBuf>, Reason> {
        let mut found = Vec::new();
        let below = self.folders.iter().skip(1).chain(std::iter::once(&self.data));
        for (folder, next) in self.folders.iter().zip(below) {
            let unlistable = |error: io::Error| Reason::Unlistable(folder.clone(), error.to_string());
            for entry in std::fs::read_dir(folder).map_err(unlistable)? {
                let path = entry.map_err(unlistable)?.path();
                if path != *next {
                    found.push(path);
                }
            }
        }
        Ok(found)
    }
}

/// A handle that stands for an entry; none for a link, or where it is gone.
fn open(path: &Path) -> Option<OwnedFd> {
    let fd = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let kind = File::from(fd.try_clone().ok()?).metadata().ok()?.file_type();
    (kind.is_dir() || kind.is_file() || kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()).then_some(fd)
}

/// What is forbidden where no rule allows it. Listing a folder and starting a program are not among it: folders on the way
/// down stay as they were, and the names of the log's files tell nothing.
fn handled() -> BitFlags<AccessFs> {
    lasting() | AccessFs::Truncate
}

fn lasting() -> BitFlags<AccessFs> {
    use AccessFs::{MakeBlock, MakeChar, MakeDir, MakeFifo, MakeReg, MakeSock, MakeSym, ReadFile, Refer, RemoveDir, RemoveFile, WriteFile};
    ReadFile | WriteFile | RemoveDir | RemoveFile | MakeChar | MakeDir | MakeReg | MakeSock | MakeFifo | MakeBlock | MakeSym | Refer
}

/// An empty ruleset. `Refer` must be there: without it no program could move a file from one folder into another.
fn ruleset() -> Result<(RulesetCreated, Standing), RulesetError> {
    let all = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(handled()).and_then(Ruleset::create);
    if let Ok(rules) = all {
        return Ok((rules.set_compatibility(CompatLevel::BestEffort), Standing::Shut));
    }
    let rules = Ruleset::default().set_compatibility(CompatLevel::HardRequirement).handle_access(lasting())?.create()?;
    Ok((rules.set_compatibility(CompatLevel::BestEffort), Standing::Truncatable))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    #![allow(clippy::disallowed_methods, reason = "a test has a folder of its own")]
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("selvedge-shut-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(path.join("data/scratch")).unwrap();
        path.canonicalize().unwrap()
    }

    #[test]
    fn what_lies_beside_the_way_is_all_but_the_way_itself() {
        let folder = folder("beside");
        std::fs::write(folder.join("program.py"), "").unwrap();
        std::fs::create_dir(folder.join("inputs")).unwrap();
        std::os::unix::fs::symlink(folder.join("data"), folder.join("also")).unwrap();
        let way = Way::to(&folder.join("also")).unwrap();
        assert_eq!(way.data, folder.join("data"), "a link is followed to what it means");
        let beside = way.beside().unwrap();
        for name in ["program.py", "inputs"] {
            assert!(beside.contains(&folder.join(name)), "{beside:?}");
        }
        for folder in way.folders.iter().chain([&way.data]) {
            assert!(!beside.contains(folder), "{beside:?}");
        }
        assert!(open(&folder.join("also")).is_none(), "a link to the data directory allows nothing");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_above_it_in_which_this_user_makes_entries_leaves_it_open_and_is_named() {
        let folder = folder("writable");
        let shut = Shut { data: folder.join("data"), scratch: folder.join("data/scratch"), landlock: Landlock::Auto };
        let Standing::Open(reason @ Reason::Writable(_)) = shut.standing() else { panic!("{:?}", shut.standing()) };
        assert!(reason.to_string().contains("as /var/lib/selvedge is, or write `landlock: always`"), "{reason}");
        assert_eq!(Shut { landlock: Landlock::Never, ..shut.clone() }.standing(), Standing::Open(Reason::Never));
        let missing = Shut { data: folder.join("gone"), ..shut }.standing();
        assert!(matches!(&missing, Standing::Open(Reason::NoFolder(path, _)) if path.ends_with("gone")), "{missing:?}");
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn the_arguments_of_the_shim_say_what_was_given_to_them() {
        for landlock in [Landlock::Auto, Landlock::Always, Landlock::Never] {
            let shut = Shut { data: "/a b/data".into(), scratch: "/a b/data/scratch".into(), landlock };
            assert_eq!(Shut::from_arguments(shut.arguments()), Some(shut));
        }
        assert_eq!(Shut::from_arguments(OPEN.map(OsStr::new)).unwrap().standing(), Standing::Open(Reason::Never));
        assert_eq!(Shut::from_arguments(["perhaps", "/", "/"].map(OsStr::new)), None);
    }
}
