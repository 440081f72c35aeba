//! A service's `volumes`, short and long: folders of this machine, and volumes of the session's own.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{is_showable, service::Service};
use crate::{catalog::entry::Bind, supervisor::permitted};

/// Options of the short form that say nothing here: SELinux labels, and how other systems cache.
const LET_BE: [&str; 5] = ["z", "Z", "cached", "delegated", "consistent"];

/// Something that is mounted.
struct Mount {
    source: Source,
    target: String,
    read_only: bool,
}

enum Source {
    Folder(PathBuf),
    Volume(String),
    /// A volume without a name, which is nobody's afterwards.
    Nothing,
}

impl Service<'_> {
    /// Reads the volumes.
    pub(super) fn volumes(&mut self, volumes: &Value) {
        let Some(volumes) = volumes.as_array() else {
            return self.error("volumes", "has to be a list");
        };
        for (at, volume) in volumes.iter().enumerate() {
            let at = format!("volumes[{at}]");
            let outcome = match volume {
                Value::String(written) => match self.text(&at, written) {
                    Some(filled) => {
                        let said = Said::of(written, &[written]);
                        short(&filled, &said).and_then(|mount| self.mount(mount, &said))
                    }
                    None => continue,
                },
                Value::Object(fields) => match self.filled(&at, fields) {
                    Some(filled) => {
                        let text = |key: &str| fields.get(key).and_then(Value::as_str).unwrap_or_default();
                        let written = format!("{} at {}", text("source"), text("target"));
                        let said = Said::of(&written, &fields.values().filter_map(Value::as_str).collect::<Vec<_>>());
                        long(&filled, &said).and_then(|mount| self.mount(mount, &said))
                    }
                    None => continue,
                },
                _ => Err("has to be text, or type, source and target".to_owned()),
            };
            if let Err(problem) = outcome {
                self.error(&at, problem);
            }
        }
    }

    fn filled(&mut self, at: &str, fields: &Map<String, Value>) -> Option<Map<String, Value>> {
        let mut filled = Map::new();
        for (key, value) in fields {
            let value = match value {
                Value::String(text) => Value::String(self.text(&format!("{at}.{key}"), text)?),
                other => other.clone(),
            };
            filled.insert(key.clone(), value);
        }
        Some(filled)
    }

    fn mount(&mut self, mount: Mount, said: &Said<'_>) -> Result<(), String> {
        let Mount { source, target, read_only } = mount;
        if !target.starts_with('/') {
            return Err(format!("`{}` is not an absolute path in the container", said.part(&target)));
        }
        match source {
            Source::Nothing => {
                self.warning("volumes", format!("{}: a volume without a name is not made", said.part(&target)));
            }
            Source::Volume(name) if !self.declares(&name) => {
                return Err(format!(
                    "there is no volume `{0}` in the file's `volumes`; a folder is written `./{0}`",
                    said.part(&name)
                ));
            }
            Source::Volume(name) => {
                self.warning("volumes", format!("`{}` is each session's own, and ends with it", said.part(&name)));
                self.shows(&match said.written {
                    Some(written) => format!("volume {written}"),
                    None => format!("volume {name} at {target}"),
                });
                let mode = if read_only { ":ro" } else { "" };
                self.definition.volumes.push(format!("{name}:{target}{mode}"));
            }
            Source::Folder(path) => {
                let source = self.resolved(&path, said)?;
                let whole = format!("mounts {} at {target}", source.display());
                let what = match said.written {
                    Some(written) => {
                        self.leads(&whole);
                        format!("mounts {written}")
                    }
                    None => whole,
                };
                self.shows(&format!("{what}{}", if read_only { "" } else { ", writable" }));
                self.definition.binds.push(Bind { source, target, read_only });
            }
        }
        Ok(())
    }

    /// A path of the file's, which is relative to its folder, with links followed.
    fn resolved(&mut self, path: &Path, said: &Said<'_>) -> Result<PathBuf, String> {
        let path = match path.strip_prefix("~") {
            Ok(rest) => match self.variable("HOME") {
                Some(home) => {
                    self.uses(&BTreeSet::from(["HOME".to_owned()]));
                    Path::new(&home).join(rest)
                }
                None => return Err("`~` is used, and no home folder is known".to_owned()),
            },
            Err(_) => self.folder().join(path),
        };
        let name = |path: &Path| said.part(&path.display().to_string());
        let resolved = path.canonicalize().map_err(|_| format!("there is no {}", name(&path)))?;
        if !is_showable(&resolved) {
            return Err(format!("{} has characters that do not show, or is no text", name(&resolved)));
        }
        permitted(&resolved, None).map_err(|refused| match said.written {
            Some(written) => format!("a container never sees what {written} leads to"),
            None => refused.to_string(),
        })?;
        Ok(resolved)
    }
}

/// How a volume is spoken of before anybody has agreed: as it is written where its text has variables, whose values have no
/// place in that.
struct Said<'a> {
    written: Option<&'a str>,
}

impl<'a> Said<'a> {
    fn of(written: &'a str, texts: &[&str]) -> Self {
        let has_values = texts.iter().any(|text| text.contains('$') || text.starts_with('~'));
        Self { written: has_values.then_some(written) }
    }

    fn part(&self, text: &str) -> String {
        self.written.unwrap_or(text).escape_debug().to_string()
    }
}

fn short(text: &str, said: &Said<'_>) -> Result<Mount, String> {
    let (source, target, options) = match text.split(':').collect::<Vec<_>>()[..] {
        [target] => return Ok(Mount { source: Source::Nothing, target: target.to_owned(), read_only: false }),
        [source, target] => (source, target, ""),
        [source, target, options] => (source, target, options),
        _ => return Err(format!("`{}` is not source:target or source:target:ro", said.part(text))),
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            other if LET_BE.contains(&other) => {}
            other => return Err(format!("the option `{}` is not supported", said.part(other))),
        }
    }
    Ok(Mount { source: source_of(source, said)?, target: target.to_owned(), read_only })
}

fn source_of(text: &str, said: &Said<'_>) -> Result<Source, String> {
    let is_path = text.starts_with(['.', '/', '~']);
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-');
    match text {
        "" => Err("has no source".to_owned()),
        path if is_path => Ok(Source::Folder(PathBuf::from(path))),
        name if name.chars().all(is_name) => Ok(Source::Volume(name.to_owned())),
        other => {
            Err(format!("`{}` is neither a volume's name nor a path: a path begins with . or /", said.part(other)))
        }
    }
}

fn long(fields: &Map<String, Value>, said: &Said<'_>) -> Result<Mount, String> {
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    if let Some(key) = fields.keys().find(|key| !is_known(key, &fields[key.as_str()])) {
        return Err(format!("`{}` is not supported", key.escape_debug()));
    }
    let target = text("target").ok_or("has no `target`")?.to_owned();
    let read_only = match fields.get("read_only") {
        None => false,
        Some(value) => super::service::truth(value).ok_or("`read_only` has to be true or false")?,
    };
    let source = match (text("type"), text("source")) {
        (Some("bind"), Some(source)) => Source::Folder(PathBuf::from(source)),
        (Some("bind"), None) => return Err("a bind has to have a `source`".to_owned()),
        (Some("volume"), Some(name)) => source_of(name, said)?,
        (Some("volume"), None) => Source::Nothing,
        (Some(other), _) => return Err(format!("the type `{}` is not supported", said.part(other))),
        (None, _) => return Err("has no `type`: bind or volume".to_owned()),
    };
    if matches!((&source, text("type")), (Source::Folder(_), Some("volume"))) {
        return Err("a volume's `source` is a name".to_owned());
    }
    Ok(Mount { source, target, read_only })
}

/// Options that change what is seen are not supported; that the folder is made if it is not there is one that is let be,
/// since it has to be there.
fn is_known(key: &str, value: &Value) -> bool {
    match key {
        "type" | "source" | "target" | "read_only" | "consistency" => true,
        "bind" => value
            .as_object()
            .is_some_and(|bind| bind.keys().all(|key| matches!(key.as_str(), "create_host_path" | "selinux"))),
        "volume" => value.as_object().is_some_and(Map::is_empty),
        _ => key.starts_with("x-"),
    }
}
