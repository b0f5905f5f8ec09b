//! Accepting and serving of connections, the same for REST and for agents: bounded in number, in the time of each
//! phase and in silence, so that a slow or dead client holds up nobody else.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tower::ServiceExt;

/// The bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most connections at once; further ones wait in the system's queue.
    pub(crate) connections: usize,
    /// How long the handshake may take, and then the first byte.
    pub(crate) handshake: Duration,
    /// How long the head of a request may take over HTTP/1.1.
    pub(crate) header: Duration,
    /// After how long without a byte in either direction a connection is closed.
    pub(crate) idle: Duration,
    /// How long requests in work may take to end when the server stops.
    pub(crate) farewell: Duration,
}

impl Limits {
    /// Bounds for a listener with this many connections.
    pub(crate) fn new(connections: usize) -> Self {
        Self {
            connections,
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            farewell: Duration::from_secs(4),
        }
    }
}

/// Where connections come from.
pub(crate) trait Entrance: Send + Sync + 'static {
    /// A connection before its handshake.
    type Raw: Send + 'static;
    /// A connection that speaks HTTP.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;
    /// What is known of the other side; requests carry it as an extension.
    type Peer: Clone + Send + Sync + 'static;

    /// Waits for the next connection. Must not wait for anything that the other side does.
    fn accept(&self) -> impl Future<Output = io::Result<Self::Raw>> + Send;
    /// Does the handshake; none when the other side is turned away.
    fn admit(&self, raw: Self::Raw) -> impl Future<Output = Option<Admitted<Self::Stream, Self::Peer>>> + Send;
}

/// A connection after its handshake.
pub(crate) struct Admitted<S, P> {
    pub(crate) stream: S,
    pub(crate) peer: P,
    /// After this long the connection is closed, whatever it does.
    pub(crate) lifetime: Option<Duration>,
}

/// Serves connections until `closing` turns true and those in work have ended, within [`Limits::farewell`].
pub(crate) async fn serve<E: Entrance>(entrance: E, router: Router, limits: Limits, closing: watch::Receiver<bool>) {
    let entrance = Arc::new(entrance);
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    let mut stop = closing.clone();
    let mut stopped = pin!(closed(&mut stop));
    loop {
        while connections.try_join_next().is_some() {}
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, entrance.accept().await))
        };
        let (place, raw) = tokio::select! {
            () = &mut stopped => break,
            next = next => match next {
                Some((place, Ok(raw))) => (place, raw),
                Some((_, Err(error))) => {
                    // Out of file descriptors, say; accepting at once again would only burn time.
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
                None => break,
            },
        };
        connections.spawn(serve_one(entrance.clone(), raw, place, router.clone(), limits, closing.clone()));
    }
    let farewell = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.farewell, farewell).await.is_err() {
        tracing::info!(connections = connections.len(), "connections are cut");
    }
    connections.shutdown().await;
}

/// Returns when the server stops.
pub(crate) async fn closed(closing: &mut watch::Receiver<bool>) {
    // An error says that the sender is gone, which means the same.
    let _ = closing.wait_for(|closing| *closing).await;
}

async fn serve_one<E: Entrance>(
    entrance: Arc<E>,
    raw: E::Raw,
    place: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    mut closing: watch::Receiver<bool>,
) {
    let Ok(Some(admitted)) = tokio::time::timeout(limits.handshake, entrance.admit(raw)).await else { return };
    let Admitted { stream, peer, lifetime } = admitted;
    let activity = Arc::new(Activity::new());
    let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
        let mut request: Request = request.map(Body::new);
        request.extensions_mut().insert(peer.clone());
        router.clone().oneshot(request)
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header).max_headers(64).max_buf_size(64 * 1024);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(32)
        .max_header_list_size(32 * 1024)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let watched = Watched { stream, activity: activity.clone() };
    let connection = builder.serve_connection(TokioIo::new(watched), service);
    let mut connection = pin!(connection);
    let ends_at = lifetime.map(|lifetime| Instant::now() + lifetime);
    let mut stop = pin!(closed(&mut closing));
    let mut stopping = false;
    loop {
        // Bytes that move meanwhile change which limit holds, so neither is slept through.
        let soon = Instant::now() + limits.handshake.min(limits.idle);
        let silent_at = activity.silent_at(limits).min(soon);
        let look_at = ends_at.map_or(silent_at, |end| end.min(silent_at));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended");
                }
                break;
            }
            () = &mut stop, if !stopping => {
                stopping = true;
                connection.as_mut().graceful_shutdown();
            }
            () = tokio::time::sleep_until(look_at) => {
                let now = Instant::now();
                if ends_at.is_some_and(|end| end <= now) || activity.silent_at(limits) <= now {
                    break;
                }
            }
        }
    }
    drop(place);
}

/// When a connection last moved a byte.
struct Activity {
    begin: Instant,
    /// Milliseconds after the begin, plus one; 0 while nothing was read.
    last: AtomicU64,
}

impl Activity {
    fn new() -> Self {
        Self { begin: Instant::now(), last: AtomicU64::new(0) }
    }

    fn note(&self) {
        let elapsed = u64::try_from(self.begin.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.last.store(elapsed + 1, Ordering::Relaxed);
    }

    fn silent_at(&self, limits: Limits) -> Instant {
        match self.last.load(Ordering::Relaxed) {
            0 => self.begin + limits.handshake,
            last => self.begin + Duration::from_millis(last) + limits.idle,
        }
    }
}

/// A stream that notes when it moves bytes.
struct Watched<S> {
    stream: S,
    activity: Arc<Activity>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.activity.note();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> Watched<S> {
    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.activity.note();
        }
        written
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.noted(written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.noted(written)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::http::entrance::PlainEntrance;

    /// A request and what comes back until the server closes the connection.
    async fn exchange(limits: Limits, request: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (closing, closed) = watch::channel(false);
        let router = Router::new().route("/", get(async || "well"));
        let serving = tokio::spawn(serve(PlainEntrance::new(listener), router, limits, closed));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "the connection is still open after {request:?} under {limits:?}");
        closing.send(true).unwrap();
        serving.await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn each_kind_of_silence_ends_a_connection() {
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(600));
        let patient = Limits { handshake: long, header: long, idle: long, ..Limits::new(8) };
        let whole = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        for (limits, request, answered) in [
            (Limits { handshake: short, ..patient }, "", false),
            (Limits { header: short, ..patient }, "GET / HTTP/1.1\r\nhost:", false),
            (Limits { idle: short, ..patient }, "GET / HTTP/1.1\r\nhost:", false),
            (Limits { idle: short, ..patient }, whole, true),
        ] {
            let answer = exchange(limits, request).await;
            assert_eq!(answer.starts_with("HTTP/1.1 200"), answered, "{limits:?}: {answer}");
        }
    }
}
