//! The sections `[auth]` and `[audit]`, checked.

use std::net::SocketAddr;
use std::path::PathBuf;

use lens_model::OperatorName;
use lens_service::config::Settings;

use crate::audit::{HEAD_FILE, Places};
use crate::auth::role::{self, Role};

/// Who may use the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthConfig {
    /// Anyone who reaches it: loopback only.
    None,
    /// Bearers of the tokens in this file.
    Tokens(PathBuf),
    /// Holders of operators' certificates.
    Mtls {
        /// The authority they are held against; the agents' when `None`.
        operator_ca: Option<PathBuf>,
        /// Roles by name.
        operators: Vec<(OperatorName, Vec<Role>)>,
    },
}

/// Checks `[auth]` together with what it depends on; problems go to `problem`.
pub(super) fn check(
    settings: &Settings,
    http: SocketAddr,
    mut problem: impl FnMut(&str, String),
) -> Option<AuthConfig> {
    let mode = settings.text("auth.mode").unwrap_or("none");
    if mode != "none" && settings.path("audit.dir").is_none() {
        let what = format!("is not set: with auth.mode {mode} what people change is recorded");
        problem("audit.dir", what);
    }
    match mode {
        "none" if !http.ip().is_loopback() => {
            let what = format!(
                "is {http}, and auth.mode is none, for which only loopback is allowed: set \
                 auth.mode to tokens or mtls, or listen on 127.0.0.1"
            );
            problem("http.listen", what);
            None
        }
        "none" => Some(AuthConfig::None),
        "tokens" => {
            let file = settings.path("auth.tokens");
            if file.is_none() {
                let remedy = "is not set: `lens token create --file FILE` makes the file";
                problem("auth.tokens", remedy.into());
            }
            file.map(AuthConfig::Tokens)
        }
        "mtls" => {
            let mut operators = Vec::new();
            for (name, roles) in settings.labels("auth.operators") {
                match (OperatorName::new(&name), role::roles(roles.split_whitespace())) {
                    (Ok(name), Ok(roles)) => operators.push((name, roles)),
                    (Err(error), _) => problem("auth.operators", error.to_string()),
                    (_, Err(error)) => problem("auth.operators", format!("{name}: {error}")),
                }
            }
            if operators.is_empty() {
                let what = "names nobody: such as { alice = \"admin auditor\" }";
                problem("auth.operators", what.into());
            }
            Some(AuthConfig::Mtls { operator_ca: settings.path("auth.operator_ca"), operators })
        }
        other => {
            problem("auth.mode", format!("is {other:?}: use tokens, mtls or none"));
            None
        }
    }
}

/// Where the audit record is kept, if it is.
pub(super) fn places(settings: &Settings) -> Option<Places> {
    let dir = settings.path("audit.dir")?;
    Some(Places {
        head: settings.path("audit.head").unwrap_or_else(|| dir.join(HEAD_FILE)),
        key: settings.path("audit.key").unwrap_or_else(|| dir.join("audit.key")),
        rotate_bytes: settings.integer("audit.rotate_bytes"),
        dir,
    })
}

#[cfg(test)]
mod tests {
    use lens_service::config::Sources;

    use super::super::{KEYS, PREFIX};
    use super::*;

    fn checked(http: &str, flags: &[(&str, &str)]) -> Result<AuthConfig, Vec<String>> {
        let flags = flags.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        let sources = Sources { flags, ..Sources::default() };
        let settings = Settings::load(KEYS, PREFIX, &sources).unwrap();
        let mut problems = Vec::new();
        let auth = check(&settings, http.parse().unwrap(), |key, what| {
            problems.push(format!("{key} {what}"));
        });
        auth.filter(|_| problems.is_empty()).ok_or(problems)
    }

    #[test]
    fn no_authentication_is_for_loopback_alone() {
        for local in ["127.0.0.1:3000", "[::1]:3000"] {
            assert_eq!(checked(local, &[]), Ok(AuthConfig::None));
        }
        for open in ["0.0.0.0:3000", "[::]:3000", "192.0.2.1:3000"] {
            let text = checked(open, &[]).unwrap_err().join("\n");
            for part in ["http.listen", "auth.mode", "tokens or mtls", "127.0.0.1"] {
                assert!(text.contains(part), "{part} missing in {text}");
            }
        }
    }

    #[test]
    fn each_mode_says_what_it_lacks() {
        let lacks = |flags: &[(&str, &str)]| checked("0.0.0.0:1", flags).unwrap_err().join("\n");
        let text = lacks(&[("auth.mode", "tokens")]);
        assert!(text.contains("auth.tokens") && text.contains("audit.dir"), "{text}");
        assert!(lacks(&[("auth.mode", "mtls"), ("audit.dir", "a")]).contains("auth.operators"));
        assert!(
            lacks(&[("auth.mode", "oauth"), ("audit.dir", "a")]).contains("tokens, mtls or none")
        );
        let roles = [("auth.mode", "mtls"), ("audit.dir", "a"), ("auth.operators", "alice=root")];
        assert!(lacks(&roles).contains("no role"));
        let good =
            [("auth.mode", "mtls"), ("audit.dir", "a"), ("auth.operators", "alice=admin auditor")];
        let Ok(AuthConfig::Mtls { operators, .. }) = checked("0.0.0.0:1", &good) else { panic!() };
        assert_eq!(operators[0].1, [Role::Auditor, Role::Admin]);
    }
}
