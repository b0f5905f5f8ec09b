//! Renewal of the agent's certificate, long before it ends and without a person.
//!
//! At two thirds of its life a new key is made and the server signs for it, over the certificate in force. The new
//! identity is on disk before it is used; with its first use the server retires the old one. So a crash or a lost
//! answer at any point leaves an identity that the server takes. It must never leave the agent without one.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use jiff::Timestamp;
use shiplock_api::agent::{PROTOCOL, RenewRequest};
use shiplock_core::problem::{Code, Problem};

use crate::enrolment::SigningRequest;
use crate::gateway::{GatewayError, HttpsGateway};
use crate::identity::Identity;

/// The clock is asked again after so long: it may be set, and timers stand still while a machine sleeps.
const LOOK_EVERY: Duration = Duration::from_secs(60 * 60);
/// A renewal that failed is tried again after so long; 30 days are left at the first attempt.
const TRY_EVERY: Duration = Duration::from_secs(10 * 60);
/// The least time between two renewals, whatever a certificate says.
const PAUSE: Duration = Duration::from_secs(1);

/// Renews the certificate whenever it is time.
pub async fn keep_certificate(mut identity: Identity, gateway: Rc<HttpsGateway>, data_folder: PathBuf) -> Infallible {
    loop {
        let wait = match due_in(&identity.certificate_pem, Timestamp::now()) {
            Some(wait) if wait > Duration::ZERO => wait.min(LOOK_EVERY),
            _ => match renew(&identity, &gateway, &data_folder).await {
                Ok(renewed) => {
                    identity = renewed;
                    eprintln!("the agent's certificate was renewed");
                    PAUSE
                }
                Err(why) => {
                    eprintln!("the agent's certificate is not renewed yet: {why}");
                    TRY_EVERY
                }
            },
        };
        tokio::time::sleep(wait).await;
    }
}

/// How long until two thirds of a certificate's life are over; zero when they are, none when it cannot be read.
fn due_in(certificate_pem: &str, now: Timestamp) -> Option<Duration> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let (begin, end) = (certificate.validity().not_before.timestamp(), certificate.validity().not_after.timestamp());
    let due = end - (end - begin) / 3;
    Some(Duration::from_secs(u64::try_from(due - now.as_second()).unwrap_or(0)))
}

async fn renew(identity: &Identity, gateway: &HttpsGateway, data_folder: &Path) -> Result<Identity, Problem> {
    let SigningRequest { key_pem, csr_pem } = SigningRequest::new(&identity.node)?;
    let request = RenewRequest { protocol: PROTOCOL, node: identity.node.clone(), csr_pem };
    let response = gateway.renew(&request).await.map_err(|error| match error {
        GatewayError::Refused(problem) => *problem,
        GatewayError::Unreachable(why) => {
            Problem::new(Code::GatewayUnreachable).with("server", &identity.server).cause(why)
        }
    })?;
    let renewed = Identity { key_pem, certificate_pem: response.certificate_pem, ..identity.clone() };
    // What cannot be used is not stored, and what is not stored is not used.
    HttpsGateway::enrolled(&renewed)?;
    renewed.store(data_folder)?;
    gateway.use_identity(&renewed)?;
    Ok(renewed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn a_certificate_is_due_at_two_thirds_of_its_life() {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 1));
        let pem = params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        let days = |days: u64| Some(Duration::from_secs(days * 86_400));
        for (now, due) in [
            ("2026-01-01T00:00:00Z", days(60)),
            ("2026-02-28T00:00:00Z", days(2)),
            ("2026-03-02T00:00:00Z", days(0)),
            ("2027-01-01T00:00:00Z", days(0)),
            ("2025-12-31T00:00:00Z", days(61)),
        ] {
            assert_eq!(due_in(&pem, now.parse().unwrap()), due, "{now}");
        }
        assert_eq!(due_in("garbage", Timestamp::UNIX_EPOCH), None);
    }
}
