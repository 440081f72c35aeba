//! Makes `catalog/builtin.yaml`, the catalog that is compiled into mcp-broker.
//!
//! ```text
//! cargo run --example catalog-build              writes it
//! cargo run --example catalog-build -- --check   says whether it is what would be written
//! ```
//!
//! Facts (names of images, tools, environment variables, config properties …) are read from `docker-mcp.yaml` in the folder
//! that `MCP_BROKER_TEST_DATA` names. Sentences are ours: `texts/` has them. `packages.yaml` says what runs without a
//! container engine, `own.yaml` has entries of our own.
//!
//! The result is a catalog file like any other, with one entry a line, so that the broker finds an entry without reading
//! the others.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "what it says is for who runs it")]

mod mend;
mod merge;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};

type Failure = Box<dyn std::error::Error>;

const HEADER: &str = "\
# The catalog that is compiled into mcp-broker. Made by `make catalog` from facts and from our own words in texts/,
# packages.yaml and own.yaml: change those. One entry a line; the broker relies on that.
version: 3
name: builtin
displayName: mcp-broker's built-in catalog
registry:
";

/// What we say of a server.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    description: String,
    phrases: Vec<String>,
    #[serde(default)]
    tools: BTreeMap<String, String>,
}

/// `own.yaml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    entries: BTreeMap<String, Map<String, Value>>,
    optional_secrets: BTreeMap<String, Vec<String>>,
}

#[derive(Deserialize)]
struct Facts {
    registry: BTreeMap<String, Map<String, Value>>,
}

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return failed(&format!("`{other}` is not understood: nothing, or --check")),
    };
    let Some(data) = std::env::var_os("MCP_BROKER_TEST_DATA").map(PathBuf::from) else {
        if check {
            println!("catalog/builtin.yaml: not compared with the facts, which MCP_BROKER_TEST_DATA does not name");
            return ExitCode::SUCCESS;
        }
        return failed("MCP_BROKER_TEST_DATA has to name the folder with docker-mcp.yaml");
    };
    match run(&data, check) {
        Ok(said) => {
            println!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => failed(&error.to_string()),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

fn run(data: &Path, check: bool) -> Result<String, Failure> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("catalog");
    let facts: Facts = read(&data.join("docker-mcp.yaml"))?;
    let texts = texts(&folder.join("texts"))?;
    let own: Own = read(&folder.join("own.yaml"))?;
    let packages: BTreeMap<String, Map<String, Value>> = read(&folder.join("packages.yaml"))?;
    let made = merge::merge(&facts.registry, texts, own, packages)?;
    let mut built = HEADER.to_owned();
    for (name, entry) in &made {
        built.push_str(&format!("  {}: {}\n", serde_json::to_string(name)?, serde_json::to_string(entry)?));
    }
    let target = folder.join("builtin.yaml");
    if !check {
        fs::write(&target, &built)?;
        return Ok(format!("catalog/builtin.yaml: {} entries, {} bytes", made.len(), built.len()));
    }
    if fs::read_to_string(&target)? == built {
        return Ok(format!("catalog/builtin.yaml: {} entries, as the facts and texts have them", made.len()));
    }
    Err("catalog/builtin.yaml is not what its sources make: run `make catalog`, and commit it".into())
}

fn texts(folder: &Path) -> Result<BTreeMap<String, Text>, Failure> {
    let mut texts = BTreeMap::new();
    for file in fs::read_dir(folder)? {
        let path = file?.path();
        for (name, text) in read::<BTreeMap<String, Text>>(&path)? {
            if texts.insert(name.clone(), text).is_some() {
                return Err(format!("{}: there is a text for {name} already", path.display()).into());
            }
        }
    }
    Ok(texts)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, Failure> {
    let named = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let text = fs::read_to_string(path).map_err(|error| named(&error))?;
    serde_saphyr::from_str(&text).map_err(|error| named(&error).into())
}
