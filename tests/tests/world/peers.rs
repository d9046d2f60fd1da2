//! Programs and libraries of others that tests are held against.

use std::path::{Path, PathBuf};

/// The Python with the peers' libraries; `None`, said loudly, where it is not and need not be.
pub fn python() -> Option<PathBuf> {
    present(&directory().join("python/bin/python"))
}

/// Where `deploy/test-peers.sh` puts what is not a Debian package.
pub fn directory() -> PathBuf {
    std::env::var_os("LENS_TEST_PEERS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/test-peers"),
        PathBuf::from,
    )
}

/// A program of the search path; `None`, said loudly, where it is not and need not be.
pub fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(name));
    let first = places.find(|file| file.exists());
    present(&first.unwrap_or_else(|| PathBuf::from(name)))
}

/// The program if it is there. In CI, where `deploy/test-peers.sh` ran, it must be.
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
