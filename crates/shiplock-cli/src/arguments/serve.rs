//! The options of `serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// How the server is started.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  shiplock serve
  shiplock serve --agent-url https://shiplock.example:7443
  shiplock serve --listen 0.0.0.0:8443 --tls-certificate chain.pem --tls-key key.pem --token-file tokens

The token file has one line for each token: NAME SECRET. Commands give the secret in SHIPLOCK_TOKEN.
The owner of the local socket needs no token. Logs go to stderr; SHIPLOCK_LOG sets how much, such as `debug`.")]
pub struct ServeArguments {
    /// Where store, keys and the local socket are [default: /var/lib/shiplock for root, else shiplock in the XDG data
    /// directory].
    #[arg(long, value_name = "DIR", env = "SHIPLOCK_DATA_DIR", hide_env_values = true)]
    pub data_dir: Option<PathBuf>,
    /// The local socket [default: shiplock.sock in the data directory].
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Serve people and programs on this address too, with tokens. Beyond loopback TLS is needed.
    #[arg(long, value_name = "ADDRESS:PORT", requires = "token_file")]
    pub listen: Option<SocketAddr>,
    /// The certificate chain for --listen, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "listen")]
    pub tls_certificate: Option<PathBuf>,
    /// The key of the certificate, PEM.
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// The tokens that are let in at --listen: a file with lines NAME SECRET.
    #[arg(long, value_name = "FILE", requires = "listen")]
    pub token_file: Option<PathBuf>,
    /// Serve agents on this address.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:7443")]
    pub agent_listen: SocketAddr,
    /// The URL under which agents reach that [default: https://HOSTNAME:PORT].
    #[arg(long, value_name = "URL")]
    pub agent_url: Option<String>,
    /// A further name or address under which agents reach the server; its certificate names it.
    #[arg(long, value_name = "NAME")]
    pub agent_name: Vec<String>,
    /// A version catalogue in place of the shipped one.
    #[arg(long, value_name = "FILE")]
    pub catalogue: Option<PathBuf>,
}
