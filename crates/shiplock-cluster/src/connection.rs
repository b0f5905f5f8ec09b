//! The connection to one cluster: a client with bounds and without hidden retries.
//!
//! The library's own stack repeats requests that were refused with 429, 503 or 504, and has no way to notice a peer
//! that is silently gone. Both matter here: an eviction must never be repeated behind the driver's back, and a watch
//! must not look alive when it is not. So the stack is put together here.

use std::fmt;
use std::time::Duration;

use futures::TryFutureExt as _;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ConfigExt as _};
use kube::config::{KubeConfigOptions, Kubeconfig as Document};
use kube::{Client, Config};
use shiplock_core::problem::{Code, Problem};
use tower::{BoxError, ServiceBuilder, ServiceExt as _};

use crate::answer::{Ask, Failure, bounded};
use crate::clock::Clock;
use crate::kubeconfig::InlinedKubeconfig;

/// How long it may take until a server is connected to.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read may take.
pub(crate) const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a request that changes something may take. The caller sends none unless its lease holds for longer, and
/// the server is told to give up by then too.
pub const ACT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that is quiet for this long is asked whether it lives, this often, before it is given up.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(5), Duration::from_secs(2), 3);

/// A client of one cluster, or of one instance of its API server.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    /// The address, for messages.
    pub(crate) server: String,
    pub(crate) clock: Clock,
    /// None where the connection was given and cannot be made to other addresses.
    config: Option<Config>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connection({})", self.server)
    }
}

impl Connection {
    /// Prepares a connection; nothing is sent yet. Must be called within a tokio runtime.
    pub(crate) async fn open(kubeconfig: &InlinedKubeconfig) -> Result<Self, Problem> {
        let unusable = || Problem::new(Code::KubeconfigUnreadable).with("path", "(text)");
        // Already checked: it is our own JSON. The parser's message could quote a secret.
        let document: Document =
            serde_json::from_str(&kubeconfig.text).map_err(|_| unusable().cause("it is not a kubeconfig"))?;
        let config = Config::from_custom_kubeconfig(document, &KubeConfigOptions::default()).await;
        let mut config = config.map_err(|error| unusable().because(&error))?;
        // Proxies from the environment are meant for other programs; one in the kubeconfig is refused earlier.
        config.proxy_url = None;
        Self::with(config, kubeconfig.server.clone())
    }

    /// A connection over a given service, for tests and for the simulator's façade.
    pub(crate) fn over(client: Client, server: impl Into<String>) -> Self {
        Self { client, server: server.into(), clock: Clock::default(), config: None }
    }

    /// A connection with the same credentials and authority to one instance, whose certificate must name that address.
    /// None where connections to other addresses cannot be made.
    pub(crate) fn to_instance(&self, address: &str) -> Option<Result<Self, Problem>> {
        let mut config = self.config.clone()?;
        let uri = format!("https://{address}");
        let parsed = uri.parse().map_err(|error: http::uri::InvalidUri| {
            Problem::new(Code::ClusterUnreachable).with("server", address).because(&error)
        });
        Some(parsed.and_then(|parsed| {
            config.cluster_url = parsed;
            config.tls_server_name = None;
            Self::with(config, uri)
        }))
    }

    fn with(config: Config, server: String) -> Result<Self, Problem> {
        let unusable =
            |error: kube::Error| Problem::new(Code::KubeconfigUnreadable).with("path", "(text)").because(&error);
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let (after, every, times) = KEEPALIVE;
        connector.set_keepalive(Some(after));
        connector.set_keepalive_interval(Some(every));
        connector.set_keepalive_retries(Some(times));
        let connector = config.rustls_https_connector_with_connector(connector).map_err(unusable)?;
        // A handshake that hangs is no connection either.
        let connector = tower::service_fn(move |uri: http::Uri| {
            let connecting = connector.clone().oneshot(uri).map_err(BoxError::from);
            Box::pin(async move {
                match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
                    Ok(result) => result,
                    Err(_) => Err(format!("no connection within {CONNECT_TIMEOUT:?}").into()),
                }
            })
        });
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(config.auth_layer().map_err(unusable)?)
            .layer(config.extra_headers_layer().map_err(unusable)?)
            .map_err(BoxError::from)
            .service(HttpClient::builder(TokioExecutor::new()).build::<_, Body>(connector));
        let client = Client::new(service, config.default_namespace.clone());
        Ok(Self { client, server, clock: Clock::default(), config: Some(config) })
    }

    /// Reads, in one bounded attempt.
    pub(crate) async fn read<T>(
        &self,
        ask: Ask,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        bounded(&self.server, ask, READ_TIMEOUT, request).await
    }

    /// Changes something, in one bounded attempt.
    pub(crate) async fn act<T>(
        &self,
        ask: Ask,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        bounded(&self.server, ask, ACT_TIMEOUT, request).await
    }
}
