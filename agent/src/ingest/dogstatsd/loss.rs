//! What is known of datagrams that never came, shown as completeness.
//!
//! A sender of datagrams drops what does not fit, silently. Three sources tell of it: clients count
//! what they could not send and say so; they say what they sent, which may be more than came; and the
//! kernel counts what a UDP socket had no room for. Where no client has said anything, completeness
//! is unknown, not 100.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::line::Told;
use crate::ingest::tallies::{head, line};

/// Counters of what was said and found.
#[derive(Debug, Default)]
pub struct Losses {
    sent: AtomicU64,
    dropped: AtomicU64,
    reports: AtomicU64,
    /// Inode of each UDP socket.
    udp: Mutex<Vec<u64>>,
}

/// Completeness, or why it is not known.
#[derive(Clone, Debug, PartialEq)]
struct Completeness {
    percent: Option<f64>,
    lost: u64,
    kernel_dropped: u64,
}

impl Losses {
    /// Takes what a client says of itself.
    pub fn told(&self, told: Told) {
        match told {
            Told::Sent(count) => {
                self.reports.fetch_add(1, Ordering::Relaxed);
                self.sent.fetch_add(count, Ordering::Relaxed);
            }
            Told::Dropped(count) => {
                self.dropped.fetch_add(count, Ordering::Relaxed);
            }
            Told::Other => {}
        }
    }

    /// Watches the kernel's count of a UDP socket, named by its inode.
    pub fn watch_udp(&self, inode: u64) {
        self.udp.lock().push(inode);
    }

    fn completeness(&self, received: u64) -> Completeness {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let kernel_dropped = kernel_dropped(&self.udp.lock());
        // What clients sent and did not come was dropped by the kernel, where it counts that.
        let vanished = read(&self.sent).saturating_sub(received).max(kernel_dropped);
        let lost = read(&self.dropped) + vanished;
        let known = read(&self.reports) > 0 && received + lost > 0;
        #[allow(clippy::cast_precision_loss, reason = "a percentage")]
        let percent = known.then(|| 100.0 * received as f64 / (received + lost) as f64);
        Completeness { percent, lost, kernel_dropped }
    }

    /// As JSON, `received` datagrams having come.
    pub fn json(&self, received: u64) -> Value {
        let found = self.completeness(received);
        let reason = found.percent.is_none().then_some("no client has said what it sent");
        json!({
            "percent": found.percent,
            "reason": reason,
            "datagrams_received_total": received,
            "datagrams_lost_total": found.lost,
            "client_sent_total": self.sent.load(Ordering::Relaxed),
            "client_dropped_total": self.dropped.load(Ordering::Relaxed),
            "client_reports_total": self.reports.load(Ordering::Relaxed),
            "kernel_dropped_total": found.kernel_dropped,
        })
    }

    /// As Prometheus text.
    pub fn exposition(&self, received: u64, out: &mut String) {
        let found = self.completeness(received);
        let dropped = self.dropped.load(Ordering::Relaxed);
        for (name, help, value) in [
            ("client_dropped_total", "Datagrams that clients say they could not send.", dropped),
            (
                "kernel_dropped_total",
                "Datagrams a UDP socket had no room for.",
                found.kernel_dropped,
            ),
        ] {
            head(out, name, help, "counter");
            line(out, &format!("{name} {value}"));
        }
        if let Some(percent) = found.percent {
            let help = "Share of datagrams known of that came.";
            head(out, "completeness_ratio", help, "gauge");
            line(out, &format!("completeness_ratio {}", percent / 100.0));
        }
    }
}

/// Datagrams these UDP sockets had no room for, by the kernel's own tables.
fn kernel_dropped(inodes: &[u64]) -> u64 {
    if inodes.is_empty() {
        return 0;
    }
    // The kernel's view of this process's own sockets, not a disk: nothing of it is durable.
    let tables = ["/proc/self/net/udp", "/proc/self/net/udp6"];
    let texts = tables.iter().filter_map(|path| std::fs::read_to_string(path).ok());
    texts.map(|text| dropped_in(&text, inodes)).sum()
}

fn dropped_in(table: &str, inodes: &[u64]) -> u64 {
    let rows = table.lines().skip(1).filter_map(|row| {
        let fields: Vec<_> = row.split_whitespace().collect();
        let inode: u64 = fields.get(9)?.parse().ok()?;
        let dropped: u64 = fields.get(12)?.parse().ok()?;
        inodes.contains(&inode).then_some(dropped)
    });
    rows.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completeness_is_unknown_until_a_client_has_spoken() {
        let losses = Losses::default();
        let shown = losses.json(100);
        assert!(shown["percent"].is_null() && shown["reason"].is_string());
        losses.told(Told::Dropped(0));
        losses.told(Told::Sent(100));
        let shown = losses.json(100);
        assert_eq!((shown["percent"].as_f64(), &shown["reason"]), (Some(100.0), &Value::Null));
    }

    #[test]
    fn what_clients_dropped_and_what_vanished_on_the_way_are_both_missing() {
        let losses = Losses::default();
        losses.told(Told::Sent(90));
        losses.told(Told::Dropped(20));
        assert_eq!(losses.json(80)["datagrams_lost_total"], 30);
        assert_eq!(losses.json(80)["percent"], 100.0 * 80.0 / 110.0);
    }

    #[test]
    fn the_kernels_table_is_read_by_inode() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n\
            12: 0100007F:1FBD 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17\n\
            13: 0100007F:1FBE 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 5\n";
        assert_eq!(dropped_in(table, &[4711]), 17);
        assert_eq!(dropped_in(table, &[4711, 4712, 9]), 22);
        assert_eq!(dropped_in("garbage\n1 2 3", &[4711]), 0);
    }
}
