//! Reads the artefact index of a mirror, over HTTP or from a directory.
//!
//! It reads `artefacts.json` and nothing else: artefacts themselves go to nodes without passing through the server.
//! What a mirror sends is bounded in size and time.

use std::path::Path;
use std::time::Duration;

use shiplock_core::artefact::ArtefactIndex;
use shiplock_core::problem::{Code, Problem};
use tokio::io::AsyncReadExt;

/// The most bytes of an index.
const INDEX_BYTES_MAX: u64 = 4 << 20;
/// How long reading it may take.
const READ_WITHIN: Duration = Duration::from_secs(10);

/// Reads and checks the index at the root of a mirror.
pub async fn read_artefacts(root: &str) -> Result<ArtefactIndex, Problem> {
    check_root(root)?;
    let location = format!("{}/artefacts.json", root.trim_end_matches('/'));
    let unreadable = |cause: &dyn std::error::Error| {
        Problem::new(Code::ArtefactIndexUnreadable).with("location", &location).because(cause)
    };
    let read =
        async { if root.starts_with('/') { read_file(Path::new(&location)).await } else { download(&location).await } };
    let bytes = match tokio::time::timeout(READ_WITHIN, read).await {
        Ok(read) => read.map_err(|error| unreadable(&*error))?,
        Err(elapsed) => {
            return Err(unreadable(&elapsed).cause(format!("it took longer than {} s", READ_WITHIN.as_secs())));
        }
    };
    let text = String::from_utf8(bytes).map_err(|error| unreadable(&error))?;
    ArtefactIndex::parse(&location, &text)
}

/// Refuses what is neither a URL nor an absolute path.
pub fn check_root(root: &str) -> Result<(), Problem> {
    let url = ["http://", "https://"]
        .iter()
        .any(|scheme| root.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/')));
    let path = root.starts_with('/') && !root.split('/').any(|part| part == "..");
    let is_one_line = !root.contains(char::is_control) && (path || !root.contains(' '));
    if (url || path) && root.len() <= 1_024 && is_one_line {
        return Ok(());
    }
    Err(Problem::new(Code::BadOption)
        .with("option", "--mirror")
        .with("value", root.chars().take(128).collect::<String>())
        .with("why", "it is neither http(s)://… nor an absolute path"))
}

type ReadError = Box<dyn std::error::Error + Send + Sync>;

fn too_large() -> ReadError {
    format!("it is larger than {INDEX_BYTES_MAX} bytes").into()
}

async fn read_file(path: &Path) -> Result<Vec<u8>, ReadError> {
    // A fifo or device could block for ever or have no end.
    if !tokio::fs::metadata(path).await?.is_file() {
        return Err("it is not a regular file".into());
    }
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await?.take(INDEX_BYTES_MAX + 1).read_to_end(&mut bytes).await?;
    if bytes.len() as u64 > INDEX_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

async fn download(location: &str) -> Result<Vec<u8>, ReadError> {
    crate::gateway::install_tls_provider();
    let client = reqwest::Client::builder().timeout(READ_WITHIN).build()?;
    let mut response = client.get(location).send().await?.error_for_status()?;
    if response.content_length().is_some_and(|length| length > INDEX_BYTES_MAX) {
        return Err(too_large());
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        bytes.extend_from_slice(&chunk);
        if bytes.len() as u64 > INDEX_BYTES_MAX {
            return Err(too_large());
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use shiplock_core::artefact::SCHEMA;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;

    fn index() -> String {
        format!(r#"{{"schema":"{SCHEMA}","releases":[]}}"#)
    }

    #[test]
    fn a_root_is_a_url_or_an_absolute_path() {
        for (root, good) in [
            ("http://mirror:8080", true),
            ("https://mirror/kubernetes/", true),
            ("/srv/mirror", true),
            ("/srv/my mirror", true),
            ("/srv/two\nlines", false),
            ("srv/mirror", false),
            ("/srv/../etc", false),
            ("http://", false),
            ("http:///x", false),
            ("ftp://mirror", false),
            ("https://mirror/ x", false),
            ("", false),
        ] {
            assert_eq!(check_root(root).is_ok(), good, "{root}");
        }
    }

    #[tokio::test]
    async fn a_directory_is_read_and_what_is_no_index_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_str().unwrap();
        let missing = read_artefacts(root).await.unwrap_err();
        assert_eq!(missing.code, Code::ArtefactIndexUnreadable);
        std::fs::write(directory.path().join("artefacts.json"), index()).unwrap();
        assert!(read_artefacts(root).await.unwrap().releases.is_empty());
        let large = vec![b' '; usize::try_from(INDEX_BYTES_MAX).unwrap() + 1];
        std::fs::write(directory.path().join("artefacts.json"), large).unwrap();
        let large = read_artefacts(root).await.unwrap_err();
        assert!(large.causes[0].contains("larger than"), "{large}");
    }

    /// Answers every connection with the same bytes.
    async fn answer_with(response: Vec<u8>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let root = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4_096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&response).await;
            }
        });
        root
    }

    #[tokio::test]
    async fn a_web_mirror_is_read_and_its_errors_and_endless_answers_are_refused() {
        let good = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{}", index().len(), index());
        assert!(read_artefacts(&answer_with(good.into_bytes()).await).await.is_ok());
        let absent = answer_with(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
        assert_eq!(read_artefacts(&absent).await.unwrap_err().code, Code::ArtefactIndexUnreadable);
        let announced = answer_with(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec()).await;
        assert!(read_artefacts(&announced).await.unwrap_err().causes[0].contains("larger than"));
        let mut endless = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        endless.resize(endless.len() + usize::try_from(INDEX_BYTES_MAX).unwrap() + 10, b' ');
        assert!(read_artefacts(&answer_with(endless).await).await.unwrap_err().causes[0].contains("larger than"));
    }
}
