//! What a node may ask to be signed. Source: upstream's rules for the two kubelet signers.
//!
//! | | client | serving |
//! |---|---|---|
//! | subject | CN `system:node:NAME`, O `system:nodes` | the same |
//! | names | none | DNS names or addresses, at least one; no e-mail, no URI |
//! | usages | client auth, digital signature, perhaps key encipherment | server auth, likewise |
//! | approved for | a bootstrap token, or the node itself | the node itself |

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::controllers::Usage;
use crate::identity::{BOOTSTRAPPERS, NODES};

const NODE_PREFIX: &str = "system:node:";

/// The signers served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Client,
    Serving,
}

impl Kind {
    pub(super) fn of(signer: &str) -> Option<Self> {
        match signer {
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::Client),
            "kubernetes.io/kubelet-serving" => Some(Self::Serving),
            _ => None,
        }
    }

    pub(super) fn usage(self) -> Usage {
        match self {
            Self::Client => Usage::Client,
            Self::Serving => Usage::Server,
        }
    }

    fn usages(self) -> BTreeSet<&'static str> {
        let own = match self {
            Self::Client => "client auth",
            Self::Serving => "server auth",
        };
        [own, "digital signature"].into()
    }
}

/// What a certificate request says.
#[derive(Debug, Default)]
struct Asked {
    common_names: Vec<String>,
    organizations: Vec<String>,
    other_subject: bool,
    names: usize,
    other_names: usize,
}

/// The request in PEM, if it is well-formed for its signer.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(kind: Kind, spec: &CertificateSigningRequestSpec) -> Result<String, String> {
    let asked = parse(&spec.request.0)?;
    subject(&asked)?;
    match kind {
        Kind::Client if asked.names + asked.other_names > 0 => {
            return Err("subject alternative names are not allowed".into());
        }
        Kind::Serving if asked.other_names > 0 => {
            return Err("only DNS and IP subjectAltNames are allowed".into());
        }
        Kind::Serving if asked.names == 0 => {
            return Err("at least one DNS or IP subjectAltName is required".into());
        }
        Kind::Serving if spec.username.as_deref() != asked.common_names.first().map(|n| &**n) => {
            return Err("subject common name must be the requesting node".into());
        }
        Kind::Client | Kind::Serving => {}
    }
    usages(kind, spec)?;
    let pem = std::str::from_utf8(&spec.request.0);
    pem.map(str::to_owned)
        .map_err(|_| "the request is not PEM".into())
}

/// Whether a well-formed request comes from somebody who may have the certificate without asking.
pub(super) fn may_be_approved(kind: Kind, spec: &CertificateSigningRequestSpec) -> bool {
    if check(kind, spec).is_err() {
        return false;
    }
    let is_in = |group: &str| spec.groups.iter().flatten().any(|own| own == group);
    let name = parse(&spec.request.0)
        .ok()
        .and_then(|asked| asked.common_names.into_iter().next());
    let is_itself = is_in(NODES) && spec.username == name;
    match kind {
        Kind::Client => is_itself || is_in(BOOTSTRAPPERS),
        Kind::Serving => is_itself,
    }
}

fn subject(asked: &Asked) -> Result<(), String> {
    if asked.organizations != [NODES] {
        return Err(format!("subject organization is not {NODES}"));
    }
    let named = match asked.common_names.as_slice() {
        [name] => name
            .strip_prefix(NODE_PREFIX)
            .is_some_and(|node| !node.is_empty()),
        _ => false,
    };
    if !named {
        return Err(format!(
            "subject common name does not begin with {NODE_PREFIX}"
        ));
    }
    if asked.other_subject {
        return Err("subject has attributes other than common name and organization".into());
    }
    Ok(())
}

fn usages(kind: Kind, spec: &CertificateSigningRequestSpec) -> Result<(), String> {
    let mut usages: BTreeSet<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    usages.remove("key encipherment");
    if usages == kind.usages() {
        return Ok(());
    }
    let expected = kind.usages().into_iter().collect::<Vec<_>>().join("\", \"");
    Err(format!(
        "usages must be \"{expected}\" and may be \"key encipherment\""
    ))
}

fn parse(pem: &[u8]) -> Result<Asked, String> {
    let der = CertificateSigningRequestDer::from_pem_slice(pem)
        .map_err(|error| format!("the request is not PEM: {error}"))?;
    let (_, request) = X509CertificationRequest::from_der(&der)
        .map_err(|error| format!("the request is not PKCS#10: {error}"))?;
    let subject = &request.certification_request_info.subject;
    let texts = |attributes: Vec<&x509_parser::x509::AttributeTypeAndValue<'_>>| {
        let texts = attributes
            .into_iter()
            .map(|a| a.as_str().unwrap_or_default().to_owned());
        texts.collect::<Vec<_>>()
    };
    let common_names = texts(subject.iter_common_name().collect());
    let organizations = texts(subject.iter_organization().collect());
    let attributes = subject.iter_attributes().count();
    let mut asked = Asked {
        other_subject: attributes != common_names.len() + organizations.len(),
        common_names,
        organizations,
        ..Asked::default()
    };
    for extension in request.requested_extensions().into_iter().flatten() {
        if let ParsedExtension::SubjectAlternativeName(names) = extension {
            for name in &names.general_names {
                match name {
                    GeneralName::DNSName(_) | GeneralName::IPAddress(_) => asked.names += 1,
                    _ => asked.other_names += 1,
                }
            }
        }
    }
    Ok(asked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    fn request(name: &str, organization: &str, names: &[SanType]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = names.to_vec();
        let key = KeyPair::generate().unwrap();
        params
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap()
            .into_bytes()
    }

    fn spec(
        request: &[u8],
        user: &str,
        group: &str,
        usages: &[&str],
    ) -> CertificateSigningRequestSpec {
        CertificateSigningRequestSpec {
            request: ByteString(request.to_vec()),
            username: Some(user.into()),
            groups: Some(vec![group.into()]),
            usages: Some(usages.iter().map(|usage| (*usage).into()).collect()),
            ..CertificateSigningRequestSpec::default()
        }
    }

    #[test]
    fn only_what_a_node_may_ask_is_approved() {
        const NODE: &str = "system:node:n";
        const CLIENT: &[&str] = &["client auth", "digital signature"];
        const SERVER: &[&str] = &["server auth", "digital signature", "key encipherment"];
        let dns = SanType::DnsName("n".try_into().unwrap());
        let mail = SanType::Rfc822Name("a@b".try_into().unwrap());
        let plain = request(NODE, NODES, &[]);
        let named = request(NODE, NODES, std::slice::from_ref(&dns));
        type Case<'a> = (Kind, &'a [u8], &'a str, &'a str, &'a [&'a str], bool);
        let cases: [Case<'_>; 12] = [
            (
                Kind::Client,
                &plain,
                "system:bootstrap:x",
                BOOTSTRAPPERS,
                CLIENT,
                true,
            ),
            (Kind::Client, &plain, NODE, NODES, CLIENT, true),
            (
                Kind::Client,
                &plain,
                "system:node:other",
                NODES,
                CLIENT,
                false,
            ),
            (Kind::Client, &plain, NODE, "somebody", CLIENT, false),
            (Kind::Client, &named, NODE, NODES, CLIENT, false),
            (Kind::Client, &plain, NODE, NODES, SERVER, false),
            (
                Kind::Client,
                &request("system:node:", NODES, &[]),
                NODE,
                NODES,
                CLIENT,
                false,
            ),
            (
                Kind::Client,
                &request(NODE, "system:masters", &[]),
                NODE,
                NODES,
                CLIENT,
                false,
            ),
            (Kind::Serving, &named, NODE, NODES, SERVER, true),
            (
                Kind::Serving,
                &named,
                "system:bootstrap:x",
                BOOTSTRAPPERS,
                SERVER,
                false,
            ),
            (Kind::Serving, &plain, NODE, NODES, SERVER, false),
            (
                Kind::Serving,
                &request(NODE, NODES, &[dns, mail]),
                NODE,
                NODES,
                SERVER,
                false,
            ),
        ];
        for (at, (kind, request, user, group, usages, expected)) in cases.into_iter().enumerate() {
            let spec = spec(request, user, group, usages);
            assert_eq!(
                may_be_approved(kind, &spec),
                expected,
                "case {at}: {:?}",
                check(kind, &spec)
            );
        }
        assert!(check(Kind::Client, &spec(b"nonsense", NODE, NODES, CLIENT)).is_err());
    }
}
