//! What any bytes may do to each reader of bytes: be taken whole, or be refused with a reason.
//!
//! A target is a function of bytes that panics when a promise is broken. Three things drive it: the
//! kept corpora and seeded mutations of them, in every `cargo test`; and a coverage-guided fuzzer
//! behind one command (README.md beside this crate), whose finds come back as corpus files.
#![forbid(unsafe_code)]

mod targets;

/// A target by name.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus directory and fuzz binary.
    pub name: &'static str,
    /// What it does with bytes; panics when a promise is broken.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: &[Target] = &[
    Target { name: "block", run: targets::wire::block },
    Target { name: "certificate", run: targets::service::certificate },
    Target { name: "config", run: targets::service::config },
    Target { name: "delta", run: targets::wire::delta },
    Target { name: "document", run: targets::document::document },
    Target { name: "frame", run: targets::wire::frame },
    Target { name: "hello", run: targets::wire::hello },
    Target { name: "journal", run: targets::journal::recovery },
    Target { name: "segment", run: targets::segment::mutating },
];

/// Runs a target by name.
///
/// # Panics
/// When there is no such target, or the target finds a promise broken.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    (target.unwrap_or_else(|| panic!("no target {name}")).run)(bytes);
}
