//! `lens top`: an aggregator's series, spectrum, verdicts, alerts and agents, as they change.
//!
//! One thread follows the event stream, one asks for the spectrum of the chosen series, this one
//! draws and takes keys. What is drawn is a function of [`View`] alone ([`draw`]).

mod draw;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args as ClapArgs;
use lens_service::exit::Exit;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::sync::watch;

use crate::demo::snapshots;
use view::{Sort, Tab, View};

/// Longest between two looks at keys and snapshots.
const LOOK: Duration = Duration::from_millis(100);

/// Pause before an aggregator that is gone is tried again, and between two spectra.
const AGAIN: Duration = Duration::from_secs(2);

/// Whom to watch.
#[derive(ClapArgs, Debug)]
pub(crate) struct Args {
    /// The aggregator's HTTP address.
    #[arg(long, default_value = "http://127.0.0.1:3000", env = "LENS_URL")]
    url: String,
    /// File with a token of the role viewer, where the aggregator asks for one.
    #[arg(long, value_name = "FILE", env = "LENS_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Print each snapshot as one line of JSON instead of drawing.
    #[arg(long)]
    json: bool,
    /// Sort by this column: series, count, rate, p50, p95, p99 or ratio.
    #[arg(long, default_value = "series")]
    sort: Sort,
    /// Show only series whose name contains this.
    #[arg(long, default_value = "")]
    filter: String,
}

/// What came of following the aggregator.
#[derive(Clone, Debug, Default)]
struct Heard {
    snapshot: Value,
    /// Why nothing is heard now.
    lost: Option<String>,
}

/// Watches until `q`.
#[allow(clippy::print_stderr)]
pub(crate) fn run(args: &Args) -> Exit {
    let token = match args.token_file.as_ref().map(std::fs::read_to_string).transpose() {
        Ok(token) => token,
        Err(error) => {
            eprintln!("lens top: the token's file cannot be read: {error}");
            return Exit::Usage;
        }
    };
    if !args.json && !std::io::stdout().is_terminal() {
        eprintln!("lens top: standard output is no terminal: use --json, or lens status");
        return Exit::Usage;
    }
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("lens top: no runtime: {error}");
                return Exit::Internal;
            }
        };
    if args.json {
        return runtime.block_on(print_lines(&args.url, token.as_deref()));
    }
    let (to, heard) = watch::channel(Heard::default());
    let (ask, asked) = watch::channel(None);
    let (tell, spectrum) = watch::channel(Value::Null);
    runtime.spawn(follow(args.url.clone(), token.clone(), to));
    runtime.spawn(spectra(args.url.clone(), token, asked, tell));
    let mut view = View::new(&args.url, args.sort, &args.filter);
    let mut terminal = ratatui::init();
    let ended = watch_keys(&mut terminal, &mut view, heard, &ask, spectrum);
    ratatui::restore();
    runtime.shutdown_background();
    match ended {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("lens top: the terminal: {error}");
            Exit::Internal
        }
    }
}

/// Follows the stream for as long as this runs; what is lost is found again.
async fn follow(url: String, token: Option<String>, to: watch::Sender<Heard>) {
    loop {
        let (inner, mut each) = watch::channel(Value::Null);
        let lost = tokio::select! {
            ended = snapshots::follow(&url, token.as_deref(), &inner) => ended.err(),
            () = async {
                while each.changed().await.is_ok() {
                    let snapshot = each.borrow_and_update().clone();
                    to.send_replace(Heard { snapshot, lost: None });
                }
            } => None,
        };
        to.send_modify(|heard| heard.lost = lost.or(Some("ended the event stream".into())));
        tokio::time::sleep(AGAIN).await;
    }
}

/// Asks for the spectrum of the series that is wanted, over and over.
async fn spectra(
    url: String,
    token: Option<String>,
    mut asked: watch::Receiver<Option<String>>,
    tell: watch::Sender<Value>,
) {
    let client = reqwest::Client::new();
    loop {
        let wanted = asked.borrow_and_update().clone();
        if let Some(query) = wanted {
            let address = format!("{}/api/v1/histogram?{query}", url.trim_end_matches('/'));
            let mut request = client.get(address).timeout(AGAIN * 5);
            if let Some(token) = &token {
                request = request.bearer_auth(token.trim());
            }
            if let Ok(answer) = request.send().await
                && let Ok(spectrum) = answer.json().await
            {
                tell.send_replace(spectrum);
            }
        }
        tokio::select! {
            changed = asked.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn watch_keys(
    terminal: &mut ratatui::DefaultTerminal,
    view: &mut View,
    mut heard: watch::Receiver<Heard>,
    ask: &watch::Sender<Option<String>>,
    mut spectrum: watch::Receiver<Value>,
) -> std::io::Result<()> {
    loop {
        // A snapshot may be megabytes: it is copied when it is new, not at every look.
        if heard.has_changed().unwrap_or(false) {
            let heard = heard.borrow_and_update();
            view.take(&heard.snapshot, heard.lost.as_deref());
        }
        if spectrum.has_changed().unwrap_or(false) {
            view.spectrum = spectrum.borrow_and_update().clone();
        }
        ask.send_if_modified(|asked| {
            let wanted = view.wanted();
            let changed = *asked != wanted;
            *asked = wanted;
            changed
        });
        terminal.draw(|frame| draw::draw(frame, view))?;
        if event::poll(LOOK)?
            && let Event::Key(key) = event::read()?
            && key.kind != KeyEventKind::Release
            && pressed(view, key)
        {
            return Ok(());
        }
    }
}

/// What a key does; whether it ends the program.
fn pressed(view: &mut View, key: KeyEvent) -> bool {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return key.code == KeyCode::Char('c');
    }
    if view.typing {
        match key.code {
            KeyCode::Enter => view.typing = false,
            KeyCode::Esc => {
                view.typing = false;
                view.filter.clear();
            }
            KeyCode::Backspace => drop(view.filter.pop()),
            KeyCode::Char(char) if view.filter.len() < view::FILTER_BYTES_MAX => {
                view.filter.push(char);
            }
            _ => {}
        }
        view.moved(0);
        return false;
    }
    match key.code {
        KeyCode::Char('q') => return true,
        KeyCode::Esc | KeyCode::Backspace => view.detail = false,
        KeyCode::Enter => view.detail = view.tab == Tab::Series,
        KeyCode::Char('?' | 'h') => view.help = !view.help,
        KeyCode::Char('/') => view.typing = true,
        KeyCode::Char('s') => view.sort = view.sort.next(),
        KeyCode::Char('r') => view.reverse = !view.reverse,
        KeyCode::Tab => view.tab = view.tab.next(),
        KeyCode::Char('1') => view.tab = Tab::Series,
        KeyCode::Char('2') => view.tab = Tab::Alerts,
        KeyCode::Char('3') => view.tab = Tab::Agents,
        KeyCode::Char('4') => view.tab = Tab::Canary,
        KeyCode::Down | KeyCode::Char('j') => view.moved(1),
        KeyCode::Up | KeyCode::Char('k') => view.moved(-1),
        KeyCode::PageDown => view.moved(10),
        KeyCode::PageUp => view.moved(-10),
        KeyCode::Home => view.moved(isize::MIN),
        KeyCode::End => view.moved(isize::MAX),
        _ => {}
    }
    false
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
async fn print_lines(url: &str, token: Option<&str>) -> Exit {
    let (to, mut from) = watch::channel(Value::Null);
    tokio::select! {
        ended = snapshots::follow(url, token, &to) => {
            let why = ended.err().unwrap_or_else(|| "ended the event stream".into());
            eprintln!("lens top: {url}: {why}");
            Exit::Unreachable
        }
        () = async {
            use std::io::Write;
            while from.changed().await.is_ok() {
                let line = from.borrow_and_update().to_string();
                // Whoever closed the pipe has seen enough.
                if writeln!(std::io::stdout(), "{line}").is_err() {
                    return;
                }
            }
        } => Exit::Done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(view: &mut View, keys: &str) -> bool {
        let press = |view: &mut View, char| {
            let code = match char {
                '\n' => KeyCode::Enter,
                '\x1b' => KeyCode::Esc,
                char => KeyCode::Char(char),
            };
            pressed(view, KeyEvent::new(code, KeyModifiers::NONE))
        };
        keys.chars().fold(false, |ended, char| ended | press(view, char))
    }

    #[test]
    fn keys_sort_filter_open_and_end() {
        let mut view = View::new("http://here", Sort::Series, "");
        assert!(!press(&mut view, "sss"));
        assert_eq!(view.sort, Sort::P50);
        assert!(!press(&mut view, "/ruqs\n"));
        assert_eq!(view.filter, "ruqs", "letters are text while a filter is typed");
        press(&mut view, "/x\x1b");
        assert_eq!(view.filter, "");
        press(&mut view, "\n");
        assert!(view.detail);
        press(&mut view, "\x1b3\n");
        assert!(!view.detail && view.tab == Tab::Agents);
        assert!(press(&mut view, "q"));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert!(pressed(&mut view, control));
    }

    #[test]
    fn a_filter_never_grows_without_end() {
        let mut view = View::new("http://here", Sort::Series, "");
        press(&mut view, "/");
        press(&mut view, &"x".repeat(view::FILTER_BYTES_MAX * 2));
        assert_eq!(view.filter.len(), view::FILTER_BYTES_MAX);
    }
}
