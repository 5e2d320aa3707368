//! Sessions of browsers, and links that open one. All in memory: a restart ends them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, header};
use jiff::{SignedDuration, Timestamp};

use crate::identity::UserInfo;

/// How long a link may wait.
const LINK_LIFE: Duration = Duration::from_secs(3600);
/// Sessions at a time; beyond it the one that ends first goes.
const MAX_SESSIONS: usize = 10_000;

/// By what a session asks the API.
#[derive(Clone)]
pub(super) enum Credentials {
    /// The value of the header `Authorization`.
    Token(HeaderValue),
    /// Somebody whom this process vouches for.
    User(Arc<UserInfo>),
}

/// An open session.
#[derive(Clone)]
pub(super) struct Session {
    pub(super) credentials: Credentials,
    pub(super) expires: Timestamp,
}

/// All sessions and links, by what is secret of them.
pub(super) struct Sessions {
    /// Name of the cookie. Browsers send cookies to every port of a host: another dashboard beside this one must
    /// not take this one's for its own.
    cookie: String,
    life: Duration,
    open: Mutex<HashMap<String, Session>>,
    links: Mutex<HashMap<String, (Instant, Arc<UserInfo>)>>,
}

/// 256 bits that nobody guesses.
fn secret() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
}

impl Sessions {
    /// Sessions of the dashboard at that port, which last so long.
    pub(super) fn of_port(port: u16, life: Duration) -> Self {
        Self {
            cookie: format!("windlass-session-{port}"),
            life,
            open: Mutex::default(),
            links: Mutex::default(),
        }
    }

    /// Name of the cookie.
    pub(super) fn cookie(&self) -> &str {
        &self.cookie
    }

    /// How long a session lasts.
    pub(super) const fn life(&self) -> Duration {
        self.life
    }

    /// The code of a link that opens a session of `user`.
    pub(super) fn code(&self, user: UserInfo) -> String {
        let code = secret();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.insert(code.clone(), (Instant::now(), Arc::new(user)));
        code
    }

    /// Opens the session that a link is for, the first time it is followed.
    pub(super) fn redeem(&self, code: &str) -> Option<String> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|_, (made, _)| made.elapsed() < LINK_LIFE);
        let (_, user) = links.remove(code)?;
        drop(links);
        Some(self.open(Credentials::User(user)))
    }

    /// Opens a session; answers its name.
    pub(super) fn open(&self, credentials: Credentials) -> String {
        let now = Timestamp::now();
        let life = SignedDuration::try_from(self.life).unwrap_or(SignedDuration::MAX);
        let session = Session {
            credentials,
            expires: now.saturating_add(life).unwrap_or(now),
        };
        let id = secret();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MAX_SESSIONS {
            open.retain(|_, session| session.expires > now);
            let first = open.iter().min_by_key(|(_, session)| session.expires);
            let first = first.map(|(id, _)| id.clone());
            if open.len() >= MAX_SESSIONS
                && let Some(first) = first
            {
                open.remove(&first);
            }
        }
        open.insert(id.clone(), session);
        id
    }

    /// The session that the cookie names, if it lasts still.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let id = self.named(headers)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let session = open.get(id)?.clone();
        if session.expires <= Timestamp::now() {
            open.remove(id);
            return None;
        }
        Some(session)
    }

    /// Ends the session that the cookie names.
    pub(super) fn close(&self, headers: &HeaderMap) {
        if let Some(id) = self.named(headers) {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(id);
        }
    }

    /// The name in the cookie.
    fn named<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let lines = headers.get_all(header::COOKIE).into_iter();
        let pairs = lines
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(';'));
        let mut ours =
            pairs.filter_map(|pair| pair.trim().strip_prefix(&*self.cookie)?.strip_prefix('='));
        ours.next()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookie(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, text.parse().unwrap());
        headers
    }

    #[test]
    fn a_link_opens_one_session_which_ends_when_it_is_closed() {
        let sessions = Sessions::of_port(80, Duration::from_secs(60));
        let code = sessions.code(UserInfo::authenticated("ann", &[]));
        assert!(sessions.redeem("guessed").is_none());
        let id = sessions.redeem(&code).unwrap();
        assert!(sessions.redeem(&code).is_none());
        for (text, known) in [
            (format!("a=b; windlass-session-80={id}"), true),
            (format!("windlass-session-80=x{id}"), false),
            (format!("windlass-session-81={id}"), false),
            ("windlass-session-80=".to_owned(), false),
        ] {
            assert_eq!(sessions.of(&cookie(&text)).is_some(), known, "{text}");
        }
        let own = cookie(&format!("windlass-session-80={id}"));
        sessions.close(&own);
        assert!(sessions.of(&own).is_none());
    }

    #[test]
    fn a_session_ends_when_its_life_is_over() {
        let sessions = Sessions::of_port(80, Duration::ZERO);
        let code = sessions.code(UserInfo::authenticated("ann", &[]));
        let id = sessions.redeem(&code).unwrap();
        let own = cookie(&format!("windlass-session-80={id}"));
        assert!(sessions.of(&own).is_none());
    }
}
