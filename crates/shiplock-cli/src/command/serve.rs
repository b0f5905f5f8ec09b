//! `serve`: this process is the server until it is told to end.

use std::path::Path;

use shiplock_core::problem::{Code, Problem};
use shiplock_server::http::{ApiToken, NetworkOptions};
use shiplock_server::serve::ServeOptions;

use crate::arguments::ServeArguments;
use crate::attached::interrupted;
use crate::exit::Exit;
use crate::output::{Output, Progress};
use crate::settings::{Environment, read_bounded};

/// A shorter secret could be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// Serves until SIGINT or SIGTERM; what is in work on nodes goes on and is taken up again by the next start.
pub(super) async fn serve(
    options: ServeArguments,
    environment: &Environment,
    output: &Output,
) -> Result<Exit, Problem> {
    log(output)?;
    let data_directory = options.data_dir.clone().unwrap_or_else(|| environment.data_directory());
    let mut serving = ServeOptions::new(data_directory);
    serving.socket = options.socket;
    serving.agent_listen = options.agent_listen;
    serving.agent_url = options.agent_url;
    serving.agent_names = options.agent_name;
    serving.catalogue = options.catalogue;
    if let (Some(address), Some(file)) = (options.listen, &options.token_file) {
        let tls = options.tls_certificate.zip(options.tls_key);
        serving.listen = Some(NetworkOptions { address, tls, tokens: tokens(file)? });
    }
    shiplock_server::serve::serve(serving, interrupted()).await?;
    Ok(Exit::Done)
}

fn log(output: &Output) -> Result<(), Problem> {
    let filter = std::env::var("SHIPLOCK_LOG").unwrap_or_else(|_| "info".to_owned());
    let filter = tracing_subscriber::EnvFilter::try_new(&filter).map_err(|error| {
        Problem::new(Code::BadOption).with("option", "SHIPLOCK_LOG").with("value", &filter).with("why", error)
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match output.progress() {
        Progress::Json => builder.json().init(),
        Progress::None => {}
        Progress::Tty | Progress::Plain => builder.with_ansi(output.progress_style().colour).init(),
    }
    Ok(())
}

/// Reads lines `NAME SECRET`; empty ones and those that begin with `#` are passed over. No error repeats a secret.
fn tokens(file: &Path) -> Result<Vec<ApiToken>, Problem> {
    let bad = |why: String| {
        Problem::new(Code::BadOption).with("option", "--token-file").with("value", file.display()).with("why", why)
    };
    let text = read_bounded(file).map_err(|error| bad(error.to_string()))?;
    let mut tokens = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            [name, secret] if secret.len() >= SECRET_BYTES_MIN => tokens.push(ApiToken::new(name, secret)),
            [_, _] => {
                return Err(bad(format!("the secret of line {number} is shorter than {SECRET_BYTES_MIN} characters")));
            }
            _ => return Err(bad(format!("line {number} is not NAME SECRET"))),
        }
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_and_no_error_repeats_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        for (text, expected) in [
            ("# who\n\nli 0123456789abcdef\nci   fedcba9876543210 \n", Ok(2)),
            ("", Ok(0)),
            ("li short-secret", Err("line 1 is shorter")),
            ("# x\nli 0123456789abcdef extra", Err("line 2 is not")),
            ("0123456789abcdef", Err("line 1 is not")),
        ] {
            std::fs::write(&file, text).unwrap();
            match (tokens(&file), expected) {
                (Ok(tokens), Ok(count)) => assert_eq!(tokens.len(), count),
                (Err(problem), Err(why)) => {
                    assert!(problem.to_string().contains(why), "{problem}");
                    assert!(
                        !problem.to_string().contains("0123456789abcdef")
                            && !problem.to_string().contains("short-secret")
                    );
                }
                (found, expected) => panic!("{text}: {found:?} instead of {expected:?}"),
            }
        }
        assert!(tokens(&folder.path().join("none")).is_err());
    }
}
