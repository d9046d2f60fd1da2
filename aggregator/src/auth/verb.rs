//! Everything that can be asked of the aggregator over HTTP, and which roles may ask it.
//!
//! A request is first given its verb, from its method and the route it matched; a route without a
//! verb answers nobody. [`Verb::who`] is the one table of role × verb, exhaustive, so that a new
//! verb does not compile until someone has said who may.

use axum::http::Method;

use super::role::Role;

/// One thing that can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "each is named as what it does")]
pub enum Verb {
    AgentRestore,
    AgentRevoke,
    AgentsRead,
    AlertAcknowledge,
    AlertSilence,
    AlertsRead,
    ApprovalSign,
    AuditRead,
    CanaryAbort,
    CanaryProgress,
    CanaryRead,
    CanaryStart,
    CaptureBegin,
    CapturesRead,
    CertificatesReload,
    CompatibilityBundles,
    CompatibilityCheck,
    DashboardRead,
    DescriptionRead,
    EventsRead,
    FlagSet,
    FlagsRead,
    GatesRun,
    HealthRead,
    HistogramRead,
    KillEngage,
    KillRelease,
    MetricsRead,
    NightlyRun,
    PageAsset,
    PageRead,
    Probe,
    QuantilesRead,
    SignIn,
    SlicesRead,
    TailRead,
    TokensReload,
    ValidationRead,
}

/// Who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Anyone, without saying who they are.
    Anyone,
    /// Whoever has any role.
    Known,
    /// Holders of one of these.
    Of(&'static [Kind]),
}

/// A role without its office.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the roles")]
pub enum Kind {
    Operator,
    Releaser,
    Breakglass,
    Approver,
    Auditor,
    Admin,
}

impl Kind {
    const fn held_as(self, role: &Role) -> bool {
        matches!(
            (self, role),
            (Self::Operator, Role::Operator)
                | (Self::Releaser, Role::Releaser)
                | (Self::Breakglass, Role::Breakglass)
                | (Self::Approver, Role::Approver(_))
                | (Self::Auditor, Role::Auditor)
                | (Self::Admin, Role::Admin)
        )
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Releaser => "releaser",
            Self::Breakglass => "breakglass",
            Self::Approver => "approver:OFFICE",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

/// Verbs with the route each is asked by. `{…}` stands for a segment of the path.
const ROUTES: &[(&str, &str, Verb)] = &[
    ("GET", "/", Verb::PageRead),
    ("GET", "/api/v1/agents", Verb::AgentsRead),
    ("POST", "/api/v1/agents/{name}/restore", Verb::AgentRestore),
    ("POST", "/api/v1/agents/{name}/revoke", Verb::AgentRevoke),
    ("GET", "/api/v1/alerts", Verb::AlertsRead),
    ("POST", "/api/v1/alerts/maintenance", Verb::AlertSilence),
    ("DELETE", "/api/v1/alerts/maintenance/{id}", Verb::AlertSilence),
    ("POST", "/api/v1/alerts/test", Verb::AlertAcknowledge),
    ("POST", "/api/v1/alerts/{id}/ack", Verb::AlertAcknowledge),
    ("POST", "/api/v1/alerts/{id}/resolve", Verb::AlertSilence),
    ("POST", "/api/v1/alerts/{id}/silence", Verb::AlertSilence),
    ("GET", "/api/v1/audit", Verb::AuditRead),
    ("GET", "/api/v1/captures", Verb::CapturesRead),
    ("POST", "/api/v1/captures", Verb::CaptureBegin),
    ("GET", "/api/v1/captures/{id}", Verb::CapturesRead),
    ("POST", "/api/v1/certificates/reload", Verb::CertificatesReload),
    ("GET", "/api/v1/events", Verb::EventsRead),
    ("GET", "/api/v1/exemplars", Verb::QuantilesRead),
    ("GET", "/api/v1/histogram", Verb::HistogramRead),
    ("GET", "/api/v1/quantiles", Verb::QuantilesRead),
    ("GET", "/api/v1/slices", Verb::SlicesRead),
    ("GET", "/api/v1/tail", Verb::TailRead),
    ("POST", "/api/v1/tokens/reload", Verb::TokensReload),
    ("GET", "/assets/{name}", Verb::PageAsset),
    ("GET", "/auth/sign-in", Verb::SignIn),
    ("POST", "/auth/sign-in", Verb::SignIn),
    ("POST", "/auth/sign-out", Verb::SignIn),
    ("POST", "/canary/abort", Verb::CanaryAbort),
    ("GET", "/api/v1/guards", Verb::AlertsRead),
    ("GET", "/canary/decisions", Verb::CanaryRead),
    ("GET", "/canary/decisions/{id}", Verb::CanaryRead),
    ("GET", "/canary/decisions/{id}/plan", Verb::CanaryRead),
    ("GET", "/canary/decisions/{id}/replay", Verb::CanaryRead),
    ("GET", "/canary/assignment", Verb::CanaryRead),
    ("POST", "/canary/killswitch", Verb::KillEngage),
    ("POST", "/canary/progress", Verb::CanaryProgress),
    ("POST", "/canary/release-kill", Verb::KillRelease),
    ("POST", "/canary/start", Verb::CanaryStart),
    ("GET", "/canary/status", Verb::CanaryRead),
    ("GET", "/compat/bundles", Verb::CompatibilityBundles),
    ("GET", "/compat/check", Verb::CompatibilityCheck),
    ("GET", "/docs", Verb::DescriptionRead),
    ("GET", "/favicon.ico", Verb::PageAsset),
    ("GET", "/favicon.svg", Verb::PageAsset),
    ("GET", "/flags", Verb::FlagsRead),
    ("PUT", "/flags/{path}", Verb::FlagSet),
    ("GET", "/health", Verb::HealthRead),
    ("GET", "/livez", Verb::Probe),
    ("GET", "/metrics", Verb::MetricsRead),
    ("GET", "/monitoring/dashboard", Verb::DashboardRead),
    ("GET", "/openapi.json", Verb::DescriptionRead),
    ("GET", "/readyz", Verb::Probe),
    ("POST", "/validation/approvals", Verb::ApprovalSign),
    ("POST", "/validation/nightly", Verb::NightlyRun),
    ("POST", "/validation/quality-gates", Verb::GatesRun),
    ("GET", "/validation/signoff-report", Verb::ValidationRead),
    ("GET", "/validation/status", Verb::ValidationRead),
];

impl Verb {
    /// The verb of a request, by its method and the route it matched; `None` answers nobody.
    pub fn of(method: &Method, route: &str) -> Option<Self> {
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        let found = ROUTES.iter().find(|(how, at, _)| *how == method && same_route(at, route));
        found.map(|(_, _, verb)| *verb)
    }

    /// Who may: the one table.
    pub const fn who(self) -> Who {
        match self {
            Self::CompatibilityCheck
            | Self::DescriptionRead
            | Self::HealthRead
            | Self::PageAsset
            | Self::Probe
            | Self::SignIn => Who::Anyone,
            Self::AgentsRead
            | Self::AlertsRead
            | Self::CanaryRead
            | Self::CapturesRead
            | Self::CompatibilityBundles
            | Self::DashboardRead
            | Self::EventsRead
            | Self::FlagsRead
            | Self::HistogramRead
            | Self::MetricsRead
            | Self::PageRead
            | Self::QuantilesRead
            | Self::SlicesRead
            | Self::TailRead
            | Self::ValidationRead => Who::Known,
            Self::AlertAcknowledge | Self::AlertSilence | Self::CaptureBegin => {
                Who::Of(&[Kind::Operator])
            }
            Self::CanaryAbort
            | Self::CanaryProgress
            | Self::CanaryStart
            | Self::FlagSet
            | Self::GatesRun
            | Self::NightlyRun => Who::Of(&[Kind::Releaser]),
            Self::KillEngage => Who::Of(&[Kind::Breakglass]),
            // Who may ask; that two others agreed is the verb's own condition.
            Self::KillRelease => Who::Of(&[Kind::Breakglass, Kind::Releaser]),
            Self::ApprovalSign => Who::Of(&[Kind::Approver]),
            Self::AuditRead => Who::Of(&[Kind::Auditor]),
            Self::AgentRestore
            | Self::AgentRevoke
            | Self::CertificatesReload
            | Self::TokensReload => Who::Of(&[Kind::Admin]),
        }
    }

    /// Whether a holder of these roles may.
    pub fn allows(self, roles: &[Role]) -> bool {
        match self.who() {
            Who::Anyone => true,
            Who::Known => !roles.is_empty(),
            Who::Of(kinds) => roles.iter().any(|role| kinds.iter().any(|kind| kind.held_as(role))),
        }
    }

    /// The roles that may, for a sentence.
    pub fn needs(self) -> String {
        match self.who() {
            Who::Anyone => "none".into(),
            Who::Known => "viewer or any other".into(),
            Who::Of(kinds) => {
                kinds.iter().map(|kind| kind.as_str()).collect::<Vec<_>>().join(" or ")
            }
        }
    }

    /// Whether it changes something, and is therefore audited, refusals included.
    pub const fn changes(self) -> bool {
        match self.who() {
            Who::Anyone | Who::Known => false,
            Who::Of(_) => !matches!(self, Self::AuditRead),
        }
    }

    /// Its name in the audit record.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AgentRestore => "agent.restore",
            Self::AgentRevoke => "agent.revoke",
            Self::AgentsRead => "agents.read",
            Self::AlertAcknowledge => "alert.acknowledge",
            Self::AlertSilence => "alert.silence",
            Self::AlertsRead => "alerts.read",
            Self::ApprovalSign => "approval.sign",
            Self::AuditRead => "audit.read",
            Self::CanaryAbort => "canary.abort",
            Self::CanaryProgress => "canary.progress",
            Self::CanaryRead => "canary.read",
            Self::CanaryStart => "canary.start",
            Self::CaptureBegin => "capture.begin",
            Self::CapturesRead => "captures.read",
            Self::CertificatesReload => "certificates.reload",
            Self::CompatibilityBundles => "compatibility.bundles",
            Self::CompatibilityCheck => "compatibility.check",
            Self::DashboardRead => "dashboard.read",
            Self::DescriptionRead => "description.read",
            Self::EventsRead => "events.read",
            Self::FlagSet => "flag.set",
            Self::FlagsRead => "flags.read",
            Self::GatesRun => "gates.run",
            Self::HealthRead => "health.read",
            Self::HistogramRead => "histogram.read",
            Self::KillEngage => "kill.engage",
            Self::KillRelease => "kill.release",
            Self::MetricsRead => "metrics.read",
            Self::NightlyRun => "nightly.run",
            Self::PageAsset => "page.asset",
            Self::PageRead => "page.read",
            Self::Probe => "probe",
            Self::QuantilesRead => "quantiles.read",
            Self::SignIn => "sign_in",
            Self::SlicesRead => "slices.read",
            Self::TailRead => "tail.read",
            Self::TokensReload => "tokens.reload",
            Self::ValidationRead => "validation.read",
        }
    }
}

/// Whether two routes are the same, whatever their parameters are called.
fn same_route(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('/'), b.split('/'));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) if a.starts_with('{') && b.starts_with('{') => {
                if a.starts_with("{*") != b.starts_with("{*") {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests;
