//! The door of the HTTP API: who comes, by what, and what they may ask.
//!
//! Tokens come in the `Authorization` header, or as the cookie a browser got for one; never in an
//! address, which ends up in logs and histories. With `mtls` the certificate of the connection
//! says who comes. With `none`, which is for loopback, everyone may everything.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use lens_model::limits::TOKEN_FILE_BYTES_MAX;
use lens_model::{OperatorName, UnixNanos};
use lens_service::env::Env;
use lens_service::keyfile::{self, PrivateFileError};
use lens_service::tls::{Operator, Stamp};
use parking_lot::Mutex;
use thiserror::Error;
use tokio::time::Instant;

use super::failures::Failures;
use super::role::Role;
use super::session::Sessions;
use super::token::{Presented, TokenError, Tokens};

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of the token, or of the operator.
    pub name: String,
    /// `token:<id>`, `certificate:<serial>` or `loopback`.
    pub credential: String,
    /// What they may be.
    pub roles: Vec<Role>,
}

impl Principal {
    fn new(name: &str, credential: String, roles: &[Role]) -> Self {
        Self { name: name.into(), credential, roles: roles.to_vec() }
    }

    /// The roles, for a record.
    pub fn role_names(&self) -> String {
        self.roles.iter().map(Role::to_string).collect::<Vec<_>>().join(",")
    }
}

/// What a request brings to say who it is from.
#[derive(Clone, Copy, Default)]
pub struct Brought<'a> {
    /// Where it came from.
    pub from: Option<IpAddr>,
    /// What stands behind `Bearer`.
    pub bearer: Option<&'a str>,
    /// The session cookie.
    pub cookie: Option<&'a str>,
    /// The certificate of the connection.
    pub operator: Option<&'a Operator>,
}

/// Why nobody is known to ask.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Stranger {
    /// Nothing was brought.
    #[error("{0}")]
    Nothing(&'static str),
    /// What was brought was good once.
    #[error("{0}")]
    Over(&'static str),
    /// What was brought proves nothing.
    #[error("the token is not one of ours")]
    Wrong,
    /// Too much that proves nothing came from there.
    #[error("too many wrong tokens from this address: wait {} s", .0.as_secs().max(1))]
    Locked(Duration),
}

/// Why tokens were not taken up; those held before still are.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TokenFileError {
    /// The file cannot be read, or others can.
    #[error(transparent)]
    File(#[from] PrivateFileError),
    /// It is no token file.
    #[error("{path}: {error}")]
    Form {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        error: TokenError,
    },
}

/// Reads a token file.
///
/// # Errors
/// [`TokenFileError`] names it.
pub fn read_tokens(path: &Path) -> Result<Tokens, TokenFileError> {
    let bytes = keyfile::read_private(path, TOKEN_FILE_BYTES_MAX)?;
    let text = String::from_utf8_lossy(bytes.expose());
    Tokens::parse(&text).map_err(|error| TokenFileError::Form { path: path.into(), error })
}

struct TokenDoor {
    file: PathBuf,
    /// The file as it was before it was last read.
    stamp: Mutex<Stamp>,
    tokens: ArcSwap<Tokens>,
    sessions: Mutex<Sessions>,
    failures: Mutex<Failures>,
}

enum Mode {
    Open,
    Tokens(TokenDoor),
    Certificates(Vec<(OperatorName, Vec<Role>)>),
}

/// The door; cheap to clone.
#[derive(Clone)]
pub struct Gate(Arc<Mode>);

impl Default for Gate {
    /// Everyone may everything: for loopback.
    fn default() -> Self {
        Self(Arc::new(Mode::Open))
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match *self.0 {
            Mode::Open => "Gate(none)",
            Mode::Tokens(_) => "Gate(tokens)",
            Mode::Certificates(_) => "Gate(mtls)",
        })
    }
}

impl Gate {
    /// A door for tokens of this file.
    ///
    /// # Errors
    /// [`TokenFileError`].
    pub fn tokens(file: &Path) -> Result<Self, TokenFileError> {
        let stamp = Mutex::new(Stamp::of([file]));
        let tokens = ArcSwap::from_pointee(read_tokens(file)?);
        Ok(Self(Arc::new(Mode::Tokens(TokenDoor {
            file: file.into(),
            stamp,
            tokens,
            sessions: Mutex::default(),
            failures: Mutex::default(),
        }))))
    }

    /// A door for certificates of these operators.
    pub fn certificates(operators: Vec<(OperatorName, Vec<Role>)>) -> Self {
        Self(Arc::new(Mode::Certificates(operators)))
    }

    /// Whether people sign in with tokens.
    pub fn takes_tokens(&self) -> bool {
        matches!(*self.0, Mode::Tokens(_))
    }

    /// Whether anyone may everything.
    pub fn is_open(&self) -> bool {
        matches!(*self.0, Mode::Open)
    }

    /// Reads the tokens anew; gives how many there are.
    ///
    /// # Errors
    /// [`TokenFileError`]; those held before stay.
    pub fn reload(&self) -> Result<usize, TokenFileError> {
        match &*self.0 {
            Mode::Tokens(door) => door.reload(),
            Mode::Open | Mode::Certificates(_) => Ok(0),
        }
    }

    /// Who asks.
    ///
    /// # Errors
    /// [`Stranger`].
    pub fn who(&self, brought: Brought<'_>, wall: UnixNanos) -> Result<Principal, Stranger> {
        match &*self.0 {
            Mode::Open => {
                let all = ["viewer", "operator", "releaser", "breakglass", "auditor", "admin"];
                let all = all.iter().filter_map(|role| role.parse().ok());
                let roles: Vec<Role> = all.chain([Role::Approver("any".into())]).collect();
                Ok(Principal::new("anyone", "loopback".into(), &roles))
            }
            Mode::Tokens(door) => door.who(brought, wall),
            Mode::Certificates(operators) => certified(operators, brought.operator),
        }
    }

    /// Exchanges a token for a session's cookie.
    ///
    /// # Errors
    /// [`Stranger`].
    pub fn sign_in(
        &self,
        env: &Env,
        from: Option<IpAddr>,
        token: &str,
    ) -> Result<String, Stranger> {
        let Mode::Tokens(door) = &*self.0 else {
            return Err(Stranger::Nothing("there is nothing to sign in with here"));
        };
        let brought = Brought { from, bearer: Some(token), ..Brought::default() };
        let principal = door.who(brought, env.now())?;
        let mut random = zeroize::Zeroizing::new([0; 32]);
        let none = Stranger::Nothing("no randomness for a session: try again");
        env.random.fill(&mut *random).map_err(|_| none)?;
        let id = principal.credential.trim_start_matches("token:");
        Ok(door.sessions.lock().begin(&random, id, Instant::now()))
    }

    /// Ends a session.
    pub fn sign_out(&self, cookie: &str) {
        if let Mode::Tokens(door) = &*self.0 {
            door.sessions.lock().end(cookie);
        }
    }
}

impl TokenDoor {
    fn reload(&self) -> Result<usize, TokenFileError> {
        *self.stamp.lock() = Stamp::of([self.file.as_path()]);
        let tokens = read_tokens(&self.file)?;
        let count = tokens.all().len();
        self.tokens.store(Arc::new(tokens));
        Ok(count)
    }

    /// Whether the file changed since it was read and could be read anew. A token made a moment ago
    /// must not be taken for a guess; who guesses makes us look ten times a minute at most.
    fn caught_up(&self) -> bool {
        let now = Stamp::of([self.file.as_path()]);
        let changed = *self.stamp.lock() != now;
        changed && self.reload().is_ok()
    }

    fn who(&self, brought: Brought<'_>, wall: UnixNanos) -> Result<Principal, Stranger> {
        let tokens = self.tokens.load();
        let principal = |token: &super::token::Token| {
            Principal::new(&token.name, format!("token:{}", token.id), &token.roles)
        };
        let Some(bearer) = brought.bearer else {
            let Some(cookie) = brought.cookie else {
                return Err(Stranger::Nothing("bring a token: Authorization: Bearer lens_…"));
            };
            let sessions = self.sessions.lock();
            let token = sessions.token(cookie, Instant::now()).and_then(|id| tokens.get(id));
            let Some(token) = token else {
                return Err(Stranger::Over("the session has ended: sign in again"));
            };
            return token
                .over(wall)
                .map_or_else(|| Ok(principal(token)), |why| Err(Stranger::Over(why)));
        };
        let now = Instant::now();
        let from = brought.from.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        if let Some(wait) = self.failures.lock().locked(from, now) {
            return Err(Stranger::Locked(wait));
        }
        let mut found = tokens.check(bearer, wall);
        let fresh;
        if found == Presented::Wrong && self.caught_up() {
            fresh = self.tokens.load();
            found = fresh.check(bearer, wall);
        }
        match found {
            Presented::Good(token) => Ok(principal(token)),
            Presented::Over(why) => Err(Stranger::Over(why)),
            Presented::Wrong => {
                self.failures.lock().wrong(from, now);
                Err(Stranger::Wrong)
            }
        }
    }
}

fn certified(
    operators: &[(OperatorName, Vec<Role>)],
    operator: Option<&Operator>,
) -> Result<Principal, Stranger> {
    let none = "come with a client certificate of spiffe://<trust-domain>/operator/<name>";
    let operator = operator.ok_or(Stranger::Nothing(none))?;
    let held = operators.iter().find(|(name, _)| *name == operator.id.name);
    let roles = held.map_or(&[][..], |(_, roles)| roles);
    let credential = format!("certificate:{}", operator.serial);
    Ok(Principal::new(operator.id.name.as_str(), credential, roles))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::token::Token;

    fn door() -> (tempfile::TempDir, Gate, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokens");
        let env = Env::system();
        let roles = vec![Role::Viewer];
        let (token, text) = Token::make(&[7; 40], "ci", roles, env.now(), 1).unwrap();
        let mut tokens = Tokens::default();
        tokens.add(token).unwrap();
        crate::audit::log::replace_whole(&*env.disk, &file, tokens.text().as_bytes()).unwrap();
        let gate = Gate::tokens(&file).unwrap();
        (dir, gate, String::from_utf8(text.expose().to_vec()).unwrap())
    }

    fn bearer(text: &str) -> Brought<'_> {
        Brought { bearer: Some(text), ..Brought::default() }
    }

    #[test]
    fn a_session_is_worth_what_its_token_is_worth_and_ends_with_it() {
        let (dir, gate, text) = door();
        let env = Env::system();
        let cookie = gate.sign_in(&env, None, &text).unwrap();
        let brought = Brought { cookie: Some(&cookie), ..Brought::default() };
        assert_eq!(gate.who(brought, env.now()).unwrap().name, "ci");
        let file = dir.path().join("tokens");
        let mut tokens = read_tokens(&file).unwrap();
        let id = tokens.all()[0].id.clone();
        tokens.revoke(&id).unwrap();
        std::fs::write(&file, tokens.text()).unwrap();
        assert!(gate.who(brought, env.now()).is_ok(), "not reread yet");
        gate.reload().unwrap();
        assert!(matches!(gate.who(brought, env.now()), Err(Stranger::Over(_))));
        assert!(matches!(gate.sign_in(&env, None, &text), Err(Stranger::Over(_))));
    }

    #[test]
    fn a_token_made_a_moment_ago_is_good_and_no_guess() {
        let (dir, gate, _) = door();
        let env = Env::system();
        let file = dir.path().join("tokens");
        let mut tokens = read_tokens(&file).unwrap();
        let made = Token::make(&[9; 40], "new", vec![Role::Admin], env.now(), 1).unwrap();
        tokens.add(made.0).unwrap();
        let text = String::from_utf8(made.1.expose().to_vec()).unwrap();
        assert_eq!(gate.who(bearer(&text), env.now()), Err(Stranger::Wrong));
        crate::audit::log::replace_whole(&*env.disk, &file, tokens.text().as_bytes()).unwrap();
        assert_eq!(gate.who(bearer(&text), env.now()).unwrap().name, "new");
    }

    #[test]
    fn a_file_that_cannot_be_taken_leaves_the_tokens_that_were() {
        let (dir, gate, text) = door();
        std::fs::write(dir.path().join("tokens"), "junk\n").unwrap();
        assert!(gate.reload().unwrap_err().to_string().contains("line 1"));
        assert!(gate.who(bearer(&text), Env::system().now()).is_ok());
    }

    #[test]
    fn guessing_locks_the_address_and_an_expired_token_does_not() {
        let (_dir, gate, text) = door();
        let later = UnixNanos(u64::MAX);
        for _ in 0..100 {
            assert!(matches!(gate.who(bearer(&text), later), Err(Stranger::Over(_))));
        }
        for _ in 0..crate::auth::failures::FAILURES_MAX {
            assert_eq!(gate.who(bearer("lens_guess"), later), Err(Stranger::Wrong));
        }
        let now = Env::system().now();
        assert!(matches!(gate.who(bearer(&text), now), Err(Stranger::Locked(_))));
        let elsewhere = Brought { from: Some([192, 0, 2, 1].into()), ..bearer(&text) };
        assert!(gate.who(elsewhere, now).is_ok());
    }

    #[test]
    fn an_operator_the_configuration_does_not_name_has_no_role() {
        let alice = OperatorName::new("alice").unwrap();
        let gate = Gate::certificates(vec![(alice, vec![Role::Admin])]);
        let operator = |name: &str| Operator {
            id: format!("spiffe://lens.test/operator/{name}").parse().unwrap(),
            serial: "1f".into(),
        };
        let who = |operator: &Operator| {
            let brought = Brought { operator: Some(operator), ..Brought::default() };
            gate.who(brought, UnixNanos(0)).unwrap()
        };
        assert_eq!(who(&operator("alice")).roles, [Role::Admin]);
        assert_eq!(who(&operator("bob")).roles, []);
        assert!(matches!(gate.who(Brought::default(), UnixNanos(0)), Err(Stranger::Nothing(_))));
    }
}
