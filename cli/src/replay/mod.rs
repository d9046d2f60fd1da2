//! `lens replay`: recorded latencies through the judge of the aggregator, on their own clock.
//!
//! One JSON line a decision, then the summary; the same file gives the same bytes. The file is read
//! once, as a stream: what is kept is the slots of the allowed lateness.

mod csv;
mod hlog;
mod input;
mod lines;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use lens_aggregator::canary::CanaryJudge;
use lens_aggregator::config::{PREFIX, judge_keys, rules};
use lens_aggregator::judge::canary::{PLAN_BYTES_MAX, Plan};
use lens_aggregator::judge::decision::SlotJudge;
use lens_aggregator::judge::replay::Replay;
use lens_aggregator::judge::standing::Standing;
use lens_aggregator::state::Rules;
use lens_model::Nanos;
use lens_service::config::{Key, Problems, Settings, Sources};
use lens_service::exit::Exit;
use serde_json::Value;

use input::InputError;

/// Bytes read at once.
const BUFFER_BYTES: usize = 1 << 18;

/// What to replay and how.
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// Recorded latencies: CSV, JSON lines or an HdrHistogram interval log.
    file: PathBuf,
    /// Judge the canary as well; its shares are taken from the data as they are.
    #[arg(long)]
    canary: bool,
    /// The rollout's steps, shares, dwell and margins, TOML.
    #[arg(long, value_name = "FILE", requires = "canary")]
    plan: Option<PathBuf>,
    /// The judge's rules, TOML: the aggregator's [windows], [slo] and [judge].
    #[arg(long, value_name = "FILE")]
    judge: Option<PathBuf>,
    /// The series of an interval log without tags, `repo_type/language/size/stage/arm`.
    #[arg(long, value_parser = hlog::named)]
    series: Option<(lens_model::Slice, lens_model::Stage, lens_model::Arm)>,
    /// The unit of an interval log's values.
    #[arg(long, value_enum, default_value_t = Unit::Ns)]
    unit: Unit,
    /// One JSON line a decision, as without it: there is no other form.
    #[arg(long)]
    json: bool,
}

/// The unit of recorded values.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Unit {
    /// Nanoseconds, as this system writes them.
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
}

impl Unit {
    const fn nanos(self) -> u64 {
        match self {
            Self::Ns => 1,
            Self::Us => 1_000,
            Self::Ms => 1_000_000,
        }
    }
}

/// Replays, and answers: 0 done, 2 for a file, rules or a plan that cannot be used.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> Exit {
    let file = match File::open(&args.file) {
        Ok(file) => file,
        Err(error) => {
            eprintln!("lens replay: {}: {error}", args.file.display());
            return Exit::Usage;
        }
    };
    let (rules, lateness) = match judge_rules(args.judge.as_deref()) {
        Ok(rules) => rules,
        Err(problems) => {
            eprintln!("lens replay: {problems}");
            return Exit::Usage;
        }
    };
    let judges = match judges(args, &rules) {
        Ok(judges) => judges,
        Err(problem) => {
            eprintln!("lens replay: {problem}");
            return Exit::Usage;
        }
    };
    let untagged = hlog::Untagged { series: args.series.clone(), unit_nanos: args.unit.nanos() };
    let input = BufReader::with_capacity(BUFFER_BYTES, file);
    let out = BufWriter::new(std::io::stdout().lock());
    match play(input, Form::of_name(&args.file), &untagged, Replay::new(lateness, judges), out) {
        Ok(()) => Exit::Done,
        Err(InputError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Exit::Done
        }
        Err(error @ InputError::Write(_)) => {
            eprintln!("lens replay: {error}");
            Exit::Internal
        }
        Err(error) => {
            eprintln!("lens replay: {}: {error}", args.file.display());
            Exit::Usage
        }
    }
}

/// Plays recorded latencies in memory through the judge's default rules.
pub(crate) fn replay(input: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let (rules, lateness) = (Rules::default(), Nanos::from_secs(60));
    let judges: Vec<Box<dyn SlotJudge>> = vec![Box::new(Standing::new(&rules))];
    let untagged = hlog::Untagged { series: None, unit_nanos: 1 };
    play(input, None, &untagged, Replay::new(lateness, judges), out)
        .map_err(|error| error.to_string())
}

/// The rules and the allowed lateness, from a file or the defaults.
fn judge_rules(file: Option<&Path>) -> Result<(Rules, Nanos), Problems> {
    // A table of keys lives as long as the program; this one is made once.
    let keys: &'static [Key] = judge_keys().leak();
    let sources = Sources { file: file.map(Path::to_owned), ..Sources::default() };
    let settings = Settings::load(keys, PREFIX, &sources)?;
    let lateness = Nanos::from_secs(settings.integer("windows.allowed_lateness_s"));
    Ok((rules(&settings).map_err(Problems)?, lateness))
}

fn judges(args: &Args, rules: &Rules) -> Result<Vec<Box<dyn SlotJudge>>, String> {
    let mut judges: Vec<Box<dyn SlotJudge>> = vec![Box::new(Standing::new(rules))];
    if args.canary {
        let plan = args.plan.as_deref().map_or_else(|| Ok(Plan::default()), plan)?;
        judges.push(Box::new(CanaryJudge::new(plan).map_err(|error| error.to_string())?));
    }
    Ok(judges)
}

/// The rollout's plan from a file, of which no more than a plan may have is read.
fn plan(file: &Path) -> Result<Plan, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let mut text = String::new();
    File::open(file)
        .and_then(|open| open.take(PLAN_BYTES_MAX as u64 + 1).read_to_string(&mut text))
        .map_err(|error| wrong(&error))?;
    Plan::parse(&text).map_err(|error| wrong(&error))
}

/// A replay that writes what it decides.
struct Player<'a> {
    replay: Replay,
    out: &'a mut dyn Write,
}

impl Player<'_> {
    /// Writes what was decided since the last call.
    fn tell(&mut self) -> Result<(), InputError> {
        for decision in self.replay.decisions() {
            serde_json::to_writer(&mut *self.out, &decision)
                .map_err(|error| InputError::Write(error.into()))?;
            self.out.write_all(b"\n").map_err(InputError::Write)?;
        }
        Ok(())
    }
}

/// How latencies are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Csv,
    Lines,
    Hlog,
}

impl Form {
    /// By the file's name, where that says it.
    fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "csv" => Some(Self::Csv),
            "jsonl" | "ndjson" => Some(Self::Lines),
            "hlog" => Some(Self::Hlog),
            _ => None,
        }
    }

    /// By the first bytes.
    const fn of_start(start: &[u8]) -> Self {
        match start.trim_ascii_start() {
            [b'{', ..] => Self::Lines,
            [b'#', ..] | [b'T', b'a', b'g', b'=', ..] => Self::Hlog,
            _ => Self::Csv,
        }
    }
}

/// Plays all of `input` and writes every decision and the summary.
fn play(
    mut input: impl BufRead,
    form: Option<Form>,
    untagged: &hlog::Untagged,
    replay: Replay,
    mut out: impl Write,
) -> Result<(), InputError> {
    let start = input.fill_buf().map_err(|error| InputError::Read { line: 1, error })?;
    let form = form.unwrap_or(Form::of_start(start));
    let mut player = Player { replay, out: &mut out };
    match form {
        Form::Csv => csv::play(input, &mut player),
        Form::Lines => lines::play(input, &mut player),
        Form::Hlog => hlog::play(input, untagged, &mut player),
    }?;
    let summary = player.replay.finish();
    player.tell()?;
    serde_json::to_writer(&mut out, &Value::Object(summary))
        .map_err(|error| InputError::Write(error.into()))?;
    out.write_all(b"\n").and_then(|()| out.flush()).map_err(InputError::Write)
}
