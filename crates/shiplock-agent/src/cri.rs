//! Questions to the container runtime over CRI, and one act: stopping a container.
//!
//! gRPC is HTTP/2 with a five-byte frame around a message. The messages hold the fields that are used and no others,
//! with the numbers of <https://github.com/kubernetes/cri-api/blob/master/pkg/apis/runtime/v1/api.proto>.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use prost::Message;
use shiplock_core::facts::examination::RuntimeHealth;
use tokio::net::UnixStream;

/// containerd's socket.
pub const SOCKET: &str = "/run/containerd/containerd.sock";
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// PLEG calls a runtime ill whose lists take longer than minutes; one that takes this long is on its way there.
const LIST_LIMIT: Duration = Duration::from_secs(15);
/// A node has some hundred containers, of about a KiB each.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const NAME_LABEL: &str = "io.kubernetes.container.name";
const NAMESPACE_LABEL: &str = "io.kubernetes.pod.namespace";
const RUNNING: i32 = 1;

/// A container of a pod in namespace `kube-system`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id of it.
    pub id: String,
    /// Its name in the pod; a static pod of the control plane and its container have one name.
    pub name: String,
    /// Whether it runs now.
    pub running: bool,
    /// How often it was started before in its sandbox.
    pub attempt: u32,
    /// The digest of its image's configuration, `sha256:…`.
    pub image_id: String,
    /// When it was made, in nanoseconds since 1970, for the order.
    pub created_at: i64,
}

/// What is told of one container only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerDetails {
    /// The reference of its image.
    pub image: String,
    /// When it was started, in nanoseconds since 1970; 0 before.
    pub started_at: i64,
    /// What it ended with.
    pub exit_code: i32,
    /// Where its log is on the node.
    pub log_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct Nothing {}

#[derive(Clone, PartialEq, Message)]
struct VersionResponse {
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerFilter {
    #[prost(map = "string, string", tag = "4")]
    label_selector: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersRequest {
    #[prost(message, optional, tag = "1")]
    filter: Option<ContainerFilter>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMetadata {
    #[prost(uint32, tag = "2")]
    attempt: u32,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerMessage {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "3")]
    metadata: Option<ContainerMetadata>,
    #[prost(string, tag = "5")]
    image_ref: String,
    #[prost(int32, tag = "6")]
    state: i32,
    #[prost(int64, tag = "7")]
    created_at: i64,
    #[prost(map = "string, string", tag = "8")]
    labels: HashMap<String, String>,
}

#[derive(Clone, PartialEq, Message)]
struct ListContainersResponse {
    #[prost(message, repeated, tag = "1")]
    containers: Vec<ContainerMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusRequest {
    #[prost(string, tag = "1")]
    container_id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatus {
    #[prost(int64, tag = "5")]
    started_at: i64,
    #[prost(int32, tag = "7")]
    exit_code: i32,
    #[prost(message, optional, tag = "8")]
    image: Option<ImageSpec>,
    #[prost(string, tag = "15")]
    log_path: String,
}

#[derive(Clone, PartialEq, Message)]
struct ContainerStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<ContainerStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Image {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, Message)]
struct ImageStatusResponse {
    #[prost(message, optional, tag = "1")]
    image: Option<Image>,
}

#[derive(Clone, PartialEq, Message)]
struct StopContainerRequest {
    #[prost(string, tag = "1")]
    container_id: String,
    #[prost(int64, tag = "2")]
    timeout: i64,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    r#type: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

/// How the runtime says that it is, and how long it takes to list what runs, as the kubelet's PLEG does.
pub async fn health(socket: &Path) -> Result<RuntimeHealth, String> {
    let version = runtime_version(socket).await?;
    let status: StatusResponse = call(socket, "RuntimeService/Status", &Nothing {}, ANSWER_LIMIT).await?;
    let conditions = status.status.map(|status| status.conditions).unwrap_or_default();
    let not_ready = conditions
        .into_iter()
        .filter(|condition| !condition.status)
        .map(|condition| format!("{}: {} {}", condition.r#type, condition.reason, condition.message));
    let begun = Instant::now();
    // What the answers hold does not matter, only that they come.
    let _: Nothing = call(socket, "RuntimeService/ListPodSandbox", &Nothing {}, LIST_LIMIT).await?;
    let _: Nothing = call(socket, "RuntimeService/ListContainers", &Nothing {}, LIST_LIMIT).await?;
    let list_milliseconds = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let tells_cgroup_driver =
        call::<Nothing>(socket, "RuntimeService/RuntimeConfig", &Nothing {}, ANSWER_LIMIT).await.is_ok();
    Ok(RuntimeHealth { version, not_ready: not_ready.collect(), list_milliseconds, tells_cgroup_driver })
}

/// The version that the runtime says it has, or why it does not say. That it answers means that it is initialised.
pub async fn runtime_version(socket: &Path) -> Result<String, String> {
    let answer: VersionResponse = call(socket, "RuntimeService/Version", &Nothing {}, ANSWER_LIMIT).await?;
    if answer.runtime_version.is_empty() {
        return Err("the answer has no version".to_owned());
    }
    Ok(answer.runtime_version)
}

/// The containers of pods in namespace `kube-system`, those that have ended too.
pub async fn containers(socket: &Path) -> Result<Vec<Container>, String> {
    let label_selector = HashMap::from([(NAMESPACE_LABEL.to_owned(), "kube-system".to_owned())]);
    let request = ListContainersRequest { filter: Some(ContainerFilter { label_selector }) };
    let answer: ListContainersResponse = call(socket, "RuntimeService/ListContainers", &request, ANSWER_LIMIT).await?;
    let container = |mut found: ContainerMessage| Container {
        name: found.labels.remove(NAME_LABEL).unwrap_or_default(),
        id: found.id,
        running: found.state == RUNNING,
        attempt: found.metadata.unwrap_or_default().attempt,
        image_id: found.image_ref,
        created_at: found.created_at,
    };
    Ok(answer.containers.into_iter().map(container).collect())
}

/// What there is to know of one container.
pub async fn container_details(socket: &Path, id: &str) -> Result<ContainerDetails, String> {
    let request = ContainerStatusRequest { container_id: id.to_owned() };
    let answer: ContainerStatusResponse =
        call(socket, "RuntimeService/ContainerStatus", &request, ANSWER_LIMIT).await?;
    let status = answer.status.ok_or_else(|| "the answer has no status".to_owned())?;
    Ok(ContainerDetails {
        image: status.image.unwrap_or_default().image,
        started_at: status.started_at,
        exit_code: status.exit_code,
        log_path: status.log_path,
    })
}

/// The digest of the configuration of the image with a reference; none where the runtime does not have it.
pub async fn image_id(socket: &Path, reference: &str) -> Result<Option<String>, String> {
    let request = ImageStatusRequest { image: Some(ImageSpec { image: reference.to_owned() }) };
    let answer: ImageStatusResponse = call(socket, "ImageService/ImageStatus", &request, ANSWER_LIMIT).await?;
    Ok(answer.image.map(|image| image.id))
}

/// Ends a container: asks it to, and kills it after `grace`. One that has ended already is ended.
pub async fn stop_container(socket: &Path, id: &str, grace: Duration) -> Result<(), String> {
    let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
    let request = StopContainerRequest { container_id: id.to_owned(), timeout };
    let limit = grace.saturating_add(ANSWER_LIMIT);
    call::<Nothing>(socket, "RuntimeService/StopContainer", &request, limit).await.map(|_| ())
}

async fn call<A: Message + Default>(
    socket: &Path,
    method: &str,
    question: &impl Message,
    limit: Duration,
) -> Result<A, String> {
    let bytes = match tokio::time::timeout(limit, ask(socket, method, question.encode_to_vec())).await {
        Ok(answer) => answer?,
        Err(_) => return Err(format!("no answer within {} s", limit.as_secs())),
    };
    // Five bytes ahead of the message: whether it is compressed, and its length.
    A::decode(bytes.get(5..).unwrap_or_default()).map_err(|error| error.to_string())
}

async fn ask(socket: &Path, method: &str, question: Vec<u8>) -> Result<Vec<u8>, String> {
    let stream = UnixStream::connect(socket).await.map_err(|error| format!("{}: {error}", socket.display()))?;
    let in_words = |error: h2::Error| error.to_string();
    let (client, connection) = h2::client::handshake(stream).await.map_err(in_words)?;
    let talk = async {
        let request = http::Request::post(format!("http://localhost/runtime.v1.{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let mut client = client.ready().await.map_err(in_words)?;
        let (response, mut body) = client.send_request(request, false).map_err(in_words)?;
        let mut frame = vec![0];
        frame.extend(u32::try_from(question.len()).unwrap_or(u32::MAX).to_be_bytes());
        frame.extend(question);
        body.send_data(frame.into(), true).map_err(in_words)?;
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
        Ok(answer)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_third_text_and_damage_is_an_error() {
        let message = [b"\x0a\x050.1.0\x12\x0acontainerd\x1a\x06v2.2.9\x22\x02v1".as_slice()].concat();
        assert_eq!(VersionResponse::decode(&*message).unwrap().runtime_version, "v2.2.9");
        for damaged in [b"\xff".as_slice(), b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x1a\x06v2"] {
            assert!(VersionResponse::decode(damaged).is_err());
        }
    }
}
