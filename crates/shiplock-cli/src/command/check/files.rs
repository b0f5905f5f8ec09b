//! Files and folders for `check`: walked and read by a few threads, each with one buffer.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use flate2::bufread::MultiGzDecoder;
use shiplock_check::api::audit::AuditLog;
use shiplock_check::api::files::{self, FilesRead};
use shiplock_check::question::Question;
use shiplock_core::problem::Problem;

use crate::arguments::CheckArguments;

/// No manifest is larger; a larger file is told, not read.
const FILE_BYTES_MAX: u64 = 256 << 20;
/// What unpacks to more is told, not read: little that was packed may not take much memory.
const UNPACKED_BYTES_MAX: u64 = 64 << 20;
/// No audit event is longer.
const AUDIT_LINE_BYTES_MAX: u64 = 4 << 20;
/// A buffer that a large file made larger than this is given back.
const BUFFER_BYTES_KEPT: usize = 4 << 20;
/// A folder has no more files.
const FILES_MAX: usize = 5_000_000;
/// More threads would only wait for the same disk.
const THREADS_MAX: usize = 4;
/// Names that are manifests.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];
/// Packed in ways that are not read.
const PACKED_OTHERWISE: [&str; 6] = ["bz2", "xz", "zst", "lz4", "7z", "zip"];
/// What is read of a packed file to see whether it is a manifest.
const HEAD_BYTES: usize = 64 << 10;
/// Names that are texts with manifests in them, not manifests, though some begin alike.
const TEXTS: [&str; 3] = ["md", "markdown", "mdx"];
/// Folders with these names are not gone into.
const FOLDERS_LEFT_OUT: [&str; 2] = [".git", "node_modules"];

/// A file, and whether it was named by the caller: then it is read whatever its name is.
struct Candidate {
    path: PathBuf,
    is_named: bool,
}

/// Reads all files that were asked for.
pub(super) fn read(options: &CheckArguments, question: &Question) -> Result<FilesRead, Problem> {
    let mut read = FilesRead::default();
    let mut candidates = Vec::new();
    for path in &options.files {
        if path == Path::new("-") {
            let before = (read.objects, read.findings.len());
            let mut content = Vec::new();
            match std::io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut content) {
                Ok(_) if content.len() as u64 <= FILE_BYTES_MAX => {
                    read.read("(stdin)", &content, UNPACKED_BYTES_MAX, question);
                }
                Ok(_) => read.unreadable("(stdin)", too_large(), question),
                Err(error) => read.unreadable("(stdin)", error.to_string(), question),
            }
            // A pipe whose first command failed sends nothing, or its complaint.
            if before == (read.objects, read.findings.len()) {
                read.nothing("(stdin)", question);
            }
            continue;
        }
        let kind = std::fs::metadata(path).map_err(|error| super::unread("--filename", path, error))?;
        if kind.is_dir() {
            walk(path, &options.exclude, &mut candidates, &mut read, question)?;
        } else {
            candidates.push(Candidate { path: path.clone(), is_named: true });
        }
    }
    let found = read_all(&candidates, question);
    let is_nothing = |read: &FilesRead| read.objects == 0 && read.findings.is_empty();
    if is_nothing(&found) && is_nothing(&read) {
        for path in &options.files {
            read.nothing(&path.to_string_lossy(), question);
        }
    }
    read.merge(found);
    Ok(read)
}

fn read_all(candidates: &[Candidate], question: &Question) -> FilesRead {
    let mut read = FilesRead::default();
    let threads =
        std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX).min(candidates.len().max(1));
    let next = AtomicUsize::new(0);
    let work = || {
        let mut read = FilesRead::default();
        let mut buffer = Vec::with_capacity(64 << 10);
        while let Some(candidate) = candidates.get(next.fetch_add(1, Ordering::Relaxed)) {
            read_one(candidate, &mut buffer, &mut read, question);
        }
        read
    };
    if threads == 1 {
        read.merge(work());
    } else {
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                match worker.join() {
                    Ok(found) => read.merge(found),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
    }
    read
}

fn read_one(candidate: &Candidate, buffer: &mut Vec<u8>, read: &mut FilesRead, question: &Question) {
    buffer.clear();
    let path = &candidate.path;
    let name = path.to_string_lossy();
    let is_wanted = candidate.is_named || has_manifest_name(path);
    let outcome = File::open(path).and_then(|file| {
        // A pipe has no size; and a file may grow.
        let is_small = file.metadata()?.len() <= FILE_BYTES_MAX;
        let bytes_max = if is_small { FILE_BYTES_MAX + 1 } else { HEAD_BYTES as u64 };
        let length = file.take(bytes_max).read_to_end(buffer)?;
        Ok(is_small && length as u64 <= FILE_BYTES_MAX)
    });
    match outcome {
        Err(error) => read.unreadable(&name, error.to_string(), question),
        Ok(_) if !is_wanted && !looks_like_manifest(path, buffer) => {}
        Ok(false) => read.unreadable(&name, too_large(), question),
        Ok(true) if has_extension(path, &PACKED_OTHERWISE) && !buffer.starts_with(b"PK") => {
            read.unreadable(&name, "it is packed otherwise than with gzip".to_owned(), question);
        }
        Ok(true) => {
            let known = |read: &FilesRead| (read.objects, read.others, read.findings.len());
            let before = known(read);
            read.read(&name, buffer, UNPACKED_BYTES_MAX, question);
            // What was to be written to it may have failed.
            if candidate.is_named && known(read) == before {
                read.nothing(&name, question);
            }
        }
    }
    if buffer.capacity() > BUFFER_BYTES_KEPT {
        *buffer = Vec::with_capacity(64 << 10);
    }
}

fn too_large() -> String {
    format!("it is larger than {FILE_BYTES_MAX} bytes")
}

/// Finds the files under a folder. A folder to which several links lead is gone into once.
fn walk(
    root: &Path,
    excluded: &[String],
    candidates: &mut Vec<Candidate>,
    read: &mut FilesRead,
    question: &Question,
) -> Result<(), Problem> {
    let mut waiting = vec![root.to_owned()];
    let mut seen: BTreeSet<(u64, u64)> = BTreeSet::new();
    while let Some(folder) = waiting.pop() {
        if std::fs::metadata(&folder).is_ok_and(|kind| !seen.insert((kind.dev(), kind.ino()))) {
            continue;
        }
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) => {
                read.unreadable(&folder.to_string_lossy(), error.to_string(), question);
                continue;
            }
        };
        for entry in entries {
            let entry = entry.map_err(|error| super::unusable(&folder, "read").cause(error))?;
            let path = entry.path();
            if !excluded.is_empty() && excluded.iter().any(|text| path.to_string_lossy().contains(text.as_str())) {
                continue;
            }
            let Ok(mut kind) = entry.file_type() else { continue };
            if kind.is_symlink() {
                match std::fs::metadata(&path) {
                    Ok(target) => kind = target.file_type(),
                    Err(error) if has_manifest_name(&path) => {
                        read.unreadable(&path.to_string_lossy(), error.to_string(), question);
                        continue;
                    }
                    Err(_) => continue,
                }
            }
            if kind.is_dir() {
                if FOLDERS_LEFT_OUT.iter().any(|name| path.ends_with(name)) {
                    read.folders_left_out += 1;
                } else {
                    waiting.push(path);
                }
            } else if kind.is_file() {
                if candidates.len() >= FILES_MAX {
                    return Err(super::bad_option("--filename", &root.to_string_lossy(), "it holds too many files"));
                }
                candidates.push(Candidate { path, is_named: false });
            } else if has_manifest_name(&path) {
                // A pipe or a device: to open it could wait for ever.
                read.unreadable(&path.to_string_lossy(), "it is no regular file".to_owned(), question);
            }
        }
    }
    Ok(())
}

fn has_manifest_name(path: &Path) -> bool {
    let is_packed = has_extension(path, &["gz"]) || has_extension(path, &PACKED_OTHERWISE);
    has_extension(path, &EXTENSIONS) || (is_packed && has_manifest_stem(path)) || has_extension(path, &["tgz"])
}

/// Whether a name is one of a manifest but for one more extension, such as `x.yaml.erb`.
fn has_manifest_stem(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| has_extension(Path::new(stem), &EXTENSIONS))
}

fn has_extension(path: &Path, known: &[&str]) -> bool {
    path.extension().is_some_and(|found| known.iter().any(|known| found.eq_ignore_ascii_case(known)))
}

/// Whether a file of another name holds manifests, by how it begins.
fn looks_like_manifest(path: &Path, content: &[u8]) -> bool {
    match content {
        _ if has_extension(path, &TEXTS) => false,
        // Programs are packed alike.
        [b'P', b'K', 3, 4, ..] => {
            has_extension(path, &["zip"]) && files::archive_has_manifests(content, FILE_BYTES_MAX)
        }
        [0x1F, 0x8B, ..] => {
            let mut head = Vec::new();
            // What came out before it broke off is enough.
            let _ = MultiGzDecoder::new(content).take(HEAD_BYTES as u64).read_to_end(&mut head);
            begins_as_manifest(path, &head) || files::archive_has_manifests(content, FILE_BYTES_MAX)
        }
        // UTF-16, as its letters.
        [0xFF, 0xFE, rest @ ..] | [0xFE, 0xFF, rest @ ..] => {
            let letters: Vec<u8> = rest.iter().copied().filter(|byte| *byte != 0).take(HEAD_BYTES).collect();
            begins_as_manifest(path, &letters)
        }
        _ => begins_as_manifest(path, content) || files::archive_has_manifests(content, FILE_BYTES_MAX),
    }
}

fn begins_as_manifest(path: &Path, content: &[u8]) -> bool {
    let head = content.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(content);
    let is_remark = |line: &&[u8]| line.is_empty() || line.starts_with(b"#");
    let first = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).find(|line| !is_remark(line));
    let begins = |words: &[&str]| first.is_some_and(|line| words.iter().any(|word| line.starts_with(word.as_bytes())));
    let has = |word: &[u8]| memchr::memmem::find(head, word).is_some();
    begins(&["apiVersion:", "kind:", "metadata:", "- apiVersion:", "\"apiVersion\":", "'apiVersion':"])
        || (begins(&["---", "{", "%YAML", "<%", "spec:"]) && has(b"apiVersion"))
        || (begins(&["["]) && has(b"\"apiVersion\""))
        || (has_manifest_stem(path) && has(b"apiVersion:"))
}

/// Reads an audit log line by line, with the name that findings use for it.
pub(super) fn read_audit_log(path: &Path, question: &Question) -> Result<(AuditLog, String), Problem> {
    let unread = |error: std::io::Error| super::unread("--audit-log", path, error);
    let mut reader: Box<dyn std::io::BufRead> = if path == Path::new("-") {
        Box::new(BufReader::new(std::io::stdin()))
    } else {
        Box::new(BufReader::with_capacity(256 << 10, File::open(path).map_err(unread)?))
    };
    // Logs that were rotated are packed.
    if reader.fill_buf().map_err(unread)?.starts_with(&[0x1F, 0x8B]) {
        reader = Box::new(BufReader::with_capacity(256 << 10, MultiGzDecoder::new(reader)));
    }
    let mut log = AuditLog::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.by_ref().take(AUDIT_LINE_BYTES_MAX).read_until(b'\n', &mut line).map_err(unread)?;
        if length == 0 {
            return Ok((log, path.display().to_string()));
        }
        log.take(&line, question);
    }
}
