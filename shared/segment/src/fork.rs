//! What a fork means for a recorder: the child moves to the shared shards.
//!
//! Why not `MADV_DONTFORK`: it would turn the child's next record into a crash, and recording must
//! never fail. A child that kept its parent's slot would be a second writer of a single-writer
//! shard and lose counts. The shared shard takes additions from anyone, so both are avoided.
//! Limits: a [`crate::LocalSeries`] taken before the fork must not be used in the child; a child
//! made by a raw `clone` system call runs no handler and must not record.

use std::io;
use std::sync::OnceLock;

use crate::threads;

/// Set once the handler is in place; the error number of a failed attempt otherwise.
static HANDLER: OnceLock<i32> = OnceLock::new();

extern "C" fn in_child() {
    threads::enter_child();
}

/// Makes sure forked children are told. Idempotent.
pub(crate) fn watch() -> io::Result<()> {
    let code = *HANDLER.get_or_init(|| {
        // WHY: the C library alone knows when `fork` returns in a child.
        // SAFETY: `in_child` is a function for the life of the program (a library that holds it
        // and is unloaded takes its handlers with it); it only stores to a static atomic and to a
        // thread-local word without destructor, both allowed after a fork of a threaded process.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) }
    });
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}
