//! The header that C programs include is the one this crate generates.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn the_header_is_what_the_source_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        header: Some(
            "/* The lens recorder for C. Generated from shared/segment/c/src/lib.rs; to renew it:\n \
             * LENS_WRITE_HEADER=1 cargo test -p lens-recorder --test header */"
                .into(),
        ),
        include_guard: Some("LENS_RECORDER_H".into()),
        cpp_compat: true,
        documentation_style: cbindgen::DocumentationStyle::C99,
        style: cbindgen::Style::Both,
        usize_is_size_t: true,
        export: cbindgen::ExportConfig {
            include: vec!["LensStage".into(), "LensArm".into()],
            ..Default::default()
        },
        line_length: 100,
        ..cbindgen::Config::default()
    };
    let bindings =
        cbindgen::Builder::new().with_config(config).with_src(root.join("src/lib.rs")).generate();
    let mut made = Vec::new();
    bindings.unwrap().write(&mut made);
    let file = root.join("../../../agent/clients/c/lens_recorder.h");
    if std::env::var_os("LENS_WRITE_HEADER").is_some() {
        std::fs::write(&file, &made).unwrap();
    }
    let made = String::from_utf8(made).unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), made, "renew the header");
}
