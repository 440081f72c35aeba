//! A catalog of fixture servers, each with the environment that makes it what the story needs.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

/// The folder with the examples of this build.
fn examples() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows where it is");
    test.parent().and_then(Path::parent).expect("tests are in target/<profile>/deps").join("examples")
}

/// The fixture server of this build.
pub fn fixture_server() -> PathBuf {
    let path = examples().join("fixture-server");
    assert!(path.exists(), "{} is not built: run `cargo build --examples`", path.display());
    path
}

/// A catalog file in the making.
#[derive(Default)]
pub struct FixtureCatalog {
    yaml: String,
}

impl FixtureCatalog {
    pub fn new() -> Self {
        Self { yaml: "registry:\n".to_owned() }
    }

    /// A fixture server on stdio, started with `arguments` and `environment`.
    pub fn server(self, name: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        self.entry(name, arguments, environment, "")
    }

    /// The same with further lines of the entry, indented by four.
    pub fn entry(mut self, name: &str, arguments: &[&str], environment: &[(&str, &str)], more: &str) -> Self {
        let program = fixture_server().display().to_string();
        let command: Vec<String> =
            std::iter::once(program.as_str()).chain(["stdio"]).chain(arguments.iter().copied()).map(quoted).collect();
        let _ = writeln!(self.yaml, "  {}:", quoted(name));
        let _ =
            writeln!(self.yaml, "    title: The fixture {name}\n    description: A server for tests called {name}.");
        let _ = writeln!(self.yaml, "    command: [{}]", command.join(", "));
        if !environment.is_empty() {
            let _ = writeln!(self.yaml, "    env:");
            for (variable, value) in environment {
                let _ = writeln!(self.yaml, "      - {{name: {variable}, value: {}}}", quoted(value));
            }
        }
        if !more.is_empty() {
            let _ = writeln!(self.yaml, "{more}");
        }
        self
    }

    /// A server in a container, with further lines of the entry, indented by four.
    pub fn image(mut self, name: &str, image: &str, more: &str) -> Self {
        let _ = writeln!(self.yaml, "  {}:\n    title: The image {name}\n    image: {}", quoted(name), quoted(image));
        if !more.is_empty() {
            let _ = writeln!(self.yaml, "{more}");
        }
        self
    }

    /// Any entry at all.
    pub fn raw(mut self, name: &str, yaml: &str) -> Self {
        let _ = writeln!(self.yaml, "  {}: {yaml}", quoted(name));
        self
    }

    pub fn write(&self, folder: &Path) -> PathBuf {
        let path = folder.join("fixtures.yaml");
        std::fs::write(&path, &self.yaml).expect("the catalog can be written");
        path
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}
