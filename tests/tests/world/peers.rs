//! Peers that `deploy/test-peers.sh` installs.

use std::path::{Path, PathBuf};

/// The directory of what is not a Debian package.
pub fn dir() -> PathBuf {
    std::env::var_os("LENS_TEST_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-peers"),
        PathBuf::from,
    )
}

/// The path if something is there. In CI, where the installer ran, it must be.
#[allow(clippy::print_stderr, reason = "said loudly")]
pub fn present(path: &Path) -> Option<PathBuf> {
    if path.exists() {
        return Some(path.to_owned());
    }
    let missing = format!("{} is not there: run deploy/test-peers.sh", path.display());
    assert!(std::env::var_os("CI").is_none(), "{missing}");
    eprintln!("\n!!! NOT CHECKED AGAINST THE PEER: {missing}\n");
    None
}
