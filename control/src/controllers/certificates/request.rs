//! What may be asked to be signed. Source: upstream's rules for the signers of kubelets and of clients.
//!
//! | | kubelet client | kubelet serving | client |
//! |---|---|---|---|
//! | subject | CN `system:node:NAME`, O `system:nodes` | the same | any but O `system:masters` |
//! | names | none | DNS names or addresses, at least one; no e-mail, no URI | any |
//! | usages | client auth, digital signature, perhaps key encipherment | server auth, likewise | client auth, perhaps the others |
//! | approved for | a bootstrap token, or the node itself | the node itself | whoever somebody approves |

use std::collections::BTreeSet;

use k8s_openapi::api::certificates::v1::CertificateSigningRequestSpec;

use crate::controllers::Usage;
use crate::identity::{BOOTSTRAPPERS, MASTERS, NODES};
use crate::pki::request::{Asked, parse};

const NODE_PREFIX: &str = "system:node:";

/// The signers served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nodes, as clients of the API.
    Client,
    /// Nodes, as those who are connected to.
    Serving,
    /// Everybody else, as clients of the API.
    User,
}

impl Kind {
    pub(super) fn of(signer: &str) -> Option<Self> {
        match signer {
            "kubernetes.io/kube-apiserver-client-kubelet" => Some(Self::Client),
            "kubernetes.io/kubelet-serving" => Some(Self::Serving),
            "kubernetes.io/kube-apiserver-client" => Some(Self::User),
            _ => None,
        }
    }

    pub(super) fn usage(self) -> Usage {
        match self {
            Self::Client | Self::User => Usage::Client,
            Self::Serving => Usage::Server,
        }
    }

    /// What must be asked for, and what else may be.
    fn usages(self) -> (&'static [&'static str], &'static [&'static str]) {
        const REST: &[&str] = &["key encipherment"];
        match self {
            Self::Client => (&["client auth", "digital signature"], REST),
            Self::Serving => (&["server auth", "digital signature"], REST),
            Self::User => (&["client auth"], &["digital signature", "key encipherment"]),
        }
    }
}

/// The request in PEM, if it is well-formed for its signer.
///
/// # Errors
/// What is wrong with it.
pub(super) fn check(kind: Kind, spec: &CertificateSigningRequestSpec) -> Result<String, String> {
    let asked = parse(&spec.request.0)?;
    match kind {
        Kind::User if asked.organizations.iter().any(|of| of == MASTERS) => {
            return Err(format!("organization {MASTERS} is not allowed"));
        }
        Kind::User => {}
        Kind::Client | Kind::Serving => subject(&asked)?,
    }
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
        Kind::Client | Kind::Serving | Kind::User => {}
    }
    usages(kind, spec)?;
    let pem = std::str::from_utf8(&spec.request.0);
    pem.map(str::to_owned)
        .map_err(|_| "the request is not PEM".into())
}

/// What is said in approving a well-formed request of somebody who may have the certificate without asking; `None`
/// where that has to be asked.
pub(super) fn approval(kind: Kind, spec: &CertificateSigningRequestSpec) -> Option<&'static str> {
    check(kind, spec).ok()?;
    let is_in = |group: &str| spec.groups.iter().flatten().any(|own| own == group);
    let name = parse(&spec.request.0)
        .ok()
        .and_then(|asked| asked.common_names.into_iter().next());
    let is_itself = is_in(NODES) && spec.username == name;
    let (may, text) = match kind {
        Kind::Client => (
            is_itself || is_in(BOOTSTRAPPERS),
            "Auto approving kubelet client certificate",
        ),
        Kind::Serving => (is_itself, "Auto approving kubelet serving certificate"),
        Kind::User => return None,
    };
    may.then_some(text)
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
    let usages: BTreeSet<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    let (needed, allowed) = kind.usages();
    let has_all = needed.iter().all(|usage| usages.contains(usage));
    let mut others = usages.iter().filter(|usage| !needed.contains(usage));
    if has_all && others.all(|usage| allowed.contains(usage)) {
        return Ok(());
    }
    let (needed, allowed) = (needed.join("\", \""), allowed.join("\", \""));
    Err(format!(
        "usages must be \"{needed}\" and may be \"{allowed}\""
    ))
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
                approval(kind, &spec).is_some(),
                expected,
                "case {at}: {:?}",
                check(kind, &spec)
            );
        }
        let ann = request("ann", "team", &[]);
        let user = |request: &[u8], usages| check(Kind::User, &spec(request, "bob", "x", usages));
        assert_eq!(user(&ann, &["client auth"]).err(), None);
        assert_eq!(user(&ann, &["client auth", "key encipherment"]).err(), None);
        assert!(user(&ann, SERVER).is_err());
        assert!(user(&ann, &["client auth", "code signing"]).is_err());
        assert!(user(&request("ann", "system:masters", &[]), &["client auth"]).is_err());
        let own = spec(&ann, "ann", "team", &["client auth"]);
        assert!(approval(Kind::User, &own).is_none());
        assert!(check(Kind::Client, &spec(b"nonsense", NODE, NODES, CLIENT)).is_err());
    }
}
