//! DogStatsD in, over a UNIX datagram socket and UDP.
//!
//! Why threads of their own: a datagram socket that is read too late loses, and nobody is told. So
//! each socket has several readers that do nothing else, and as much room as the kernel gives.
//! Bounds: a datagram is at most 64 KiB; what it holds is read in place.

pub mod line;
pub mod loss;
pub mod sockets;

use std::io;
use std::sync::Arc;

use lens_service::shutdown::Shutdown;
use socket2::Socket;
use tokio::task::JoinSet;
use tracing::error;

use self::sockets::Open;
use super::reading::Reading;
use super::refusal::Refusal;
use super::rules::Rules;
use super::settings::{Listening, Sockets};
use super::tallies::Listener;
use super::{Ingested, dogstatsd::line::Told};

/// Largest datagram, bytes: one more is room to tell that it was cut.
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// Starts the readers of these sockets.
pub fn spawn(
    tasks: &mut JoinSet<()>,
    ingested: &Arc<Ingested>,
    open: Vec<Open>,
    sockets: &Sockets,
    listening: &Listening,
    stop: &Shutdown,
) {
    for Open { socket, inode } in open {
        inode.into_iter().for_each(|inode| ingested.losses.watch_udp(inode));
        let socket = Arc::new(socket);
        for _ in 0..sockets.readers {
            let (ingested, rules) = (Arc::clone(ingested), Arc::clone(&listening.rules));
            let (socket, stop, env) = (Arc::clone(&socket), stop.clone(), ingested.env.clone());
            tasks.spawn(async move {
                if env.blocking(move || read(&socket, &ingested, &rules, &stop)).await.is_err() {
                    error!("a reader of DogStatsD has ended");
                }
            });
        }
    }
}

/// Reads until told to stop, and then what is there already.
fn read(socket: &Socket, ingested: &Ingested, rules: &Rules, stop: &Shutdown) {
    let mut socket = socket;
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX + 1];
    loop {
        match io::Read::read(&mut socket, &mut buffer) {
            Ok(length) => datagram(&buffer[..length], ingested, rules),
            Err(error) if is_timeout(&error) => {
                if stop.is_draining() {
                    return;
                }
            }
            Err(error) => {
                error!(%error, "a DogStatsD socket cannot be read");
                return;
            }
        }
    }
}

fn is_timeout(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn datagram(bytes: &[u8], ingested: &Ingested, rules: &Rules) {
    let tally = ingested.tallies.of(Listener::Dogstatsd);
    tally.export(false);
    if bytes.len() > DATAGRAM_BYTES_MAX {
        return tally.refuse(Refusal::Truncated, 1);
    }
    let (mut reading, told) = parse(bytes, rules);
    told.into_iter().for_each(|told| ingested.losses.told(told));
    let points = reading.points.len() as u64;
    match ingested.sink.take(&mut reading) {
        Ok(samples) => tally.counted(points, samples, &reading.refused),
        Err(_) => {
            reading.refused.add(Refusal::Busy, points);
            tally.counted(0, 0, &reading.refused);
        }
    }
}

/// What a datagram comes to, and what its client says of itself.
pub fn parse(bytes: &[u8], rules: &Rules) -> (Reading, Vec<Told>) {
    let (mut reading, mut told) = (Reading::default(), Vec::new());
    for bytes in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let line = match line::parse(bytes) {
            Ok(line) => line,
            Err(why) => {
                reading.refused.add(why, 1);
                continue;
            }
        };
        if let Some(word) = line::told(&line) {
            told.push(word);
            continue;
        }
        match line.points(rules) {
            Ok(points) => {
                for point in points {
                    match point {
                        Ok(point) => reading.points.push(point),
                        Err(why) => reading.refused.add(why, 1),
                    }
                }
            }
            Err(why) => reading.refused.add(why, line.len()),
        }
    }
    (reading, told)
}
