//! Users of other issuers: OpenID Connect ID tokens.
//!
//! A token is taken from the issuer whose URL it names, if one of that issuer's keys has signed it, its time is now, it
//! is meant for the cluster, and its claims are as the configuration (`server/authn/configuration.rs`) wants them.
//!
//! Differs from Kubernetes: no expressions, and claims that the token only refers to are not fetched.

mod keys;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::configuration::{JwtAuthenticator, PrefixedClaim};
use crate::identity::{AUTHENTICATED, UserInfo};
use crate::outbound::{Outbound, Trust};
use crate::pki::jwt::Jwt;
use keys::RemoteKeys;

/// How far an issuer's clock may be ahead.
const LEEWAY: f64 = 300.0;

/// An issuer whose tokens are taken.
pub(super) struct Provider {
    rules: JwtAuthenticator,
    keys: RemoteKeys,
}

/// The claims of a token.
type Claims = Map<String, Value>;

impl Provider {
    /// An issuer with the rules for its tokens.
    ///
    /// # Errors
    /// What is wrong with its certificates.
    pub(super) fn new(rules: JwtAuthenticator) -> Result<Self, String> {
        let client = Outbound::new(&Trust {
            authorities: rules.issuer.certificate_authority.clone(),
            identity: None,
        })?;
        let issuer = rules.issuer.url.clone();
        let discovery = rules.issuer.discovery_url.clone().unwrap_or_else(|| {
            let base = issuer.trim_end_matches('/');
            format!("{base}/.well-known/openid-configuration")
        });
        let keys = RemoteKeys::new(issuer, discovery, client);
        Ok(Self { rules, keys })
    }

    /// Fetches the issuer's keys before the first token comes.
    pub(super) async fn prepare(&self) {
        self.keys.refresh().await;
    }

    /// The user of a token, and those of its audiences that the configuration names; `None` if the token is not this
    /// issuer's or not as it must be.
    pub(super) async fn authenticate(
        &self,
        token: &Jwt<'_>,
        now: Timestamp,
    ) -> Option<(UserInfo, Vec<String>)> {
        let claims: Claims = token.claims().ok()?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.rules.issuer.url) {
            return None;
        }
        if !self.keys.have_signed(token).await {
            return None;
        }
        match accept(&self.rules, &claims, now) {
            Ok(accepted) => Some(accepted),
            Err(reason) => {
                tracing::debug!(issuer = self.rules.issuer.url, reason, "token refused");
                None
            }
        }
    }
}

/// Whom claims that were signed stand for.
fn accept(
    rules: &JwtAuthenticator,
    claims: &Claims,
    now: Timestamp,
) -> Result<(UserInfo, Vec<String>), String> {
    check_times(claims, now)?;
    let mut audiences = texts(claims, "aud")?;
    audiences.retain(|audience| rules.issuer.audiences.contains(audience));
    if audiences.is_empty() {
        return Err("it is meant for others".into());
    }
    for rule in &rules.claim_validation_rules {
        if claims.get(&rule.claim).and_then(Value::as_str) != Some(&rule.required_value) {
            return Err(format!("claim {:?} is not what it must be", rule.claim));
        }
    }
    let mapping = &rules.claim_mappings;
    let name = username(&mapping.username, claims)?;
    let mut groups = match &mapping.groups {
        Some(rule) if claims.contains_key(&rule.claim) => {
            let groups = texts(claims, &rule.claim)?.into_iter();
            groups
                .map(|group| format!("{}{group}", rule.prefix))
                .collect()
        }
        _ => Vec::new(),
    };
    groups.push(AUTHENTICATED.to_owned());
    let mut user = UserInfo {
        name,
        groups,
        ..UserInfo::default()
    };
    if let Some(uid) = &mapping.uid {
        text(claims, &uid.claim)?.clone_into(&mut user.uid);
    }
    if let Some(id) = claims.get("jti").and_then(Value::as_str) {
        let key = "authentication.kubernetes.io/credential-id".to_owned();
        user.extra.insert(key, vec![format!("JTI={id}")]);
    }
    Ok((user, audiences))
}

fn username(rule: &PrefixedClaim, claims: &Claims) -> Result<String, String> {
    let name = text(claims, &rule.claim)?;
    if name.is_empty() {
        return Err(format!("claim {:?} is empty", rule.claim));
    }
    // Whoever may choose their address must have proved that it is theirs.
    if rule.claim == "email"
        && !matches!(
            claims.get("email_verified"),
            None | Some(&Value::Bool(true))
        )
    {
        return Err("the email address is not verified".into());
    }
    Ok(format!("{}{name}", rule.prefix))
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), String> {
    let now = now.as_second() as f64;
    let time = |claim: &str| match claims.get(claim) {
        None => Ok(None),
        Some(value) => {
            let value = value.as_f64();
            value
                .map(Some)
                .ok_or_else(|| format!("claim {claim:?} is not a time"))
        }
    };
    let ends = time("exp")?.ok_or("it does not say when it expires")?;
    if now >= ends {
        return Err("it has expired".into());
    }
    if time("nbf")?.is_some_and(|begins| now + LEEWAY < begins) {
        return Err("it is not valid yet".into());
    }
    Ok(())
}

fn text<'a>(claims: &'a Claims, claim: &str) -> Result<&'a str, String> {
    let value = claims.get(claim).and_then(Value::as_str);
    value.ok_or_else(|| format!("there is no text in claim {claim:?}"))
}

/// One text or a list of them.
fn texts(claims: &Claims, claim: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("claim {claim:?} is neither a text nor a list of texts");
    match claims.get(claim) {
        Some(Value::String(text)) => Ok(vec![text.clone()]),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().ok_or_else(wrong)
        }
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::configuration::AuthenticationConfiguration;
    use super::*;
    use serde_json::json;

    fn rules() -> JwtAuthenticator {
        let text = r#"
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
jwt:
- issuer: {url: "https://issuer.example", audiences: [windlass, other], audienceMatchPolicy: MatchAny}
  claimValidationRules:
  - {claim: hd, requiredValue: example.com}
  claimMappings:
    username: {claim: email, prefix: "oidc:"}
    groups: {claim: roles, prefix: "role-"}
    uid: {claim: sub}
"#;
        let parsed = AuthenticationConfiguration::parse(text).unwrap();
        parsed.jwt.into_iter().next().unwrap()
    }

    fn claims() -> Value {
        json!({
            "iss": "https://issuer.example", "aud": ["windlass", "x"], "sub": "7", "exp": 200,
            "hd": "example.com", "email": "a@example.com", "email_verified": true,
            "roles": ["dev", "ops"], "jti": "t1",
        })
    }

    fn accepted(change: &Value) -> Result<(UserInfo, Vec<String>), String> {
        let mut claims = claims();
        for (key, value) in change.as_object().unwrap() {
            claims[key] = value.clone();
        }
        let claims: Claims = claims
            .as_object()
            .unwrap()
            .clone()
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .collect();
        accept(&rules(), &claims, Timestamp::from_second(150).unwrap())
    }

    #[test]
    fn claims_become_a_user() {
        let (user, audiences) = accepted(&json!({})).unwrap();
        assert_eq!(user.name, "oidc:a@example.com");
        assert_eq!(user.groups, ["role-dev", "role-ops", AUTHENTICATED]);
        assert_eq!((&*user.uid, audiences), ("7", vec!["windlass".to_owned()]));
        assert_eq!(
            user.extra["authentication.kubernetes.io/credential-id"],
            ["JTI=t1"]
        );
        let (one, _) = accepted(&json!({"roles": "dev", "aud": "other"})).unwrap();
        assert_eq!(one.groups, ["role-dev", AUTHENTICATED]);
        let (none, _) = accepted(&json!({"roles": null, "email_verified": null})).unwrap();
        assert_eq!(none.groups, [AUTHENTICATED]);
        assert!(
            accepted(&json!({"nbf": 450})).is_ok(),
            "clocks differ a little"
        );
    }

    #[test]
    fn claims_that_are_not_as_they_must_be_are_refused() {
        for change in [
            json!({"exp": 150}),
            json!({"exp": null}),
            json!({"exp": "200"}),
            json!({"nbf": 451}),
            json!({"nbf": "0"}),
            json!({"aud": "elsewhere"}),
            json!({"aud": null}),
            json!({"hd": "other.com"}),
            json!({"hd": null}),
            json!({"email": null}),
            json!({"email": ""}),
            json!({"email": ["a@example.com"]}),
            json!({"email_verified": false}),
            json!({"email_verified": "true"}),
            json!({"roles": [1]}),
            json!({"sub": 7}),
        ] {
            assert!(accepted(&change).is_err(), "{change}");
        }
    }
}
