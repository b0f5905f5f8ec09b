//! Questions over HTTP to what runs on masters: health endpoints, etcd's JSON gateway, the API server.
//!
//! A client is made once for each set of credentials and kept while those stay the same. Nothing here follows
//! redirects or uses a proxy, and no answer is read beyond a bound.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::Value;

/// Whom to trust, and who we are.
#[derive(Clone, PartialEq, Eq)]
pub enum Trust {
    /// Any certificate, and without one of ours. For health endpoints only: the controller manager and the scheduler
    /// sign their own in memory, and the kubelet's probes do not check them either.
    Anybody,
    /// The authorities of this PEM text, with our certificate and key.
    Authority {
        /// The authorities.
        authority_pem: Vec<u8>,
        /// Certificate and key.
        identity_pem: Vec<u8>,
    },
}

impl std::fmt::Debug for Trust {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key must not come into a log.
        f.write_str(if *self == Self::Anybody { "Anybody" } else { "Authority" })
    }
}

/// One question.
#[derive(Clone, Debug)]
pub struct Question<'a> {
    /// Where.
    pub url: &'a str,
    /// Whom to trust.
    pub trust: &'a Trust,
    /// Posted as JSON; without it, the question is a `GET`.
    pub body: Option<&'a Value>,
    /// How long it may take.
    pub limit: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

const ANSWER_BYTES_MAX: usize = 2 << 20;
/// More sets of credentials than a master has.
const CLIENTS_MAX: usize = 6;
/// Connections are kept from one look to the next.
const KEPT_IDLE: Duration = Duration::from_secs(90);

/// The clients in use, with their credentials.
#[derive(Debug, Default)]
pub struct Clients(Mutex<Vec<(Trust, reqwest::Client)>>);

impl Clients {
    /// Asks. The error is in words, without the address.
    pub async fn ask(&self, question: &Question<'_>) -> Result<Answer, String> {
        let client = self.client(question.trust)?;
        let request = match question.body {
            Some(body) => client.post(question.url).json(body),
            None => client.get(question.url),
        };
        let lost = |error: reqwest::Error| crate::gateway::in_full(&error.without_url());
        let mut response = request.timeout(question.limit).send().await.map_err(lost)?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(lost)? {
            body.extend_from_slice(&piece);
            if body.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".to_owned());
            }
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }

    fn client(&self, trust: &Trust) -> Result<reqwest::Client, String> {
        let mut clients = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some((_, client)) = clients.iter().find(|(known, _)| known == trust) {
            return Ok(client.clone());
        }
        // An error would only mean that there is a provider already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let in_words = |error: reqwest::Error| crate::gateway::in_full(&error);
        let builder = reqwest::Client::builder()
            .no_proxy()
            // etcd answers gRPC and JSON on one port, and tells them apart by the protocol.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(KEPT_IDLE);
        let builder = match trust {
            Trust::Anybody => builder.tls_danger_accept_invalid_certs(true),
            Trust::Authority { authority_pem, identity_pem } => builder
                .tls_certs_only(reqwest::Certificate::from_pem_bundle(authority_pem).map_err(in_words)?)
                .identity(reqwest::Identity::from_pem(identity_pem).map_err(in_words)?),
        };
        let client = builder.build().map_err(in_words)?;
        if clients.len() >= CLIENTS_MAX {
            clients.remove(0);
        }
        clients.push((trust.clone(), client.clone()));
        Ok(client)
    }
}
