//! Tokens of people and programs: made once, shown once, kept only as a hash.
//!
//! A token is `lens_<id>_<secret>`: sixteen hex digits that name it in lists and audit records, and
//! sixty-four that prove it. 256 random bits cannot be guessed, so a fast hash keeps them as well
//! as a slow one would; the context below keeps the hash of a token from being that of anything
//! else. The file holds one JSON object a line and is readable by its owner alone.
//! Bounds: `TOKENS_MAX` tokens, `TOKEN_FILE_BYTES_MAX` bytes, `TOKEN_DAYS_MAX` days.

use lens_model::limits::{TOKEN_DAYS_MAX, TOKENS_MAX};
use lens_model::{Nanos, UnixNanos};
use lens_service::secret::Secret;
use lens_service::time::{parse_rfc3339, rfc3339};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use thiserror::Error;

use super::role::{self, Role};

/// What a token begins with.
pub const PREFIX: &str = "lens_";

const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;
const CONTEXT: &str = "lens telemetry 2026-11 bearer token";
const NAME_CHARS_MAX: usize = 64;

/// Why a token could not be made.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A line of the file is no token.
    #[error("line {line}: {what}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
    /// There are as many as are kept.
    #[error("{TOKENS_MAX} tokens are kept already: revoke some; those expired go by themselves")]
    Full,
    /// The name is empty, too long or holds control characters.
    #[error("a token's name is 1 to {NAME_CHARS_MAX} printable characters")]
    Name,
    /// The lifetime is out of bounds.
    #[error("a lifetime of {days} days is out of bounds: use 1 to {TOKEN_DAYS_MAX}")]
    Days {
        /// What was asked.
        days: u32,
    },
    /// There is no token of that id.
    #[error("no token has the id {id:?}: `lens token list` shows them")]
    Unknown {
        /// What was asked.
        id: String,
    },
}

/// What is kept of a token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// Names it in lists and audit records; no secret.
    pub id: String,
    /// Whose it is.
    pub name: String,
    /// What its bearer may be.
    pub roles: Vec<Role>,
    /// When it was made.
    pub created: UnixNanos,
    /// When it ends.
    pub expires: UnixNanos,
    /// Whether it was taken back.
    pub revoked: bool,
    hash: [u8; 32],
}

/// One line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: String,
    name: String,
    roles: Vec<String>,
    created: String,
    expires: String,
    #[serde(default)]
    revoked: bool,
    hash: String,
}

/// Every token of a file.
#[derive(Clone, Default)]
pub struct Tokens(Vec<Token>);

/// What came of looking at a bearer's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented<T> {
    /// It is good.
    Good(T),
    /// It was good, and says so truly: expired or revoked.
    Over(&'static str),
    /// It proves nothing.
    Wrong,
}

fn hash(secret: &[u8]) -> [u8; 32] {
    blake3::derive_key(CONTEXT, secret)
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'))
}

/// Bytes as lower-case hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Token {
    /// Makes a token of 40 random bytes; the text is shown once and kept nowhere.
    ///
    /// # Errors
    /// [`TokenError::Name`], [`TokenError::Days`].
    pub fn make(
        random: &[u8; 40],
        name: &str,
        roles: Vec<Role>,
        now: UnixNanos,
        days: u32,
    ) -> Result<(Self, Secret), TokenError> {
        let length = name.chars().count();
        if !(1..=NAME_CHARS_MAX).contains(&length) || name.chars().any(char::is_control) {
            return Err(TokenError::Name);
        }
        if !(1..=TOKEN_DAYS_MAX).contains(&days) {
            return Err(TokenError::Days { days });
        }
        let (id, secret) = (hex(&random[..8]), hex(&random[8..]));
        let text = Secret::new(format!("{PREFIX}{id}_{secret}").into_bytes());
        let lifetime = Nanos::from_secs(u64::from(days) * 86_400);
        let token = Self {
            hash: hash(secret.as_bytes()),
            id,
            name: name.into(),
            roles,
            created: now,
            expires: now.plus(lifetime),
            revoked: false,
        };
        drop(zeroize::Zeroizing::new(secret));
        Ok((token, text))
    }

    fn parse(line: &str) -> Result<Self, String> {
        let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let at = |text: &str| parse_rfc3339(text).ok_or(format!("{text:?} is no instant"));
        if !is_hex(&line.id, ID_DIGITS) || !is_hex(&line.hash, 64) {
            return Err("id or hash is not hex of the right length".into());
        }
        let mut hash = [0; 32];
        for (byte, digits) in hash.iter_mut().zip(line.hash.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).unwrap_or_default();
            *byte = u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
        }
        let roles = role::roles(line.roles.iter().map(String::as_str));
        Ok(Self {
            id: line.id,
            name: line.name.chars().take(NAME_CHARS_MAX).collect(),
            roles: roles.map_err(|error| error.to_string())?,
            created: at(&line.created)?,
            expires: at(&line.expires)?,
            revoked: line.revoked,
            hash,
        })
    }

    fn line(&self) -> String {
        let line = Line {
            id: self.id.clone(),
            name: self.name.clone(),
            roles: self.roles.iter().map(Role::to_string).collect(),
            created: rfc3339(self.created),
            expires: rfc3339(self.expires),
            revoked: self.revoked,
            hash: hex(&self.hash),
        };
        serde_json::to_string(&line).unwrap_or_default()
    }

    /// Why it is no longer good, if it is not.
    pub fn over(&self, now: UnixNanos) -> Option<&'static str> {
        if self.revoked {
            Some("the token was revoked")
        } else if now >= self.expires {
            Some("the token has expired: `lens token create` makes another")
        } else {
            None
        }
    }
}

impl Tokens {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`TokenError::Line`] for the first line that is no token, [`TokenError::Full`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut tokens = Vec::new();
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let failed = |what| TokenError::Line { line: at + 1, what };
            tokens.push(Token::parse(line).map_err(failed)?);
            if tokens.len() > TOKENS_MAX {
                return Err(TokenError::Full);
            }
        }
        Ok(Self(tokens))
    }

    /// The file's text.
    pub fn text(&self) -> String {
        self.0.iter().map(|token| token.line() + "\n").collect()
    }

    /// All of them.
    pub fn all(&self) -> &[Token] {
        &self.0
    }

    /// Takes one more in; those that expired over a month ago make room.
    ///
    /// # Errors
    /// [`TokenError::Full`].
    pub fn add(&mut self, token: Token) -> Result<(), TokenError> {
        let kept = Nanos::from_secs(30 * 86_400);
        self.0.retain(|held| held.expires.plus(kept) > token.created);
        if self.0.len() >= TOKENS_MAX {
            return Err(TokenError::Full);
        }
        self.0.push(token);
        Ok(())
    }

    /// Takes one back.
    ///
    /// # Errors
    /// [`TokenError::Unknown`].
    pub fn revoke(&mut self, id: &str) -> Result<&Token, TokenError> {
        let unknown = || TokenError::Unknown { id: id.chars().take(80).collect() };
        let token = self.0.iter_mut().find(|token| token.id == id).ok_or_else(unknown)?;
        token.revoked = true;
        Ok(token)
    }

    /// The token of this id.
    pub fn get(&self, id: &str) -> Option<&Token> {
        self.0.iter().find(|token| token.id == id)
    }

    /// What a bearer's text proves. The secret is compared in constant time, and also when no token
    /// has the id, so that time tells nothing of which ids there are.
    pub fn check(&self, presented: &str, now: UnixNanos) -> Presented<&Token> {
        let parts = presented.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_'));
        let good =
            |(id, secret): &(&str, &str)| is_hex(id, ID_DIGITS) && is_hex(secret, SECRET_DIGITS);
        let Some((id, secret)) = parts.filter(good) else { return Presented::Wrong };
        let held = self.get(id);
        let kept = held.map_or([0; 32], |token| token.hash);
        let same = bool::from(hash(secret.as_bytes()).ct_eq(&kept));
        match held {
            Some(token) if same => match token.over(now) {
                Some(why) => Presented::Over(why),
                None => Presented::Good(token),
            },
            _ => Presented::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixNanos = UnixNanos(1_790_000_000_000_000_000);
    const DAY: Nanos = Nanos::from_secs(86_400);

    fn made(seed: u8, days: u32) -> (Token, String) {
        let (token, text) = Token::make(&[seed; 40], "ci", vec![Role::Viewer], NOW, days).unwrap();
        (token, String::from_utf8(text.expose().to_vec()).unwrap())
    }

    #[test]
    fn a_token_is_good_until_it_expires_or_is_revoked_and_the_file_holds_no_secret() {
        let (token, text) = made(7, 2);
        let mut tokens = Tokens::default();
        tokens.add(token.clone()).unwrap();
        assert!(!tokens.text().contains(text.rsplit('_').next().unwrap()));
        let mut read = Tokens::parse(&tokens.text()).unwrap();
        assert!(read.check(&text, NOW) == Presented::Good(&token));
        let last = UnixNanos(token.expires.0 - 1);
        assert!(matches!(read.check(&text, last), Presented::Good(_)));
        assert!(
            matches!(read.check(&text, NOW.plus(DAY).plus(DAY)), Presented::Over(why) if why.contains("expired"))
        );
        read.revoke(&token.id).unwrap();
        assert!(matches!(read.check(&text, NOW), Presented::Over(why) if why.contains("revoked")));
        assert!(matches!(read.revoke("none"), Err(TokenError::Unknown { .. })));
    }

    #[test]
    fn any_other_text_proves_nothing() {
        let (token, text) = made(7, 2);
        let mut tokens = Tokens::default();
        tokens.add(token).unwrap();
        for at in 0..text.len() {
            let mut other = text.clone().into_bytes();
            other[at] ^= 1;
            let other = String::from_utf8(other).unwrap();
            assert!(tokens.check(&other, NOW) == Presented::Wrong, "{other}");
        }
        for other in ["", "lens_", &text.to_uppercase(), &text[1..], &format!("{text}0")] {
            assert!(tokens.check(other, NOW) == Presented::Wrong, "{other}");
        }
    }

    #[test]
    fn names_lifetimes_and_numbers_of_tokens_are_bounded() {
        let make =
            |name: &str, days| Token::make(&[1; 40], name, vec![Role::Viewer], NOW, days).map(drop);
        assert_eq!(make("", 1), Err(TokenError::Name));
        assert_eq!(make("a\nb", 1), Err(TokenError::Name));
        assert_eq!(make(&"n".repeat(NAME_CHARS_MAX), 1), Ok(()));
        assert_eq!(make(&"n".repeat(NAME_CHARS_MAX + 1), 1), Err(TokenError::Name));
        assert_eq!(make("n", 0), Err(TokenError::Days { days: 0 }));
        assert_eq!(make("n", TOKEN_DAYS_MAX), Ok(()));
        assert!(make("n", TOKEN_DAYS_MAX + 1).is_err());
        let mut tokens = Tokens::default();
        for _ in 0..TOKENS_MAX {
            tokens.add(made(7, 2).0).unwrap();
        }
        assert_eq!(tokens.add(made(7, 2).0), Err(TokenError::Full));
        assert!(Tokens::parse(&tokens.text()).is_ok());
        let one_more = format!("{}{}\n", tokens.text(), made(7, 2).0.line());
        assert!(matches!(Tokens::parse(&one_more), Err(TokenError::Full)));
        let mut later = made(9, 2).0;
        later.created = NOW.plus(Nanos::from_secs(40 * 86_400));
        tokens.add(later).unwrap();
        assert_eq!(tokens.all().len(), 1, "those long expired made room");
    }

    #[test]
    fn a_line_that_is_no_token_is_named_and_nothing_of_it_is_taken() {
        let line = made(7, 2).0.line();
        for bad in [
            "{}".to_owned(),
            line.replace("viewer", "root"),
            line.replace("\"hash\":\"", "\"hash\":\"zz"),
            line.replace("\"name\"", "\"nom\""),
        ] {
            let error = Tokens::parse(&format!("{line}\n{bad}\n")).err().unwrap();
            assert!(matches!(error, TokenError::Line { line: 2, .. }), "{error}");
        }
    }
}
