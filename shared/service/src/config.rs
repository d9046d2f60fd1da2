//! One way of configuring every program: defaults, then a TOML file, then the environment, then
//! flags, the later winning; every problem reported at once, each naming the key, where it came
//! from and what would be right.
//!
//! A program lists its keys once, as a table of [`Key`]; the defaults, the nearest-key hints, the
//! environment's names, `--check-config` and `--print-config` all follow from that table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use thiserror::Error;
use toml::Value;

/// Largest configuration file read, bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Most tables in one array of tables.
pub const TABLES_MAX: usize = 64;

/// What a key may hold.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path, taken relative to the working directory.
    Path,
    /// A whole number within bounds, both included.
    Integer {
        /// Smallest allowed.
        min: i64,
        /// Largest allowed.
        max: i64,
    },
    /// A number within bounds, both included.
    Float {
        /// Smallest allowed.
        min: f64,
        /// Largest allowed.
        max: f64,
    },
    /// Yes or no, `true` or `false`.
    Switch,
    /// An address and port, such as `127.0.0.1:3000`.
    Address,
    /// A list of texts; in the environment and in flags separated by commas.
    List,
    /// A table of texts, such as labels.
    Labels,
    /// An array of tables, `[[section.key]]`, each with these keys; at most [`TABLES_MAX`] of them.
    /// In the environment and in flags a table is named by its place: `section.key.0.name`.
    Tables(&'static [Key]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text => f.write_str("a text"),
            Self::Path => f.write_str("a path"),
            Self::Integer { min, max } => write!(f, "a whole number from {min} to {max}"),
            Self::Float { min, max } => write!(f, "a number from {min} to {max}"),
            Self::Switch => f.write_str("true or false"),
            Self::Address => f.write_str("an address and port such as 127.0.0.1:3000"),
            Self::List => f.write_str("a list of texts"),
            Self::Labels => f.write_str("a table of texts"),
            Self::Tables(_) => f.write_str("an array of tables"),
        }
    }
}

/// One configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its path, `section.key`.
    pub path: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// Its default as TOML, or `None` when it has none and stays unset.
    pub default: Option<&'static str>,
    /// What it does, with unit and reason, for `--print-config`.
    pub doc: &'static str,
}

/// One thing wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{origin}: {what}")]
pub struct Problem {
    /// The file, variable or flag at fault.
    pub origin: String,
    /// What was wrong and what would be right.
    pub what: String,
}

/// Everything wrong with a configuration, in the order found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noun = if self.0.len() == 1 { "problem" } else { "problems" };
        write!(f, "{} {noun} in the configuration:", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// A checked configuration: every key of the table that has a value.
#[derive(Clone, Debug)]
pub struct Settings {
    keys: &'static [Key],
    values: BTreeMap<&'static str, (Value, String)>,
    tables: BTreeMap<&'static str, Vec<Self>>,
}

/// Where a configuration is read from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file, if one was named.
    pub file: Option<PathBuf>,
    /// The environment; only variables that begin with the program's prefix are looked at.
    pub environment: Vec<(String, String)>,
    /// Flags as `section.key` and text.
    pub flags: Vec<(String, String)>,
}

impl Settings {
    /// Reads and checks everything.
    ///
    /// `prefix` is the program's, such as `LENS_AGENT`: its variables are `LENS_AGENT__SECTION__KEY`.
    ///
    /// # Errors
    /// [`Problems`] with every fault found in every source.
    pub fn load(keys: &'static [Key], prefix: &str, sources: &Sources) -> Result<Self, Problems> {
        let mut reader = Reader::new(keys);
        if let Some(file) = &sources.file {
            reader.file(file);
        }
        let lead = format!("{prefix}__");
        for (name, text) in &sources.environment {
            if let Some(rest) = name.strip_prefix(&lead) {
                let path = rest.to_ascii_lowercase().replace("__", ".");
                reader.text(&path, text, name);
            }
        }
        for (path, text) in &sources.flags {
            reader.text(path, text, &format!("--set {path}"));
        }
        let (settings, problems) = reader.finish();
        if problems.is_empty() { Ok(settings) } else { Err(Problems(problems)) }
    }

    fn value(&self, path: &str) -> Option<&Value> {
        debug_assert!(self.keys.iter().any(|key| key.path == path), "{path} is not in the table");
        self.values.get(path).map(|(value, _)| value)
    }

    /// A text or path that has a default or may be unset.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.value(path)?.as_str()
    }

    /// A path.
    pub fn path(&self, path: &str) -> Option<PathBuf> {
        self.text(path).map(PathBuf::from)
    }

    /// A whole number; 0 for a key without value, which a table with defaults does not have.
    pub fn integer(&self, path: &str) -> u64 {
        let value = self.value(path).and_then(Value::as_integer).unwrap_or(0);
        u64::try_from(value).unwrap_or(0)
    }

    /// A number.
    pub fn float(&self, path: &str) -> f64 {
        match self.value(path) {
            Some(Value::Float(value)) => *value,
            #[allow(clippy::cast_precision_loss)]
            Some(Value::Integer(value)) => *value as f64,
            _ => 0.0,
        }
    }

    /// A switch; off for a key without value.
    pub fn switch(&self, path: &str) -> bool {
        self.value(path).and_then(Value::as_bool).unwrap_or(false)
    }

    /// An address.
    pub fn address(&self, path: &str) -> Option<SocketAddr> {
        self.text(path)?.parse().ok()
    }

    /// A list of texts, empty when unset.
    pub fn list(&self, path: &str) -> Vec<String> {
        let items = self.value(path).and_then(Value::as_array).into_iter().flatten();
        items.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// A table of texts, empty when unset.
    pub fn labels(&self, path: &str) -> BTreeMap<String, String> {
        let table = self.value(path).and_then(Value::as_table).into_iter().flatten();
        table.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect()
    }

    /// The tables of an array of tables, in order; empty when there are none.
    pub fn tables(&self, path: &str) -> &[Self] {
        debug_assert!(self.keys.iter().any(|key| key.path == path), "{path} is not in the table");
        self.tables.get(path).map_or(&[], Vec::as_slice)
    }

    /// The effective configuration as commented TOML: each key with what it does and where its
    /// value came from. No key of this system holds a secret itself; keys are named by file.
    pub fn print(&self) -> String {
        let mut out = String::new();
        let mut section = "";
        let of_tables = |key: &&Key| matches!(key.kind, Kind::Tables(_));
        let section_of = |key: &Key| key.path.rsplit_once('.').map_or("", |(of, _)| of);
        let first = |of: &str| self.keys.iter().position(|key| section_of(key) == of);
        let mut keys: Vec<&Key> = self.keys.iter().filter(|key| !of_tables(key)).collect();
        // TOML takes a section once, wherever the table lists its keys.
        keys.sort_by_key(|key| first(section_of(key)));
        for key in keys {
            let (of, name) = key.path.rsplit_once('.').unwrap_or(("", key.path));
            if of != section {
                out.push_str(&format!("{}[{of}]\n", if section.is_empty() { "" } else { "\n" }));
                section = of;
            }
            match self.values.get(key.path) {
                Some((value, origin)) => {
                    out.push_str(&format!("# {} (from {origin})\n{name} = {value}\n", key.doc));
                }
                None => out.push_str(&format!("# {} (unset)\n# {name} =\n", key.doc)),
            }
        }
        for key in self.keys.iter().filter(of_tables) {
            out.push_str(&format!("\n# {}\n", key.doc));
            let tables = self.tables(key.path);
            if tables.is_empty() {
                out.push_str(&format!("# [[{}]]\n", key.path));
            }
            for table in tables {
                out.push_str(&format!("[[{}]]\n{}", key.path, table.print()));
            }
        }
        out
    }
}

struct Reader {
    keys: &'static [Key],
    values: BTreeMap<&'static str, (Value, String)>,
    tables: BTreeMap<&'static str, Vec<Self>>,
    problems: Vec<Problem>,
}

impl Reader {
    fn new(keys: &'static [Key]) -> Self {
        let (values, tables, problems) = Default::default();
        let mut reader = Self { keys, values, tables, problems };
        for key in keys {
            if let Some(default) = key.default {
                reader.text(key.path, default, "default");
            }
        }
        reader
    }

    /// What was read, and everything wrong with it, that of tables named by their place.
    fn finish(self) -> (Settings, Vec<Problem>) {
        let mut problems = self.problems;
        let mut tables = BTreeMap::new();
        for (path, readers) in self.tables {
            let mut read = Vec::new();
            for (place, reader) in readers.into_iter().enumerate() {
                let (settings, wrong) = reader.finish();
                read.push(settings);
                problems.extend(wrong.into_iter().map(|Problem { origin, what }| Problem {
                    origin: format!("{origin}, {path}[{place}]"),
                    what,
                }));
            }
            tables.insert(path, read);
        }
        (Settings { keys: self.keys, values: self.values, tables }, problems)
    }

    /// The table at this place of an array of tables, begun with those before it if need be.
    fn at(&mut self, path: &'static str, keys: &'static [Key], place: usize) -> Option<&mut Self> {
        let tables = self.tables.entry(path).or_default();
        while tables.len() <= place && place < TABLES_MAX {
            tables.push(Self::new(keys));
        }
        tables.get_mut(place)
    }

    /// The array of tables this path leads into, with the place and the rest of the path.
    fn within<'p>(&self, path: &'p str) -> Option<(&'static Key, usize, &'p str)> {
        let of = |key: &'static Key| {
            let rest = path.strip_prefix(key.path)?.strip_prefix('.')?;
            let (place, rest) = rest.split_once('.')?;
            Some((key, place.parse().ok()?, rest))
        };
        self.keys.iter().filter(|key| matches!(key.kind, Kind::Tables(_))).find_map(of)
    }

    fn array(&mut self, key: &'static Key, items: Vec<Value>, origin: &str) {
        let Kind::Tables(keys) = key.kind else { return };
        let (count, path) = (items.len(), key.path);
        if count > TABLES_MAX {
            return self
                .problem(origin, format!("{path} has {count} tables, more than {TABLES_MAX}"));
        }
        for (place, item) in items.into_iter().enumerate() {
            match item {
                Value::Table(table) => {
                    if let Some(reader) = self.at(path, keys, place) {
                        reader.table("", &table, origin);
                    }
                }
                other => {
                    self.problem(origin, format!("{path}[{place}] is {other}, expected a table"))
                }
            }
        }
    }

    fn problem(&mut self, origin: &str, what: String) {
        self.problems.push(Problem { origin: origin.to_owned(), what });
    }

    fn file(&mut self, file: &Path) {
        let origin = file.display().to_string();
        let text = match std::fs::metadata(file) {
            Ok(meta) if meta.len() > FILE_BYTES_MAX => {
                let what = format!("is {} bytes, more than {FILE_BYTES_MAX}", meta.len());
                return self.problem(&origin, what);
            }
            Ok(_) => std::fs::read_to_string(file),
            Err(error) => Err(error),
        };
        match text {
            Err(error) => self.problem(&origin, format!("cannot be read: {error}")),
            Ok(text) => match text.parse::<toml::Table>() {
                Err(error) => self.problem(&origin, format!("is not TOML: {error}")),
                Ok(table) => self.table("", &table, &origin),
            },
        }
    }

    fn table(&mut self, prefix: &str, table: &toml::Table, origin: &str) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            let known = self.keys.iter().any(|key| key.path == path);
            match value {
                Value::Table(inner) if !known => {
                    if self.is_section(&path) {
                        self.table(&path, inner, origin);
                    } else {
                        self.unknown(&path, origin);
                    }
                }
                value => self.set(&path, value.clone(), origin),
            }
        }
    }

    fn is_section(&self, path: &str) -> bool {
        let lead = format!("{path}.");
        self.keys.iter().any(|key| key.path.starts_with(&lead))
    }

    fn unknown(&mut self, path: &str, origin: &str) {
        let sections = self.keys.iter().filter_map(|key| key.path.rsplit_once('.')).map(|(s, _)| s);
        let candidates = self.keys.iter().map(|key| key.path).chain(sections);
        let nearest = nearest(path, candidates);
        let hint = nearest.map_or_else(String::new, |name| format!("; did you mean {name}?"));
        self.problem(origin, format!("unknown key {path}{hint}"));
    }

    /// A value given as text: read by the key's kind, so that `3000` can be a number or a text.
    fn text(&mut self, path: &str, text: &str, origin: &str) {
        if let Some((key, place, rest)) = self.within(path)
            && let Kind::Tables(keys) = key.kind
        {
            match self.at(key.path, keys, place) {
                Some(reader) => reader.text(rest, text, origin),
                None => self.problem(origin, format!("{path}: at most {TABLES_MAX} tables")),
            }
            return;
        }
        let Some(key) = self.keys.iter().find(|key| key.path == path) else {
            return self.unknown(path, origin);
        };
        let value = match key.kind {
            Kind::Text | Kind::Path | Kind::Address => Some(Value::String(text.to_owned())),
            Kind::Integer { .. } => text.trim().replace('_', "").parse().ok().map(Value::Integer),
            Kind::Float { .. } => text.trim().parse().ok().map(Value::Float),
            Kind::Switch => text.trim().parse().ok().map(Value::Boolean),
            Kind::List => Some(Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty())
                    .map(|item| Value::String(item.to_owned()))
                    .collect(),
            )),
            Kind::Labels => labels(text),
            Kind::Tables(_) => None,
        };
        match value {
            Some(value) => self.set(path, value, origin),
            None => self.problem(origin, format!("{path} is {text:?}, expected {}", key.kind)),
        }
    }

    fn set(&mut self, path: &str, value: Value, origin: &str) {
        let keys: &'static [Key] = self.keys;
        let Some(key) = keys.iter().find(|key| key.path == path) else {
            return self.unknown(path, origin);
        };
        if let (Kind::Tables(_), Value::Array(items)) = (key.kind, &value) {
            self.array(key, items.clone(), origin);
        } else if fits(key.kind, &value) {
            self.values.insert(key.path, (value, origin.to_owned()));
        } else {
            self.problem(origin, format!("{path} is {value}, expected {}", key.kind));
        }
    }
}

fn labels(text: &str) -> Option<Value> {
    let mut table = toml::Table::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        table.insert(name.trim().to_owned(), Value::String(value.trim().to_owned()));
    }
    Some(Value::Table(table))
}

fn fits(kind: Kind, value: &Value) -> bool {
    match (kind, value) {
        (Kind::Text | Kind::Path, Value::String(text)) => !text.contains('\0'),
        (Kind::Integer { min, max }, Value::Integer(value)) => (min..=max).contains(value),
        (Kind::Float { min, max }, Value::Float(value)) => (min..=max).contains(value),
        #[allow(clippy::cast_precision_loss)]
        (Kind::Float { min, max }, Value::Integer(value)) => (min..=max).contains(&(*value as f64)),
        (Kind::Switch, Value::Boolean(_)) => true,
        (Kind::Address, Value::String(text)) => text.parse::<SocketAddr>().is_ok(),
        (Kind::List, Value::Array(items)) => items.iter().all(Value::is_str),
        (Kind::Labels, Value::Table(table)) => table.values().all(Value::is_str),
        _ => false,
    }
}

/// The candidate nearest to a misspelt name, if any is near enough to be meant.
pub fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let score = |candidate: &&str| strsim::jaro_winkler(name, candidate);
    candidates
        .max_by(|a, b| score(a).total_cmp(&score(b)))
        .filter(|best| strsim::jaro_winkler(name, best) > 0.75)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const KEYS: &[Key] = &[
        Key {
            path: "harvest.interval_ms",
            kind: Kind::Integer { min: 100, max: 60_000 },
            default: Some("1000"),
            doc: "time between harvests, milliseconds",
        },
        Key {
            path: "admin.listen",
            kind: Kind::Address,
            default: Some("127.0.0.1:9470"),
            doc: "where the admin endpoints listen",
        },
        Key { path: "node.name", kind: Kind::Text, default: None, doc: "this host's name" },
        Key { path: "node.labels", kind: Kind::Labels, default: None, doc: "labels" },
        Key { path: "aggregator.endpoints", kind: Kind::List, default: None, doc: "where to ship" },
        Key { path: "node.disk", kind: Kind::Tables(DISK), default: None, doc: "its disks" },
    ];

    const DISK: &[Key] = &[
        Key { path: "path", kind: Kind::Path, default: None, doc: "where it is mounted" },
        Key {
            path: "gib",
            kind: Kind::Integer { min: 1, max: 9 },
            default: Some("4"),
            doc: "its size",
        },
    ];

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn load(
        text: &str,
        env: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Settings, Problems> {
        let file = file(text);
        let own = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: own(env),
            flags: own(flags),
        };
        Settings::load(KEYS, "LENS_AGENT", &sources)
    }

    #[test]
    fn the_later_source_wins_and_defaults_stand_in() {
        let settings = load(
            "[harvest]\ninterval_ms = 200\n[node]\nname = \"file\"\nlabels = { a = \"1\" }\n",
            &[("LENS_AGENT__NODE__NAME", "env"), ("OTHER__NODE__NAME", "no"), ("PATH", "/bin")],
            &[("aggregator.endpoints", "a:1, b:2")],
        )
        .unwrap();
        assert_eq!(settings.integer("harvest.interval_ms"), 200);
        assert_eq!(settings.text("node.name"), Some("env"));
        assert_eq!(settings.address("admin.listen").unwrap().port(), 9470);
        assert_eq!(settings.list("aggregator.endpoints"), ["a:1", "b:2"]);
        assert_eq!(settings.labels("node.labels")["a"], "1");
    }

    #[test]
    fn every_problem_is_reported_at_once_with_the_nearest_key() {
        let problems = load(
            "[harvest]\nintervall_ms = 5\ninterval_ms = 99\n[nodes]\nname = \"x\"\n",
            &[("LENS_AGENT__ADMIN__LISTEN", "nowhere")],
            &[("node.nam", "x")],
        )
        .unwrap_err();
        let text = problems.to_string();
        assert_eq!(problems.0.len(), 5, "{text}");
        for part in [
            "unknown key harvest.intervall_ms; did you mean harvest.interval_ms?",
            "harvest.interval_ms is 99, expected a whole number from 100 to 60000",
            "unknown key nodes; did you mean node?",
            "LENS_AGENT__ADMIN__LISTEN: admin.listen is \"nowhere\", expected an address",
            "unknown key node.nam; did you mean node.name?",
        ] {
            assert!(text.contains(part), "{part:?} missing in:\n{text}");
        }
    }

    #[test]
    fn what_is_printed_reads_back_as_the_same_configuration() {
        let settings = load("[node]\nname = \"x\"\n", &[], &[]).unwrap();
        let again = load(&settings.print(), &[], &[]).unwrap();
        assert_eq!(again.text("node.name"), Some("x"));
        assert_eq!(again.integer("harvest.interval_ms"), 1000);
        assert!(settings.print().contains("time between harvests"));
    }

    #[test]
    fn arrays_of_tables_are_read_from_every_source_and_print_as_they_read() {
        let settings = load(
            "[[node.disk]]\npath = \"/a\"\n[[node.disk]]\npath = \"/b\"\ngib = 2\n",
            &[("LENS_AGENT__NODE__DISK__1__GIB", "3"), ("LENS_AGENT__NODE__DISK__2__PATH", "/c")],
            &[("node.disk.2.gib", "9")],
        )
        .unwrap();
        let read = |settings: &Settings| -> Vec<(String, u64)> {
            let disks = settings.tables("node.disk").iter();
            disks.map(|disk| (disk.text("path").unwrap().into(), disk.integer("gib"))).collect()
        };
        let wanted = [("/a".into(), 4), ("/b".into(), 3), ("/c".into(), 9)];
        assert_eq!(read(&settings), wanted);
        assert_eq!(read(&load(&settings.print(), &[], &[]).unwrap()), wanted);
        assert_eq!(load("", &[], &[]).unwrap().tables("node.disk").len(), 0);
    }

    #[test]
    fn every_problem_of_every_table_is_named_by_its_place() {
        let text = "node.disk = [{ gib = 10 }, 7, { pth = \"x\" }]\n";
        let problems = load(text, &[], &[("node.disk.64.gib", "1"), ("node.disk.0.gib", "x")]);
        let text = problems.unwrap_err().to_string();
        for part in [
            "node.disk[0]: gib is 10, expected a whole number from 1 to 9",
            "node.disk[1] is 7, expected a table",
            "node.disk[2]: unknown key pth; did you mean path?",
            "node.disk.64.gib: at most 64 tables",
            "gib is \"x\", expected",
        ] {
            assert!(text.contains(part), "{part:?} missing in:\n{text}");
        }
        let many = "[[node.disk]]\n".repeat(TABLES_MAX + 1);
        assert!(load(&many, &[], &[]).unwrap_err().to_string().contains("more than 64"));
        load(&"[[node.disk]]\n".repeat(TABLES_MAX), &[], &[]).unwrap();
        assert!(load("node.disk = 7", &[], &[]).is_err());
    }

    #[test]
    fn a_file_that_is_missing_or_not_toml_is_named() {
        let sources = Sources { file: Some("/nonexistent/lens.toml".into()), ..Sources::default() };
        let problems = Settings::load(KEYS, "LENS_AGENT", &sources).unwrap_err();
        assert!(problems.to_string().contains("/nonexistent/lens.toml: cannot be read"));
        assert!(load("[harvest\n", &[], &[]).unwrap_err().to_string().contains("is not TOML"));
    }
}
