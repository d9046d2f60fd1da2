mod alert;
mod condition;
mod lifecycle;
mod notice;
mod policy;
pub use condition::{Key, Subject};
