//! The journal: what the agent accepted, began and finished, on disk before it acts.
//!
//! One append-only file. A record is `length (4 bytes, little endian) | checksum (8 bytes) | JSON`. A record that a
//! crash cut is dropped when the file is opened; it was never acted upon, because an act waits for the fsync.
//!
//! Beside it lies a reserve of [`RESERVE_BYTES`], given up when the disk is full: what an attempt that met the full disk
//! has to say can still be written down, and so be told.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use shiplock_api::agent::{Assignment, AssignmentId, Report};
use shiplock_core::id::Generation;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::size::readable_bytes;

use crate::files::is_full;

/// One entry of the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A generation was seen; lower ones are refused from now on.
    Fenced {
        /// The generation.
        generation: Generation,
    },
    /// An assignment was accepted: the intent of everything that follows.
    Accepted {
        /// The assignment.
        assignment: Box<Assignment>,
        /// The boot in which it was.
        boot_id: String,
    },
    /// The attempt in work goes on under a higher epoch.
    Adopted {
        /// Its new id.
        id: AssignmentId,
    },
    /// A permit was granted and an acting phase is about to begin.
    PhaseBegan {
        /// The attempt.
        id: AssignmentId,
        /// The phase.
        phase: String,
    },
    /// What was put in place did not come up; the old is about to be put back.
    RollBackBegan {
        /// The attempt.
        id: AssignmentId,
        /// Why.
        problem: Problem,
    },
    /// The attempt ended; the report is repeated until it is taken.
    Finished {
        /// The report.
        report: Box<Report>,
    },
    /// The server took the report, or does not want it.
    Settled {
        /// The attempt.
        id: AssignmentId,
    },
    /// The attempt was given up before its next phase, without a report.
    Dropped {
        /// The attempt.
        id: AssignmentId,
    },
}

/// Where records go. An error ends the agent: what cannot be written down is not done.
pub trait RecordLog {
    /// Appends a record and returns when it is on disk.
    fn append(&mut self, record: &Record) -> io::Result<()>;

    /// Whether there is room for all that a new attempt has to say. The problem is without its subject, the node.
    fn room(&self) -> Result<(), Problem> {
        Ok(())
    }
}

/// The journal's file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    length_bytes: u64,
    reserve: PathBuf,
}

/// A longer record is damage, not data: logs in a report are bounded far below it.
const RECORD_BYTES_MAX: u32 = 4 << 20;
const HEADER_BYTES: usize = 12;
/// A journal that is longer is written anew when it is opened.
const COMPACT_ABOVE_BYTES: u64 = 256 << 10;
/// Room for any record, and for hundreds of usual ones.
const RESERVE_BYTES: u64 = RECORD_BYTES_MAX as u64;

impl Journal {
    /// Opens or makes the journal, drops a torn tail, and returns what it holds.
    ///
    /// `essence` gives the records that must stay when a long journal is written anew.
    pub fn open(path: &Path, essence: impl Fn(Vec<Record>) -> Vec<Record>) -> io::Result<(Self, Vec<Record>)> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Ok(mut file) => {
                file.read_to_end(&mut bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (records, whole) = read_records(&bytes);
        if bytes.len() as u64 > COMPACT_ABOVE_BYTES {
            let records = essence(records);
            return Ok((Self::rewritten(path, &records)?, records));
        }
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
        }
        file.sync_all()?;
        sync_folder(path)?;
        let journal = Self { file, length_bytes: whole as u64, reserve: reserve_of(path) };
        // Asked for again before an attempt is taken on.
        let _ = journal.keep_reserve();
        Ok((journal, records))
    }

    fn rewritten(path: &Path, records: &[Record]) -> io::Result<Self> {
        let beside: PathBuf = path.with_extension("new");
        let mut journal = Self { file: File::create(&beside)?, length_bytes: 0, reserve: reserve_of(path) };
        for record in records {
            journal.append(record)?;
        }
        journal.file.sync_all()?;
        fs::rename(&beside, path)?;
        sync_folder(path)?;
        let _ = journal.keep_reserve();
        Ok(Self { file: OpenOptions::new().append(true).open(path)?, ..journal })
    }

    /// Sets the reserve aside, as far as it is not.
    fn keep_reserve(&self) -> io::Result<()> {
        let file = OpenOptions::new().create(true).append(true).open(&self.reserve)?;
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES).map_err(|error| {
            // A part of it would only take what is left to others.
            let _ = fs::remove_file(&self.reserve);
            error.into()
        })
    }
}

fn reserve_of(journal: &Path) -> PathBuf {
    journal.with_extension("reserve")
}

/// Writes; where the disk is full, makes room and writes once more.
fn write_with_reserve(
    write: impl Fn() -> io::Result<()>,
    make_room: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    match write() {
        Err(error) if is_full(&error) => {
            make_room().map_err(|_| error)?;
            write()
        }
        result => result,
    }
}

impl RecordLog for Journal {
    fn append(&mut self, record: &Record) -> io::Result<()> {
        let bytes = encoded(record)?;
        let write = || {
            (&self.file).write_all(&bytes)?;
            self.file.sync_data()
        };
        let make_room = || {
            self.file.set_len(self.length_bytes)?;
            fs::remove_file(&self.reserve)
        };
        write_with_reserve(write, make_room)?;
        self.length_bytes += bytes.len() as u64;
        Ok(())
    }

    /// A file system that cannot set room aside is not full for that.
    fn room(&self) -> Result<(), Problem> {
        match self.keep_reserve() {
            Err(error) if is_full(&error) => {
                let free = rustix::fs::statvfs(&self.reserve).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
                Err(Problem::new(Code::DiskFull)
                    .with("path", self.reserve.display())
                    .with("free", readable_bytes(free))
                    .with("needed", readable_bytes(RESERVE_BYTES))
                    .because(&error))
            }
            _ => Ok(()),
        }
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn checksum(payload: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(payload);
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

/// A record as its bytes stand in the file.
pub fn encoded(record: &Record) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(record)?;
    let length = u32::try_from(payload.len()).ok().filter(|length| *length <= RECORD_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("a record is too long for the journal"))?;
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&checksum(&payload));
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// The records up to the first that is torn or damaged, and how many bytes they take.
pub fn read_records(bytes: &[u8]) -> (Vec<Record>, usize) {
    let mut records = Vec::new();
    let mut at = 0;
    while let Some((record, length)) = read_record(&bytes[at..]) {
        records.push(record);
        at += length;
    }
    (records, at)
}

fn read_record(bytes: &[u8]) -> Option<(Record, usize)> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let length = u32::from_le_bytes(header[..4].try_into().ok()?);
    if length > RECORD_BYTES_MAX {
        return None;
    }
    let payload = rest.get(..length as usize)?;
    if checksum(payload) != header[4..] {
        return None;
    }
    Some((serde_json::from_slice(payload).ok()?, HEADER_BYTES + payload.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use shiplock_core::id::Epoch;

    fn fenced(intent: u64) -> Record {
        Record::Fenced { generation: Generation { epoch: Epoch(7), intent } }
    }

    #[test]
    fn a_journal_that_was_cut_at_any_byte_gives_the_whole_records_before_and_takes_new_ones() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let whole: Vec<u8> = (0..3).flat_map(|intent| encoded(&fenced(intent)).unwrap()).collect();
        let one = encoded(&fenced(0)).unwrap().len();
        for cut in 0..=whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            let (mut journal, records) = Journal::open(&path, |records| records).unwrap();
            assert_eq!(records.len(), cut / one, "cut at {cut}");
            journal.append(&fenced(9)).unwrap();
            let (_, records) = Journal::open(&path, |records| records).unwrap();
            assert_eq!(records.len(), cut / one + 1, "cut at {cut}");
            assert_eq!(records.last(), Some(&fenced(9)));
        }
    }

    #[test]
    fn on_a_full_disk_the_reserve_is_given_up_and_the_record_is_written() {
        let (full, attempts) = (std::cell::Cell::new(true), std::cell::Cell::new(0));
        let write = || {
            attempts.set(attempts.get() + 1);
            if full.get() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        };
        let without = write_with_reserve(write, || Err(io::ErrorKind::NotFound.into())).unwrap_err();
        assert_eq!(
            (without.kind(), attempts.take()),
            (io::ErrorKind::StorageFull, 1),
            "the disk is named, not the reserve"
        );
        let no_use = write_with_reserve(write, || Ok(())).unwrap_err();
        assert_eq!(
            (no_use.kind(), attempts.take()),
            (io::ErrorKind::StorageFull, 2),
            "it is tried once more, not for ever"
        );
        write_with_reserve(write, || {
            full.set(false);
            Ok(())
        })
        .unwrap();
        let damaged = write_with_reserve(|| Err(io::ErrorKind::InvalidData.into()), || panic!("the disk is not full"));
        assert_eq!(damaged.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn the_reserve_is_set_aside_at_first_and_again_when_there_must_be_room() {
        let folder = tempfile::tempdir().unwrap();
        let (path, reserve) = (folder.path().join("journal"), folder.path().join("journal.reserve"));
        let (mut journal, _) = Journal::open(&path, |records| records).unwrap();
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
        fs::remove_file(&reserve).unwrap();
        journal.append(&fenced(1)).unwrap();
        assert!(!reserve.exists());
        journal.room().unwrap();
        assert_eq!(fs::metadata(&reserve).unwrap().len(), RESERVE_BYTES);
        assert_eq!(journal.length_bytes, fs::metadata(&path).unwrap().len(), "what a full disk cuts off is known");
    }

    #[test]
    fn a_damaged_byte_never_yields_another_record() {
        let whole: Vec<u8> = (0..3).flat_map(|intent| encoded(&fenced(intent)).unwrap()).collect();
        // The lowest bit makes another digit of a digit: JSON that reads well and says something else.
        for (at, bit) in (0..whole.len()).flat_map(|at| [(at, 0x40), (at, 0x01)]) {
            let mut bytes = whole.clone();
            bytes[at] ^= bit;
            let (records, _) = read_records(&bytes);
            assert!(
                records.len() < 3 && records.iter().enumerate().all(|(n, record)| *record == fenced(n as u64)),
                "{at}"
            );
        }
    }

    #[test]
    fn a_long_journal_is_written_anew_with_its_essence() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let one = encoded(&fenced(0)).unwrap();
        fs::write(&path, one.repeat(usize::try_from(COMPACT_ABOVE_BYTES).unwrap() / one.len() + 1)).unwrap();
        let (mut journal, records) = Journal::open(&path, |records| records.into_iter().take(1).collect()).unwrap();
        assert_eq!(records.len(), 1);
        journal.append(&fenced(1)).unwrap();
        assert_eq!(Journal::open(&path, |records| records).unwrap().1, [fenced(0), fenced(1)]);
    }
}
