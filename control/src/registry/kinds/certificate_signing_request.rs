//! CertificateSigningRequest: the spec says who asked, and nobody changes it afterwards.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::Timestamp;
use serde_json::{Value, json};
use windlass_api::resource::GroupVersionKind;

use super::{integer, items, text};
use crate::identity::UserInfo;
use crate::registry::field_error::FieldError;
use crate::registry::object_meta as meta;
use crate::registry::strategy::{AGE, Column, Endpoint, Kind, NAME, Strategy};
use crate::registry::{age, human_duration};

struct CertificateSigningRequest;

/// The row of the table.
pub(super) fn kind() -> Kind {
    let gvk = GroupVersionKind::of("certificates.k8s.io", "v1", "CertificateSigningRequest");
    Kind::cluster(
        gvk.clone(),
        "certificatesigningrequests",
        &CertificateSigningRequest,
    )
    .short_names(&["csr"])
    .subresource("approval", gvk, &["get", "patch", "update"])
}

const COLUMNS: &[Column] = &[
    NAME,
    AGE,
    Column::new("SignerName", "string", "Who is to sign."),
    Column::new("Requestor", "string", "Who asked."),
    Column::new(
        "RequestedDuration",
        "string",
        "How long the certificate is to last.",
    ),
    Column::new("Condition", "string", "What became of the request."),
];

/// Shortest duration that may be asked for, in seconds.
const MIN_DURATION: i64 = 600;

impl Strategy for CertificateSigningRequest {
    fn prepare_for_create(&self, object: &mut Value, user: &UserInfo) {
        let spec = meta::member_mut(object, "spec");
        spec.insert("username".into(), user.name.clone().into());
        spec.insert("groups".into(), json!(user.groups));
        for (field, absent, value) in [
            ("uid", user.uid.is_empty(), json!(user.uid)),
            ("extra", user.extra.is_empty(), json!(user.extra)),
        ] {
            spec.shift_remove(field);
            if !absent {
                spec.insert(field.into(), value);
            }
        }
        if let Some(object) = object.as_object_mut() {
            object.shift_remove("status");
        }
    }

    fn prepare_for_update(&self, old: &Value, new: &mut Value, endpoint: Endpoint) {
        meta::copy_member(old, new, "spec");
        let keep_conditions = match endpoint {
            // Approving is the approval endpoint's, signing the status endpoint's business.
            Endpoint::Status => ["Approved", "Denied"].as_slice(),
            _ => return,
        };
        let kept = items(old, "/status/conditions").iter();
        let kept: Vec<_> = kept
            .filter(|c| keep_conditions.contains(&text(c, "/type")))
            .cloned()
            .collect();
        let wanted = items(new, "/status/conditions").iter();
        let wanted: Vec<_> = wanted
            .filter(|c| !keep_conditions.contains(&text(c, "/type")))
            .cloned()
            .collect();
        let conditions: Vec<_> = kept.into_iter().chain(wanted).collect();
        if !conditions.is_empty() {
            meta::member_mut(new, "status").insert("conditions".into(), conditions.into());
        }
    }

    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let request = BASE64.decode(text(object, "/spec/request"));
        let pem = request.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        if !pem.is_some_and(|pem| pem.contains("-----BEGIN CERTIFICATE REQUEST-----")) {
            let detail = "PEM block type must be CERTIFICATE REQUEST";
            errors.push(FieldError::invalid(
                "spec.request",
                text(object, "/spec/request"),
                detail,
            ));
        }
        let signer = text(object, "/spec/signerName");
        if signer.is_empty() {
            errors.push(FieldError::required("spec.signerName", ""));
        } else if !signer.contains('/') {
            let detail =
                "must be a fully qualified domain and path of the form 'example.com/signer-name'";
            errors.push(FieldError::invalid("spec.signerName", signer, detail));
        }
        if items(object, "/spec/usages").is_empty() {
            errors.push(FieldError::required("spec.usages", ""));
        }
        let seconds = integer(object, "/spec/expirationSeconds");
        if seconds != 0 && seconds < MIN_DURATION {
            let detail = "may not specify a duration less than 600 seconds (10 minutes)";
            errors.push(FieldError::invalid(
                "spec.expirationSeconds",
                seconds,
                detail,
            ));
        }
        errors
    }

    fn validate_update(&self, old: &Value, new: &Value, endpoint: Endpoint) -> Vec<FieldError> {
        let certificate = |object| text(object, "/status/certificate");
        let (before, after) = (certificate(old), certificate(new));
        if endpoint == Endpoint::Status && !before.is_empty() && before != after {
            return vec![FieldError::immutable("status.certificate", after)];
        }
        Vec::new()
    }

    fn has_status(&self) -> bool {
        true
    }

    fn counts_generations(&self) -> bool {
        false
    }

    fn selectable_fields(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }

    fn columns(&self) -> &'static [Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let duration = match integer(object, "/spec/expirationSeconds") {
            0 => "<none>".to_owned(),
            seconds => human_duration(seconds),
        };
        vec![
            meta::name(object).into(),
            age(object, now).into(),
            text(object, "/spec/signerName").into(),
            text(object, "/spec/username").into(),
            duration.into(),
            condition(object).into(),
        ]
    }
}

fn condition(object: &Value) -> String {
    let has = |kind: &str| {
        items(object, "/status/conditions")
            .iter()
            .any(|condition| text(condition, "/type") == kind)
    };
    let decision = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    };
    let failed = if has("Failed") { ",Failed" } else { "" };
    let issued = if text(object, "/status/certificate").is_empty() {
        ""
    } else {
        ",Issued"
    };
    format!("{decision}{failed}{issued}")
}
