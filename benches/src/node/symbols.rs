//! Finds the definitions in a source file, line by line, per language.
//!
//! A hand-written scanner and no parser: it looks for the words that introduce a definition at
//! the beginning of a line. It misses what spans lines in unusual ways and never fails, which is
//! the right trade for an index of thousands of files in nine languages.

use serde::Serialize;

use super::language::Language;

/// Definitions taken from one file; a file with more is generated.
pub const SYMBOLS_PER_FILE_MAX: usize = 2_000;

/// What a symbol is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SymbolKind {
    /// A function or method.
    Function,
    /// A struct, class, record, union.
    Type,
    /// An enumeration.
    Enum,
    /// A trait, interface or protocol.
    Interface,
    /// A type alias.
    Alias,
    /// A module or namespace.
    Module,
    /// A constant or static.
    Constant,
    /// A macro.
    Macro,
}

/// One definition in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it is.
    pub kind: SymbolKind,
    /// Its line, from 1.
    pub line: u32,
    /// The column of its name, bytes from 0.
    pub column: u32,
}

/// The definitions of a file, in order of lines.
pub fn extract(language: Language, text: &str) -> Vec<Definition<'_>> {
    let mut found = Vec::new();
    let mut in_comment = false;
    for (at, line) in text.lines().enumerate() {
        if found.len() >= SYMBOLS_PER_FILE_MAX {
            break;
        }
        let body = line.trim_start();
        if language_has_block_comments(language) {
            if in_comment {
                in_comment = !body.contains("*/");
                continue;
            }
            if body.starts_with("/*") {
                in_comment = !body.contains("*/");
                continue;
            }
        }
        if body.starts_with("//") || (body.starts_with('#') && !body.starts_with("#define")) {
            continue;
        }
        let indented = body.len() < line.len();
        let definition = match language {
            Language::Rust => rust(body),
            Language::Python => python(body),
            Language::Ruby => ruby(body),
            Language::Go => go(body),
            Language::TypeScript | Language::JavaScript => script(body, indented),
            Language::Java => java(body),
            Language::C | Language::Cpp => c(body, indented),
        };
        if let Some((kind, rest)) = definition
            && let Some(name) = leading_identifier(rest)
        {
            let column = name.as_ptr() as usize - line.as_ptr() as usize;
            let line = crate::numbers::index32(at + 1);
            found.push(Definition { name, kind, line, column: crate::numbers::index32(column) });
        }
    }
    found
}

const fn language_has_block_comments(language: Language) -> bool {
    !matches!(language, Language::Python | Language::Ruby)
}

/// The identifier at the start of `text`, if it begins like one.
fn leading_identifier(text: &str) -> Option<&str> {
    let end = text
        .bytes()
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'))
        .unwrap_or(text.len());
    let name = &text[..end];
    (name.len() > 1 && !name.starts_with(|c: char| c.is_ascii_digit())).then_some(name)
}

/// `text` after `word` and the blanks that must follow it.
fn after_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let rest = text.strip_prefix(word)?;
    let trimmed = rest.trim_start();
    (trimmed.len() < rest.len()).then_some(trimmed)
}

/// `text` without any number of the leading `words`.
fn without_words<'a>(mut text: &'a str, words: &[&str]) -> &'a str {
    while let Some(rest) = words.iter().find_map(|word| after_word(text, word)) {
        text = rest;
    }
    text
}

/// The first of `keywords` that `text` begins with, and what follows it.
fn keyword<'a>(text: &'a str, keywords: &[(&str, SymbolKind)]) -> Option<(SymbolKind, &'a str)> {
    keywords.iter().find_map(|(word, kind)| after_word(text, word).map(|rest| (*kind, rest)))
}

fn rust(line: &str) -> Option<(SymbolKind, &str)> {
    let mut text = line;
    if let Some(rest) = text.strip_prefix("pub") {
        text = match rest.strip_prefix('(') {
            Some(scope) => scope.split_once(')')?.1.trim_start(),
            None => rest.trim_start(),
        };
    }
    if let Some(rest) = text.strip_prefix("macro_rules!") {
        return Some((SymbolKind::Macro, rest.trim_start()));
    }
    // `const fn` is a function, `const X` a constant: try the function with its modifiers first.
    let modified = without_words(
        text,
        &["default", "const", "async", "unsafe", "safe", "extern", "\"C\"", "\"system\""],
    );
    if let Some(rest) = after_word(modified, "fn") {
        return Some((SymbolKind::Function, rest));
    }
    let text = without_words(text, &["unsafe", "auto"]);
    let (kind, rest) = keyword(
        text,
        &[
            ("struct", SymbolKind::Type),
            ("union", SymbolKind::Type),
            ("enum", SymbolKind::Enum),
            ("trait", SymbolKind::Interface),
            ("type", SymbolKind::Alias),
            ("mod", SymbolKind::Module),
            ("const", SymbolKind::Constant),
            ("static", SymbolKind::Constant),
        ],
    )?;
    Some((kind, after_word(rest, "mut").unwrap_or(rest)))
}

fn python(line: &str) -> Option<(SymbolKind, &str)> {
    let text = without_words(line, &["async"]);
    keyword(text, &[("def", SymbolKind::Function), ("class", SymbolKind::Type)])
}

fn ruby(line: &str) -> Option<(SymbolKind, &str)> {
    let (kind, rest) = keyword(
        line,
        &[
            ("def", SymbolKind::Function),
            ("class", SymbolKind::Type),
            ("module", SymbolKind::Module),
        ],
    )?;
    Some((kind, rest.strip_prefix("self.").unwrap_or(rest)))
}

fn go(line: &str) -> Option<(SymbolKind, &str)> {
    if let Some(rest) = after_word(line, "func") {
        let name = match rest.strip_prefix('(') {
            Some(receiver) => receiver.split_once(')')?.1.trim_start(),
            None => rest,
        };
        return Some((SymbolKind::Function, name));
    }
    if let Some(rest) = after_word(line, "type") {
        let kind =
            if rest.contains(" interface") { SymbolKind::Interface } else { SymbolKind::Type };
        return Some((kind, rest));
    }
    keyword(line, &[("const", SymbolKind::Constant)])
}

fn script(line: &str, indented: bool) -> Option<(SymbolKind, &str)> {
    let text = without_words(line, &["export", "default", "declare", "abstract", "async"]);
    if let Some(rest) = text.strip_prefix("function") {
        let name = rest.trim_start().trim_start_matches('*').trim_start();
        return (name.len() < rest.len()).then_some((SymbolKind::Function, name));
    }
    let (kind, rest) = keyword(
        text,
        &[
            ("class", SymbolKind::Type),
            ("interface", SymbolKind::Interface),
            ("enum", SymbolKind::Enum),
            ("type", SymbolKind::Alias),
            ("namespace", SymbolKind::Module),
            ("const", SymbolKind::Constant),
        ],
    )?;
    match kind {
        // A constant inside a function is a local; one at the top may be a function in disguise.
        SymbolKind::Constant if indented => None,
        SymbolKind::Constant if rest.contains("=>") => Some((SymbolKind::Function, rest)),
        _ => Some((kind, rest)),
    }
}

fn java(line: &str) -> Option<(SymbolKind, &str)> {
    let modifiers = [
        "public",
        "private",
        "protected",
        "internal",
        "static",
        "final",
        "abstract",
        "sealed",
        "open",
        "override",
        "suspend",
        "data",
        "inline",
    ];
    keyword(
        without_words(line, &modifiers),
        &[
            ("class", SymbolKind::Type),
            ("record", SymbolKind::Type),
            ("object", SymbolKind::Type),
            ("interface", SymbolKind::Interface),
            ("enum", SymbolKind::Enum),
            ("fun", SymbolKind::Function),
        ],
    )
}

fn c(line: &str, indented: bool) -> Option<(SymbolKind, &str)> {
    if let Some(rest) = after_word(line, "#define") {
        return Some((SymbolKind::Macro, rest));
    }
    let text = without_words(line, &["typedef", "static", "inline", "extern", "template<>"]);
    let declared = keyword(
        text,
        &[
            ("struct", SymbolKind::Type),
            ("class", SymbolKind::Type),
            ("union", SymbolKind::Type),
            ("enum", SymbolKind::Enum),
            ("namespace", SymbolKind::Module),
        ],
    );
    if let Some((_, rest)) = declared
        && rest.contains('{')
        && !rest.contains('(')
    {
        return declared;
    }
    // A function begins at the margin, has its name right before the first parenthesis, and is
    // no declaration or call: neither a semicolon nor an assignment.
    if indented || text.ends_with(';') {
        return None;
    }
    let (head, _) = text.split_once('(')?;
    let head = head.trim_end();
    let start = head
        .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .map_or(0, |at| at + head[at..].chars().next().map_or(1, char::len_utf8));
    let name = &head[start..];
    let control = ["if", "for", "while", "switch", "return", "defined", "sizeof"];
    let plausible = start > 0 && !head.contains('=') && !control.contains(&name);
    (plausible && !name.is_empty()).then(|| (SymbolKind::Function, &text[start..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(language: Language, text: &str) -> Vec<(&str, SymbolKind, u32)> {
        extract(language, text).iter().map(|d| (d.name, d.kind, d.line)).collect()
    }

    #[test]
    fn rust_definitions_are_found_with_their_modifiers() {
        let text = "/* fn not_this() */\npub(crate) const unsafe fn open_file(a: u8) {}\n\
            // fn nor_this()\nstruct Widget<T>(T);\n    pub async fn poll_it() {}\n\
            macro_rules! give { () => {} }\npub static mut COUNT: u8 = 0;\nconst MAX: u8 = 1;\n\
            pub trait Shape {}\nimpl Shape for Widget<u8> {}\nlet fnord = 1;\ntype Alias = u8;";
        assert_eq!(
            names(Language::Rust, text),
            [
                ("open_file", SymbolKind::Function, 2),
                ("Widget", SymbolKind::Type, 4),
                ("poll_it", SymbolKind::Function, 5),
                ("give", SymbolKind::Macro, 6),
                ("COUNT", SymbolKind::Constant, 7),
                ("MAX", SymbolKind::Constant, 8),
                ("Shape", SymbolKind::Interface, 9),
                ("Alias", SymbolKind::Alias, 12),
            ]
        );
        assert_eq!(extract(Language::Rust, "pub fn héllo() {}\n  fn abc() {}")[0].column, 5);
    }

    #[test]
    fn c_functions_types_and_macros_are_found_and_calls_are_not() {
        let text = "#define LIMIT 5\nstatic int read_all(int fd)\n{\n    call_me(fd);\n}\n\
            int declared(void);\ntypedef struct node {\n};\nif (x) {\nx = make(y)\n/*\nint no(x)\n*/\n\
            char *name_of(int x) {";
        assert_eq!(
            names(Language::C, text),
            [
                ("LIMIT", SymbolKind::Macro, 1),
                ("read_all", SymbolKind::Function, 2),
                ("node", SymbolKind::Type, 7),
                ("name_of", SymbolKind::Function, 14),
            ]
        );
    }

    #[test]
    fn python_go_and_scripts_have_their_definitions_found() {
        let python = "# def no\nclass Box:\n    async def fill(self):\n        pass";
        assert_eq!(
            names(Language::Python, python),
            [("Box", SymbolKind::Type, 2), ("fill", SymbolKind::Function, 3)]
        );
        let go = "func (s *Server) Serve() {}\ntype Handler interface {}\nfunc main() {}";
        assert_eq!(
            names(Language::Go, go),
            [
                ("Serve", SymbolKind::Function, 1),
                ("Handler", SymbolKind::Interface, 2),
                ("main", SymbolKind::Function, 3)
            ]
        );
        let script = "export default async function load() {}\nexport const sum = (a) => a;\n  \
            const local = 1;\nexport interface Point {}\nfunctional();";
        assert_eq!(
            names(Language::TypeScript, script),
            [
                ("load", SymbolKind::Function, 1),
                ("sum", SymbolKind::Function, 2),
                ("Point", SymbolKind::Interface, 4)
            ]
        );
    }

    #[test]
    fn no_text_makes_the_scanner_fail() {
        let nasty = ["", "pub(", "fn", "fn ", "func (", "é(", "(", "#define", "x\u{0}y(", "ß= (é("];
        for language in [Language::Rust, Language::C, Language::Go, Language::Java, Language::Ruby]
        {
            for text in nasty {
                assert!(extract(language, text).len() <= 1);
            }
        }
    }
}
