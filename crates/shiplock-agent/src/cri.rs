//! One question to the container runtime over CRI: its version. That it answers also means that it is initialised.
//!
//! gRPC is HTTP/2 with a five-byte frame around a message; for one empty question and four texts no generated code
//! is needed.

use std::path::Path;
use std::time::Duration;

use tokio::net::UnixStream;

/// containerd's socket.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
const METHOD: &str = "http://localhost/runtime.v1.RuntimeService/Version";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// `VersionResponse.runtime_version`.
const RUNTIME_VERSION_FIELD: u64 = 3;

/// The version that the runtime says it has, or why it does not say.
pub async fn runtime_version(socket: &Path) -> Result<String, String> {
    match tokio::time::timeout(ANSWER_LIMIT, ask(socket)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())),
    }
}

async fn ask(socket: &Path) -> Result<String, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| format!("{}: {error}", socket.display()))?;
    let in_words = |error: h2::Error| error.to_string();
    let (client, connection) = h2::client::handshake(stream).await.map_err(in_words)?;
    let talk = async {
        let request = http::Request::post(METHOD)
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let mut client = client.ready().await.map_err(in_words)?;
        let (response, mut body) = client.send_request(request, false).map_err(in_words)?;
        // Not compressed, length 0: a `VersionRequest` without fields.
        body.send_data(vec![0; 5].into(), true).map_err(in_words)?;
        let response = response.await.map_err(in_words)?;
        if let Some(wrong) = status(response.headers()) {
            return Err(wrong);
        }
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while let Some(piece) = body.data().await {
            let piece = piece.map_err(in_words)?;
            let _ = body.flow_control().release_capacity(piece.len());
            answer.extend_from_slice(&piece);
            if answer.len() > ANSWER_BYTES_MAX {
                return Err("the answer is too long".to_owned());
            }
        }
        if let Some(wrong) = body.trailers().await.map_err(in_words)?.as_ref().and_then(status) {
            return Err(wrong);
        }
        text_field(answer.get(5..).unwrap_or_default(), RUNTIME_VERSION_FIELD)
            .ok_or_else(|| "the answer has no version".to_owned())
    };
    tokio::select! {
        answer = talk => answer,
        ended = connection => Err(ended.err().map_or_else(|| "the connection ended".to_owned(), |error| error.to_string())),
    }
}

/// What a gRPC status other than 0 says.
fn status(headers: &http::HeaderMap) -> Option<String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let code = text("grpc-status").filter(|code| *code != "0")?;
    Some(format!("gRPC status {code}: {}", text("grpc-message").unwrap_or_default()))
}

/// A text field of a protobuf message that holds texts and numbers only.
fn text_field(mut message: &[u8], wanted: u64) -> Option<String> {
    while !message.is_empty() {
        let key = number(&mut message)?;
        match key & 7 {
            0 => {
                number(&mut message)?;
            }
            2 => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                let (text, rest) = message.split_at_checked(length)?;
                if key >> 3 == wanted {
                    return String::from_utf8(text.to_vec()).ok();
                }
                message = rest;
            }
            _ => return None,
        }
    }
    None
}

fn number(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_third_text_and_damage_is_no_version() {
        let message = [b"\x0a\x050.1.0\x12\x0acontainerd\x1a\x06v2.2.9\x22\x02v1".as_slice()].concat();
        assert_eq!(text_field(&message, RUNTIME_VERSION_FIELD).as_deref(), Some("v2.2.9"));
        for cut in 0..message.len() - 4 {
            assert_eq!(text_field(&message[..cut], RUNTIME_VERSION_FIELD), None, "{cut}");
        }
        for damaged in [b"\xff".as_slice(), b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1b"] {
            assert_eq!(text_field(damaged, RUNTIME_VERSION_FIELD), None);
        }
    }
}
