//! The file of a backup: every row of every shard at one position of the log, with a checksum a record and a hash over all.
//!
//! ```text
//! head    selvedge-backup 1\n · store u128 · group u64 · shards u16 · for each: epoch u64 · last u64
//! record  length u32 of what follows the checksum · CRC-64/NVME u64 · shard u16 · expires u32 (0xffffffff: never) · key u16 (bytes) · key · value
//! end     0xffffffff u32 · records u64 · BLAKE3 of everything before it
//! ```
//! The head is a record too: its length and checksum stand behind its first line. All numbers are little endian.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use bytes::{BufMut, Bytes};
use crc_fast::{CrcAlgorithm, checksum};
use selvedge_kernel::id::{Key, ShardId};
use selvedge_kernel::ports::Epoch;
use selvedge_kernel::time::Day;

const MAGIC_LINE: &[u8] = b"selvedge-backup 1\n";
const END: u32 = u32::MAX;
const NEVER: u32 = u32::MAX;
/// No record is longer: a value is at most a commit, or a folded row and one pair.
const RECORD_MAX_BYTES: u32 = 64 << 20;

/// What stands at the front.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Head {
    /// The id of the store that it was taken of.
    pub store: [u8; 16],
    /// The last group that is in it.
    pub group: u64,
    /// Epoch and last number of each shard.
    pub shards: Vec<(Epoch, u64)>,
}

/// One row.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Whose.
    pub shard: ShardId,
    /// Where.
    pub key: Key,
    /// What.
    pub value: Bytes,
    /// The day on which it may vanish.
    pub expires: Option<Day>,
}

/// Why a file of a backup can not be read.
#[derive(Debug)]
pub enum Unreadable {
    /// What the operating system says.
    Io(io::Error),
    /// At this byte it is not what was written.
    Damaged(u64, String),
}

impl From<io::Error> for Unreadable {
    fn from(error: io::Error) -> Unreadable {
        Unreadable::Io(error)
    }
}

/// A file that is being written.
pub struct Writer {
    out: BufWriter<File>,
    hash: blake3::Hasher,
    records: u64,
    bytes: u64,
}

impl Writer {
    /// Makes the file, which must not exist.
    pub fn create(path: &Path, head: &Head) -> io::Result<Writer> {
        let mut writer = Writer { out: BufWriter::new(File::create_new(path)?), hash: blake3::Hasher::new(), records: 0, bytes: 0 };
        writer.write(MAGIC_LINE)?;
        let mut body = Vec::new();
        body.put_slice(&head.store);
        body.put_u64_le(head.group);
        body.put_u16_le(head.shards.len() as u16);
        for (epoch, last) in &head.shards {
            body.put_u64_le(epoch.0);
            body.put_u64_le(*last);
        }
        writer.framed(&body)?;
        Ok(writer)
    }

    /// Adds a row.
    pub fn add(&mut self, record: &Record) -> io::Result<()> {
        let mut body = Vec::with_capacity(8 + record.key.len() + record.value.len());
        body.put_u16_le(record.shard.0);
        body.put_u32_le(record.expires.map_or(NEVER, |day| day.0));
        body.put_u16_le(record.key.len() as u16);
        body.put_slice(&record.key);
        body.put_slice(&record.value);
        self.records += 1;
        self.framed(&body)
    }

    /// Rows and bytes up to here.
    #[must_use]
    pub fn written(&self) -> (u64, u64) {
        (self.records, self.bytes)
    }

    /// Writes the end, and makes the file durable.
    pub fn finish(mut self) -> io::Result<(u64, u64)> {
        let mut end = Vec::new();
        end.put_u32_le(END);
        end.put_u64_le(self.records);
        self.write(&end)?;
        let hash = *self.hash.finalize().as_bytes();
        self.write(&hash)?;
        let written = self.written();
        self.out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        Ok(written)
    }

    fn framed(&mut self, body: &[u8]) -> io::Result<()> {
        let mut front = Vec::with_capacity(12);
        front.put_u32_le(body.len() as u32);
        front.put_u64_le(checksum(CrcAlgorithm::Crc64Nvme, body));
        self.write(&front)?;
        self.write(body)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// A file that is being read.
pub struct Reader {
    input: BufReader<File>,
    hash: blake3::Hasher,
    records: u64,
    at: u64,
}

impl Reader {
    /// Opens the file and reads its head.
    pub fn open(path: &Path) -> Result<(Reader, Head), Unreadable> {
        let mut reader = Reader { input: BufReader::new(File::open(path)?), hash: blake3::Hasher::new(), records: 0, at: 0 };
        let mut line = vec![0; MAGIC_LINE.len()];
        reader.read(&mut line)?;
        if line != MAGIC_LINE {
            return Err(Unreadable::Damaged(0, "it does not begin with `selvedge-backup 1`: it is no backup, or one of a newer version".to_owned()));
        }
        let body = reader.framed()?.ok_or_else(|| Unreadable::Damaged(0, "it has no head".to_owned()))?;
        let head = decode_head(&body).ok_or_else(|| Unreadable::Damaged(0, "its head is unreadable".to_owned()))?;
        Ok((reader, head))
    }

    /// The next row; `None` at the end, once count and hash were found to be right.
    pub fn next(&mut self) -> Result<Option<Record>, Unreadable> {
        let at = self.at;
        let Some(body) = self.framed()? else { return Ok(None) };
        self.records += 1;
        decode_record(&Bytes::from(body)).map(Some).ok_or_else(|| Unreadable::Damaged(at, "a row is unreadable although its checksum fits".to_owned()))
    }

    /// Bytes up to here.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.at
    }

    fn framed(&mut self) -> Result<Option<Vec<u8>>, Unreadable> {
        let at = self.at;
        let length = u32::from_le_bytes(self.array()?);
        if length == END {
            return self.end(at).map(|()| None);
        }
        if length > RECORD_MAX_BYTES {
            return Err(Unreadable::Damaged(at, "a length is impossible".to_owned()));
        }
        let sum = u64::from_le_bytes(self.array()?);
        let mut body = vec![0; length as usize];
        self.read(&mut body)?;
        if checksum(CrcAlgorithm::Crc64Nvme, &body) != sum {
            return Err(Unreadable::Damaged(at, "a checksum does not fit".to_owned()));
        }
        Ok(Some(body))
    }

    fn end(&mut self, at: u64) -> Result<(), Unreadable> {
        let records = u64::from_le_bytes(self.array()?);
        let hash = *self.hash.finalize().as_bytes();
        let found: [u8; 32] = self.array()?;
        if found != hash || records != self.records {
            return Err(Unreadable::Damaged(at, "count or hash at the end do not fit what stands before it".to_owned()));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(Unreadable::Damaged(self.at, "something stands behind the end".to_owned()));
        }
        Ok(())
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let mut bytes = [0; N];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&mut self, into: &mut [u8]) -> Result<(), Unreadable> {
        match self.input.read_exact(into) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(Unreadable::Damaged(self.at, "it ends too early: it was not written to its end, or was cut".to_owned()));
            }
            Err(error) => return Err(error.into()),
        }
        self.hash.update(into);
        self.at += into.len() as u64;
        Ok(())
    }
}

fn decode_head(body: &[u8]) -> Option<Head> {
    let (store, rest) = body.split_first_chunk::<16>()?;
    let (group, rest) = rest.split_first_chunk::<8>()?;
    let (count, rest) = rest.split_first_chunk::<2>()?;
    let (shards, rest) = rest.as_chunks::<16>();
    let shards: Vec<_> = shards.iter().map(|shard| u128::from_le_bytes(*shard)).map(|shard| (Epoch(shard as u64), (shard >> 64) as u64)).collect();
    let whole = rest.is_empty() && shards.len() == usize::from(u16::from_le_bytes(*count)) && !shards.is_empty();
    whole.then(|| Head { store: *store, group: u64::from_le_bytes(*group), shards })
}

fn decode_record(body: &Bytes) -> Option<Record> {
    let shard = ShardId(u16::from_le_bytes(body.get(..2)?.try_into().ok()?));
    let expires = u32::from_le_bytes(body.get(2..6)?.try_into().ok()?);
    let key = usize::from(u16::from_le_bytes(body.get(6..8)?.try_into().ok()?));
    body.get(8..8 + key)?;
    Some(Record { shard, key: body.slice(8..8 + key), value: body.slice(8 + key..), expires: (expires != NEVER).then_some(Day(expires)) })
}
