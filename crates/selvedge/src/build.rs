//! What names the code that runs here: the build id of this binary, or the content of a script.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use selvedge_kernel::record::build::Build;
use selvedge_kernel::time::Millis;

/// So many bytes of notes are read; a build id has some twenty.
const NOTES_BYTES: usize = 64 * 1024;
/// So many program headers of a binary are looked at.
const HEADERS: u64 = 64;
/// The kind of a program header that leads to notes.
const NOTES: u32 = 4;
/// The kind of a note that is a build id; its owner is `GNU`.
const BUILD_ID: u32 = 3;

/// The build of this binary: what its linker named it, else its content. None if it cannot be read.
pub(crate) fn of_this_binary() -> Option<Build> {
    // The file that runs, also when another one lies in its place by now.
    let file = File::open("/proc/self/exe").or_else(|_| std::env::current_exe().and_then(File::open)).ok()?;
    if let Some(build) = build_id(|at, into| file.read_exact_at(into, at)) {
        return Some(build);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(&file).ok()?;
    Build::of_id(hasher.finalize().as_bytes())
}

/// This binary in a sentence: what is blocked for want of code names the binary that lacks it, which may be another one than was
/// deployed.
pub(crate) fn sentence() -> String {
    let version = env!("CARGO_PKG_VERSION");
    let binary = std::env::current_exe().map_or_else(|_| "not known".to_owned(), |file| file.display().to_string());
    let built = std::fs::metadata(&binary).and_then(|of| of.modified()).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    let built = built.map(|at| format!(", written {}", Millis(0).after(at))).unwrap_or_default();
    format!("This binary is {binary} (selvedge {version}{built}).")
}

/// The build of a program: its command, and the content of the files in its folder that the command names. None if one of
/// them cannot be read.
pub(crate) fn of_program(command: &[String], folder: &Path) -> Option<Build> {
    let mut hasher = blake3::Hasher::new();
    for word in command {
        hasher.update(&(word.len() as u64).to_le_bytes());
        hasher.update(word.as_bytes());
        let file = folder.join(word);
        if file.starts_with(folder) && file.is_file() {
            hasher.update_reader(File::open(file).ok()?).ok()?;
        }
    }
    Build::of_id(hasher.finalize().as_bytes())
}

/// The build id in the notes of a 64-bit little-endian ELF file (System V ABI, "Program Header" and "Note Section").
fn build_id(read_at: impl Fn(u64, &mut [u8]) -> io::Result<()>) -> Option<Build> {
    let mut head = [0; 64];
    read_at(0, &mut head).ok()?;
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (first, size, count) = (u64_at(&head, 32)?, u64::from(u16_at(&head, 54)?), u64::from(u16_at(&head, 56)?));
    for n in 0..count.min(HEADERS) {
        let mut header = [0; 56];
        read_at(first.checked_add(n * size)?, &mut header).ok()?;
        if u32_at(&header, 0)? != NOTES {
            continue;
        }
        let (at, len, align) = (u64_at(&header, 8)?, u64_at(&header, 32)?, u64_at(&header, 48)?);
        let mut notes = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(NOTES_BYTES)];
        read_at(at, &mut notes).ok()?;
        if let Some(build) = note_of(&notes, if align == 8 { 8 } else { 4 }) {
            return Some(build);
        }
    }
    None
}

fn note_of(mut notes: &[u8], align: usize) -> Option<Build> {
    loop {
        let (name_len, len, kind) = (u32_at(notes, 0)? as usize, u32_at(notes, 4)? as usize, u32_at(notes, 8)?);
        let name = notes.get(12..)?.get(..name_len)?;
        let at = (12 + name_len).next_multiple_of(align);
        let said = notes.get(at..)?.get(..len)?;
        if kind == BUILD_ID && name == b"GNU\0" {
            return Build::of_id(said);
        }
        notes = notes.get((at + len).next_multiple_of(align)..)?;
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn read(bytes: &[u8]) -> Option<Build> {
        build_id(|at, into| {
            let from = usize::try_from(at).unwrap_or(usize::MAX);
            let end = from.checked_add(into.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
            into.copy_from_slice(bytes.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        })
    }

    /// A binary with one note before its build id, as a linker lays them.
    fn binary(id: &[u8; 20]) -> Vec<u8> {
        let mut file = vec![0; 120];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[32..40].copy_from_slice(&64u64.to_le_bytes());
        file[54..56].copy_from_slice(&56u16.to_le_bytes());
        file[56..58].copy_from_slice(&1u16.to_le_bytes());
        let note = |kind: u32, said: &[u8]| [&4u32.to_le_bytes(), &(said.len() as u32).to_le_bytes(), &kind.to_le_bytes(), &b"GNU\0"[..], said].concat();
        let notes = [note(1, &[0; 16]), note(BUILD_ID, id)].concat();
        file[64..68].copy_from_slice(&NOTES.to_le_bytes());
        file[72..80].copy_from_slice(&120u64.to_le_bytes());
        file[96..104].copy_from_slice(&(notes.len() as u64).to_le_bytes());
        file[112..120].copy_from_slice(&4u64.to_le_bytes());
        file.extend(notes);
        file
    }

    #[test]
    fn build_id_of_a_binary_is_the_one_its_linker_wrote() {
        let id: [u8; 20] = std::array::from_fn(|n| n as u8 + 1);
        assert_eq!(read(&binary(&id)), Some(Build([1, 2, 3, 4, 5, 6, 7, 8])));
        assert!(of_this_binary().is_some());
    }

    #[test]
    fn program_is_another_build_when_a_file_that_its_command_names_changes_and_no_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let command = ["python3".to_owned(), "count.py".to_owned()];
        std::fs::write(folder.path().join("count.py"), "one").unwrap();
        let before = of_program(&command, folder.path());
        assert!(before.is_some());
        std::fs::write(folder.path().join("other.py"), "one").unwrap();
        assert_eq!(of_program(&command, folder.path()), before);
        std::fs::write(folder.path().join("count.py"), "two").unwrap();
        assert_ne!(of_program(&command, folder.path()), before);
    }

    proptest! {
        #[test]
        fn any_file_is_a_binary_with_a_build_id_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..200, cut in 0usize..200) {
            let mut whole = binary(&[9; 20]);
            for (n, byte) in bytes.iter().enumerate() {
                if let Some(slot) = whole.get_mut(at + n) {
                    *slot = *byte;
                }
            }
            whole.truncate(cut.max(at));
            let _ = (read(&whole), read(&bytes), note_of(&bytes, 4), note_of(&bytes, 8));
        }
    }
}
