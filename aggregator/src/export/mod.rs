//! What the aggregator tells other systems, in their formats.
//!
//! [`openmetrics`] says what is exported, as [`family`] values; [`text`], [`protobuf`] and
//! [`remote_write`] say it in their own words, so that no two of them can disagree.
//! [`negotiate`] picks the words a scraper asks for; [`native`] is the histogram they all carry.

mod canary;
pub mod family;
pub mod hlog;
pub mod native;
pub mod negotiate;
pub mod openmetrics;
pub mod otlp;
pub mod protobuf;
pub mod remote_write;
pub mod text;
