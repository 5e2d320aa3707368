//! What certificate requests (PKCS#10 in PEM) say.

use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

/// What a certificate request says.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    pub(crate) common_names: Vec<String>,
    pub(crate) organizations: Vec<String>,
    /// Whether the subject has other attributes.
    pub(crate) other_subject: bool,
    /// How many DNS names and addresses it asks for.
    pub(crate) names: usize,
    /// How many names of other kinds.
    pub(crate) other_names: usize,
}

/// Reads a request.
///
/// # Errors
/// Why it is none.
pub(crate) fn parse(pem: &[u8]) -> Result<Asked, String> {
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
