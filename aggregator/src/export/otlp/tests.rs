//! The export against carriers that answer as told.
