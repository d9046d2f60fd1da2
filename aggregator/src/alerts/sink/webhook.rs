//! A webhook signed as in the Standard Webhooks scheme.
//!
//! `webhook-id` is the notice's and stays over retries, `webhook-timestamp` is that of the attempt,
//! `webhook-signature` holds `v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` for each
//! key, separated by spaces. The bytes signed are the bytes sent.

use axum::http::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::json;

use super::{Context, Request, Secret};
use crate::alerts::notice::Notice;
use crate::alerts::show;

/// Bytes a key may have.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A key of the scheme, `whsec_` and base64.
#[derive(Clone, PartialEq, Eq)]
pub struct SigningKey(Vec<u8>);

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKey(secret)")
    }
}

impl std::str::FromStr for SigningKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wanted = "a key is whsec_ and the base64 of 24 to 64 random bytes";
        let bytes = text.strip_prefix("whsec_").and_then(|text| STANDARD.decode(text).ok());
        match bytes {
            Some(bytes) if KEY_BYTES.contains(&bytes.len()) => Ok(Self(bytes)),
            Some(bytes) => Err(format!("a key has {} bytes: {wanted}", bytes.len())),
            None => Err(format!("a line is no key: {wanted}")),
        }
    }
}

impl SigningKey {
    fn sign(&self, message: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, message)))
    }
}

pub(super) fn request(
    url: &str,
    keys: &[SigningKey],
    notice: &Notice,
    context: &Context<'_>,
) -> Request {
    let alert = &notice.alerts[0];
    let body = super::json(&json!({
        "type": format!("alert.{}", notice.kind.as_str()),
        "timestamp": lens_service::time::rfc3339(notice.at),
        "data": {"alert": show::Alert::new(alert, notice.at), "dashboard": context.dashboard},
    }));
    let timestamp = (context.now.0 / 1_000_000_000).to_string();
    let mut signed = format!("{}.{timestamp}.", notice.id).into_bytes();
    signed.extend_from_slice(&body);
    let signatures: Vec<String> = keys.iter().map(|key| key.sign(&signed)).collect();
    Request {
        url: Secret::new(url),
        headers: vec![
            (HeaderName::from_static("webhook-id"), Secret::new(notice.id.clone())),
            (HeaderName::from_static("webhook-timestamp"), Secret::new(timestamp)),
            (HeaderName::from_static("webhook-signature"), Secret::new(signatures.join(" "))),
        ],
        body,
    }
}

#[cfg(test)]
impl SigningKey {
    pub(super) fn sign_for_test(&self, id: &str, timestamp: u64, body: &[u8]) -> String {
        let mut signed = format!("{id}.{timestamp}.").into_bytes();
        signed.extend_from_slice(body);
        self.sign(&signed)
    }
}
