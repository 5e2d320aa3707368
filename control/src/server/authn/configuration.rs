//! Who is taken for whom besides the cluster's own identities: a file of kind `AuthenticationConfiguration`.

use std::collections::HashSet;

use http::Uri;
use serde::Deserialize;
use thiserror::Error;

use crate::file_kind::{self, WrongKind};
use crate::outbound;

/// Versions of the file that are read.
const VERSIONS: [&str; 2] = [
    "apiserver.config.k8s.io/v1",
    "apiserver.config.k8s.io/v1beta1",
];
const KIND: &str = "AuthenticationConfiguration";
/// Most issuers.
const MAX_ISSUERS: usize = 64;

/// Who is taken for whom. By default nobody besides the cluster's own identities, and anonymous requests are let
/// through to authorization.
#[derive(Clone, Debug, Default)]
pub struct AuthenticationConfiguration {
    /// Issuers whose tokens are taken.
    pub(super) jwt: Vec<JwtAuthenticator>,
    /// Requests without credentials.
    pub(super) anonymous: Anonymous,
}

/// Which requests may come without credentials.
#[derive(Clone, Debug)]
pub(super) struct Anonymous {
    enabled: bool,
    /// The only paths; all if there are none.
    paths: Vec<String>,
}

impl Default for Anonymous {
    fn default() -> Self {
        Self {
            enabled: true,
            paths: Vec::new(),
        }
    }
}

impl Anonymous {
    pub(super) fn allows(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|known| known == path))
    }
}

/// The tokens of one issuer.
#[derive(Clone, Debug)]
pub(super) struct JwtAuthenticator {
    pub(super) issuer: Issuer,
    pub(super) claim_validation_rules: Vec<RequiredClaim>,
    pub(super) claim_mappings: ClaimMappings,
}

#[derive(Clone, Debug)]
pub(super) struct Issuer {
    pub(super) url: String,
    /// Where its document is, if not below `url`.
    pub(super) discovery_url: Option<String>,
    /// Certificates in PEM that its server has to be signed by.
    pub(super) certificate_authority: Option<String>,
    pub(super) audiences: Vec<String>,
}

/// A claim that must have a value.
#[derive(Clone, Debug)]
pub(super) struct RequiredClaim {
    pub(super) claim: String,
    pub(super) required_value: String,
}

#[derive(Clone, Debug)]
pub(super) struct ClaimMappings {
    pub(super) username: PrefixedClaim,
    pub(super) groups: Option<PrefixedClaim>,
    pub(super) uid: Option<Claim>,
}

/// A claim, and what is put in front of its value.
#[derive(Clone, Debug)]
pub(super) struct PrefixedClaim {
    pub(super) claim: String,
    pub(super) prefix: String,
}

#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) claim: String,
}

/// What is wrong with a configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AuthenticationError {
    /// It is not what it should be.
    #[error("not an AuthenticationConfiguration: {0}")]
    Form(String),
    /// It is of another kind.
    #[error(transparent)]
    Kind(#[from] WrongKind),
    /// A field is not as it must be.
    #[error("{field}: {problem}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong and what to do.
        problem: String,
    },
}

/// The options by which one issuer is configured without a file.
#[derive(Clone, Debug, Default)]
pub struct OidcOptions {
    /// URL of the issuer.
    pub issuer_url: String,
    /// The audience that tokens must be meant for.
    pub client_id: String,
    /// The claim that names the user; `sub` if empty.
    pub username_claim: String,
    /// What is put in front of it; `-` for nothing.
    pub username_prefix: String,
    /// The claim that names groups, if not empty.
    pub groups_claim: String,
    /// What is put in front of them.
    pub groups_prefix: String,
    /// Claims with the values that they must have.
    pub required_claims: Vec<(String, String)>,
    /// Certificates in PEM that the issuer's server has to be signed by.
    pub certificate_authority: Option<String>,
}

/// The file as it is written.
mod file {
    use serde::Deserialize;

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Configuration {
        #[serde(rename = "apiVersion")]
        pub(super) _api_version: String,
        #[serde(rename = "kind")]
        pub(super) _kind: String,
        #[serde(default)]
        pub(super) jwt: Vec<Jwt>,
        pub(super) anonymous: Option<Anonymous>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Anonymous {
        pub(super) enabled: bool,
        #[serde(default)]
        pub(super) conditions: Vec<Condition>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Condition {
        pub(super) path: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Jwt {
        pub(super) issuer: Issuer,
        #[serde(default)]
        pub(super) claim_validation_rules: Vec<ClaimRule>,
        pub(super) claim_mappings: Mappings,
        #[serde(default)]
        pub(super) user_validation_rules: Vec<UserRule>,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Issuer {
        #[serde(default)]
        pub(super) url: String,
        #[serde(rename = "discoveryURL")]
        pub(super) discovery_url: Option<String>,
        pub(super) certificate_authority: Option<String>,
        #[serde(default)]
        pub(super) audiences: Vec<String>,
        #[serde(default)]
        pub(super) audience_match_policy: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct ClaimRule {
        #[serde(default)]
        pub(super) claim: String,
        #[serde(default)]
        pub(super) required_value: String,
        #[serde(default)]
        pub(super) expression: String,
        #[serde(default, rename = "message")]
        pub(super) _message: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct UserRule {
        #[serde(default, rename = "expression")]
        pub(super) _expression: String,
        #[serde(default, rename = "message")]
        pub(super) _message: String,
    }

    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Mappings {
        pub(super) username: Mapping,
        #[serde(default)]
        pub(super) groups: Mapping,
        #[serde(default)]
        pub(super) uid: Mapping,
        #[serde(default)]
        pub(super) extra: Vec<serde_json::Value>,
    }

    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Mapping {
        #[serde(default)]
        pub(super) claim: String,
        pub(super) prefix: Option<String>,
        #[serde(default)]
        pub(super) expression: String,
    }
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> AuthenticationError {
    AuthenticationError::Field {
        field: field.into(),
        problem: problem.into(),
    }
}

fn no_expressions(field: String) -> AuthenticationError {
    wrong(
        field,
        "expressions are not supported here; use claim, prefix and requiredValue",
    )
}

impl AuthenticationConfiguration {
    /// Reads a file of kind `AuthenticationConfiguration`.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, AuthenticationError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            #[serde(default)]
            api_version: String,
            #[serde(default)]
            kind: String,
        }
        let form = |error: serde_yaml::Error| AuthenticationError::Form(error.to_string());
        let head: Head = serde_yaml::from_str(text).map_err(form)?;
        let kind = (&*head.kind, &*head.api_version);
        file_kind::check("the file", kind, KIND, &VERSIONS)?;
        let file: file::Configuration = serde_yaml::from_str(text).map_err(form)?;
        if file.jwt.len() > MAX_ISSUERS {
            return Err(wrong(
                "jwt",
                format!("must have at most {MAX_ISSUERS} items"),
            ));
        }
        let mut urls = HashSet::new();
        let mut jwt = Vec::new();
        for (at, entry) in file.jwt.into_iter().enumerate() {
            let path = format!("jwt[{at}]");
            let read = read_jwt(&path, entry)?;
            if !urls.insert(read.issuer.url.clone()) {
                return Err(wrong(
                    format!("{path}.issuer.url"),
                    "another issuer has this URL",
                ));
            }
            jwt.push(read);
        }
        let anonymous = match file.anonymous {
            None => Anonymous::default(),
            Some(file) if !file.enabled && !file.conditions.is_empty() => {
                let problem = "enabled should be set to true when conditions are defined";
                return Err(wrong("anonymous.conditions", problem));
            }
            Some(file) => Anonymous {
                enabled: file.enabled,
                paths: file.conditions.into_iter().map(|of| of.path).collect(),
            },
        };
        Ok(Self { jwt, anonymous })
    }

    /// One issuer by options.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn of_options(options: OidcOptions) -> Result<Self, AuthenticationError> {
        let claim = match &*options.username_claim {
            "" => "sub",
            claim => claim,
        };
        let prefix = match &*options.username_prefix {
            "-" => String::new(),
            // Users of two issuers must not be taken for each other; addresses are unique anyway.
            "" if claim == "email" => String::new(),
            "" => format!("{}#", options.issuer_url),
            prefix => prefix.to_owned(),
        };
        let rules = options.required_claims.into_iter();
        let rules = rules.map(|(claim, required_value)| RequiredClaim {
            claim,
            required_value,
        });
        let groups = (!options.groups_claim.is_empty()).then_some(PrefixedClaim {
            claim: options.groups_claim,
            prefix: options.groups_prefix,
        });
        let issuer = Issuer {
            url: options.issuer_url,
            discovery_url: None,
            certificate_authority: options.certificate_authority,
            audiences: vec![options.client_id],
        };
        check_issuer("issuer", &issuer)?;
        let entry = JwtAuthenticator {
            issuer,
            claim_validation_rules: rules.collect(),
            claim_mappings: ClaimMappings {
                username: PrefixedClaim {
                    claim: claim.to_owned(),
                    prefix,
                },
                groups,
                uid: None,
            },
        };
        Ok(Self {
            jwt: vec![entry],
            anonymous: Anonymous::default(),
        })
    }

    /// Refuses issuers that are the cluster itself.
    ///
    /// # Errors
    /// Which of them is.
    pub(super) fn check_against(&self, own: &[String]) -> Result<(), AuthenticationError> {
        for (at, entry) in self.jwt.iter().enumerate() {
            if own.contains(&entry.issuer.url) {
                return Err(wrong(
                    format!("jwt[{at}].issuer.url"),
                    "the cluster issues its ServiceAccount tokens under this URL",
                ));
            }
        }
        Ok(())
    }
}

fn read_jwt(path: &str, entry: file::Jwt) -> Result<JwtAuthenticator, AuthenticationError> {
    let many = entry.issuer.audiences.len() > 1;
    match &*entry.issuer.audience_match_policy {
        "MatchAny" => {}
        "" if !many => {}
        "" => {
            return Err(wrong(
                format!("{path}.issuer.audienceMatchPolicy"),
                "audienceMatchPolicy must be MatchAny for multiple audiences",
            ));
        }
        other => {
            return Err(wrong(
                format!("{path}.issuer.audienceMatchPolicy"),
                format!("{other:?} is not \"MatchAny\""),
            ));
        }
    }
    let issuer = Issuer {
        url: entry.issuer.url,
        discovery_url: entry.issuer.discovery_url,
        certificate_authority: entry.issuer.certificate_authority,
        audiences: entry.issuer.audiences,
    };
    check_issuer(&format!("{path}.issuer"), &issuer)?;
    let mut rules = Vec::new();
    for (at, rule) in entry.claim_validation_rules.into_iter().enumerate() {
        let path = format!("{path}.claimValidationRules[{at}]");
        if !rule.expression.is_empty() {
            return Err(no_expressions(format!("{path}.expression")));
        }
        if rule.claim.is_empty() {
            return Err(wrong(format!("{path}.claim"), "claim is required"));
        }
        if rules
            .iter()
            .any(|known: &RequiredClaim| known.claim == rule.claim)
        {
            return Err(wrong(
                format!("{path}.claim"),
                "another rule is about this claim",
            ));
        }
        rules.push(RequiredClaim {
            claim: rule.claim,
            required_value: rule.required_value,
        });
    }
    if !entry.user_validation_rules.is_empty() {
        return Err(no_expressions(format!("{path}.userValidationRules")));
    }
    let path = format!("{path}.claimMappings");
    if !entry.claim_mappings.extra.is_empty() {
        return Err(no_expressions(format!("{path}.extra")));
    }
    let username = read_mapping(&format!("{path}.username"), entry.claim_mappings.username)?;
    let username = username.ok_or_else(|| {
        wrong(
            format!("{path}.username"),
            "claim or expression is required",
        )
    })?;
    let groups = read_mapping(&format!("{path}.groups"), entry.claim_mappings.groups)?;
    let uid = entry.claim_mappings.uid;
    if !uid.expression.is_empty() {
        return Err(no_expressions(format!("{path}.uid.expression")));
    }
    let uid = (!uid.claim.is_empty()).then_some(Claim { claim: uid.claim });
    Ok(JwtAuthenticator {
        issuer,
        claim_validation_rules: rules,
        claim_mappings: ClaimMappings {
            username,
            groups,
            uid,
        },
    })
}

fn read_mapping(
    path: &str,
    mapping: file::Mapping,
) -> Result<Option<PrefixedClaim>, AuthenticationError> {
    if !mapping.expression.is_empty() {
        return Err(no_expressions(format!("{path}.expression")));
    }
    match (mapping.claim.is_empty(), mapping.prefix) {
        (true, None) => Ok(None),
        (true, Some(_)) => Err(wrong(
            format!("{path}.prefix"),
            "non-empty prefix isn't allowed without claim",
        )),
        (false, None) => Err(wrong(
            format!("{path}.prefix"),
            "prefix is required when claim is set. It can be set to an empty string to disable prefixing",
        )),
        (false, Some(prefix)) => Ok(Some(PrefixedClaim {
            claim: mapping.claim,
            prefix,
        })),
    }
}

fn check_issuer(path: &str, issuer: &Issuer) -> Result<(), AuthenticationError> {
    if issuer.url.is_empty() {
        return Err(wrong(format!("{path}.url"), "URL is required"));
    }
    check_url(&format!("{path}.url"), &issuer.url)?;
    if let Some(discovery) = &issuer.discovery_url {
        let field = format!("{path}.discoveryURL");
        check_url(&field, discovery)?;
        if discovery.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
            return Err(wrong(field, "discoveryURL must be different from URL"));
        }
    }
    if let Some(pem) = &issuer.certificate_authority {
        let parsed = outbound::certificates(pem);
        parsed.map_err(|problem| wrong(format!("{path}.certificateAuthority"), problem))?;
    }
    if issuer.audiences.is_empty() {
        return Err(wrong(
            format!("{path}.audiences"),
            "at least one audience is required",
        ));
    }
    if issuer.audiences.iter().any(String::is_empty) {
        return Err(wrong(
            format!("{path}.audiences"),
            "audience can't be empty",
        ));
    }
    Ok(())
}

fn check_url(field: &str, url: &str) -> Result<(), AuthenticationError> {
    let parsed: Uri = url
        .parse()
        .map_err(|error| wrong(field, format!("{url:?} is no URL: {error}")))?;
    let problem = if parsed.scheme_str() != Some("https") {
        "URL scheme must be https"
    } else if parsed
        .authority()
        .is_some_and(|of| of.as_str().contains('@'))
    {
        "URL must not contain a username or password"
    } else if parsed.query().is_some() {
        "URL must not contain a query"
    } else if url.contains('#') {
        "URL must not contain a fragment"
    } else {
        return Ok(());
    };
    Err(wrong(field, problem))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\n";
    const ISSUER: &str = "issuer: {url: \"https://a\", audiences: [w]}";
    const NAME: &str = "claimMappings: {username: {claim: sub, prefix: \"\"}}";

    fn parse(text: &str) -> Result<AuthenticationConfiguration, AuthenticationError> {
        AuthenticationConfiguration::parse(&format!("{HEAD}{text}"))
    }

    #[test]
    fn a_file_says_what_is_wrong_with_it_and_where() {
        for (text, field) in [
            (
                format!("jwt: [{{issuer: {{audiences: [w]}}, {NAME}}}]"),
                "jwt[0].issuer.url",
            ),
            (
                format!("jwt: [{{issuer: {{url: \"http://a\", audiences: [w]}}, {NAME}}}]"),
                "jwt[0].issuer.url",
            ),
            (
                format!("jwt: [{{issuer: {{url: \"https://u:p@a\", audiences: [w]}}, {NAME}}}]"),
                "jwt[0].issuer.url",
            ),
            (
                format!("jwt: [{{issuer: {{url: \"https://a\"}}, {NAME}}}]"),
                "jwt[0].issuer.audiences",
            ),
            (
                format!("jwt: [{{issuer: {{url: \"https://a\", audiences: [a, b]}}, {NAME}}}]"),
                "jwt[0].issuer.audienceMatchPolicy",
            ),
            (
                format!(
                    "jwt: [{{issuer: {{url: \"https://a\", audiences: [a], certificateAuthority: x}}, {NAME}}}]"
                ),
                "jwt[0].issuer.certificateAuthority",
            ),
            (
                format!("jwt: [{{{ISSUER}, {NAME}}}, {{{ISSUER}, {NAME}}}]"),
                "jwt[1].issuer.url",
            ),
            (
                format!("jwt: [{{{ISSUER}, claimMappings: {{username: {{claim: sub}}}}}}]"),
                "jwt[0].claimMappings.username.prefix",
            ),
            (
                format!(
                    "jwt: [{{{ISSUER}, claimMappings: {{username: {{expression: claims.sub}}}}}}]"
                ),
                "jwt[0].claimMappings.username.expression",
            ),
            (
                format!(
                    "jwt: [{{{ISSUER}, {NAME}, userValidationRules: [{{expression: \"true\"}}]}}]"
                ),
                "jwt[0].userValidationRules",
            ),
            (
                format!(
                    "jwt: [{{{ISSUER}, {NAME}, claimValidationRules: [{{expression: \"true\"}}]}}]"
                ),
                "jwt[0].claimValidationRules[0].expression",
            ),
            (
                "anonymous: {enabled: false, conditions: [{path: /livez}]}".into(),
                "anonymous.conditions",
            ),
        ] {
            match parse(&text) {
                Err(AuthenticationError::Field { field: found, .. }) => {
                    assert_eq!(found, field, "{text}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        for text in ["jwt: [{issuers: {}}]", "anonymus: {}", "jwt: 3"] {
            assert!(
                matches!(parse(text), Err(AuthenticationError::Form(_))),
                "{text}"
            );
        }
        let other = AuthenticationConfiguration::parse("apiVersion: v1\nkind: Secret\n");
        assert!(matches!(other, Err(AuthenticationError::Kind(_))));
        let own = parse(&format!("jwt: [{{{ISSUER}, {NAME}}}]")).unwrap();
        assert!(own.check_against(&["https://a".into()]).is_err());
    }

    #[test]
    fn anonymous_requests_are_let_through_where_the_file_says() {
        let everywhere = Anonymous::default();
        assert!(everywhere.allows("/livez") && everywhere.allows("/api"));
        let some = parse("anonymous: {enabled: true, conditions: [{path: /livez}]}").unwrap();
        assert!(some.anonymous.allows("/livez") && !some.anonymous.allows("/livez/ping"));
        let none = parse("anonymous: {enabled: false}").unwrap();
        assert!(!none.anonymous.allows("/livez"));
    }

    #[test]
    fn options_make_one_issuer() {
        let options = |claim: &str, prefix: &str| OidcOptions {
            issuer_url: "https://a".into(),
            client_id: "w".into(),
            username_claim: claim.into(),
            username_prefix: prefix.into(),
            ..OidcOptions::default()
        };
        let prefix = |options| {
            let read = AuthenticationConfiguration::of_options(options).unwrap();
            read.jwt[0].claim_mappings.username.prefix.clone()
        };
        assert_eq!(prefix(options("", "")), "https://a#");
        assert_eq!(prefix(options("email", "")), "");
        assert_eq!(prefix(options("", "-")), "");
        assert_eq!(prefix(options("", "x:")), "x:");
        assert!(AuthenticationConfiguration::of_options(OidcOptions::default()).is_err());
    }
}
