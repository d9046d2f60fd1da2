//! Every role against every verb, held against a table written for the purpose.

use std::collections::BTreeSet;

use super::*;

/// Columns: nobody, viewer, operator, releaser, breakglass, approver:sre, auditor, admin.
const EXPECTED: &str = "
    agent.restore          - - - - - - - y
    agent.revoke           - - - - - - - y
    agents.read            - y y y y y y y
    alert.acknowledge      - - y - - - - -
    alert.silence          - - y - - - - -
    alerts.read            - y y y y y y y
    approval.sign          - - - - - y - -
    audit.read             - - - - - - y -
    canary.abort           - - - y - - - -
    canary.progress        - - - y - - - -
    canary.read            - y y y y y y y
    canary.start           - - - y - - - -
    capture.begin          - - y - - - - -
    captures.read          - y y y y y y y
    certificates.reload    - - - - - - - y
    compatibility.bundles  - y y y y y y y
    compatibility.check    y y y y y y y y
    dashboard.read         - y y y y y y y
    description.read       y y y y y y y y
    events.read            - y y y y y y y
    flag.set               - - - y - - - -
    flags.read             - y y y y y y y
    gates.run              - - - y - - - -
    health.read            y y y y y y y y
    histogram.read         - y y y y y y y
    kill.engage            - - - - y - - -
    kill.release           - - - y y - - -
    metrics.read           - y y y y y y y
    nightly.run            - - - y - - - -
    page.asset             y y y y y y y y
    page.read              - y y y y y y y
    probe                  y y y y y y y y
    quantiles.read         - y y y y y y y
    sign_in                y y y y y y y y
    slices.read            - y y y y y y y
    tail.read              - y y y y y y y
    tokens.reload          - - - - - - - y
    validation.read        - y y y y y y y
";

const COLUMNS: [&str; 8] =
    ["", "viewer", "operator", "releaser", "breakglass", "approver:sre", "auditor", "admin"];

#[test]
fn every_role_may_ask_exactly_the_verbs_the_table_gives_it() {
    let verbs: BTreeSet<Verb> = ROUTES.iter().map(|(_, _, verb)| *verb).collect();
    let lines: Vec<&str> = EXPECTED.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), verbs.len(), "a verb without a line, or a line without a verb");
    for line in lines {
        let mut words = line.split_whitespace();
        let name = words.next().unwrap();
        let verb = *verbs.iter().find(|verb| verb.as_str() == name).expect(name);
        let cells: Vec<&str> = words.collect();
        assert_eq!(cells.len(), COLUMNS.len(), "{name}");
        for (cell, role) in cells.iter().zip(COLUMNS) {
            let roles: Vec<Role> = role.parse().into_iter().collect();
            assert_eq!(verb.allows(&roles), *cell == "y", "{name} for {role:?}");
        }
    }
}

#[test]
fn roles_add_up_and_never_take_away() {
    let both = ["auditor".parse().unwrap(), "admin".parse().unwrap()];
    assert!(Verb::AuditRead.allows(&both) && Verb::AgentRevoke.allows(&both));
    assert!(!Verb::CanaryStart.allows(&both));
}

#[test]
fn a_route_nobody_listed_answers_nobody() {
    assert_eq!(Verb::of(&Method::GET, "/api/v1/secrets"), None);
    assert_eq!(Verb::of(&Method::DELETE, "/api/v1/agents"), None);
    assert_eq!(Verb::of(&Method::GET, "/api/v1/agents/{name}/revoke"), None);
    assert_eq!(Verb::of(&Method::HEAD, "/metrics"), Some(Verb::MetricsRead));
    let revoke = Verb::of(&Method::POST, "/api/v1/agents/{agent}/revoke");
    assert_eq!(revoke, Some(Verb::AgentRevoke), "whatever the parameter is called");
}

#[test]
fn names_of_verbs_are_all_different_and_every_change_is_audited() {
    let verbs: BTreeSet<Verb> = ROUTES.iter().map(|(_, _, verb)| *verb).collect();
    let names: BTreeSet<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
    assert_eq!(names.len(), verbs.len());
    for (method, route, verb) in ROUTES {
        let changes = *method != "GET" && *verb != Verb::SignIn;
        assert_eq!(verb.changes(), changes, "{method} {route}");
    }
}
