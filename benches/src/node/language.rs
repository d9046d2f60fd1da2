//! Which programming language a file is in, by its extension.

use std::path::Path;

use serde::Serialize;

/// The languages the node indexes; other files are not source and are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust.
    Rust,
    /// C, headers included.
    C,
    /// C++.
    Cpp,
    /// Python.
    Python,
    /// TypeScript.
    TypeScript,
    /// JavaScript.
    JavaScript,
    /// Go.
    Go,
    /// Java and Kotlin.
    Java,
    /// Ruby.
    Ruby,
}

impl Language {
    /// The language of a path, if its extension is that of a source file.
    pub fn of_path(path: &Path) -> Option<Self> {
        Some(match path.extension()?.to_str()? {
            "rs" => Self::Rust,
            "c" | "h" => Self::C,
            "cc" | "cpp" | "cxx" | "hpp" | "hh" | "hxx" => Self::Cpp,
            "py" | "pyi" => Self::Python,
            "ts" | "tsx" | "mts" => Self::TypeScript,
            "js" | "jsx" | "mjs" | "cjs" => Self::JavaScript,
            "go" => Self::Go,
            "java" | "kt" => Self::Java,
            "rb" => Self::Ruby,
            _ => return None,
        })
    }

    /// The name used in slices and answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::C => "c",
            Self::Cpp => "cpp",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::JavaScript => "javascript",
            Self::Go => "go",
            Self::Java => "java",
            Self::Ruby => "ruby",
        }
    }
}
