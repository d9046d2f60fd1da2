//! One role in this process: what `lens demo` starts as children of its own.

use clap::Subcommand;
use lens_benches::node::{self, NodeArgs};
use lens_service::args::ServiceArgs;
use lens_service::exit::Exit;
use lens_service::shutdown::Shutdown;

/// A role.
#[derive(Subcommand, Debug)]
pub(crate) enum Role {
    /// lens-agent.
    Agent(ServiceArgs),
    /// lens-aggregator.
    Aggregator(ServiceArgs),
    /// The reference search node; it has a version of its own to give.
    #[command(disable_version_flag = true)]
    Node(NodeArgs),
}

/// Runs the role until it is told to stop, or until whoever holds its standard input is gone:
/// children of a demo that is killed must not outlive it.
pub(crate) fn run(role: Role) -> Exit {
    end_with_parent();
    match role {
        Role::Agent(args) => lens_agent::program::run(&args),
        Role::Aggregator(args) => lens_aggregator::program::run(&args),
        Role::Node(args) => node(args),
    }
}

fn end_with_parent() {
    std::thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        // The parent writes nothing: the copy ends when its end of the pipe is closed.
        drop(std::io::copy(&mut stdin, &mut std::io::sink()));
        let own = rustix::process::getpid();
        if rustix::process::kill_process(own, rustix::process::Signal::TERM).is_err() {
            std::process::abort();
        }
    });
}

#[allow(clippy::print_stderr)]
fn node(args: NodeArgs) -> Exit {
    lens_service::log::start();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("search node: no runtime: {error}");
            return Exit::Internal;
        }
    };
    let done = runtime.block_on(async {
        #[allow(clippy::exit)]
        let shutdown = Shutdown::on_signals(|| std::process::exit(130));
        match shutdown {
            Ok(shutdown) => {
                let ended = async move { shutdown.wait().await };
                node::run(args.into_options(), ended).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    });
    match done {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("search node: {error}");
            Exit::Usage
        }
    }
}
