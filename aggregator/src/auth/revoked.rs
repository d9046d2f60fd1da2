//! Who is kept out although a certificate would let them in.
//!
//! A text file, one a line: `agent NAME`, `operator NAME` or `serial HEX`; `#` begins a comment.
//! The file is the one truth: the API's verbs edit it, and so may people. Bound: `REVOKED_MAX`.

use std::collections::BTreeSet;

use lens_model::limits::REVOKED_MAX;
use lens_model::{AgentName, OperatorName};
use thiserror::Error;

/// Why a revocation file is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RevokedError {
    /// A line says nothing that can be obeyed.
    #[error("line {line}: {text:?} is not `agent NAME`, `operator NAME` or `serial HEX`")]
    Line {
        /// Which, from 1.
        line: usize,
        /// What it says.
        text: String,
    },
    /// It names more than are kept.
    #[error("more than {REVOKED_MAX} revocations: remove those whose certificates have ended")]
    Full,
}

/// Everyone kept out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revoked {
    agents: BTreeSet<AgentName>,
    operators: BTreeSet<OperatorName>,
    serials: BTreeSet<String>,
}

enum Line {
    Agent(AgentName),
    Operator(OperatorName),
    Serial(String),
}

fn line(text: &str) -> Option<Line> {
    let (kind, value) = text.split_once(char::is_whitespace)?;
    let value = value.trim();
    match kind {
        "agent" => AgentName::new(value).ok().map(Line::Agent),
        "operator" => OperatorName::new(value).ok().map(Line::Operator),
        "serial" => serial(value).map(Line::Serial),
        _ => None,
    }
}

/// A serial as certificates are compared by: lower case, no separators, no leading zeros.
fn serial(text: &str) -> Option<String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    let digits = digits.to_ascii_lowercase();
    let good = (1..=64).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    good.then(|| digits.trim_start_matches('0').to_owned())
}

fn content(text: &str) -> &str {
    text.split('#').next().unwrap_or_default().trim()
}

impl Revoked {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`RevokedError`]; nothing of the file is then taken: half a list would let someone in.
    pub fn parse(text: &str) -> Result<Self, RevokedError> {
        let mut revoked = Self::default();
        for (at, whole) in text.lines().enumerate() {
            let text = content(whole);
            if text.is_empty() {
                continue;
            }
            match line(text) {
                Some(Line::Agent(name)) => drop(revoked.agents.insert(name)),
                Some(Line::Operator(name)) => drop(revoked.operators.insert(name)),
                Some(Line::Serial(serial)) => drop(revoked.serials.insert(serial)),
                None => {
                    let text = text.chars().take(80).collect();
                    return Err(RevokedError::Line { line: at + 1, text });
                }
            }
            if revoked.agents.len() + revoked.operators.len() + revoked.serials.len() > REVOKED_MAX
            {
                return Err(RevokedError::Full);
            }
        }
        Ok(revoked)
    }

    /// Whether an agent, or the certificate it comes with, is kept out.
    pub fn agent(&self, name: &AgentName, serial: &str) -> bool {
        self.agents.contains(name) || self.serials.contains(serial)
    }

    /// Whether an operator, or the certificate they come with, is kept out.
    pub fn operator(&self, name: &OperatorName, serial: &str) -> bool {
        self.operators.contains(name) || self.serials.contains(serial)
    }
}

/// The text with this agent kept out.
pub fn with_agent(text: &str, agent: &AgentName) -> String {
    let held = text.lines().any(|text| is_agent(text, agent));
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    if held { text.to_owned() } else { format!("{text}{end}agent {agent}\n") }
}

/// The text without what keeps this agent's name out; serials stay.
pub fn without_agent(text: &str, agent: &AgentName) -> String {
    text.lines().filter(|text| !is_agent(text, agent)).map(|text| format!("{text}\n")).collect()
}

fn is_agent(text: &str, agent: &AgentName) -> bool {
    matches!(line(content(text)), Some(Line::Agent(name)) if name == *agent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(name: &str) -> AgentName {
        AgentName::new(name).unwrap()
    }

    #[test]
    fn names_and_serials_are_kept_out_however_a_serial_is_written() {
        let text = "# lost\nagent host-7\noperator alice # left\n\nserial 0A:bc:01\n";
        let revoked = Revoked::parse(text).unwrap();
        assert!(revoked.agent(&agent("host-7"), "1"));
        assert!(revoked.agent(&agent("host-8"), "abc01"));
        assert!(!revoked.agent(&agent("host-8"), "1"));
        assert!(revoked.operator(&OperatorName::new("alice").unwrap(), "1"));
        assert!(!revoked.operator(&OperatorName::new("host-7").unwrap(), "1"));
    }

    #[test]
    fn a_line_that_cannot_be_obeyed_refuses_the_whole_file() {
        for bad in ["agent", "agent a b/c", "host-7", "serial xyz", "agents host-7"] {
            let error = Revoked::parse(&format!("agent a\n{bad}\n")).unwrap_err();
            assert!(matches!(error, RevokedError::Line { line: 2, .. }), "{bad}");
        }
        let many = |count: usize| (0..count).map(|at| format!("agent a{at}\n")).collect::<String>();
        assert!(Revoked::parse(&many(REVOKED_MAX)).is_ok());
        assert_eq!(Revoked::parse(&many(REVOKED_MAX + 1)), Err(RevokedError::Full));
    }

    #[test]
    fn editing_keeps_comments_and_everyone_else() {
        let text = "# lost\nagent a\nserial 12";
        let more = with_agent(text, &agent("b"));
        assert_eq!(more, "# lost\nagent a\nserial 12\nagent b\n");
        assert_eq!(with_agent(&more, &agent("b")), more);
        assert_eq!(without_agent(&more, &agent("a")), "# lost\nserial 12\nagent b\n");
    }
}
