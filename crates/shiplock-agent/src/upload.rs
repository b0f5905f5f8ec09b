//! Sends a file to the server, piece by piece: never more than a few pieces of it are in memory, and a server that takes
//! nothing any more is let go.

use std::io;
use std::path::Path;
use std::time::Duration;

use reqwest::header::CONTENT_LENGTH;
use tokio::fs::File;
use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};

const PIECE_BYTES: usize = 64 << 10;
/// The server waits for its disk after the last piece; nothing else takes long.
const SILENCE_LIMIT: Duration = Duration::from_secs(120);
/// The step that sends has a limit of its own; this one only ends what that one forgot.
const SEND_LIMIT: Duration = Duration::from_secs(3600);

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum UploadError {
    /// The file cannot be read.
    File(io::Error),
    /// The server, or the way to it.
    Way(reqwest::Error),
    /// Nothing moved for so long.
    Silence(Duration),
}

/// Sends a file as the body of a request, with its length, and hands back the head of the answer.
pub(crate) async fn send(request: reqwest::RequestBuilder, path: &Path) -> Result<reqwest::Response, UploadError> {
    let file = File::open(path).await.map_err(UploadError::File)?;
    let length = file.metadata().await.map_err(UploadError::File)?.len();
    let (mover, moved) = watch::channel(());
    let pieces = futures::stream::try_unfold((file, mover), |(mut file, mover)| async move {
        let mut piece = vec![0; PIECE_BYTES];
        let read = file.read(&mut piece).await?;
        piece.truncate(read);
        // Whoever listened has its answer.
        let _ = mover.send(());
        io::Result::Ok((read > 0).then_some((piece, (file, mover))))
    });
    let request = request.header(CONTENT_LENGTH, length).timeout(SEND_LIMIT);
    tokio::select! {
        answer = request.body(reqwest::Body::wrap_stream(pieces)).send() => answer.map_err(UploadError::Way),
        () = silence(moved) => Err(UploadError::Silence(SILENCE_LIMIT)),
    }
}

/// Returns once nothing has moved for [`SILENCE_LIMIT`].
async fn silence(mut moved: watch::Receiver<()>) {
    loop {
        let end = Instant::now() + SILENCE_LIMIT;
        match timeout_at(end, moved.changed()).await {
            Ok(Ok(())) => {}
            // Everything was sent: only the answer is missing.
            Ok(Err(_)) => return sleep_until(end).await,
            Err(_) => return,
        }
    }
}
