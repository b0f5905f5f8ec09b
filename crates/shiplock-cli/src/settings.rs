//! Where the server is and where things lie on this machine: options, environment, configuration file, defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use shiplock_api::client::{Client, Endpoint};
use shiplock_core::problem::{Code, Problem};

/// The name of the local socket in a data directory.
pub(crate) const SOCKET_NAME: &str = "shiplock.sock";
/// The data directory of a server that root started.
const SYSTEM_DATA_DIRECTORY: &str = "/var/lib/shiplock";
/// The largest file of settings that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `HOME`.
    pub(crate) home: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`.
    pub(crate) config_home: Option<PathBuf>,
    /// `XDG_DATA_HOME`.
    pub(crate) data_home: Option<PathBuf>,
    /// Whether this is root.
    pub(crate) is_root: bool,
}

/// The configuration file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Configuration {
    server: Option<String>,
    ca_file: Option<PathBuf>,
}

impl Environment {
    /// Reads the environment of this process.
    pub(crate) fn of_process() -> Self {
        // As the XDG specification has it, a relative path counts as not set.
        let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        Self {
            home: path("HOME"),
            config_home: path("XDG_CONFIG_HOME"),
            data_home: path("XDG_DATA_HOME"),
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// Where a server of this user keeps its data.
    pub(crate) fn data_directory(&self) -> PathBuf {
        if self.is_root {
            return PathBuf::from(SYSTEM_DATA_DIRECTORY);
        }
        let fallback = || self.home.as_deref().unwrap_or(Path::new("/")).join(".local/share");
        self.data_home.clone().unwrap_or_else(fallback).join("shiplock")
    }

    fn configuration_path(&self) -> Option<PathBuf> {
        let home = self.config_home.clone().or_else(|| Some(self.home.as_ref()?.join(".config")))?;
        Some(home.join("shiplock/config.toml"))
    }

    fn configuration(&self) -> Result<Configuration, Problem> {
        let Some(path) = self.configuration_path() else { return Ok(Configuration::default()) };
        let unreadable = || Problem::new(Code::ConfigurationUnreadable).with("path", path.display());
        let text = match read_bounded(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Configuration::default()),
            Err(error) => return Err(unreadable().cause(error)),
            Ok(text) => text,
        };
        toml::from_str(&text).map_err(|error| unreadable().cause(error.message()))
    }

    /// The server: what was given, else the configuration file, else the local socket of this user's server.
    fn endpoint(&self, given: Option<&str>, configuration: &Configuration) -> Result<Endpoint, Problem> {
        // An empty variable counts as not set, as everywhere in a shell.
        match given.filter(|server| !server.is_empty()).or(configuration.server.as_deref()) {
            Some(server) => Endpoint::parse(server),
            None => Ok(Endpoint::Socket(self.data_directory().join(SOCKET_NAME))),
        }
    }

    /// A client for the server that was given by option or `SHIPLOCK_SERVER`, or for the one that is found.
    pub(crate) fn client(&self, given: Option<&str>) -> Result<Client, Problem> {
        let configuration = self.configuration()?;
        let endpoint = self.endpoint(given, &configuration)?;
        let token = std::env::var("SHIPLOCK_TOKEN").ok().filter(|token| !token.is_empty());
        let authority_path = std::env::var_os("SHIPLOCK_CA_FILE").map(PathBuf::from).or(configuration.ca_file);
        let authority = match authority_path {
            Some(path) => Some(read_bounded(&path).map_err(|error| {
                let problem = Problem::new(Code::FileUnusable).with("path", path.display());
                problem.with("subject", "this machine").with("operation", "read").cause(error)
            })?),
            None => None,
        };
        Client::new(endpoint, token, authority.as_deref().map(str::as_bytes))
    }
}

/// Reads a small text file.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        return Err(std::io::Error::other(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    std::fs::read_to_string(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(home: &Path) -> Environment {
        Environment { home: Some(home.to_owned()), config_home: None, data_home: None, is_root: false }
    }

    #[test]
    fn the_server_is_what_was_given_else_the_file_else_the_local_socket() {
        let home = tempfile::tempdir().unwrap();
        let environment = environment(home.path());
        let found = |given: Option<&str>| {
            environment
                .configuration()
                .and_then(|file| environment.endpoint(given, &file))
                .map(|endpoint| endpoint.to_string())
        };
        let socket = format!("unix://{}/.local/share/shiplock/shiplock.sock", home.path().display());
        assert_eq!(found(None).unwrap(), socket);
        assert_eq!(found(Some("")).unwrap(), socket);

        let folder = home.path().join(".config/shiplock");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("config.toml"), "server = \"https://a.example:8443\"\n").unwrap();
        assert_eq!(found(None).unwrap(), "https://a.example:8443");
        assert_eq!(found(Some("/run/b.sock")).unwrap(), "unix:///run/b.sock");

        for wrong in ["server = 5", "servr = \"x\"", "server ="] {
            std::fs::write(folder.join("config.toml"), wrong).unwrap();
            assert_eq!(found(None).unwrap_err().code, Code::ConfigurationUnreadable, "{wrong}");
        }
    }

    #[test]
    fn root_has_the_systems_data_directory_and_everybody_else_their_own() {
        let home = Path::new("/home/li");
        let cases = [
            (environment(home), "/home/li/.local/share/shiplock"),
            (Environment { data_home: Some("/data".into()), ..environment(home) }, "/data/shiplock"),
            (Environment { is_root: true, ..environment(home) }, "/var/lib/shiplock"),
        ];
        for (environment, expected) in cases {
            assert_eq!(environment.data_directory(), Path::new(expected));
        }
    }
}
