//! Where a server is: a Unix socket of this machine, or a URL.

use std::fmt;
use std::path::PathBuf;

use shiplock_core::problem::{Code, Problem};

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// The Unix socket of a server on this machine. Its owner needs no token.
    Socket(PathBuf),
    /// A URL, `https://…` or, on this machine, `http://…`.
    Url(String),
}

impl Endpoint {
    /// Reads `https://HOST:PORT`, `http://…`, `unix:///PATH` or an absolute path.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.starts_with('/') {
            return Ok(Self::Socket(PathBuf::from(path)));
        }
        let url = reqwest::Url::parse(text).ok();
        if url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.host_str().is_some()) {
            return Ok(Self::Url(text.to_owned()));
        }
        let shown: String = text.chars().take(200).collect();
        Err(Problem::new(Code::BadOption)
            .with("option", "--server")
            .with("value", shown)
            .with("why", "it is https://HOST:PORT, http://…, unix:///PATH or an absolute path"))
    }

    /// Whether nobody beyond this machine can read what is sent.
    pub(super) fn is_private(&self) -> bool {
        let Self::Url(url) = self else { return true };
        let Ok(url) = reqwest::Url::parse(url) else { return false };
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let loopback = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
        url.scheme() == "https" || loopback || host == "localhost"
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(path) => write!(f, "unix://{}", path.display()),
            Self::Url(url) => f.write_str(url),
        }
    }
}
