//! Who may in, and under which name events record it.
//!
//! On the local socket the user id says who it is. Everywhere else a bearer token is needed; tokens are kept and
//! compared as hashes only.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::Response;
use sha2::{Digest, Sha256};
use shiplock_core::id::Actor;
use shiplock_core::plan::hexadecimal;
use shiplock_core::problem::{Code, Problem};

use super::entrance::Peer;
use super::failure::Failure;
use super::input::header;

/// A token for the REST interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiToken {
    /// Who it is for; events record it.
    pub name: String,
    sha256: [u8; 32],
}

impl ApiToken {
    /// Keeps the hash of a secret.
    pub fn new(name: &str, secret: &str) -> Self {
        Self { name: name.to_owned(), sha256: Sha256::digest(secret).into() }
    }
}

/// The SHA-256 of a token as the store keeps it.
pub(crate) fn token_hash(token: &str) -> String {
    hexadecimal(&Sha256::digest(token))
}

/// The tokens that are let in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Access(pub(crate) Arc<[ApiToken]>);

impl Access {
    fn actor(&self, request: &Request) -> Option<Actor> {
        match request.extensions().get::<Peer>()? {
            Peer::Local { uid } => Some(Actor::new(format!("uid {uid} (local)"))),
            Peer::Network => {
                let (scheme, secret) = header(request.headers(), AUTHORIZATION)?.split_once(' ')?;
                // Hashes are compared, so the time of it tells nothing of the secret.
                let sha256: [u8; 32] = Sha256::digest(secret.trim()).into();
                let token = self.0.iter().find(|token| token.sha256 == sha256)?;
                scheme.eq_ignore_ascii_case("bearer").then(|| Actor::new(token.name.clone()))
            }
        }
    }
}

/// Lets a request in with the name of its sender, or refuses it.
pub(crate) async fn admit(State(access): State<Access>, mut request: Request, next: Next) -> Result<Response, Failure> {
    let actor = access.actor(&request).ok_or_else(|| Problem::new(Code::Unauthorized))?;
    request.extensions_mut().insert(By(actor));
    Ok(next.run(request).await)
}

/// Who sent the request.
#[derive(Clone, Debug)]
pub(crate) struct By(pub(crate) Actor);

impl<S: Send + Sync> FromRequestParts<S> for By {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Failure> {
        parts.extensions.get::<By>().cloned().ok_or_else(|| Failure(Problem::new(Code::Unauthorized)))
    }
}
