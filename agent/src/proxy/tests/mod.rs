//! The proxy between real sockets: scripted upstreams on one side, raw bytes on the other.

mod classes;
mod hostile;
mod limits;
mod streams;
mod worlds;

use worlds::{Step, Upstream, World, ask, get};
