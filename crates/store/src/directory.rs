//! The data directory: `meta` (what store this is), `lock` (who has it), `log/`, `tree/`.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use selvedge_kernel::time::Millis;

use crate::disk::Disk;
use crate::error::OpenError;

/// The format that this version writes.
pub const FORMAT: u32 = 1;
/// Stands in a directory while an import writes it.
pub const INCOMPLETE: &str = "import-is-incomplete";
const RANDOM: &str = "/dev/urandom";
const MAGIC_WORD: &str = "selvedge-store";

/// What `meta` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Meta {
    /// Format of everything in the directory.
    pub format: u32,
    /// Random, drawn when the directory was made; stands in each group of the log.
    pub store: [u8; 16],
    /// Shards; never changes.
    pub shards: u16,
    /// When it was made.
    pub created: Millis,
}

/// A data directory that this process has locked.
pub struct Directory {
    /// Where.
    pub path: PathBuf,
    /// What it is.
    pub meta: Meta,
    /// Held locked as long as the store is open; a directory that is only looked at may have none.
    pub lock: Option<File>,
}

impl Directory {
    /// Where the segments lie.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.path.join("log")
    }

    /// Where fjall's files lie.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }
}

/// Locks a data directory, and makes it if there is none.
pub fn open(path: &Path, command: &str, shards: u16, disk: &Disk) -> Result<Directory, OpenError> {
    let meta_path = path.join("meta");
    refuse_incomplete(path)?;
    if !path.exists() {
        std::fs::create_dir_all(path).map_err(OpenError::io("cannot create the data directory", path))?;
    }
    if !meta_path.exists() {
        refuse_foreign(path)?;
    }
    let lock = lock(path, command)?;
    let meta = if meta_path.exists() { read_meta(path)? } else { make(path, shards, disk)? };
    for name in ["log", "tree"] {
        let folder = path.join(name);
        if !folder.exists() {
            std::fs::create_dir(&folder).map_err(OpenError::io("cannot create", &folder))?;
            disk.sync_directory(path).map_err(OpenError::io("cannot sync the directory", path))?;
        }
    }
    Ok(Directory { path: path.to_owned(), meta, lock: Some(lock) })
}

/// Locks a data directory to look at it, which needs no write: the medium may be full, or mounted to be read only.
pub fn look(path: &Path, command: &str) -> Result<Directory, OpenError> {
    refuse_incomplete(path)?;
    let meta = read_meta(path)?;
    let file = path.join("lock");
    let lock = match OpenOptions::new().read(true).write(true).open(&file) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(_) => Some(File::open(&file).map_err(OpenError::io("cannot open", &file))?),
    };
    if let Some(mut lock) = lock {
        take(path, &mut lock)?;
        // A second opener is told who has it, if that can be written.
        sign(&mut lock, command).unwrap_or(());
        return Ok(Directory { path: path.to_owned(), meta, lock: Some(lock) });
    }
    Ok(Directory { path: path.to_owned(), meta, lock: None })
}

/// What `meta` in a directory says.
pub fn read_meta(path: &Path) -> Result<Meta, OpenError> {
    let file = path.join("meta");
    let text = std::fs::read(&file).map_err(OpenError::io("cannot read", &file))?;
    let foreign = |reason: &str| OpenError::Foreign { path: path.to_owned(), reason: reason.to_owned() };
    let text = String::from_utf8(text).map_err(|_| foreign("its `meta` is not text"))?;
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let format = field(MAGIC_WORD).ok_or_else(|| foreign("its `meta` does not begin with `selvedge-store`"))?;
    let format: u32 = format.parse().map_err(|_| foreign("the format in its `meta` is no number"))?;
    if format > FORMAT {
        return Err(OpenError::Newer { path: path.to_owned(), found: format, known: FORMAT });
    }
    let damaged = |name: &str| OpenError::Damaged { file: file.clone(), offset: 0, reason: format!("the line `{name}` is missing or unreadable") };
    Ok(Meta {
        format,
        store: field("id").and_then(unhex).ok_or_else(|| damaged("id"))?,
        shards: field("shards").and_then(|text| text.parse().ok()).filter(|&n| n > 0).ok_or_else(|| damaged("shards"))?,
        created: Millis(field("created_ms").and_then(|text| text.parse().ok()).ok_or_else(|| damaged("created_ms"))?),
    })
}

/// Writes the `meta` of a new store, with an id of its own: from then on the directory is a store.
pub fn make(path: &Path, shards: u16, disk: &Disk) -> Result<Meta, OpenError> {
    let meta = Meta { format: FORMAT, store: random_bytes().map_err(OpenError::io("cannot read", RANDOM))?, shards, created: now() };
    let text = format!(
        "{MAGIC_WORD} {}\nid {}\nshards {}\ncreated_ms {}\n",
        meta.format,
        meta.store.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        meta.shards,
        meta.created.0
    );
    let file = path.join("meta");
    disk.replace(&file, text.as_bytes()).map_err(OpenError::io("cannot write", &file))?;
    if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        disk.sync_directory(parent).map_err(OpenError::io("cannot sync the directory", parent))?;
    }
    Ok(meta)
}

/// Refuses what an import that was interrupted has left.
pub fn refuse_incomplete(path: &Path) -> Result<(), OpenError> {
    match std::fs::read_to_string(path.join(INCOMPLETE)) {
        Ok(note) => Err(OpenError::Incomplete { path: path.to_owned(), note: note.trim().to_owned() }),
        Err(_) => Ok(()),
    }
}

/// A directory without `meta` is ours only if nothing stands in it but what an interrupted first start leaves.
fn refuse_foreign(path: &Path) -> Result<(), OpenError> {
    let entries = std::fs::read_dir(path).map_err(OpenError::io("cannot read the directory", path))?;
    for entry in entries {
        let name = entry.map_err(OpenError::io("cannot read the directory", path))?.file_name();
        if !["lock", "meta.tmp", "control.sock"].iter().any(|ours| name == **ours) {
            let reason = format!("it has no `meta`, but `{}`", name.to_string_lossy());
            return Err(OpenError::Foreign { path: path.to_owned(), reason });
        }
    }
    Ok(())
}

/// Locks a directory.
pub fn lock(path: &Path, command: &str) -> Result<File, OpenError> {
    let file_path = path.join("lock");
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&file_path);
    let mut file = options.map_err(OpenError::io("cannot open", &file_path))?;
    take(path, &mut file)?;
    sign(&mut file, command).map_err(OpenError::io("cannot write", &file_path))?;
    Ok(file)
}

/// How long the lock of a process that is gone may still be held: by a child of it that has not become a program yet.
const AFTERLIFE: Duration = Duration::from_secs(2);

fn take(path: &Path, file: &mut File) -> Result<(), OpenError> {
    let start = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.rewind().and_then(|()| file.read_to_string(&mut text)).unwrap_or(0);
                let field = |name: &str| {
                    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
                    line.unwrap_or("unknown").to_owned()
                };
                let (pid, since, command) = (field("pid"), field("since"), field("command"));
                let lives = Path::new("/proc").join(&pid).exists();
                if lives || start.elapsed() > AFTERLIFE {
                    return Err(OpenError::Held { path: path.to_owned(), pid, since, command });
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(TryLockError::Error(source)) => return Err(OpenError::Io { doing: "cannot lock", path: path.join("lock"), source }),
        }
    }
}

fn sign(file: &mut File, command: &str) -> io::Result<()> {
    let command = command.replace('\n', " ");
    let text = format!("pid {}\nsince {}\ncommand {command}\n", std::process::id(), now());
    file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(text.as_bytes()))
}

fn now() -> Millis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Millis(0).after(since)
}

/// Random bytes of the operating system.
pub fn random_bytes() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    File::open(RANDOM).and_then(|mut file| file.read_exact(&mut bytes))?;
    Ok(bytes)
}

fn unhex(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).ok()?;
    }
    Some(bytes)
}
