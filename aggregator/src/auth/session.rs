//! Sessions of browsers: a cookie in place of the token it was exchanged for.
//!
//! The cookie is random, kept as a hash, out of reach of scripts and of other sites; it is worth
//! what its token is worth at each request, so revoking the token ends it. Sessions live in memory:
//! a restart asks people to sign in again.
//! Bounds: [`SESSIONS_MAX`], the oldest makes room; [`SESSION_HOURS`] each.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use super::token::hex;

/// Sessions kept.
pub const SESSIONS_MAX: usize = 1_024;

/// Longest a session lasts.
pub const SESSION_HOURS: u64 = 12;

/// The cookie's name.
pub const COOKIE: &str = "lens_session";

#[derive(Clone, Debug)]
struct Session {
    token: String,
    since: Instant,
}

/// The sessions there are, by the hash of their cookie.
#[derive(Debug, Default)]
pub struct Sessions(HashMap<[u8; 32], Session>);

fn hash(cookie: &str) -> [u8; 32] {
    blake3::derive_key("lens telemetry 2026-11 session cookie", cookie.as_bytes())
}

impl Sessions {
    /// Begins a session for a token's id; gives the cookie's value.
    pub fn begin(&mut self, random: &[u8; 32], token: &str, now: Instant) -> String {
        self.0.retain(|_, session| now.duration_since(session.since) < lifetime());
        if self.0.len() >= SESSIONS_MAX {
            let oldest = self.0.iter().min_by_key(|(_, session)| session.since).map(|(at, _)| *at);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        let cookie = hex(random);
        self.0.insert(hash(&cookie), Session { token: token.into(), since: now });
        cookie
    }

    /// The id of the token a cookie stands for. Found by hash: time tells nothing of the cookie.
    pub fn token(&self, cookie: &str, now: Instant) -> Option<&str> {
        let session = self.0.get(&hash(cookie))?;
        (now.duration_since(session.since) < lifetime()).then_some(session.token.as_str())
    }

    /// Ends a session.
    pub fn end(&mut self, cookie: &str) {
        self.0.remove(&hash(cookie));
    }
}

/// Longest a session lasts.
pub const fn lifetime() -> Duration {
    Duration::from_secs(SESSION_HOURS * 3_600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_lasts_until_it_ends_or_its_time_is_up() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let cookie = sessions.begin(&[0xAB; 32], "t", now);
        assert_eq!(sessions.token(&cookie, now), Some("t"));
        assert_eq!(sessions.token(&cookie.to_uppercase(), now), None);
        assert_eq!(sessions.token(&cookie, now + lifetime()), None);
        sessions.end(&cookie);
        assert_eq!(sessions.token(&cookie, now), None);
    }

    #[test]
    fn one_session_more_than_the_bound_ends_the_oldest() {
        let (mut sessions, now) = (Sessions::default(), Instant::now());
        let mut cookies = Vec::new();
        for at in 0..=SESSIONS_MAX {
            let mut random = [0; 32];
            random[..8].copy_from_slice(&at.to_le_bytes());
            let at = now + Duration::from_millis(at as u64);
            cookies.push(sessions.begin(&random, "t", at));
        }
        assert_eq!(sessions.0.len(), SESSIONS_MAX);
        let later = now + Duration::from_secs(60);
        assert_eq!(sessions.token(&cookies[0], later), None);
        assert_eq!(sessions.token(&cookies[1], later), Some("t"));
    }
}
