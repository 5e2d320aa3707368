//! Who decides about certificates, and what none may say: approving and signing need the right to do so for the
//! request's signer, and nobody becomes an administrator by certificate.

use serde_json::Value;

use super::{Admission, Attributes};
use crate::identity::MASTERS;
use crate::pki::request::parse;
use crate::rbac::Action;
use crate::registry::error::ApiError;
use crate::registry::kinds::text;
use crate::registry::strategy::Endpoint;

const KIND: &str = "CertificateSigningRequest";
const GROUP: &str = "certificates.k8s.io";
/// The signer of clients that are no nodes.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// `CertificateApproval`: who approves or denies.
pub(super) struct Approval;
/// `CertificateSigning`: who writes certificates, or says that there will be none.
pub(super) struct Signing;
/// `CertificateSubjectRestriction`: what nobody may ask for.
pub(super) struct SubjectRestriction;

impl Admission for Approval {
    fn admit(&self, attributes: &Attributes<'_>, _: &mut Value) -> Result<(), ApiError> {
        let decides = attributes.endpoint == Endpoint::Named("approval");
        let old = attributes
            .old
            .filter(|_| attributes.kind() == KIND && decides);
        old.map_or(Ok(()), |old| may(attributes, "approve", old))
    }
}

impl Admission for Signing {
    fn admit(&self, attributes: &Attributes<'_>, request: &mut Value) -> Result<(), ApiError> {
        if attributes.kind() != KIND || attributes.endpoint != Endpoint::Status {
            return Ok(());
        }
        let Some(old) = attributes.old else {
            return Ok(());
        };
        let mut parts = ["/status/certificate", "/status/conditions"].into_iter();
        match parts.any(|part| old.pointer(part) != request.pointer(part)) {
            true => may(attributes, "sign", old),
            false => Ok(()),
        }
    }
}

impl Admission for SubjectRestriction {
    fn admit(&self, attributes: &Attributes<'_>, request: &mut Value) -> Result<(), ApiError> {
        if !attributes.creates(KIND) || text(request, "/spec/signerName") != CLIENT_SIGNER {
            return Ok(());
        }
        // What cannot be read is refused by validation.
        let pem = base64(text(request, "/spec/request"));
        let asked = pem.and_then(|pem| parse(&pem).ok()).unwrap_or_default();
        if asked.organizations.iter().all(|of| of != MASTERS) {
            return Ok(());
        }
        let reason = format!("use of {CLIENT_SIGNER} signer with {MASTERS} group is not allowed");
        Err(attributes.forbidden(request, reason))
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

/// Whether the user may do that for the signer, by its name or for all of its domain.
fn may(attributes: &Attributes<'_>, verb: &str, request: &Value) -> Result<(), ApiError> {
    let signer = text(request, "/spec/signerName");
    let domain = signer.split('/').next().unwrap_or_default();
    let all = format!("{domain}/*");
    let allowed = [signer, &all].into_iter().any(|name| {
        attributes.may(&Action {
            verb,
            group: GROUP,
            resource: "signers",
            name,
            ..Action::default()
        })
    });
    if allowed {
        return Ok(());
    }
    let reason = format!("user not permitted to {verb} requests with signerName {signer:?}");
    Err(attributes.forbidden(request, reason))
}
