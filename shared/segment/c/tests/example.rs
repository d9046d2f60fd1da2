//! The example is compiled by the system's C compiler against both libraries, run, and read.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use lens_model::{Nanos, Stage};
use lens_segment::{Harvest, ReadPolicy, SegmentReader};

const CLIENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../agent/clients/c");

/// The newest library of this name that was built with this test.
fn library(ending: &str) -> PathBuf {
    let here = std::env::current_exe().unwrap();
    let entries = std::fs::read_dir(here.parent().unwrap()).unwrap();
    let built = entries.map(|entry| entry.unwrap().path()).filter(|path| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        name.starts_with("liblens_recorder") && name.ends_with(ending)
    });
    built.max_by_key(|path| path.metadata().unwrap().modified().unwrap()).unwrap()
}

fn compile(compiler: &str, arguments: &[&str]) {
    let mut command = Command::new(compiler);
    command.args(["-Wall", "-Wextra", "-Werror", "-I", CLIENT]).args(arguments);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// What the example recorded, by stage; answered and failed requests; the gauge.
fn read(segments: &Path) -> (Vec<(Stage, u64)>, (u64, u64), f64) {
    let mut files = std::fs::read_dir(segments).unwrap();
    let file = files.next().unwrap().unwrap().path();
    assert!(files.next().is_none());
    let mut reader = SegmentReader::open(&file, &ReadPolicy::default()).unwrap();
    let mut harvest = Harvest::default();
    reader.harvest(Nanos::from_secs(3_600), &mut harvest).unwrap();
    assert!(harvest.closed, "every handle was freed");
    let series = harvest.series.iter().map(|series| (series.key.stage, series.counts.total()));
    let slow = harvest.exemplars.iter().find(|slow| slow.key.stage == Stage::C).unwrap();
    assert_eq!((slow.nanos, slow.trace.id()), (250_000, *b"example-trace-1\0"));
    assert!(harvest.exemplars.iter().all(|slow| slow.key.stage == Stage::C), "the rest has none");
    let requests = &harvest.requests[0];
    (series.collect(), (requests.ok, requests.error), harvest.gauges[0].value)
}

#[test]
fn a_c_program_records_through_either_library_to_the_count() {
    let dir = tempfile::tempdir().unwrap();
    for ending in [".a", ".so"] {
        let program = dir.path().join(format!("example{ending}"));
        let library = library(ending);
        let place = library.parent().unwrap().to_str().unwrap();
        let source = format!("{CLIENT}/example.c");
        let rpath = format!("-Wl,-rpath,{place}");
        let arguments = [
            source.as_str(),
            library.to_str().unwrap(),
            &rpath,
            "-lpthread",
            "-ldl",
            "-lm",
            "-o",
            program.to_str().unwrap(),
        ];
        compile("cc", &arguments);
        let segments = dir.path().join(format!("segments{ending}"));
        let output = Command::new(&program).env("LENS_SEGMENT_DIR", &segments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(said, "quality gating on, user-42 is baseline, generation 0\n");
        let counted = [(Stage::A, 3_000), (Stage::B, 3_000), (Stage::C, 3_000)];
        assert_eq!(read(&segments), (counted.to_vec(), (3_000, 1), 98.7));

        // Where no segment can be made it says why, records nothing and runs to its end.
        let output = Command::new(&program).env("LENS_SEGMENT_DIR", "/proc/none").output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains("no segment: /proc/none"), "{said}");
    }
}

#[test]
fn a_number_that_is_no_stage_is_refused_and_null_is_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("wrong");
    let source = dir.path().join("wrong.c");
    std::fs::write(
        &source,
        r#"#include "lens_recorder.h"
#include <stdio.h>
int main(void) {
    char why[24], none[1];
    LensRecorder *node = lens_recorder_create(NULL, "lens", "1", "n", 0, why, sizeof why);
    if (lens_series_register(node, "a", "b", "c", (LensStage)9, 0, why, sizeof why)) return 1;
    puts(why);
    if (lens_series_register(NULL, "a", "b", "c", 0, 0, why, sizeof why)) return 2;
    puts(why);
    if (lens_series_register(node, "a", NULL, "c", 0, 0, none, 0)) return 3;
    if (lens_requests_register(node, "a", "b", "\xff", 0, NULL, 9)) return 4;
    lens_record(NULL, 1), lens_requests_ok(NULL), lens_gauge_set(NULL, 1);
    lens_series_free(NULL), lens_requests_free(NULL), lens_gauge_free(NULL);
    if (lens_flag_enabled(node, "no.such") || lens_killed(NULL)) return 5;
    if (lens_canary_arm(node, NULL, 7) != LensArmBaseline) return 6;
    lens_recorder_free(node), lens_recorder_free(NULL);
    return 0;
}
"#,
    )
    .unwrap();
    let library = library(".a");
    let paths = [&source, &library, &program].map(|path| path.to_str().unwrap());
    compile("cc", &[paths[0], paths[1], "-lpthread", "-ldl", "-lm", "-o", paths[2]]);
    let output =
        Command::new(&program).env("LENS_SEGMENT_DIR", dir.path().join("s")).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    // Cut to the buffer, its last byte the zero.
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "stage 9 is unknown: use\nrecorder is null\n"
    );
}

#[test]
fn the_header_is_c99_and_the_header_alone() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("alone.c");
    std::fs::write(&file, "#include \"lens_recorder.h\"\n#include \"lens_recorder.h\"\n").unwrap();
    compile("cc", &["-std=c99", "-pedantic", "-fsyntax-only", file.to_str().unwrap()]);
}
