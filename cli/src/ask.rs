//! One question to an aggregator's API, as commands ask it: address, token, form of the answer.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use lens_service::exit::Exit;
use serde_json::Value;
use thiserror::Error;

/// Longest the aggregator is waited for: it may wait for others in turn.
const ANSWER_MAX: Duration = Duration::from_secs(25);

/// Whom to ask and how to answer.
#[derive(ClapArgs, Debug)]
pub(crate) struct Ask {
    /// The aggregator's HTTP address.
    #[arg(long, default_value = "http://127.0.0.1:3000", env = "LENS_URL")]
    pub(crate) url: String,
    /// File with a token, where the aggregator asks for one.
    #[arg(long, value_name = "FILE", env = "LENS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print the answer as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Why there is no answer to show.
#[derive(Debug, Error)]
pub(crate) enum Failed {
    /// The token's file.
    #[error("the token's file cannot be read: {0}")]
    Token(std::io::Error),
    /// No runtime.
    #[error("no runtime: {0}")]
    Runtime(std::io::Error),
    /// Nobody answers.
    #[error("{url}: {why}: is an aggregator running there?")]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// What happened.
        why: String,
    },
    /// The answer is a refusal.
    #[error("{}", .body["detail"].as_str().unwrap_or("refused without a reason"))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Problem details.
        body: Value,
    },
}

impl Failed {
    /// What the process ends with.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Token(_) => Exit::Usage,
            Self::Runtime(_) => Exit::Internal,
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused { status: 401 | 403 | 429, .. } => Exit::Refused,
            Self::Refused { status: 400 | 404 | 413, .. } => Exit::Usage,
            Self::Refused { .. } => Exit::No,
        }
    }
}

impl Ask {
    /// Asks, with a body by POST and without one by GET, and gives the answer's JSON.
    pub(crate) fn answer(&self, path: &str, body: Option<&Value>) -> Result<Value, Failed> {
        let text = self.text(path, body)?;
        serde_json::from_str(&text).map_err(|error| self.unreachable(&error))
    }

    /// The same for an answer of any form.
    pub(crate) fn text(&self, path: &str, body: Option<&Value>) -> Result<String, Failed> {
        let bytes = self.fetched(path, body)?;
        String::from_utf8(bytes).map_err(|error| self.unreachable(&error))
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, path: &str) -> Result<Vec<u8>, Failed> {
        self.fetched(path, None)
    }

    fn fetched(&self, path: &str, body: Option<&Value>) -> Result<Vec<u8>, Failed> {
        let token = self.token_file.as_ref().map(std::fs::read_to_string).transpose();
        let token = token.map_err(Failed::Token)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failed::Runtime)?.block_on(self.fetch(path, body, token))
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Failed {
        Failed::Unreachable { url: self.url.clone(), why: why.to_string() }
    }

    async fn fetch(
        &self,
        path: &str,
        body: Option<&Value>,
        token: Option<String>,
    ) -> Result<Vec<u8>, Failed> {
        let address = format!("{}{path}", self.url.trim_end_matches('/'));
        let client = reqwest::Client::new();
        let request = match body {
            Some(body) => client.post(&address).json(body),
            None => client.get(&address),
        };
        let request = match token {
            Some(token) => request.bearer_auth(token.trim()),
            None => request,
        };
        let failed = |error: reqwest::Error| self.unreachable(&error.without_url());
        let answer = request.timeout(ANSWER_MAX).send().await.map_err(failed)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(failed)?;
        if status.is_success() {
            return Ok(bytes.into());
        }
        let body = serde_json::from_slice(&bytes).map_err(|error| self.unreachable(&error))?;
        Err(Failed::Refused { status: status.as_u16(), body })
    }
}

/// A text as one part of an address.
pub(crate) fn segment(text: &str) -> String {
    let kept = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if kept(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_one_part_of_the_address_whatever_it_holds() {
        assert_eq!(segment("9f3c"), "9f3c");
        assert_eq!(segment("a/b?c d"), "a%2Fb%3Fc%20d");
    }
}
