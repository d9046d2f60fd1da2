//! Whether a chain is whole: every byte, every record, its order, and its end.
//!
//! Pure: files in, a report or the first fault out.

use ed25519_dalek::VerifyingKey;
use thiserror::Error;

use super::head::{Head, HeadFault};
use super::record::{LineFault, Link, Record};

/// One file of the chain.
#[derive(Clone, Debug)]
pub struct Part {
    /// Its name, which carries the number of its first record.
    pub name: String,
    /// What is in it.
    pub bytes: Vec<u8>,
}

/// What was found well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Records in the chain.
    pub records: u64,
    /// Of these, those the signed head vouches for.
    pub signed: u64,
    /// When it was signed.
    pub signed_at: String,
    /// By which key, hex.
    pub public_key: String,
}

/// The first thing found wrong.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Fault {
    /// A line does not continue the chain.
    #[error("{file}, byte {at}, behind record {behind}: {fault}")]
    Line {
        /// In which file.
        file: String,
        /// Where in it.
        at: usize,
        /// The last record that was well.
        behind: u64,
        /// What is wrong.
        fault: LineFault,
    },
    /// A file does not begin where its name says, or one is missing before it.
    #[error("{file} should begin with record {expected}: a file was renamed or is missing")]
    File {
        /// Which file.
        file: String,
        /// The number that was due.
        expected: u64,
    },
    /// The head vouches for nothing.
    #[error(transparent)]
    Head(#[from] HeadFault),
    /// There are fewer records than were signed.
    #[error("record {last} is the last, {signed} were signed: the end is missing")]
    Truncated {
        /// The last there is.
        last: u64,
        /// The last that was signed.
        signed: u64,
    },
    /// The record the head speaks of is another.
    #[error("record {n} is not the one that was signed: the chain was written anew")]
    Rewritten {
        /// Which record.
        n: u64,
    },
}

/// The name of the file that begins with record `first`.
pub fn file_name(first: u64) -> String {
    format!("audit-{first:012}.jsonl")
}

/// The number of the first record in a file of the chain, by its name.
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("audit-")?.strip_suffix(".jsonl")?;
    digits.parse().ok().filter(|first| file_name(*first) == name)
}

/// Follows a chain through one file, calling `each` with what stands behind every record.
///
/// # Errors
/// [`Fault::Line`] at the first line that does not fit.
pub fn follow(
    part: &Part,
    link: &mut Link,
    mut each: impl FnMut(&Link, Record),
) -> Result<(), Fault> {
    let mut at = 0;
    for line in part.bytes.split_inclusive(|byte| *byte == b'\n') {
        let behind = link.n;
        let wrong = |fault| Fault::Line { file: part.name.clone(), at, behind, fault };
        let record = link.follow(line).map_err(wrong)?;
        each(link, record);
        at += line.len();
    }
    Ok(())
}

/// Checks everything against the last signed head.
///
/// # Errors
/// The first [`Fault`].
pub fn verify(parts: &[Part], head: &str, key: Option<&VerifyingKey>) -> Result<Report, Fault> {
    let (head, signed) = Head::verify(head, key)?;
    let mut link = Link::default();
    let mut at_head = (signed.n == 0).then_some(link);
    for part in parts {
        let expected = link.n + 1;
        if first_of(&part.name) != Some(expected) {
            return Err(Fault::File { file: part.name.clone(), expected });
        }
        follow(part, &mut link, |after, _| {
            if after.n == signed.n {
                at_head = Some(*after);
            }
        })?;
    }
    match at_head {
        None => Err(Fault::Truncated { last: link.n, signed: signed.n }),
        Some(found) if found.hash != signed.hash => Err(Fault::Rewritten { n: signed.n }),
        Some(_) => Ok(Report {
            records: link.n,
            signed: signed.n,
            signed_at: head.time,
            public_key: head.public_key,
        }),
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use lens_model::UnixNanos;

    use super::*;
    use crate::audit::record::{Decision, Entry};

    struct Chain {
        lines: Vec<Vec<u8>>,
        parts: Vec<Part>,
        head: String,
        key: VerifyingKey,
    }

    /// Eleven records in three files, all signed.
    fn chain() -> Chain {
        let key = SigningKey::from_bytes(&[5; 32]);
        let (mut link, mut lines, mut parts) = (Link::default(), Vec::new(), Vec::new());
        for at in 0..11_u64 {
            let entry = Entry {
                principal: "alice".into(),
                credential: "token:00".into(),
                role: "admin".into(),
                verb: "agent.revoke".into(),
                target: format!("host-{at}"),
                arguments: vec![],
                decision: Decision::Allowed,
            };
            let (line, next) = link.next(&entry, 0, UnixNanos(1_790_000_000_000_000_000 + at));
            if at % 4 == 0 {
                parts.push(Part { name: file_name(at + 1), bytes: Vec::new() });
            }
            parts.last_mut().unwrap().bytes.extend(&line);
            lines.push(line);
            link = next;
        }
        let head = Head::sign(&link, UnixNanos(1_790_000_001_000_000_000), &key).text();
        Chain { lines, parts, head, key: key.verifying_key() }
    }

    impl Chain {
        fn check(&self, parts: &[Part]) -> Result<Report, Fault> {
            verify(parts, &self.head, Some(&self.key))
        }

        /// One file of these lines, as someone without the key could write it.
        fn one_file(&self, lines: &[&[u8]]) -> Result<Report, Fault> {
            self.check(&[Part { name: file_name(1), bytes: lines.concat() }])
        }
    }

    #[test]
    fn an_untouched_chain_is_well() {
        let chain = chain();
        let report = chain.check(&chain.parts).unwrap();
        assert_eq!((report.records, report.signed), (11, 11));
    }

    #[test]
    fn every_flipped_bit_of_every_byte_is_found() {
        let chain = chain();
        let mut flips = 0;
        for (file, part) in chain.parts.iter().enumerate() {
            for at in 0..part.bytes.len() {
                for bit in 0..8 {
                    let mut parts = chain.parts.clone();
                    parts[file].bytes[at] ^= 1 << bit;
                    assert!(chain.check(&parts).is_err(), "file {file} byte {at} bit {bit}");
                    flips += 1;
                }
            }
        }
        assert!(flips > 30_000, "{flips}");
    }

    #[test]
    fn every_truncation_is_found() {
        let chain = chain();
        let whole: Vec<u8> = chain.lines.concat();
        for length in 0..whole.len() {
            assert!(chain.one_file(&[&whole[..length]]).is_err(), "cut to {length}");
        }
        for files in 0..chain.parts.len() {
            assert!(chain.check(&chain.parts[..files]).is_err(), "{files} files");
        }
        assert!(chain.one_file(&[&whole]).is_ok());
    }

    #[test]
    fn every_dropped_repeated_or_swapped_record_is_found() {
        let chain = chain();
        let lines: Vec<&[u8]> = chain.lines.iter().map(Vec::as_slice).collect();
        for at in 0..lines.len() {
            let mut dropped = lines.clone();
            dropped.remove(at);
            assert!(chain.one_file(&dropped).is_err(), "without record {}", at + 1);
            let mut twice = lines.clone();
            twice.insert(at, lines[at]);
            assert!(chain.one_file(&twice).is_err(), "record {} twice", at + 1);
            for other in at + 1..lines.len() {
                let mut swapped = lines.clone();
                swapped.swap(at, other);
                assert!(chain.one_file(&swapped).is_err(), "{at} and {other} swapped");
            }
        }
        for file in 0..chain.parts.len() {
            let mut parts = chain.parts.clone();
            parts.remove(file);
            assert!(chain.check(&parts).is_err(), "without file {file}");
            let mut renamed = chain.parts.clone();
            renamed[file].name = file_name(99);
            assert!(matches!(chain.check(&renamed), Err(Fault::File { .. })));
        }
    }

    #[test]
    fn a_chain_written_anew_from_the_first_record_on_is_found() {
        let chain = chain();
        let (mut link, mut forged) = (Link::default(), Vec::new());
        for line in &chain.lines {
            let text = String::from_utf8(line.clone()).unwrap();
            let target = if text.contains("host-3") { "host-4" } else { "host-3" };
            let entry = Entry {
                principal: "mallory".into(),
                credential: "token:00".into(),
                role: "admin".into(),
                verb: "agent.revoke".into(),
                target: target.into(),
                arguments: vec![],
                decision: Decision::Allowed,
            };
            let (line, next) = link.next(&entry, 0, UnixNanos(1_790_000_000_000_000_000));
            forged.extend(line);
            link = next;
        }
        assert_eq!(chain.one_file(&[&forged]), Err(Fault::Rewritten { n: 11 }));
        let other = SigningKey::from_bytes(&[6; 32]);
        let head = Head::sign(&link, UnixNanos(1), &other).text();
        let parts = [Part { name: file_name(1), bytes: forged }];
        assert!(matches!(
            verify(&parts, &head, Some(&chain.key)),
            Err(Fault::Head(HeadFault::Key { .. }))
        ));
    }

    #[test]
    fn records_behind_the_head_are_chained_and_told_apart_from_signed_ones() {
        let mut chain = chain();
        let key = SigningKey::from_bytes(&[5; 32]);
        let mut link = Link::default();
        for line in &chain.lines[..6] {
            link.follow(line).unwrap();
        }
        chain.head = Head::sign(&link, UnixNanos(1_790_000_000_000_000_000), &key).text();
        let report = chain.check(&chain.parts).unwrap();
        assert_eq!((report.records, report.signed), (11, 6));
    }
}
