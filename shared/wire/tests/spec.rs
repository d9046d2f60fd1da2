//! docs/wire.md and the code agree on what there is to obey.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const DOC: &str = include_str!("../../../docs/wire.md");

/// Who obeys a requirement that no code here can.
const ELSEWHERE: [&str; 2] = ["*(obeyed by agent)*", "*(obeyed by aggregator)*"];

/// Requirements obeyed by the programs around the frames. One that moves is a conscious act.
const EXCEPTIONS: [&str; 25] = [
    "WIRE-032", "WIRE-061", "WIRE-070", "WIRE-071", "WIRE-072", "WIRE-073", "WIRE-074", "WIRE-075",
    "WIRE-076", "WIRE-077", "WIRE-078", "WIRE-082", "WIRE-083", "WIRE-084", "WIRE-101", "WIRE-102",
    "WIRE-104", "WIRE-140", "WIRE-141", "WIRE-144", "WIRE-146", "WIRE-150", "WIRE-160", "WIRE-161",
    "WIRE-165",
];

/// Each requirement's number and sentence.
fn requirements() -> BTreeMap<&'static str, &'static str> {
    let mut found = BTreeMap::new();
    for line in DOC.lines().filter_map(|line| line.strip_prefix("- **")) {
        let (number, sentence) = line.split_once("** ").expect("a number in bold, then a sentence");
        assert!(is_number(number), "{number} is not WIRE-000");
        assert!(found.insert(number, sentence).is_none(), "{number} stands twice");
    }
    found
}

fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix("WIRE-");
    digits.is_some_and(|digits| digits.len() == 3 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Every number cited in the sources below `directory`.
fn cited(directory: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            cited(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs")
            && !path.ends_with("spec.rs")
        {
            let text = std::fs::read_to_string(&path).unwrap();
            let numbers = text.match_indices("WIRE-").filter_map(|(at, _)| text.get(at..at + 8));
            found.extend(numbers.filter(|number| is_number(number)).map(str::to_owned));
        }
    }
}

fn all_cited() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = BTreeSet::new();
    for directory in ["src", "tests", "../hist/src"] {
        cited(&root.join(directory), &mut found);
    }
    found
}

#[test]
fn every_requirement_is_cited_where_it_is_obeyed() {
    let cited = all_cited();
    let missing: Vec<_> = requirements()
        .into_iter()
        .filter(|(number, _)| !EXCEPTIONS.contains(number) && !cited.contains(*number))
        .collect();
    assert!(missing.is_empty(), "cited nowhere: {missing:#?}");
}

#[test]
fn every_citation_is_of_a_requirement() {
    let requirements = requirements();
    let unknown: Vec<_> =
        all_cited().into_iter().filter(|number| !requirements.contains_key(&**number)).collect();
    assert!(unknown.is_empty(), "cited but not in docs/wire.md: {unknown:?}");
}

#[test]
fn exceptions_are_marked_with_who_obeys_them_and_nothing_else_is() {
    for (number, sentence) in requirements() {
        let marked = ELSEWHERE.iter().any(|mark| sentence.ends_with(mark));
        assert_eq!(marked, EXCEPTIONS.contains(&number), "{number}");
        let plain = ELSEWHERE.iter().fold(sentence, |text, mark| text.trim_end_matches(mark));
        let plain = plain.trim_end();
        assert!(plain.ends_with('.') && !plain.contains(". "), "{number} must be one sentence");
    }
}

#[test]
fn the_limits_the_document_states_are_the_codes() {
    use lens_model::limits::{
        AGENT_FRAMES_IN_FLIGHT_MAX, BLOCK_BYTES_MAX, CONNECTION_INSTANCES_MAX,
        CONNECTION_SERIES_MAX, FRAME_BYTES_MAX, FRAME_SERIES_MAX, NAME_BYTES_MAX,
        SLICE_PART_BYTES_MAX,
    };
    use lens_wire::limits::{
        CONNECTION_GAUGES_MAX, CONNECTION_REQUESTS_MAX, EXTENSION_BYTES_MAX, FRAME_BYTES_MIN,
        FRAME_GAUGES_MAX, FRAME_REQUESTS_MAX, LABELS_MAX, REASON_BYTES_MAX,
    };
    assert_eq!((FRAME_BYTES_MAX, FRAME_BYTES_MIN), (1_048_576, 65_536));
    assert_eq!([FRAME_SERIES_MAX, FRAME_REQUESTS_MAX, FRAME_GAUGES_MAX], [4_096; 3]);
    assert_eq!((CONNECTION_INSTANCES_MAX, CONNECTION_SERIES_MAX), (1_024, 65_536));
    assert_eq!((CONNECTION_REQUESTS_MAX, CONNECTION_GAUGES_MAX), (32_768, 16_384));
    assert_eq!((LABELS_MAX, NAME_BYTES_MAX, REASON_BYTES_MAX), (16, 64, 200));
    assert_eq!((3 * SLICE_PART_BYTES_MAX + 2, EXTENSION_BYTES_MAX), (146, 4_096));
    assert_eq!(lens_model::limits::DOCUMENT_BYTES_MAX, 512);
    assert_eq!((BLOCK_BYTES_MAX, AGENT_FRAMES_IN_FLIGHT_MAX), (39_287, 64));
}
