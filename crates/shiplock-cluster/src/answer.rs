//! What an API server's answers mean: from the client library's errors to problems for people.
//!
//! It must never lose the difference between "refused" and "not reached", since only the latter may be anything.

use std::time::Duration;

use kube::Error;
use kube::core::Status;
use shiplock_core::problem::{Code, Problem};

/// One kind of request, for messages: the words of a ClusterRole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) verb: &'static str,
    pub(crate) resource: &'static str,
}

impl Ask {
    pub(crate) const fn new(verb: &'static str, resource: &'static str) -> Self {
        Self { verb, resource }
    }
}

/// A request that did not come out, with the server's own status where it answered.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) problem: Problem,
    pub(crate) status: Option<Box<Status>>,
}

impl Failure {
    /// The HTTP status; 0 where no answer came.
    pub(crate) fn code(&self) -> u16 {
        self.status.as_ref().map_or(0, |status| status.code)
    }

    /// Whether the server names this cause.
    pub(crate) fn has_cause(&self, reason: &str) -> bool {
        let details = self.status.as_ref().and_then(|status| status.details.as_ref());
        details.is_some_and(|details| details.causes.iter().any(|cause| cause.reason == reason))
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        failure.problem
    }
}

/// Makes a bounded attempt of a request.
pub(crate) async fn bounded<T>(
    server: &str,
    ask: Ask,
    limit: Duration,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, request).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(failure(server, ask, error)),
        Err(_) => {
            let problem = unreachable_server(server)
                .cause(format!("no answer to {} {} within {limit:?}", ask.verb, ask.resource));
            Err(Failure { problem, status: None })
        }
    }
}

/// Says what an error of the client library means.
pub(crate) fn failure(server: &str, ask: Ask, error: Error) -> Failure {
    match error {
        Error::Api(status) => Failure { problem: refused(server, ask, &status), status: Some(status) },
        Error::Auth(error) => {
            let problem = Problem::new(Code::ClusterUnauthorized).with("server", server).because(&error);
            Failure { problem, status: None }
        }
        Error::SerdeError(error) => Failure { problem: unreadable(ask).because(&error), status: None },
        Error::FromUtf8(error) => Failure { problem: unreadable(ask).because(&error), status: None },
        Error::HyperError(error) => not_reached(unreachable_server(server).because(&error)),
        // The inner error says it all; the wrapper repeats it.
        Error::Service(error) => not_reached(unreachable_server(server).because(error.as_ref())),
        other => not_reached(unreachable_server(server).because(&other)),
    }
}

/// What the TLS library says in its own words, in those of a kubeconfig.
const IN_WORDS: &[(&str, &str)] = &[
    ("UnknownIssuer", "the certificate authority of the kubeconfig did not sign the certificate that answers there"),
    ("NotValidForName", "the certificate that answers there does not name this address"),
    ("certificate expired", "the certificate that answers there has expired"),
];

fn not_reached(problem: Problem) -> Failure {
    let meant = IN_WORDS.iter().find(|(said, _)| problem.causes.iter().any(|cause| cause.contains(said)));
    let problem = meant.into_iter().fold(problem, |problem, (_, words)| problem.cause(words));
    Failure { problem, status: None }
}

/// Says what a status that is no success means.
pub(crate) fn refused(server: &str, ask: Ask, status: &Status) -> Problem {
    match status.code {
        401 => Problem::new(Code::ClusterUnauthorized).with("server", server).cause(&status.message),
        403 => Problem::new(Code::ClusterForbidden)
            .with("verb", ask.verb)
            .with("resource", ask.resource)
            .cause(&status.message),
        400 if status.message.contains("HTTP request to an HTTPS server") => unreachable_server(server)
            .cause("it answers under TLS only: the server of the kubeconfig must begin with https://"),
        code => unreadable(ask).cause(format!("{code} {}: {}", status.reason, status.message)),
    }
}

/// An answer that is none, or not the one that was asked for.
pub(crate) fn unreadable(ask: Ask) -> Problem {
    Problem::new(Code::ClusterAnswer).with("verb", ask.verb).with("resource", ask.resource)
}

/// No answer.
pub(crate) fn unreachable_server(server: &str) -> Problem {
    Problem::new(Code::ClusterUnreachable).with("server", server)
}
