//! The entries of one source, found by name without reading the others.
//!
//! A pack is a catalog file with one entry a line (`  "name": {…}`), which is YAML and JSON enough for both. Opening it notes
//! where each line is; an entry is parsed when somebody asks for it. So a catalog of thousands of servers costs the memory
//! of their names. The catalog that is compiled in is one, and so is what an update of a source leaves in the data folder.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{entry::Entry, file};
use crate::ids::ServerName;

/// Whose word a source is. A less trusted one does not replace entries of a more trusted one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// Somebody else's list, fetched from where they keep it.
    ThirdParty,
    /// Came with the broker.
    BuiltIn,
    /// The operator's own files, or what the operator said may replace built-in entries.
    Operator,
}

impl Trust {
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::ThirdParty => "third party",
            Self::BuiltIn => "built-in",
            Self::Operator => "operator",
        }
    }
}

/// One source's entries.
pub struct Pack {
    pub source: Arc<str>,
    pub trust: Trust,
    text: Text,
    lines: Vec<Line>,
}

enum Text {
    Compiled(&'static [u8]),
    File(File),
    /// Read whole: a file of the operator's, which may be written in any way.
    Read(Vec<Arc<Entry>>),
}

struct Line {
    name: ServerName,
    start: u64,
    length: usize,
}

impl Pack {
    /// A catalog that is part of the program.
    #[must_use]
    pub fn compiled(source: &str, text: &'static str) -> Self {
        let lines = lines(text.as_bytes()).unwrap_or_default();
        Self { source: source.into(), trust: Trust::BuiltIn, text: Text::Compiled(text.as_bytes()), lines }
    }

    /// A pack that was written with [`Self::write`].
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(path: &Path, source: &str, trust: Trust) -> io::Result<Self> {
        let file = File::open(path)?;
        let lines = lines(BufReader::with_capacity(64 << 10, &file))?;
        Ok(Self { source: source.into(), trust, text: Text::File(file), lines })
    }

    /// Entries that were read already.
    #[must_use]
    pub fn read(source: &str, mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|one, other| one.name.cmp(&other.name));
        let line = |(at, entry): (usize, &Entry)| Line { name: entry.name.clone(), start: at as u64, length: 0 };
        let lines = entries.iter().enumerate().map(line).collect();
        let text = Text::Read(entries.into_iter().map(Arc::new).collect());
        Self { source: source.into(), trust: Trust::Operator, text, lines }
    }

    /// Writes entries beside `path` and puts them there at once, so that a reader sees the old ones or the new ones.
    ///
    /// # Errors
    ///
    /// When the disk does not take it; what was there stays.
    pub fn write(path: &Path, entries: &BTreeMap<String, Value>) -> io::Result<()> {
        let aside = path.with_extension("new");
        let written = write_lines(&aside, entries).and_then(|()| std::fs::rename(&aside, path));
        if written.is_err() {
            let _ = std::fs::remove_file(&aside);
        }
        written
    }

    /// The names in order, each with the number by which its entry is got.
    pub fn names(&self) -> impl ExactSizeIterator<Item = (usize, &ServerName)> {
        self.lines.iter().map(|line| &line.name).enumerate()
    }

    /// The number of the entry of that name.
    #[must_use]
    pub fn position(&self, name: &ServerName) -> Option<usize> {
        self.lines.binary_search_by(|line| line.name.cmp(name)).ok()
    }

    /// The entry of that number. None if the file is not what it was when it was opened, which is noted in the log.
    #[must_use]
    pub fn entry(&self, number: usize) -> Option<Arc<Entry>> {
        let line = self.lines.get(number)?;
        let parsed = match &self.text {
            Text::Read(entries) => return entries.get(number).cloned(),
            Text::Compiled(text) => {
                let start = usize::try_from(line.start).ok()?;
                self.parse(line, text.get(start..start + line.length)?)
            }
            Text::File(file) => {
                let mut bytes = vec![0; line.length];
                file.read_exact_at(&mut bytes, line.start)
                    .map_err(|error| error.to_string())
                    .and_then(|()| self.parse(line, &bytes))
            }
        };
        parsed
            .inspect_err(|problem| {
                tracing::error!(catalog.source = %self.source, server.name = %line.name, problem, "a catalog entry cannot be read");
            })
            .ok()
            .map(Arc::new)
    }

    /// The entries as they are written, for writing them again.
    #[must_use]
    pub fn values(&self) -> BTreeMap<String, Value> {
        let value = |line: &Line| {
            let bytes = match &self.text {
                Text::File(file) => {
                    let mut bytes = vec![0; line.length];
                    file.read_exact_at(&mut bytes, line.start).ok()?;
                    bytes
                }
                Text::Compiled(_) | Text::Read(_) => return None,
            };
            Some((line.name.to_string(), serde_json::from_slice(&bytes).ok()?))
        };
        self.lines.iter().filter_map(value).collect()
    }

    fn parse(&self, line: &Line, bytes: &[u8]) -> Result<Entry, String> {
        let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let mut entry = file::stored(&self.source, line.name.as_str(), text)?;
        if self.trust == Trust::ThirdParty {
            entry.keep_secrets_apart();
        }
        Ok(entry)
    }
}

fn write_lines(path: &Path, entries: &BTreeMap<String, Value>) -> io::Result<()> {
    let mut file = io::BufWriter::new(File::create(path)?);
    writeln!(file, "version: 3\nregistry:")?;
    for (name, entry) in entries {
        writeln!(file, "  {}: {entry}", Value::String(name.clone()))?;
    }
    file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Where each entry is. A line that is no entry (a comment, the catalog's name) is passed over.
fn lines(mut reader: impl io::BufRead) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let mut line = Vec::new();
    let mut start = 0;
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            break;
        }
        if let Some((name, offset)) = entry_at(&line) {
            let end = line.trim_ascii_end().len();
            lines.push(Line { name, start: start + offset as u64, length: end.saturating_sub(offset) });
        }
        start += length as u64;
    }
    lines.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(lines)
}

/// The name an entry's line begins with, and where the entry itself does.
fn entry_at(line: &[u8]) -> Option<(ServerName, usize)> {
    let key = line.strip_prefix(b"  ").filter(|key| key.starts_with(b"\""))?;
    let mut keys = serde_json::Deserializer::from_slice(key).into_iter::<String>();
    let name = keys.next()?.ok()?.parse().ok()?;
    let offset = 2 + keys.byte_offset();
    line.get(offset..)?.starts_with(b": {").then_some((name, offset + 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_found_by_name_and_written_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        let entries = BTreeMap::from([
            ("b\"c".to_owned(), json!({"title": "B\n\u{e9}", "image": "x"})),
            ("a/b.c".to_owned(), json!({"image": "y"})),
        ]);
        Pack::write(&path, &entries).unwrap();
        let pack = Pack::open(&path, "s", Trust::ThirdParty).unwrap();
        assert_eq!(pack.names().map(|(_, name)| name.as_str().to_owned()).collect::<Vec<_>>(), ["a/b.c", "b\"c"]);
        let found = pack.position(&"b\"c".parse().unwrap()).unwrap();
        assert_eq!(pack.entry(found).unwrap().title, "B \u{e9}");
        assert_eq!(pack.values(), entries);
        let whole = file::read(&path).unwrap();
        assert_eq!(whole.entries.len(), 2, "a pack is a catalog file");
    }

    #[test]
    fn an_entry_that_is_cut_off_is_missing_and_the_others_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        std::fs::write(&path, "registry:\n  \"a\": {\"image\": \"x\"}\n  \"b\": {\"image\": \n").unwrap();
        let pack = Pack::open(&path, "s", Trust::ThirdParty).unwrap();
        assert!(pack.entry(pack.position(&"a".parse().unwrap()).unwrap()).is_some());
        assert!(pack.entry(pack.position(&"b".parse().unwrap()).unwrap()).is_none());
    }

    #[test]
    fn a_third_party_cannot_name_a_secret_of_somebody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        let secrets = json!([{"name": "github.token", "env": "GITHUB_TOKEN"}]);
        let entry = json!({"remote": {"url": "https://example.com"}, "secrets": secrets});
        Pack::write(&path, &BTreeMap::from([("weather".to_owned(), entry)])).unwrap();
        let secret = |trust| Pack::open(&path, "s", trust).unwrap().entry(0).unwrap().secrets[0].clone();
        let (theirs, ours) = (secret(Trust::ThirdParty), secret(Trust::Operator));
        assert_eq!((theirs.name.as_str(), theirs.by_variable), ("weather:github.token", false));
        assert_eq!((ours.name.as_str(), ours.by_variable), ("github.token", true));
    }

    #[test]
    fn writing_that_fails_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.yaml");
        Pack::write(&path, &BTreeMap::from([("a".to_owned(), json!({"image": "x"}))])).unwrap();
        std::fs::create_dir(path.with_extension("new")).unwrap();
        assert!(Pack::write(&path, &BTreeMap::new()).is_err());
        assert_eq!(Pack::open(&path, "s", Trust::ThirdParty).unwrap().names().len(), 1);
    }
}
