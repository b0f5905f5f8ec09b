//! The ways in for people: the local socket, whose owner needs no token, and TCP with tokens.
//!
//! TCP is plain on loopback only; anywhere else it is TLS or nothing.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use shiplock_core::problem::{Code, Problem};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::connection::{Admitted, Entrance};

/// Who is at the other end, as far as the connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A process of this machine on the local socket.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// Somebody on the network.
    Network,
}

/// The local socket. Its file is gone once this is dropped.
#[derive(Debug)]
pub(crate) struct LocalEntrance {
    listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl LocalEntrance {
    /// Listens at a path for the owner only. A socket file that nobody serves any more is replaced.
    pub(crate) async fn bind(path: &Path) -> Result<Self, Problem> {
        let unusable = |error: &io::Error| {
            Problem::new(Code::FileUnusable)
                .with("path", path.display())
                .with("subject", "this server")
                .with("operation", "listened at")
                .because(error)
        };
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.file_type().is_socket() => {
                return Err(unusable(&io::Error::other("there is a file that is no socket")));
            }
            Ok(_) => {
                let attempt = tokio::time::timeout(Duration::from_secs(2), UnixStream::connect(path)).await;
                // Only a refused connection says that nobody serves it.
                if !matches!(&attempt, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused) {
                    return Err(Problem::new(Code::StoreInUse).with("path", path.display()));
                }
            }
            Err(_) => {}
        }
        Self::bind_aside(path).map_err(|error| unusable(&error))
    }

    /// Binds under another name, narrows the mode and renames: at its own name the socket never has a wider one.
    fn bind_aside(path: &Path) -> io::Result<Self> {
        let mut aside = path.as_os_str().to_owned();
        aside.push(format!(".{}", std::process::id()));
        let aside = PathBuf::from(aside);
        let _ = std::fs::remove_file(&aside);
        let listener = UnixListener::bind(&aside)?;
        let renamed = std::fs::set_permissions(&aside, std::fs::Permissions::from_mode(0o600))
            .and_then(|()| std::fs::metadata(&aside))
            .and_then(|metadata| std::fs::rename(&aside, path).map(|()| metadata.ino()));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
        Ok(Self { listener, path: path.to_owned(), inode: renamed? })
    }
}

impl Drop for LocalEntrance {
    fn drop(&mut self) {
        // Another server may have taken the name over.
        if std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

impl Entrance for LocalEntrance {
    type Raw = UnixStream;
    type Stream = UnixStream;
    type Peer = Peer;

    async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    async fn admit(&self, stream: UnixStream) -> Option<Admitted<UnixStream, Peer>> {
        let uid = stream.peer_cred().ok()?.uid();
        // The mode of the file says the same; a file mode can be changed by mistake.
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(uid, "another user was turned away at the local socket");
            return None;
        }
        Some(Admitted { stream, peer: Peer::Local { uid }, lifetime: None })
    }
}

/// Plain HTTP on loopback.
#[derive(Debug)]
pub(crate) struct PlainEntrance(TcpListener);

impl PlainEntrance {
    /// Serves a listener that must be on loopback.
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self(listener)
    }
}

impl Entrance for PlainEntrance {
    type Raw = TcpStream;
    type Stream = TcpStream;
    type Peer = Peer;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.0.accept().await.map(|(stream, _)| stream)
    }

    async fn admit(&self, stream: TcpStream) -> Option<Admitted<TcpStream, Peer>> {
        let _ = stream.set_nodelay(true);
        Some(Admitted { stream, peer: Peer::Network, lifetime: None })
    }
}

/// HTTPS.
pub(crate) struct TlsEntrance {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Entrance for TlsEntrance {
    type Raw = TcpStream;
    type Stream = TlsStream<TcpStream>;
    type Peer = Peer;

    async fn accept(&self) -> io::Result<TcpStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }

    async fn admit(&self, stream: TcpStream) -> Option<Admitted<TlsStream<TcpStream>, Peer>> {
        let _ = stream.set_nodelay(true);
        let stream = self.acceptor.accept(stream).await.ok()?;
        Some(Admitted { stream, peer: Peer::Network, lifetime: None })
    }
}

/// Where REST is served over TCP.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// The address. Beyond loopback `tls` is needed.
    pub address: SocketAddr,
    /// The files of certificate chain and key, PEM.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// The tokens that are let in; at least one.
    pub tokens: Vec<super::access::ApiToken>,
}

/// Either way in over TCP.
pub(crate) enum NetworkEntrance {
    Plain(PlainEntrance),
    Tls(TlsEntrance),
}

impl NetworkEntrance {
    /// Refuses what would let tokens be read or nobody in; then listens.
    pub(crate) async fn bind(options: &NetworkOptions) -> Result<Self, Problem> {
        let bad = |option: &str, why: &str| {
            Problem::new(Code::BadOption).with("option", option).with("value", options.address).with("why", why)
        };
        if options.tokens.is_empty() {
            return Err(bad("--listen", "no token is given, so nobody could be let in"));
        }
        let acceptor = match &options.tls {
            Some((chain, key)) => Some(TlsAcceptor::from(Arc::new(tls_configuration(chain, key)?))),
            None if is_loopback(options.address.ip()) => None,
            None => return Err(bad("--listen", "beyond loopback a TLS certificate and key are needed")),
        };
        let listener = listen(options.address, "--listen").await?;
        Ok(match acceptor {
            Some(acceptor) => Self::Tls(TlsEntrance { listener, acceptor }),
            None => Self::Plain(PlainEntrance::new(listener)),
        })
    }

    /// The address in force, also where the port was left to the system.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        match self {
            Self::Plain(PlainEntrance(listener)) | Self::Tls(TlsEntrance { listener, .. }) => listener.local_addr(),
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Listens, or says why not.
pub(crate) async fn listen(address: SocketAddr, option: &str) -> Result<TcpListener, Problem> {
    TcpListener::bind(address).await.map_err(|error| {
        let problem = Problem::new(Code::CannotListen).with("option", option).with("address", address);
        problem.with("why", &error)
    })
}

fn tls_configuration(chain: &Path, key: &Path) -> Result<ServerConfig, Problem> {
    let unusable = |path: &Path, error: &dyn std::error::Error| {
        Problem::new(Code::FileUnusable)
            .with("path", path.display())
            .with("subject", "this server")
            .with("operation", "used for TLS")
            .because(error)
    };
    let certificates = CertificateDer::pem_file_iter(chain)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unusable(chain, &error))?;
    let private_key = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error))?;
    let mut configuration = ServerConfig::builder_with_provider(crate::gateway::tls_provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(certificates, private_key))
        .map_err(|error| unusable(chain, &error))?;
    configuration.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::access::ApiToken;

    #[tokio::test]
    async fn the_local_socket_is_the_owners_alone_and_goes_with_its_server() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shiplock.sock");
        let entrance = LocalEntrance::bind(&path).await.unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "nothing is left aside");
        assert_eq!(
            LocalEntrance::bind(&path).await.unwrap_err().code,
            Code::StoreInUse,
            "a live server is not replaced"
        );
        drop(entrance);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_another_file_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shiplock.sock");
        // A socket file that its process left behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let entrance = LocalEntrance::bind(&path).await.unwrap();
        let (accepted, connected) = tokio::join!(entrance.accept(), UnixStream::connect(&path));
        connected.unwrap();
        let admitted = entrance.admit(accepted.unwrap()).await.unwrap();
        assert_eq!(admitted.peer, Peer::Local { uid: rustix::process::geteuid().as_raw() });

        let file = directory.path().join("file");
        std::fs::write(&file, "precious").unwrap();
        assert_eq!(LocalEntrance::bind(&file).await.unwrap_err().code, Code::FileUnusable);
        assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn tcp_needs_a_token_and_beyond_loopback_tls() {
        let token = || vec![ApiToken::new("ci", "a-secret-of-some-length")];
        for (address, tokens, good) in [
            ("127.0.0.1:0", token(), true),
            ("[::ffff:127.0.0.1]:0", token(), true),
            ("127.0.0.1:0", vec![], false),
            ("0.0.0.0:0", token(), false),
            ("[::]:0", token(), false),
        ] {
            let options = NetworkOptions { address: address.parse().unwrap(), tls: None, tokens };
            let bound = NetworkEntrance::bind(&options).await;
            assert_eq!(bound.is_ok(), good, "{address}");
        }
        let tls = Some((PathBuf::from("/nowhere/chain.pem"), PathBuf::from("/nowhere/key.pem")));
        let options = NetworkOptions { address: "0.0.0.0:0".parse().unwrap(), tls, tokens: token() };
        assert_eq!(NetworkEntrance::bind(&options).await.err().unwrap().code, Code::FileUnusable);
    }
}
