//! Downloads over HTTP: continued, cut, missing, too long.

use std::sync::{Arc, Mutex};

use shiplock_agent::download::{FetchError, Mirror, Wanted};
use shiplock_core::problem::Code;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::fake::digest;

/// Answers every request with these bytes and remembers the requests.
async fn serve(answer: impl Fn(&str) -> String + Send + 'static) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let root = format!("http://{}/mirror/", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_err() {
                    break;
                }
                request.push(byte[0].into());
            }
            let text = answer(&request);
            seen.lock().unwrap().push(request);
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    (root, requests)
}

fn wanted(content: &str) -> Wanted {
    Wanted { path: "bin/x".to_owned(), size_bytes: content.len() as u64, sha256: digest(content) }
}

fn answer(status: &str, length: usize, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn code(result: Result<(), FetchError>) -> Option<(Code, bool)> {
    match result {
        Ok(()) => None,
        Err(FetchError::Mirror(failure)) => Some((failure.problem.code, failure.retryable)),
        Err(FetchError::Disk(path, error)) => panic!("{}: {error}", path.display()),
    }
}

#[tokio::test]
async fn a_download_that_was_cut_is_continued_where_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    let (root, requests) = serve(|request| {
        if request.contains("range: bytes=4-") {
            answer("206 Partial Content", 6, "456789")
        } else {
            answer("200 OK", 10, "0123")
        }
    })
    .await;
    let mirror = Mirror::open(&root, "w1").unwrap();
    let file = wanted("0123456789");
    assert_eq!(code(mirror.fetch(&file, &target).await), Some((Code::DownloadFailed, true)));
    assert!(!target.exists());
    assert_eq!(code(mirror.fetch(&file, &target).await), None);
    assert_eq!(std::fs::read_to_string(&target).unwrap(), "0123456789");
    assert_eq!(requests.lock().unwrap().len(), 2);
    assert!(requests.lock().unwrap()[0].starts_with("GET /mirror/bin/x "));
}

#[tokio::test]
async fn a_mirror_that_does_not_continue_gives_the_whole_again() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    std::fs::write(folder.path().join("file.part"), "old").unwrap();
    let (root, _) = serve(|_| answer("200 OK", 3, "new")).await;
    let mirror = Mirror::open(&root, "w1").unwrap();
    assert_eq!(code(mirror.fetch(&wanted("newx"), &target).await), Some((Code::DownloadFailed, true)));
    assert_eq!(code(mirror.fetch(&wanted("new"), &target).await), None);
}

#[tokio::test]
async fn what_is_wrong_with_a_mirror_is_named_and_leaves_no_file() {
    for (status, body, content, expected) in [
        ("404 Not Found", "no", "file", (Code::DownloadFailed, false)),
        ("503 Service Unavailable", "no", "file", (Code::DownloadFailed, true)),
        ("200 OK", "fila", "file", (Code::DigestMismatch, false)),
        ("200 OK", "files", "file", (Code::DigestMismatch, false)),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let (root, _) = serve(move |_| answer(status, body.len(), body)).await;
        let mirror = Mirror::open(&root, "w1").unwrap();
        assert_eq!(code(mirror.fetch(&wanted(content), &target).await), Some(expected), "{status} {body}");
        assert!(!target.exists());
    }
    let nobody = Mirror::open("http://127.0.0.1:1/", "w1").unwrap();
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(code(nobody.fetch(&wanted("x"), &folder.path().join("file")).await), Some((Code::DownloadFailed, true)));
    assert_eq!(Mirror::open("ftp://mirror", "w1").unwrap_err().code, Code::DownloadFailed);
}
