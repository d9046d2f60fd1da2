//! `lens audit verify`: whether an audit record is whole, checked from its files alone.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lens_aggregator::audit::head::public_key;
use lens_aggregator::audit::log::{ROTATE_BYTES_MAX, files, read_whole};
use lens_aggregator::audit::verify::{Part, Report, verify};
use lens_aggregator::audit::{HEAD_FILE, PUBLIC_KEY_FILE};
use lens_journal::OsDisk;
use lens_model::limits::AUDIT_RECORD_BYTES_MAX;
use lens_service::exit::Exit;
use serde_json::json;

/// Largest head or key file read, bytes.
const SMALL_BYTES_MAX: u64 = 4 << 10;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Check every byte, every record, their order and the end against the last signed head.
    Verify(Verify),
}

/// Of which record.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// Directory of the record.
    #[arg(long)]
    dir: PathBuf,
    /// The signed head, best a copy kept elsewhere; head.json in the directory when left out.
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// The key it must be signed with, PEM or 64 hex digits in a file, best a copy kept elsewhere;
    /// audit-public-key.pem in the directory when left out.
    #[arg(long, value_name = "FILE")]
    public_key: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the command: 0 whole, 1 not, 2 it cannot be read.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let Command::Verify(args) = command;
    match verified(args) {
        Ok(Ok(report)) => {
            print(args, &report);
            Exit::Done
        }
        Ok(Err(fault)) if args.json => {
            println!("{}", json!({"whole": false, "fault": fault}));
            Exit::No
        }
        Ok(Err(fault)) => {
            println!("NOT WHOLE: {fault}");
            Exit::No
        }
        Err(error) => {
            eprintln!("lens audit verify: {error}");
            Exit::Usage
        }
    }
}

fn text(path: &Path) -> Result<String, String> {
    let bytes = read_whole(&OsDisk, path, SMALL_BYTES_MAX);
    let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn verified(args: &Verify) -> Result<Result<Report, String>, String> {
    let at = |given: &Option<PathBuf>, name| given.clone().unwrap_or_else(|| args.dir.join(name));
    let head = text(&at(&args.head, HEAD_FILE))?;
    let key_path = at(&args.public_key, PUBLIC_KEY_FILE);
    let key = public_key(&text(&key_path)?);
    let key = key.ok_or_else(|| format!("{}: no Ed25519 public key", key_path.display()))?;
    let names = files(&OsDisk, &args.dir);
    let names = names.map_err(|error| format!("{}: {error}", args.dir.display()))?;
    let mut parts = Vec::new();
    for name in names {
        let path = args.dir.join(&name);
        let most = ROTATE_BYTES_MAX + AUDIT_RECORD_BYTES_MAX as u64;
        let bytes = read_whole(&OsDisk, &path, most);
        let bytes = bytes.map_err(|error| format!("{}: {error}", path.display()))?;
        parts.push(Part { name, bytes });
    }
    Ok(verify(&parts, &head, Some(&key)).map_err(|fault| fault.to_string()))
}

#[allow(clippy::print_stdout)]
fn print(args: &Verify, report: &Report) {
    let Report { records, signed, signed_at, public_key } = report;
    if args.json {
        let unsigned = records - signed;
        println!(
            "{}",
            json!({"whole": true, "records": records, "signed": signed, "unsigned": unsigned,
                "signed_at": signed_at, "public_key": public_key})
        );
        return;
    }
    println!("whole: {records} records, {signed} of them under the head signed at {signed_at}");
    println!("key {public_key}");
    if args.public_key.is_none() {
        println!("the key was found beside the record: hold it against a copy kept elsewhere");
    }
}
