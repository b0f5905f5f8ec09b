//! The feed of an upgrade's events that survives lost connections.
//!
//! Server-sent events where the server has them, pages where it has not (or where something between swallows the
//! stream). The numbers of events have no gaps, so the reader itself sees whether one is missing or comes twice: it
//! never gives an event twice, never leaves one out, and asks for pages where the stream has a hole.

use std::collections::VecDeque;
use std::time::Duration;

use futures::Stream;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, Response, StatusCode};
use shiplock_core::id::UpgradeId;
use shiplock_core::problem::{Code, Problem};
use shiplock_core::upgrade::{Event, EventRecord};
use tokio::time::Instant;

use super::sse::SseReader;
use super::{Client, PAGE_LIMIT, answer};

/// How the feed bears trouble. The defaults suit people who watch.
#[derive(Clone, Copy, Debug)]
pub struct FeedOptions {
    /// The wait before the first new attempt; it doubles.
    pub first_wait: Duration,
    /// The longest wait between attempts.
    pub longest_wait: Duration,
    /// After this long without any answer the feed gives up.
    pub patience: Duration,
    /// How often pages are asked for where there is no stream.
    pub poll_every: Duration,
    /// After this long without a byte a stream is not trusted any more. Servers send a comment more often.
    pub silence: Duration,
}

impl Default for FeedOptions {
    fn default() -> Self {
        Self {
            first_wait: Duration::from_millis(250),
            longest_wait: Duration::from_secs(10),
            patience: Duration::from_secs(600),
            poll_every: Duration::from_secs(2),
            silence: Duration::from_secs(40),
        }
    }
}

/// The events of one upgrade in order. See [`Client::follow`].
#[derive(Debug)]
pub struct EventFeed {
    client: Client,
    upgrade: UpgradeId,
    options: FeedOptions,
    /// The number of the newest event that was received, given out or not.
    received: u64,
    ready: VecDeque<EventRecord>,
    source: Source,
    failures: u32,
    failing_since: Option<Instant>,
    /// No attempt before this.
    not_before: Option<Instant>,
    ended: bool,
}

#[derive(Debug)]
enum Source {
    /// A stream is to be opened.
    Stream,
    /// A stream is open.
    Open { response: Box<Response>, reader: SseReader },
    /// A hole is to be filled from pages; a stream after that.
    Pages,
    /// Pages for good.
    PagesOnly,
}

/// What went wrong, and whether it may help to try again.
enum Trouble {
    Passing(Problem),
    Lasting(Problem),
}

impl EventFeed {
    pub(super) fn new(client: Client, upgrade: UpgradeId, after: u64, options: FeedOptions) -> Self {
        Self {
            client,
            upgrade,
            options,
            received: after,
            ready: VecDeque::new(),
            source: Source::Stream,
            failures: 0,
            failing_since: None,
            not_before: None,
            ended: false,
        }
    }

    /// The next event; none after the one that ended the upgrade. An error is the last thing that comes: it is given
    /// when the server refuses, or after [`FeedOptions::patience`].
    ///
    /// Dropping the future loses nothing: the next call goes on where it was.
    pub async fn next(&mut self) -> Option<Result<EventRecord, Problem>> {
        loop {
            if let Some(record) = self.ready.pop_front() {
                self.ended |= ends(&record.event);
                return Some(Ok(record));
            }
            if self.ended {
                return None;
            }
            if let Some(at) = self.not_before {
                tokio::time::sleep_until(at).await;
                self.not_before = None;
            }
            match self.fill().await {
                Ok(()) => {}
                Err(Trouble::Lasting(problem)) => return self.give_up(problem),
                Err(Trouble::Passing(problem)) => {
                    let now = Instant::now();
                    let since = *self.failing_since.get_or_insert(now);
                    if now.duration_since(since) >= self.options.patience {
                        return self.give_up(problem);
                    }
                    let wait = self.options.first_wait.saturating_mul(1 << self.failures.min(16));
                    self.failures += 1;
                    self.not_before = Some(now + wait.min(self.options.longest_wait));
                }
            }
        }
    }

    /// The feed as a stream.
    pub fn into_stream(self) -> impl Stream<Item = Result<EventRecord, Problem>> + Send {
        futures::stream::unfold(self, async |mut feed| feed.next().await.map(|item| (item, feed)))
    }

    fn give_up(&mut self, problem: Problem) -> Option<Result<EventRecord, Problem>> {
        self.ended = true;
        Some(Err(problem))
    }

    /// Makes one attempt to receive something.
    async fn fill(&mut self) -> Result<(), Trouble> {
        match &mut self.source {
            Source::Stream => self.open().await,
            Source::Open { response, reader } => {
                match tokio::time::timeout(self.options.silence, response.chunk()).await {
                    Ok(Ok(Some(bytes))) => {
                        let complete = reader.take(&bytes);
                        self.recovered();
                        self.take_stream(complete)
                    }
                    // The server ended it (a restart, say), or the connection broke: open it again from here.
                    Ok(Ok(None)) => {
                        self.source = Source::Stream;
                        Err(Trouble::Passing(self.unreachable("the stream ended")))
                    }
                    Ok(Err(error)) => {
                        self.source = Source::Stream;
                        Err(Trouble::Passing(self.unreachable(&answer::chain(&error))))
                    }
                    Err(_) => {
                        // Nothing for long: if pages have more than the stream, something swallows the stream.
                        let more = self.page().await?;
                        self.source = if more { Source::PagesOnly } else { Source::Stream };
                        Ok(())
                    }
                }
            }
            Source::Pages => {
                let before = self.received;
                if self.page().await? && self.received > before {
                    return Ok(());
                }
                self.source = Source::Stream;
                Ok(())
            }
            Source::PagesOnly => {
                if !self.page().await? {
                    self.not_before = Some(Instant::now() + self.options.poll_every);
                }
                Ok(())
            }
        }
    }

    async fn open(&mut self) -> Result<(), Trouble> {
        let path = ["upgrades", self.upgrade.as_str(), "events"];
        // The answer has no end; the time is bounded by the silence instead.
        let request = self.client.request(Method::GET, &path, Duration::from_secs(24 * 3600));
        let pairs = [("after", Some(self.received.to_string()))];
        let request = super::with_query(request, &self.client.url(&path), pairs)
            .header("Accept", "text/event-stream")
            .header("Last-Event-ID", self.received.to_string());
        let opened = tokio::time::timeout(self.options.silence, self.client.open(request)).await;
        let response = match opened {
            Ok(Ok(response)) => response,
            Ok(Err(lost)) => return Err(Trouble::Passing(lost.problem)),
            Err(_) => return Err(Trouble::Passing(self.unreachable("no answer"))),
        };
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let streams = kind.starts_with("text/event-stream");
        match response.status() {
            StatusCode::OK if streams => {
                // It answers, so patience begins anew; the waits grow until something comes.
                self.failing_since = None;
                self.source = Source::Open { response: Box::new(response), reader: SseReader::default() };
                Ok(())
            }
            // The upgrade has ended and nothing follows what the reader has.
            StatusCode::NO_CONTENT => {
                self.ended = true;
                Ok(())
            }
            StatusCode::OK | StatusCode::NOT_ACCEPTABLE | StatusCode::NOT_IMPLEMENTED => {
                self.source = Source::PagesOnly;
                Ok(())
            }
            status => {
                let answer = self.client.finish(response).await.map_err(|lost| Trouble::Passing(lost.problem))?;
                match answer.succeed(&self.client.endpoint) {
                    Ok(_) => Err(Trouble::Passing(self.unreachable(status.as_str()))),
                    Err(problem) => Err(trouble(problem, status.is_client_error())),
                }
            }
        }
    }

    fn take_stream(&mut self, complete: Result<Vec<Vec<u8>>, super::sse::TooLarge>) -> Result<(), Trouble> {
        let Ok(complete) = complete else {
            return Err(Trouble::Lasting(self.unreadable("an event is too large")));
        };
        for data in complete {
            let record: EventRecord =
                serde_json::from_slice(&data).map_err(|error| Trouble::Lasting(self.unreadable(&error.to_string())))?;
            if record.number > self.received + 1 {
                self.source = Source::Pages;
                return Ok(());
            }
            self.receive(record);
        }
        Ok(())
    }

    /// Reads one page; true when it brought something new.
    async fn page(&mut self) -> Result<bool, Trouble> {
        let page = self.client.events(&self.upgrade, self.received, PAGE_LIMIT).await.map_err(|problem| {
            let status = problem.code.text().http_status;
            trouble(problem, (400..500).contains(&status))
        })?;
        self.recovered();
        let before = self.received;
        for record in page.items {
            if record.number > self.received + 1 {
                let problem = Problem::new(Code::LogUnreadable).with("upgrade", &self.upgrade);
                let problem = problem.with("number", self.received + 1).with("why", "the server does not have it");
                return Err(Trouble::Lasting(problem));
            }
            self.receive(record);
        }
        Ok(self.received > before)
    }

    fn receive(&mut self, record: EventRecord) {
        if record.number == self.received + 1 {
            self.received = record.number;
            self.ready.push_back(record);
            self.recovered();
        }
    }

    fn recovered(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }

    fn unreachable(&self, why: &str) -> Problem {
        Problem::new(Code::ServerUnreachable).with("server", &self.client.endpoint).cause(why)
    }

    fn unreadable(&self, why: &str) -> Problem {
        answer::unreadable(&self.client.endpoint, &format!("/api/v1/upgrades/{}/events", self.upgrade)).cause(why)
    }
}

/// What the server refuses stays refused; everything else may pass.
fn trouble(problem: Problem, refused: bool) -> Trouble {
    let lasting = refused || problem.code == Code::AnswerUnreadable;
    if lasting { Trouble::Lasting(problem) } else { Trouble::Passing(problem) }
}

/// Whether nothing follows an event.
fn ends(event: &Event) -> bool {
    matches!(event, Event::Succeeded | Event::Cancelled | Event::Expired)
}
