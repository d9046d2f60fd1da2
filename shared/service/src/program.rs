//! How a service program begins: configuration read and checked, or shown, and only then a runtime.

use std::time::Duration;

use crate::args::ServiceArgs;
use crate::config::{Key, Problem, Problems, Settings};
use crate::exit::Exit;
use crate::telemetry::{self, Telemetry};

/// What a program is, as far as its beginning goes.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    /// Its name, in front of what it says on standard error.
    pub name: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
    /// The prefix of its environment variables.
    pub prefix: &'static str,
    /// Threads that serve the network; one a core when `None`.
    pub worker_threads: Option<usize>,
}

impl Program {
    /// Reads the configuration, answers `--print-config` and `--check-config`, and otherwise runs
    /// `serve` until it ends.
    ///
    /// `check` makes the program's own configuration of the settings. Every problem is printed at
    /// once; the answer is then [`Exit::Usage`].
    #[allow(clippy::print_stdout, clippy::print_stderr)]
    pub fn run<C, F: Future<Output = Exit>>(
        self,
        args: &ServiceArgs,
        check: impl FnOnce(&Settings) -> Result<C, Problems>,
        serve: impl FnOnce(C) -> F,
    ) -> Exit {
        let name = self.name;
        let refuse = |problems: Problems| {
            eprintln!("{name}: {problems}");
            Exit::Usage
        };
        let settings = match args.settings(self.keys, self.prefix) {
            Ok(settings) => settings,
            Err(problems) => return refuse(problems),
        };
        if args.print_config {
            print!("{}", settings.print());
            return Exit::Done;
        }
        let endpoint = settings.text(telemetry::KEY.path);
        let wrong = endpoint.and_then(|endpoint| telemetry::check(endpoint).err());
        let config = match (check(&settings), wrong) {
            (Ok(config), None) => config,
            (checked, wrong) => {
                let mut problems = checked.err().unwrap_or(Problems(Vec::new()));
                let problem = |what: String| Problem { origin: "configuration".into(), what };
                problems.0.extend(wrong.map(|error| problem(error.to_string())));
                return refuse(problems);
            }
        };
        if args.check_config {
            println!("configuration is good");
            return Exit::Done;
        }
        crate::secret::keep_memory_private();
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if let Some(threads) = self.worker_threads {
            builder.worker_threads(threads);
        }
        let runtime = match builder.enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("{name}: no runtime: {error}");
                return Exit::Internal;
            }
        };
        let telemetry = {
            let _on = runtime.enter();
            endpoint.map(|endpoint| Telemetry::start(endpoint, name)).transpose()
        };
        let telemetry = match telemetry {
            Ok(telemetry) => telemetry,
            Err(error) => {
                eprintln!("{name}: {error}");
                return Exit::Usage;
            }
        };
        crate::log::start_with(telemetry.as_ref());
        let exit = runtime.block_on(serve(config));
        // Its connections live on the runtime.
        if let Some(telemetry) = telemetry {
            telemetry.end();
        }
        runtime.shutdown_timeout(Duration::from_secs(1));
        exit
    }
}
