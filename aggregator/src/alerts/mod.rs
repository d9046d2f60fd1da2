//! Alerts: people are told once, through what reaches them, and nothing is lost on the way.
//!
//! [`sense`] reads verdicts and the aggregator itself as [`Condition`]s; [`lifecycle`] turns
//! conditions into transitions, without clock or I/O; [`notice`] routes transitions to sinks;
//! [`desk`] makes a step durable before it is told; [`deliver`] sends, one task a sink, and [`sink`]
//! says in which words. Nothing here judges, and nothing outside [`transport`] holds a socket.

mod alert;
pub mod burn;
mod cause;
mod condition;
pub mod config;
mod deliver;
pub mod desk;
pub mod lifecycle;
mod notice;
mod policy;
mod run;
pub mod sense;
pub mod show;
pub mod sink;
mod store;
pub mod transport;

pub use alert::{Alert, Phase};
pub(crate) use cause::advice;
pub use condition::{Condition, Key, Reading, Rule, Severity, Subject};
pub use config::Config;
pub use desk::Desk;
pub use policy::{Maintenance, Policy, Step};
pub(crate) use run::tell;
#[cfg(test)]
pub(crate) use run::turn;
pub use run::{Tested, run, test};
pub use store::StoreError;
