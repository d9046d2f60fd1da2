//! `lens token`: tokens of the HTTP API, kept hashed in a file that aggregators reread.
//!
//! The secret is printed once, on standard output, and kept nowhere. One command edits a file at a
//! time: the fresh file beside it, which then takes its place, is made by one and refused to the
//! next.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use lens_aggregator::auth::gate::{TokenFileError, read_tokens};
use lens_aggregator::auth::role::{self, Role};
use lens_aggregator::auth::token::{Token, TokenError, Tokens};
use lens_journal::{Disk, OsDisk};
use lens_service::env::Env;
use lens_service::exit::Exit;
use lens_service::time::rfc3339;
use serde_json::{Value, json};
use thiserror::Error;

/// What to do.
#[derive(Subcommand, Debug)]
pub(crate) enum Command {
    /// Make a token and print it, once.
    Create(Create),
    /// List tokens: ids, names, roles, lifetimes; never secrets.
    List(List),
    /// Take a token back.
    Revoke(Revoke),
}

/// For whom, as what, for how long.
#[derive(Args, Debug)]
pub(crate) struct Create {
    /// A role: viewer, operator, releaser, breakglass, approver:OFFICE, auditor or admin; may be
    /// repeated.
    #[arg(long, required = true)]
    role: Vec<String>,
    /// Whose it is.
    #[arg(long)]
    name: String,
    /// Lifetime, days.
    #[arg(long, default_value_t = 30)]
    days: u32,
    /// The file of tokens, made if it is not there.
    #[arg(long, value_name = "TOKENS")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Of which file.
#[derive(Args, Debug)]
pub(crate) struct List {
    /// The file of tokens.
    #[arg(long, value_name = "TOKENS")]
    file: PathBuf,
    /// Print one JSON array.
    #[arg(long)]
    json: bool,
}

/// Which one.
#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// The token's id, as `lens token list` shows it.
    id: String,
    /// The file of tokens.
    #[arg(long, value_name = "TOKENS")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Error)]
enum Failed {
    #[error(transparent)]
    Read(#[from] TokenFileError),
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(transparent)]
    Role(#[from] role::UnknownRole),
    #[error("{path}: another `lens token` is at work, or one was interrupted: remove it then")]
    Busy { path: PathBuf },
    #[error("{path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("no randomness: {0}")]
    Random(io::Error),
}

/// Runs the command.
#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) fn run(command: &Command) -> Exit {
    let done = match command {
        Command::Create(create) => created(create),
        Command::List(list) => listed(list),
        Command::Revoke(revoke) => revoked(revoke),
    };
    match done {
        Ok(text) => {
            println!("{text}");
            Exit::Done
        }
        Err(error) => {
            eprintln!("lens token: {error}");
            Exit::Usage
        }
    }
}

/// Changes a file of tokens, or makes one, in one step.
fn edit<T>(
    path: &Path,
    change: impl FnOnce(&mut Tokens) -> Result<T, Failed>,
) -> Result<T, Failed> {
    let failed = |source| Failed::File { path: path.into(), source };
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = PathBuf::from(fresh);
    let file = match OsDisk.create(&fresh) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failed::Busy { path: fresh });
        }
        created => created.map_err(failed)?,
    };
    let write = || {
        let mut tokens = if path.exists() { read_tokens(path)? } else { Tokens::default() };
        let done = change(&mut tokens)?;
        let written = file.write_at(tokens.text().as_bytes(), 0).and_then(|()| file.sync());
        written.and_then(|()| OsDisk.rename(&fresh, path)).map_err(failed)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        OsDisk.sync_dir(parent.unwrap_or(Path::new("."))).map_err(failed)?;
        Ok(done)
    };
    write().inspect_err(|_| drop(OsDisk.remove(&fresh)))
}

fn created(create: &Create) -> Result<String, Failed> {
    let roles = role::roles(create.role.iter().map(String::as_str))?;
    let env = Env::system();
    let mut random = [0; 40];
    env.random.fill(&mut random).map_err(Failed::Random)?;
    let (token, secret) = Token::make(&random, &create.name, roles, env.now(), create.days)?;
    let shown = shown(&token);
    edit(&create.file, |tokens| Ok(tokens.add(token)?))?;
    let secret = String::from_utf8_lossy(secret.expose());
    if !create.json {
        return Ok(secret.into_owned());
    }
    let mut shown = shown;
    shown["token"] = Value::from(&*secret);
    Ok(shown.to_string())
}

fn shown(token: &Token) -> Value {
    json!({
        "id": token.id,
        "name": token.name,
        "roles": token.roles.iter().map(Role::to_string).collect::<Vec<_>>(),
        "created": rfc3339(token.created),
        "expires": rfc3339(token.expires),
        "revoked": token.revoked,
    })
}

fn listed(list: &List) -> Result<String, Failed> {
    let tokens = read_tokens(&list.file)?;
    if list.json {
        return Ok(Value::from(tokens.all().iter().map(shown).collect::<Vec<_>>()).to_string());
    }
    let now = Env::system().now();
    let line = |token: &Token| {
        let roles: Vec<String> = token.roles.iter().map(Role::to_string).collect();
        let state = if token.revoked {
            "revoked"
        } else if now >= token.expires {
            "expired"
        } else {
            "good"
        };
        let until = rfc3339(token.expires);
        format!("{}  {state:7}  until {until}  {}  {}", token.id, roles.join(","), token.name)
    };
    let lines: Vec<String> = tokens.all().iter().map(line).collect();
    Ok(if lines.is_empty() { "no tokens".into() } else { lines.join("\n") })
}

fn revoked(revoke: &Revoke) -> Result<String, Failed> {
    let token = edit(&revoke.file, |tokens| Ok(tokens.revoke(&revoke.id)?.clone()))?;
    if revoke.json {
        return Ok(shown(&token).to_string());
    }
    Ok(format!(
        "token {} of {} is revoked; aggregators notice within seconds",
        token.id, token.name
    ))
}
