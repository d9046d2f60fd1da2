//! Bytes that must not be seen: no `Debug`, no `Display`, wiped when dropped, compared in constant
//! time by whoever holds them.

use zeroize::Zeroizing;

/// A secret. It cannot be printed by accident: it has no way of being printed.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes bytes as a secret.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves, for a cipher, a hash or a comparison.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// Keeps this process's memory out of core dumps and from other processes of the same user.
///
/// What a kernel does not offer is not an error: the service runs as well without.
pub fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    for done in
        [set_dumpable_behavior(DumpableBehavior::NotDumpable), setrlimit(Resource::Core, none)]
    {
        if let Err(error) = done {
            tracing::debug!(%error, "memory may be dumped");
        }
    }
}
