//! A small static HTTP server for the mirror.
//!
//! Nodes have no route out, so the mirror is served on the lab's bridge. It is a process of its
//! own (`lab serve-mirror`) that outlives `lab up`. GET and HEAD, `Content-Length`, one range;
//! whatever leads out of the folder is not found.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::janitor::own_program;
use super::network::wait_for_port;
use super::process::{Recorded, command};

const CHUNK: usize = 256 * 1024;
/// Longest request head that is read.
const HEAD_LIMIT: u64 = 16 * 1024;

/// Records its own process id first, so that no crash comes between start and record.
const RECORD_AND_RUN: &str = r#"echo $$ > "$1"; shift; exec "$@""#;

/// The server of one lab, as a process.
#[derive(Debug)]
pub(crate) struct MirrorService {
    /// The lab's folder.
    pub(crate) folder: PathBuf,
    /// Where it listens.
    pub(crate) address: String,
}

impl MirrorService {
    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(&self, root: &Path) -> Result<()> {
        let log = File::create(self.folder.join("mirror.log"))?;
        let mut serve = command("setsid", &["sh", "-c", RECORD_AND_RUN, "lab-mirror"]);
        serve.arg(self.folder.join("mirror.pid")).arg(own_program()?);
        serve.args(["lab", "serve-mirror", "--address", &self.address, "--root"]).arg(root);
        let mut child = serve.stdout(log.try_clone()?).stderr(log).spawn().context("cannot serve the mirror")?;
        std::thread::spawn(move || child.wait());
        wait_for_port(&self.address, Duration::from_secs(10)).with_context(|| {
            format!(
                "the mirror is not served: {}",
                fs::read_to_string(self.folder.join("mirror.log")).unwrap_or_default()
            )
        })
    }

    fn recorded(&self) -> Option<Recorded> {
        Recorded::read(&self.folder.join("mirror.pid"), &format!("serve-mirror --address {}", self.address))
    }

    /// Whether it runs.
    pub(crate) fn runs(&self) -> bool {
        self.recorded().is_some()
    }

    /// Ends it.
    pub(crate) fn stop(&self) {
        if let Some(process) = self.recorded() {
            process.end(Duration::from_secs(2));
        }
    }
}

/// Serves a folder until the process ends.
pub(crate) fn serve(address: &str, root: &Path) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    serve_on(&listener, root);
    Ok(())
}

/// Serves another folder for as long as this process lives.
pub(crate) fn serve_beside(address: &str, root: &Path) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
    let root = root.to_owned();
    std::thread::spawn(move || serve_on(&listener, &root));
    Ok(())
}

fn serve_on(listener: &TcpListener, root: &Path) {
    for stream in listener.incoming().flatten() {
        let root = root.to_owned();
        std::thread::spawn(move || {
            let _ = stream.set_read_timeout(Some(Duration::from_secs(60)));
            let _ = stream.set_write_timeout(Some(Duration::from_secs(60)));
            // A peer that goes away is its own affair.
            let _ = converse(&stream, &root);
        });
    }
}

struct Request {
    method: String,
    target: String,
    range: Option<String>,
    keep: bool,
}

fn converse(stream: &TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        answer(stream, root, &request)?;
        if !request.keep {
            break;
        }
    }
    Ok(())
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> std::io::Result<Option<Request>> {
    let mut head = reader.take(HEAD_LIMIT);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let mut request = Request { method, target, range: None, keep: words.next() == Some("HTTP/1.1") };
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        if line.trim().is_empty() {
            return Ok(Some(request));
        }
        if let Some((name, value)) = line.split_once(':') {
            match name.to_ascii_lowercase().as_str() {
                "range" => request.range = Some(value.trim().to_owned()),
                "connection" if value.trim().eq_ignore_ascii_case("close") => request.keep = false,
                _ => {}
            }
        }
    }
}

fn answer(mut stream: &TcpStream, root: &Path, request: &Request) -> std::io::Result<()> {
    let mut refuse =
        |status: &str, extra: &str| write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n{extra}\r\n");
    let body = match request.method.as_str() {
        "GET" => true,
        "HEAD" => false,
        _ => return refuse("405 Method Not Allowed", "Allow: GET, HEAD\r\n"),
    };
    let Some(path) = resolve(root, &request.target) else { return refuse("404 Not Found", "") };
    let Ok(mut file) = File::open(path) else { return refuse("404 Not Found", "") };
    let size = file.metadata()?.len();
    let (start, end, status, extra) = match request.range.as_deref().map(|range| parse_range(range, size)) {
        None | Some(Range::Ignored) => (0, size, "200 OK", String::new()),
        Some(Range::Part(start, end)) => {
            (start, end, "206 Partial Content", format!("Content-Range: bytes {start}-{}/{size}\r\n", end - 1))
        }
        Some(Range::Outside) => {
            return refuse("416 Range Not Satisfiable", &format!("Content-Range: bytes */{size}\r\n"));
        }
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: application/octet-stream\r\nAccept-Ranges: bytes\r\n\
         {extra}\r\n",
        end - start
    )?;
    if !body {
        return Ok(());
    }
    file.seek(SeekFrom::Start(start))?;
    let mut left = end - start;
    let mut chunk = vec![0; CHUNK];
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = file.read(&mut chunk[..wanted])?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        stream.write_all(&chunk[..read])?;
        left -= read as u64;
    }
    Ok(())
}

/// A regular file below the root, links followed; anything else is `None`.
fn resolve(root: &Path, target: &str) -> Option<PathBuf> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    // No file of the mirror has a name that needs escaping.
    if path.contains('%') {
        return None;
    }
    let relative = Path::new(path.trim_start_matches('/'));
    if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
        return None;
    }
    let root = root.canonicalize().ok()?;
    let real = root.join(relative).canonicalize().ok()?;
    (real.starts_with(&root) && real.is_file()).then_some(real)
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// From, to (exclusive).
    Part(u64, u64),
    Outside,
    /// Not a form that we know: answered with the whole file, as RFC 9110 allows.
    Ignored,
}

fn parse_range(text: &str, size: u64) -> Range {
    let Some((from, to)) = text.strip_prefix("bytes=").and_then(|rest| rest.split_once('-')) else {
        return Range::Ignored;
    };
    let number = |text: &str| text.parse::<u64>().ok();
    match (number(from), number(to)) {
        (Some(from), _) if from >= size => Range::Outside,
        (Some(from), Some(to)) if to >= from => Range::Part(from, to.saturating_add(1).min(size)),
        (Some(from), None) if to.is_empty() => Range::Part(from, size),
        (None, Some(last)) if from.is_empty() && last > 0 && size > 0 => Range::Part(size.saturating_sub(last), size),
        (None, Some(_)) if from.is_empty() => Range::Outside,
        _ => Range::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(request: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("mirror");
        std::fs::create_dir_all(root.join("release")).unwrap();
        std::fs::write(root.join("release/file"), "0123456789").unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        std::os::unix::fs::symlink("../secret", root.join("out")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve_on(&listener, &root));
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(format!("{request}\r\nConnection: close\r\n\r\n").as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_file_comes_whole_or_in_part() {
        let text = ask("GET /release/file HTTP/1.1");
        assert!(
            text.starts_with("HTTP/1.1 200") && text.contains("Content-Length: 10\r\n") && text.ends_with("0123456789")
        );
        let text = ask("GET /release/file HTTP/1.1\r\nRange: bytes=2-4");
        assert!(text.starts_with("HTTP/1.1 206") && text.contains("bytes 2-4/10") && text.ends_with("\r\n\r\n234"));
        let text = ask("HEAD /release/file HTTP/1.1");
        assert!(text.contains("Content-Length: 10\r\n") && text.ends_with("\r\n\r\n"));
    }

    #[test]
    fn nothing_leads_out() {
        for target in ["/../secret", "/out", "/release/../../secret", "/%2e%2e/secret", "/release", "/", "//etc/passwd"]
        {
            let text = ask(&format!("GET {target} HTTP/1.1"));
            assert!(text.starts_with("HTTP/1.1 404"), "{target}: {text}");
        }
        assert!(ask("POST /release/file HTTP/1.1").starts_with("HTTP/1.1 405"));
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("bytes=0-", 10), Range::Part(0, 10));
        assert_eq!(parse_range("bytes=-3", 10), Range::Part(7, 10));
        assert_eq!(parse_range("bytes=5-100", 10), Range::Part(5, 10));
        assert_eq!(parse_range("bytes=10-", 10), Range::Outside);
        assert_eq!(parse_range("bytes=1-2,4-5", 10), Range::Ignored);
        assert_eq!(parse_range("lines=1-2", 10), Range::Ignored);
    }
}
