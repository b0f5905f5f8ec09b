//! What the account of the kubeconfig may do, as the API server itself says. A review is created and kept nowhere.

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::Api;
use kube::api::PostParams;
use shiplock_check::cluster::permission::{ACTS, Act, LEASE, Permission};
use shiplock_check::snapshot::Read;

use crate::answer::Ask;
use crate::connection::Connection;

/// So many at once.
const AT_ONCE: usize = 4;

/// Asks about every act of an upgrade.
pub(super) async fn all(connection: &Connection) -> Vec<Permission> {
    futures::stream::iter(ACTS)
        .map(|act| async move {
            Permission { act: act.to_string(), is_spared: act.is_spared, allowed: one(connection, act).await }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn one(connection: &Connection, act: Act) -> Read<bool> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    // Roles may name the Lease; what is created has no name yet.
    let names_lease = act.resource == "leases" && act.verb != "create";
    let attributes = ResourceAttributes {
        verb: given(act.verb),
        group: given(act.group),
        resource: given(act.resource),
        subresource: given(act.subresource),
        namespace: given(act.namespace),
        name: names_lease.then(|| LEASE.to_owned()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(connection.client.clone());
    let ask = Ask::new("create", "selfsubjectaccessreviews");
    match connection.read(ask, reviews.create(&PostParams::default(), &review)).await {
        Ok(answered) => Read::Seen(answered.status.is_some_and(|status| status.allowed)),
        Err(failure) => Read::NotSeen(failure.problem.to_string()),
    }
}
