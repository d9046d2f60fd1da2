//! Records of the spool, of the aggregator's log, and of the audit chain.

use lens_aggregator::audit::verify::{Part, file_name, verify};
use lens_aggregator::log::Record;

/// A record of the log: what is taken says the same when it is written and read again.
pub(crate) fn log(bytes: &[u8]) {
    match Record::decode(bytes) {
        Ok(record) => {
            let again = Record::decode(&record.encode()).expect("our own record is refused");
            // Gauges may be no numbers, which equal nothing.
            assert_eq!(format!("{again:?}"), format!("{record:?}"));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The payload of a record of the spool, its kind in the first byte: it makes sense or it does not.
pub(crate) fn spool(bytes: &[u8]) {
    let Some((kind, payload)) = bytes.split_first() else { return };
    // Read twice, it makes the same sense.
    let sense = lens_agent::spool::makes_sense((*kind).into(), payload);
    assert_eq!(sense, lens_agent::spool::makes_sense((*kind).into(), payload));
}

/// A chain and its signed head, parted by an empty line: whole, or the first fault is told.
pub(crate) fn audit(bytes: &[u8]) {
    let at = bytes.windows(2).position(|two| two == b"\n\n").map_or(bytes.len(), |at| at + 1);
    let (chain, head) = bytes.split_at(at);
    let Ok(head) = std::str::from_utf8(head.strip_prefix(b"\n").unwrap_or(head)) else { return };
    let parts = [Part { name: file_name(1), bytes: chain.to_vec() }];
    match verify(&parts, head, None) {
        Ok(report) => assert!(report.signed <= report.records),
        Err(fault) => assert!(!fault.to_string().is_empty()),
    }
}
