//! Who someone may be to the aggregator. Roles do not imply each other, except that every one may
//! look: whoever runs the certificates cannot start a rollout, whoever starts one cannot approve it.

use std::fmt;
use std::str::FromStr;

use lens_model::limits::NAME_BYTES_MAX;
use thiserror::Error;

/// Roles one principal may hold.
pub const ROLES_MAX: usize = 16;

/// One role.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Looks.
    Viewer,
    /// Acknowledges and silences alerts.
    Operator,
    /// Starts, moves and ends rollouts, sets flags, runs gates.
    Releaser,
    /// Engages the kill switch.
    Breakglass,
    /// Signs off releases in the name of this office, such as `approver:sre`.
    Approver(Box<str>),
    /// Reads the audit record.
    Auditor,
    /// Lets agents in and keeps them out, takes up tokens and certificates.
    Admin,
}

/// A role that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{0:?} is no role: use viewer, operator, releaser, breakglass, approver:OFFICE, auditor or admin"
)]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let office = |name: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            (!name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(good))
                .then(|| Self::Approver(name.into()))
        };
        match text {
            "viewer" => Some(Self::Viewer),
            "operator" => Some(Self::Operator),
            "releaser" => Some(Self::Releaser),
            "breakglass" => Some(Self::Breakglass),
            "auditor" => Some(Self::Auditor),
            "admin" => Some(Self::Admin),
            other => other.strip_prefix("approver:").and_then(office),
        }
        .ok_or_else(|| UnknownRole(text.chars().take(80).collect()))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Releaser => "releaser",
            Self::Breakglass => "breakglass",
            Self::Approver(office) => return write!(f, "approver:{office}"),
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        })
    }
}

/// Reads a list of roles.
///
/// # Errors
/// The first that is none, or a sentence when there are none or more than [`ROLES_MAX`].
pub fn roles<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Vec<Role>, UnknownRole> {
    let mut roles = texts.into_iter().map(str::parse).collect::<Result<Vec<Role>, _>>()?;
    roles.sort();
    roles.dedup();
    match roles.len() {
        0 => Err(UnknownRole("no role at all".into())),
        1..=ROLES_MAX => Ok(roles),
        many => Err(UnknownRole(format!("{many} roles, more than {ROLES_MAX}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_reads_back_from_its_own_name_and_nothing_else_is_one() {
        let all = "viewer operator releaser breakglass approver:sre auditor admin";
        for text in all.split(' ') {
            assert_eq!(text.parse::<Role>().unwrap().to_string(), text);
        }
        for text in ["", "Viewer", "root", "approver", "approver:", "approver:a b", "admin "] {
            assert!(text.parse::<Role>().is_err(), "{text:?}");
        }
        assert!(format!("approver:{}", "a".repeat(NAME_BYTES_MAX)).parse::<Role>().is_ok());
        assert!(format!("approver:{}", "a".repeat(NAME_BYTES_MAX + 1)).parse::<Role>().is_err());
    }

    #[test]
    fn a_principal_holds_at_least_one_role_and_at_most_the_bound() {
        let many =
            |count: usize| (0..count).map(|at| format!("approver:o{at}")).collect::<Vec<_>>();
        let read = |list: &[String]| roles(list.iter().map(String::as_str));
        assert!(read(&[]).is_err());
        assert_eq!(read(&many(ROLES_MAX)).unwrap().len(), ROLES_MAX);
        assert!(read(&many(ROLES_MAX + 1)).is_err());
    }
}
