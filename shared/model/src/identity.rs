//! Who speaks: agents, their lives (incarnations), the instances they harvest.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::NAME_BYTES_MAX;

/// Why an identity was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The name is empty, too long, or holds a byte outside the allowed set.
    #[error(
        "{what} {value:?} is not a name: use 1 to {NAME_BYTES_MAX} of a-z A-Z 0-9 . _ -, starting with a letter or digit"
    )]
    Name {
        /// What the name was for.
        what: &'static str,
        /// What was given, cut to a printable length.
        value: String,
    },
    /// The URI is not an agent's.
    #[error("{value:?} is not an agent identity: expected spiffe://<trust-domain>/agent/<name>")]
    Spiffe {
        /// What was given, cut to a printable length.
        value: String,
    },
    /// The URI is not an operator's.
    #[error("{value:?} is no operator identity: expected spiffe://<trust-domain>/operator/<name>")]
    Operator {
        /// What was given, cut to a printable length.
        value: String,
    },
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and takes a name.
            ///
            /// # Errors
            /// [`IdentityError::Name`] when the name is empty, longer than
            /// [`NAME_BYTES_MAX`] or holds another character than `a-z A-Z 0-9 . _ -`.
            pub fn new(value: &str) -> Result<Self, IdentityError> {
                let good = |(at, byte): (usize, u8)| {
                    byte.is_ascii_alphanumeric() || (at > 0 && matches!(byte, b'.' | b'_' | b'-'))
                };
                if value.is_empty()
                    || value.len() > NAME_BYTES_MAX
                    || !value.bytes().enumerate().all(good)
                {
                    let value = value.chars().take(80).collect();
                    return Err(IdentityError::Name { what: $what, value });
                }
                Ok(Self(value.into()))
            }

            /// The name itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdentityError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentityError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::new(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }
    };
}

name_type!(
    /// The name of an agent within its trust domain.
    AgentName,
    "agent"
);
name_type!(
    /// The name of a person or program that operates, within its trust domain.
    OperatorName,
    "operator"
);
name_type!(
    /// The name of one search node process group on a host, as the recorder was given it.
    InstanceName,
    "instance"
);
name_type!(
    /// A trust domain: one certificate authority's realm.
    TrustDomain,
    "trust domain"
);

/// An agent's identity as its certificate carries it: `spiffe://<trust-domain>/agent/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    /// The realm that vouches for the agent.
    pub trust_domain: TrustDomain,
    /// The agent's name in it.
    pub agent: AgentName,
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || IdentityError::Spiffe { value: text.chars().take(200).collect() };
        let (domain, name) = parts(text, "agent").ok_or_else(refuse)?;
        let agent = AgentName::new(name).map_err(|_| refuse())?;
        Ok(Self { trust_domain: domain, agent })
    }
}

/// Realm and name of `spiffe://<trust-domain>/<kind>/<name>`.
fn parts<'a>(text: &'a str, kind: &str) -> Option<(TrustDomain, &'a str)> {
    let (domain, path) = text.strip_prefix("spiffe://")?.split_once('/')?;
    let name = path.strip_prefix(kind)?.strip_prefix('/')?;
    Some((TrustDomain::new(domain).ok()?, name))
}

/// An operator's identity as a certificate carries it: `spiffe://<trust-domain>/operator/<name>`.
/// Its path is of its own, so that no agent's certificate can ever pass for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OperatorId {
    /// The realm that vouches for the operator.
    pub trust_domain: TrustDomain,
    /// The operator's name in it.
    pub name: OperatorName,
}

impl FromStr for OperatorId {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || IdentityError::Operator { value: text.chars().take(200).collect() };
        let (trust_domain, name) = parts(text, "operator").ok_or_else(refuse)?;
        Ok(Self { trust_domain, name: OperatorName::new(name).map_err(|_| refuse())? })
    }
}

impl fmt::Display for OperatorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/operator/{}", self.trust_domain, self.name)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/agent/{}", self.trust_domain, self.agent)
    }
}

/// One life of an agent's delta stream: random, new whenever earlier numbering may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u128);

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A delta's number within one incarnation, from 1, without gaps. 0 means "none yet".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The number after this one.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_identity_reads_back_from_its_own_uri() {
        let id: SpiffeId = "spiffe://lens.test/agent/node-7".parse().unwrap();
        assert_eq!(id.agent.as_str(), "node-7");
        assert_eq!(id.to_string(), "spiffe://lens.test/agent/node-7");
    }

    #[test]
    fn an_operators_or_a_malformed_uri_is_not_an_agent() {
        for bad in [
            "",
            "node-7",
            "http://lens.test/agent/node-7",
            "spiffe://lens.test/operator/alice",
            "spiffe://lens.test/agent/",
            "spiffe://lens.test/agent/a/b",
            "spiffe:///agent/a",
            "spiffe://lens.test/agent/a?b",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn an_operators_identity_is_its_own_kind() {
        let id: OperatorId = "spiffe://lens.test/operator/alice".parse().unwrap();
        assert_eq!(id.to_string(), "spiffe://lens.test/operator/alice");
        for bad in ["spiffe://lens.test/agent/alice", "spiffe://lens.test/operator/", "alice"] {
            assert!(bad.parse::<OperatorId>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn names_are_bounded_at_their_limit() {
        assert!(AgentName::new(&"n".repeat(NAME_BYTES_MAX)).is_ok());
        assert!(AgentName::new(&"n".repeat(NAME_BYTES_MAX + 1)).is_err());
    }
}
