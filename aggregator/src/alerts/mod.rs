mod alert;
mod condition;
mod lifecycle;
mod notice;
mod policy;
pub mod show;
mod sink;
pub use condition::{Key, Subject};
