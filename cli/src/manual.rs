//! `lens completions` and `lens man`: made from the commands themselves, so that they cannot differ.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Command};
use clap_complete::Shell;
use lens_service::exit::Exit;

/// Which shell.
#[derive(ClapArgs, Debug)]
pub(crate) struct Completions {
    /// bash, elvish, fish, powershell or zsh.
    shell: Shell,
}

/// Where manual pages go.
#[derive(ClapArgs, Debug)]
pub(crate) struct Man {
    /// Write one page a command into this directory; without it, the page of `lens` is printed.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

fn ended(what: &str, done: io::Result<()>) -> Exit {
    match done {
        // Whoever closed the pipe has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            #[allow(clippy::print_stderr)]
            {
                eprintln!("lens {what}: {error}");
            }
            Exit::Usage
        }
        _ => Exit::Done,
    }
}

/// Prints the completions of a shell.
pub(crate) fn completions(args: &Completions, mut command: Command) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "lens", &mut text);
    ended("completions", io::stdout().write_all(&text))
}

/// Prints the manual page, or writes those of all commands.
pub(crate) fn man(args: &Man, mut command: Command) -> Exit {
    let written = match &args.dir {
        Some(dir) => {
            command.build();
            std::fs::create_dir_all(dir)
                .and_then(|()| clap_mangen::generate_to(command, dir))
                .map_err(|error| {
                    io::Error::new(error.kind(), format!("{}: {error}", dir.display()))
                })
        }
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command)
                .render(&mut text)
                .and_then(|()| io::stdout().write_all(&text))
        }
    };
    ended("man", written)
}
