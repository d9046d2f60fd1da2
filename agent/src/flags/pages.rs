//! The flag pages of this host's nodes: all say the same, new ones as soon as they are found.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use lens_segment::{FlagPage, FlagWords};
use parking_lot::Mutex;
use tracing::warn;

#[derive(Debug)]
struct Page {
    page: FlagPage,
    /// Why it does not say what it should, if it does not.
    failed: Option<String>,
}

#[derive(Debug, Default)]
struct Inner {
    pages: BTreeMap<PathBuf, Page>,
    words: Option<FlagWords>,
}

/// Every page, and what they are to say.
#[derive(Debug, Default)]
pub struct Pages(Mutex<Inner>);

impl Page {
    fn say(&mut self, words: &FlagWords, over_newer: bool) {
        let said = self.page.read().and_then(|found| {
            let newer = found.generation > words.generation;
            // Written by an earlier process that did not live to keep it: newer than what was kept.
            if found == *words || (newer && !over_newer) { Ok(()) } else { self.page.write(words) }
        });
        self.note(said);
    }

    fn note(&mut self, said: io::Result<()>) {
        let failed = match said {
            Ok(()) => None,
            // Its node is gone; the next scan forgets it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if failed.is_some() && failed != self.failed {
            let why = failed.as_deref().unwrap_or_default();
            warn!(segment = %self.page.path().display(), why, "flag page not written");
        }
        self.failed = failed;
    }
}

impl Pages {
    /// Takes on the page of a segment that was found, and makes it say what the others do.
    pub fn add(&self, page: FlagPage) {
        let mut inner = self.0.lock();
        let mut page = Page { page, failed: None };
        if let Some(words) = inner.words {
            page.say(&words, false);
        }
        inner.pages.insert(page.page.path().to_owned(), page);
    }

    /// Forgets the pages of segments that are gone.
    pub fn keep(&self, there: impl Fn(&Path) -> bool) {
        self.0.lock().pages.retain(|path, _| there(path));
    }

    /// Makes every page say this.
    pub(super) fn say(&self, words: FlagWords, over_newer: bool) {
        let mut inner = self.0.lock();
        if inner.words == Some(words) && !over_newer {
            return;
        }
        inner.words = Some(words);
        inner.pages.values_mut().for_each(|page| page.say(&words, over_newer));
    }

    /// Makes pages that say something else say what they should.
    pub(super) fn mend(&self) {
        let mut inner = self.0.lock();
        if let Some(words) = inner.words {
            inner.pages.values_mut().for_each(|page| page.say(&words, false));
        }
    }

    /// Pages that say what they should, and pages that do not.
    pub(super) fn written(&self) -> (u32, u32) {
        let inner = self.0.lock();
        let failed = inner.pages.values().filter(|page| page.failed.is_some()).count();
        let good = if inner.words.is_some() { inner.pages.len() - failed } else { 0 };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        (count(good), count(failed))
    }
}
