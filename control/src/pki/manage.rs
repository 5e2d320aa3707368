//! Changes of the authority and the token keys, in `DATA-DIR/pki`, by `windlass ca` and by a control plane whose authority
//! comes to its end.
//!
//! Every change replaces whole files, the keys before the certificates that need them, so that whoever is killed in
//! between leaves files that go together. A running control plane sees them change and takes them over
//! (`control_plane/renewal.rs`).

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::authority::{self, CERTIFICATES, KEYS, Known, OWN_NAME};
use super::{PkiError, files, service_account};

/// An authority with less than this left gets a successor that is trusted from then on.
const ANNOUNCE: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);
/// With less than this left the successor issues.
const HAND_OVER: SignedDuration = SignedDuration::from_hours(365 * 24);

/// What is in the directory.
#[derive(Debug)]
pub struct Inventory {
    /// What is trusted; the first issues.
    pub authorities: Vec<Known>,
    /// Ids of the token keys; the first signs.
    pub token_keys: Vec<String>,
}

/// Reads what is there.
///
/// # Errors
/// When a file cannot be read or understood.
pub fn inventory(pki: &Path) -> Result<Inventory, PkiError> {
    let bundle = files::read(&pki.join(CERTIFICATES))?;
    let keys = files::read(&pki.join(KEYS))?;
    let token_keys = files::read(&pki.join(service_account::KEY_FILE))?;
    Ok(Inventory {
        authorities: authority::known(&bundle, &keys)?,
        token_keys: service_account::key_ids(&token_keys)?,
    })
}

/// Has an authority trusted beside those that are: a new one, or that of a certificate and a key in PEM. Answers its id.
///
/// # Errors
/// When it cannot issue, is known already, or a file cannot be written.
pub fn add(pki: &Path, own: Option<(&str, &str)>) -> Result<String, PkiError> {
    let (certificate, key) = match own {
        Some((certificate, key)) => (certificate.to_owned(), key.to_owned()),
        None => {
            let key = authority::new_key()?;
            (authority::self_signed(&key)?, key)
        }
    };
    authority::check(&certificate, &key)?;
    let bundle = files::read(&pki.join(CERTIFICATES))?;
    let keys = files::read(&pki.join(KEYS))?;
    let known = authority::known(&bundle, &keys)?;
    let added = authority::known(&certificate, &key)?;
    let first = added.first().map(|of| of.id.clone()).unwrap_or_default();
    if known.iter().any(|of| of.id == first) {
        return Err(PkiError::Key(format!("{first} is trusted already")));
    }
    let is_new = |of: &&Known| !known.iter().any(|known| known.id == of.id);
    let new: String = added.iter().filter(is_new).map(|of| &*of.pem).collect();
    files::write(&pki.join(KEYS), &join(&keys, &key))?;
    files::write(&pki.join(CERTIFICATES), &join(&bundle, &new))?;
    Ok(first)
}

/// Has the authority with this id issue from now on.
///
/// # Errors
/// When there is none, or its key is not there.
pub fn promote(pki: &Path, id: &str) -> Result<(), PkiError> {
    let authorities = inventory(pki)?.authorities;
    let (chosen, others) = part(authorities, id)?;
    if !chosen.has_key {
        return Err(PkiError::Key(format!("the key of {id} is not here")));
    }
    let all = std::iter::once(&chosen).chain(&others);
    let bundle: String = all.map(|of| &*of.pem).collect();
    files::write(&pki.join(CERTIFICATES), &bundle)
}

/// Has the authority with this id trusted no more.
///
/// # Errors
/// When there is none, or it is the one that issues.
pub fn remove(pki: &Path, id: &str) -> Result<(), PkiError> {
    let authorities = inventory(pki)?.authorities;
    if authorities.first().is_some_and(|first| first.id == id) {
        return Err(PkiError::Key(format!(
            "{id} issues certificates; have another do that first"
        )));
    }
    let (_, others) = part(authorities, id)?;
    let bundle: String = others.iter().map(|of| &*of.pem).collect();
    files::write(&pki.join(CERTIFICATES), &bundle)
}

fn part(authorities: Vec<Known>, id: &str) -> Result<(Known, Vec<Known>), PkiError> {
    let (mut chosen, others): (Vec<_>, Vec<_>) =
        authorities.into_iter().partition(|of| of.id == id);
    let chosen = chosen
        .pop()
        .ok_or_else(|| PkiError::Key(format!("there is no authority {id}")))?;
    Ok((chosen, others))
}

/// Has a new key sign tokens; tokens of the keys before stay valid. Answers its id.
///
/// # Errors
/// When the file cannot be read or written.
pub fn rotate_token_key(pki: &Path) -> Result<String, PkiError> {
    let path = pki.join(service_account::KEY_FILE);
    let keys = files::read(&path)?;
    let new = service_account::new_key()?;
    let all = join(&new, &keys);
    let ids = service_account::key_ids(&all)?;
    files::write(&path, &all)?;
    Ok(ids.into_iter().next().unwrap_or_default())
}

/// Has only the key that signs verify tokens: those of the keys before are refused from then on.
///
/// # Errors
/// When the file cannot be read or written.
pub fn retire_token_keys(pki: &Path) -> Result<(), PkiError> {
    const END: &str = "-----END PRIVATE KEY-----";
    let path = pki.join(service_account::KEY_FILE);
    let keys = files::read(&path)?;
    let first = keys.find(END).and_then(|at| keys.get(..at + END.len()));
    let first = first.ok_or_else(|| PkiError::Key("sa.key holds no key in PKCS#8".into()))?;
    files::write(&path, &format!("{first}\n"))
}

/// What an authority that comes to its end needs.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Announce,
    HandOver(String),
}

/// Does what the end of the authority asks for; answers whether there was something. One that was not made here is left
/// alone.
///
/// # Errors
/// When a file cannot be read or written.
pub fn renew(pki: &Path, now: Timestamp) -> Result<bool, PkiError> {
    match due(&inventory(pki)?.authorities, now) {
        None => return Ok(false),
        Some(Step::Announce) => {
            let id = add(pki, None)?;
            tracing::info!(id, "the authority expires; another is trusted beside it");
        }
        Some(Step::HandOver(id)) => {
            promote(pki, &id)?;
            tracing::info!(id, "the authority expires; another issues from now on");
        }
    }
    Ok(true)
}

fn due(authorities: &[Known], now: Timestamp) -> Option<Step> {
    let (first, others) = authorities.split_first()?;
    let left = |of: &Known| of.expires.duration_since(now);
    if first.name != OWN_NAME || left(first) > ANNOUNCE {
        return None;
    }
    let successor = others
        .iter()
        .find(|of| of.has_key && of.name == OWN_NAME && left(of) > ANNOUNCE);
    match successor {
        None => Some(Step::Announce),
        Some(_) if left(first) > HAND_OVER => None,
        Some(of) => Some(Step::HandOver(of.id.clone())),
    }
}

fn join(first: &str, second: &str) -> String {
    format!("{}\n{}\n", first.trim_end(), second.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::Authority;
    use super::super::service_account::Tokens;
    use super::*;

    fn directory() -> (tempfile::TempDir, Authority) {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::load_or_create(dir.path()).unwrap();
        Tokens::load_or_create(dir.path(), &[]).unwrap();
        (dir, authority)
    }

    #[test]
    fn another_authority_is_trusted_before_it_issues_and_the_old_one_until_it_goes() {
        let (dir, authority) = directory();
        let pki = dir.path();
        let changes = authority.changes();
        let old = inventory(pki).unwrap().authorities[0].id.clone();
        let new = add(pki, None).unwrap();
        let ids = || -> Vec<String> {
            let all = inventory(pki).unwrap().authorities;
            all.into_iter().map(|of| of.id).collect()
        };
        assert_eq!(ids(), [old.clone(), new.clone()]);
        authority.reload(pki).unwrap();
        assert!(changes.has_changed().unwrap());
        assert_eq!(authority.trusted().len(), 2);
        assert!(remove(pki, &old).is_err(), "it issues");
        promote(pki, &new).unwrap();
        assert_eq!(ids(), [new.clone(), old.clone()]);
        authority.reload(pki).unwrap();
        remove(pki, &old).unwrap();
        assert_eq!(ids(), std::slice::from_ref(&new));
        authority.reload(pki).unwrap();
        assert_eq!(authority.trusted().len(), 1);
        assert!(promote(pki, &old).is_err() && remove(pki, &old).is_err());
        assert!(add(pki, Some(("no", "pem"))).is_err());
        assert_eq!(ids(), [new]);
    }

    #[test]
    fn token_keys_are_rotated_and_retired() {
        let (dir, _) = directory();
        let pki = dir.path();
        let keys = || inventory(pki).unwrap().token_keys;
        let old = keys();
        let new = rotate_token_key(pki).unwrap();
        assert_eq!(keys(), [new.clone(), old[0].clone()]);
        retire_token_keys(pki).unwrap();
        assert_eq!(keys(), [new]);
    }

    #[test]
    fn an_authority_that_ends_gets_a_successor_in_time() {
        let now = Timestamp::now();
        let known = |id: &str, name: &str, days: i64| Known {
            id: id.into(),
            name: name.into(),
            expires: now + SignedDuration::from_hours(24 * days),
            has_key: true,
            pem: String::new(),
        };
        let own = |id: &str, days| known(id, OWN_NAME, days);
        assert_eq!(due(&[own("a", 800)], now), None);
        assert_eq!(due(&[own("a", 700)], now), Some(Step::Announce));
        assert_eq!(due(&[own("a", 700), own("b", 3650)], now), None);
        let both = [own("a", 360), own("b", 3300)];
        assert_eq!(due(&both, now), Some(Step::HandOver("b".into())));
        assert_eq!(due(&[own("b", 3300), own("a", 360)], now), None);
        assert_eq!(due(&[known("a", "theirs", 10)], now), None);
    }
}
