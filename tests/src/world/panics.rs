//! Panics of simulated programs: a task that panics ends quietly, and must not.

use std::cell::RefCell;
use std::panic;
use std::sync::Once;

thread_local! {
    static CAUGHT: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

static HOOK: Once = Once::new();

/// Notes panics of this thread, instead of printing them, until [`caught`].
pub(super) fn watch() {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let noted = CAUGHT.with_borrow_mut(|caught| {
                caught.as_mut().map(|caught| caught.push(info.to_string())).is_some()
            });
            if !noted {
                usual(info);
            }
        }));
    });
    CAUGHT.set(Some(Vec::new()));
}

/// Panics noted since [`watch`]; from here on they are printed again.
pub(super) fn caught() -> Vec<String> {
    CAUGHT.take().unwrap_or_default()
}
