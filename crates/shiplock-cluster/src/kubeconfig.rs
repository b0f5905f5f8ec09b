//! Kubeconfigs made self-contained: one context, one cluster, one user, every file inlined.
//!
//! What leaves this module can be stored and used on another machine: it names no file and runs no program. No error
//! of it repeats any part of a file's content, since that may be a secret.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kube::config::{AuthInfo, Cluster, Kubeconfig as Document, NamedAuthInfo, NamedCluster, NamedContext};
use shiplock_core::problem::{Code, Problem};

/// No kubeconfig, and no file that one names, may be larger.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// No list may name more files.
const FILES_MAX: usize = 64;

/// The feature of kubeconfigs that runs a program.
pub const FEATURE_EXEC: &str = "exec";
/// The feature of kubeconfigs that asks a cloud's login.
pub const FEATURE_AUTH_PROVIDER: &str = "auth-provider";
/// The feature of kubeconfigs that trusts any server.
pub const FEATURE_INSECURE: &str = "insecure-skip-tls-verify";

/// Where a kubeconfig comes from.
#[derive(Clone)]
pub enum KubeconfigSource {
    /// Text that names no relative files.
    Text(String),
    /// One file, which must be there.
    File(PathBuf),
    /// Files as `KUBECONFIG` lists them: missing ones are passed over, the first to set a value wins.
    List(Vec<PathBuf>),
}

impl fmt::Debug for KubeconfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KubeconfigSource({})", self.label())
    }
}

impl KubeconfigSource {
    /// The source as kubectl chooses it: the file that was asked for, else the list in `KUBECONFIG`, else
    /// `~/.kube/config`.
    pub fn choose(asked: Option<&Path>, variable: Option<&OsStr>, home: Option<&Path>) -> Self {
        if let Some(path) = asked {
            return Self::File(path.to_owned());
        }
        let listed: Vec<PathBuf> = variable
            .map(|list| std::env::split_paths(list).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        if !listed.is_empty() {
            return Self::List(listed);
        }
        Self::File(home.unwrap_or(Path::new("/")).join(".kube/config"))
    }

    fn label(&self) -> String {
        match self {
            Self::Text(_) => "(text)".to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::List(paths) => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(":"),
        }
    }
}

/// A kubeconfig that stands alone. Its text is a secret; `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct InlinedKubeconfig {
    /// The kubeconfig, JSON (which is YAML too).
    pub text: String,
    /// The name of its context.
    pub context: String,
    /// The address of the API server.
    pub server: String,
}

impl fmt::Debug for InlinedKubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InlinedKubeconfig(context {}, server {})", self.context, self.server)
    }
}

/// The making of self-contained kubeconfigs.
#[derive(Clone, Copy, Debug)]
pub struct Kubeconfig;

impl Kubeconfig {
    /// Reads a kubeconfig, chooses a context (the current one unless named) and puts every file that it names into it.
    /// `exec`, `auth-provider` and `insecure-skip-tls-verify` are refused unless `allow` names them.
    pub fn inline(
        source: &KubeconfigSource,
        context: Option<&str>,
        allow: &[String],
    ) -> Result<InlinedKubeconfig, Problem> {
        let path = source.label();
        let (document, folder) = match source {
            KubeconfigSource::Text(text) => (parse(text, &path)?, None),
            KubeconfigSource::File(file) => (read_document(file)?, file.parent().map(Path::to_owned)),
            KubeconfigSource::List(files) => (read_list(files, &path)?, None),
        };
        let mut document = choose(document, context, &path)?;
        check_features(&document, allow)?;
        inline_files(&mut document, folder.as_deref(), &path)?;
        finish(&document, &path)
    }

    /// Takes a kubeconfig that claims to stand alone, from somebody who is not the owner of this machine: one that
    /// names a file is refused, since it would be read here.
    pub fn standing_alone(text: &str, allow: &[String]) -> Result<InlinedKubeconfig, Problem> {
        let path = "(text)";
        let document = choose(parse(text, path)?, None, path)?;
        check_features(&document, allow)?;
        if let Some((entry, key, _)) = file_references(&document).into_iter().next() {
            return Err(unusable(path).cause(format!("`{entry}` names a file in `{key}`; put its content in instead")));
        }
        finish(&document, path)
    }
}

fn unusable(path: &str) -> Problem {
    Problem::new(Code::KubeconfigUnreadable).with("path", path)
}

/// Parses one file's text. The parser's own message is not passed on: it quotes the text.
fn parse(text: &str, path: &str) -> Result<Document, Problem> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(path).cause(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    let documents: Vec<Document> = serde_saphyr::from_multiple(text).map_err(|error| {
        let place = error
            .location()
            .map_or_else(String::new, |place| format!(" (line {}, column {})", place.line(), place.column()));
        unusable(path).cause(format!("it is not the YAML of a kubeconfig{place}"))
    })?;
    documents.into_iter().try_fold(Document::default(), |merged, next| merge(merged, next, path))
}

fn merge(merged: Document, next: Document, path: &str) -> Result<Document, Problem> {
    merged.merge(next).map_err(|_| unusable(path).cause("files of different kinds or versions cannot be merged"))
}

fn read_bounded(file: &Path) -> Result<Vec<u8>, String> {
    let tell = |error: std::io::Error| format!("{}: {error}", file.display());
    let mut content = Vec::new();
    let opened = std::fs::File::open(file).map_err(tell)?;
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(tell)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("{}: larger than {FILE_BYTES_MAX} bytes", file.display()));
    }
    Ok(content)
}

fn read_document(file: &Path) -> Result<Document, Problem> {
    let path = file.display().to_string();
    let content = read_bounded(file).map_err(|why| unusable(&path).cause(why))?;
    let text = String::from_utf8(content).map_err(|_| unusable(&path).cause("it is not UTF-8 text"))?;
    parse(&text, &path)
}

fn read_list(files: &[PathBuf], label: &str) -> Result<Document, Problem> {
    if files.len() > FILES_MAX {
        return Err(unusable(label).cause(format!("more than {FILES_MAX} files are listed")));
    }
    let mut merged = None;
    for file in files.iter().filter(|file| file.exists()) {
        let mut next = read_document(file)?;
        // Relative names count from the file that they stand in, so they are resolved before files are mixed.
        if let Some(folder) = file.parent() {
            for_each_file(&mut next, &mut |_, _, name| {
                if !name.is_empty() {
                    *name = folder.join(&*name).to_string_lossy().into_owned();
                }
            });
        }
        merged = Some(match merged {
            None => next,
            Some(merged) => merge(merged, next, label)?,
        });
    }
    merged.ok_or_else(|| unusable(label).cause("none of the files is there"))
}

/// Keeps one context with its cluster and its user.
fn choose(document: Document, context: Option<&str>, path: &str) -> Result<Document, Problem> {
    let name = context.map(str::to_owned).or(document.current_context.clone()).filter(|name| !name.is_empty());
    let Some(name) = name else {
        return Err(unusable(path).cause("it has no current context; name one with --context"));
    };
    let known = document.contexts.iter().map(|context| context.name.as_str()).collect::<Vec<_>>().join(", ");
    let Some(context) = document.contexts.into_iter().find(|context| context.name == name) else {
        return Err(unusable(path).cause(format!("it has no context `{name}`; it has {known}")));
    };
    let missing =
        |what: &str, name: &str| unusable(path).cause(format!("the context names {what} `{name}`, which is not there"));
    let Some(body) = context.context.as_ref() else {
        return Err(unusable(path).cause(format!("context `{name}` is empty")));
    };
    let cluster = document
        .clusters
        .into_iter()
        .find(|cluster| cluster.name == body.cluster)
        .ok_or_else(|| missing("cluster", &body.cluster))?;
    let user = match &body.user {
        None => None,
        Some(user) => {
            let found = document.auth_infos.into_iter().find(|entry| &entry.name == user);
            Some(found.ok_or_else(|| missing("user", user))?)
        }
    };
    Ok(Document {
        clusters: vec![cluster],
        auth_infos: user.into_iter().collect(),
        contexts: vec![context],
        current_context: Some(name),
        kind: Some("Config".to_owned()),
        api_version: Some("v1".to_owned()),
        ..Document::default()
    })
}

fn check_features(document: &Document, allow: &[String]) -> Result<(), Problem> {
    let refuse =
        |entry: &str, feature: &str| Problem::new(Code::KubeconfigUnsafe).with("entry", entry).with("feature", feature);
    let allowed = |feature: &str| allow.iter().any(|name| name == feature);
    for (name, cluster) in clusters(document) {
        if cluster.insecure_skip_tls_verify == Some(true) && !allowed(FEATURE_INSECURE) {
            return Err(refuse(name, FEATURE_INSECURE));
        }
    }
    for (name, user) in users(document) {
        if user.exec.is_some() && !allowed(FEATURE_EXEC) {
            return Err(refuse(name, FEATURE_EXEC));
        }
        if user.auth_provider.is_some() && !allowed(FEATURE_AUTH_PROVIDER) {
            return Err(refuse(name, FEATURE_AUTH_PROVIDER));
        }
    }
    Ok(())
}

fn clusters(document: &Document) -> impl Iterator<Item = (&str, &Cluster)> {
    document.clusters.iter().filter_map(|NamedCluster { name, cluster, .. }| Some((name.as_str(), cluster.as_ref()?)))
}

fn users(document: &Document) -> impl Iterator<Item = (&str, &AuthInfo)> {
    document
        .auth_infos
        .iter()
        .filter_map(|NamedAuthInfo { name, auth_info, .. }| Some((name.as_str(), auth_info.as_ref()?)))
}

/// Calls `visit` with entry, key and file name of everything that is read from a file.
fn for_each_file(document: &mut Document, visit: &mut dyn FnMut(&str, &'static str, &mut String)) {
    for NamedCluster { name, cluster, .. } in &mut document.clusters {
        if let Some(file) = cluster.as_mut().and_then(|cluster| cluster.certificate_authority.as_mut()) {
            visit(name, "certificate-authority", file);
        }
    }
    for NamedAuthInfo { name, auth_info, .. } in &mut document.auth_infos {
        let Some(user) = auth_info else { continue };
        let files = [
            ("client-certificate", user.client_certificate.as_mut()),
            ("client-key", user.client_key.as_mut()),
            ("tokenFile", user.token_file.as_mut()),
        ];
        for (key, file) in files {
            if let Some(file) = file {
                visit(name, key, file);
            }
        }
    }
}

fn file_references(document: &Document) -> Vec<(String, &'static str, String)> {
    let mut found = Vec::new();
    for_each_file(&mut document.clone(), &mut |entry, key, file| {
        if !file.is_empty() {
            found.push((entry.to_owned(), key, file.clone()));
        }
    });
    found
}

/// Puts the content of files in place of their names. As with kubectl, data that is there already wins over a file,
/// but a token file wins over a token.
fn inline_files(document: &mut Document, folder: Option<&Path>, path: &str) -> Result<(), Problem> {
    let read = |name: &str| -> Result<Vec<u8>, Problem> {
        let file = folder.map_or_else(|| PathBuf::from(name), |folder| folder.join(name));
        read_bounded(&file).map_err(|why| unusable(path).cause(why))
    };
    let wanted = |file: &mut Option<String>, there: bool| file.take().filter(|name| !name.is_empty() && !there);
    for cluster in document.clusters.iter_mut().filter_map(|entry| entry.cluster.as_mut()) {
        let there = cluster.certificate_authority_data.is_some();
        if let Some(file) = wanted(&mut cluster.certificate_authority, there) {
            cluster.certificate_authority_data = Some(STANDARD.encode(read(&file)?));
        }
    }
    for user in document.auth_infos.iter_mut().filter_map(|entry| entry.auth_info.as_mut()) {
        let there = user.client_certificate_data.is_some();
        if let Some(file) = wanted(&mut user.client_certificate, there) {
            user.client_certificate_data = Some(STANDARD.encode(read(&file)?));
        }
        let there = user.client_key_data.is_some();
        if let Some(file) = wanted(&mut user.client_key, there) {
            user.client_key_data = Some(STANDARD.encode(read(&file)?).into());
        }
        if let Some(file) = wanted(&mut user.token_file, false) {
            let token = String::from_utf8(read(&file)?)
                .map_err(|_| unusable(path).cause(format!("{file}: a token is text, and this is not")))?;
            user.token = Some(token.trim().to_owned().into());
        }
    }
    Ok(())
}

/// Last checks, and the text.
fn finish(document: &Document, path: &str) -> Result<InlinedKubeconfig, Problem> {
    let (_, cluster) = clusters(document).next().ok_or_else(|| unusable(path).cause("its cluster is empty"))?;
    let server = cluster.server.clone().filter(|server| !server.is_empty());
    let server = server.ok_or_else(|| unusable(path).cause("its cluster names no server"))?;
    if cluster.proxy_url.as_ref().is_some_and(|proxy| !proxy.is_empty()) {
        return Err(unusable(path).cause("`proxy-url` is not supported"));
    }
    let encoded = [
        ("certificate-authority-data", cluster.certificate_authority_data.as_deref()),
        (
            "client-certificate-data",
            users(document).next().and_then(|(_, user)| user.client_certificate_data.as_deref()),
        ),
    ];
    for (key, data) in encoded {
        if data.is_some_and(|data| STANDARD.decode(data.trim()).is_err()) {
            return Err(unusable(path).cause(format!("`{key}` is not base64")));
        }
    }
    // It becomes a header, and what is no header must not get as far as the client.
    let user = users(document).next().and_then(|(_, user)| serde_json::to_value(user).ok()).unwrap_or_default();
    if user["token"].as_str().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(unusable(path).cause("its token is not one line of visible ASCII characters"));
    }
    // The serializer's message could quote a value.
    let text = serde_json::to_string(document).map_err(|_| unusable(path).cause("it cannot be written as JSON"))?;
    let context = document.contexts.first().map(|NamedContext { name, .. }| name.clone()).unwrap_or_default();
    Ok(InlinedKubeconfig { text, context, server })
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
