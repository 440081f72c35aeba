//! An index in one file, which is used as long as it was made from the same documents by the same program.
//!
//! The file is written beside its place and moved there when it is whole, so there is never half of one. It begins with
//! the fingerprint of what it was made from and ends with a checksum of itself; a file that does not fit either is made
//! anew.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tantivy::{Directory as _, directory::RamDirectory};

use crate::{Document, Row, Tool, lexicon, text, vocabulary::Vocabulary};

/// Raised when the same documents give another file.
const FORMAT: u64 = 1;

const MAGIC: &[u8; 8] = b"mcpindex";

/// What the file has, besides tantivy's own files.
pub(crate) struct Stored {
    pub(crate) rows: Vec<Row>,
    pub(crate) vocabulary: Vocabulary,
    pub(crate) files: Vec<(String, Vec<u8>)>,
}

/// Tells documents, and the data and program that make an index of them, from others.
pub(crate) fn fingerprint<'a>(documents: impl IntoIterator<Item = &'a Document>) -> u64 {
    let mut hash = Hash::default();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    hash.add(&FORMAT.to_le_bytes());
    lexicon::data().iter().for_each(|data| hash.add(data));
    for document in documents {
        for text in [&document.name, &document.title, &document.description, &document.category] {
            hash.add(text.as_bytes());
        }
        for texts in [&document.tags, &document.phrases] {
            hash.add(&(texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| hash.add(text.as_bytes()));
        }
        hash.add(&document.popularity.to_le_bytes());
        hash.add(&(document.tools.len() as u64).to_le_bytes());
        for tool in &document.tools {
            hash.add(tool.name.as_bytes());
            hash.add(tool.description.as_bytes());
        }
    }
    hash.0
}

/// A quick hash against accidents, not against intent.
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn add(&mut self, bytes: &[u8]) {
        let mut chunks = bytes.chunks_exact(8);
        for chunk in chunks.by_ref() {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
        let mut last = [0; 8];
        last[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        self.mix(u64::from_le_bytes(last));
        self.mix(bytes.len() as u64);
    }

    fn mix(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
    }
}

impl Stored {
    /// Reads what was written if it is whole and was made from what has this fingerprint.
    pub(crate) fn read(bytes: &[u8], fingerprint: u64) -> Option<Self> {
        let (body, checksum) = bytes.split_at_checked(bytes.len().checked_sub(8)?)?;
        let mut input = Input(body);
        if input.take(MAGIC.len())? != MAGIC || input.number()? != fingerprint {
            return None;
        }
        let mut hash = Hash::default();
        hash.add(body);
        if checksum != hash.0.to_le_bytes() {
            return None;
        }
        let rows = input.many(|input| {
            let (name, title, popularity) =
                (input.text()?, input.text()?, f32::from_bits(u32::try_from(input.number()?).ok()?));
            let direction = input.bytes()?.iter().map(|byte| byte.cast_signed()).collect::<Vec<_>>();
            let direction = (!direction.is_empty()).then_some(direction);
            let tools = input.many(|input| Some(Tool { name: input.text()?, words: input.text()? }))?;
            let compact = text::compact(&name);
            Some(Row { name, compact, title, popularity, direction, tools })
        })?;
        let vocabulary = Vocabulary::of(input.many(Vocabulary::read_word)?);
        let files = input.many(|input| Some((input.text()?, input.bytes()?.to_vec())))?;
        Some(Self { rows, vocabulary, files })
    }

    pub(crate) fn bytes(&self, fingerprint: u64) -> Vec<u8> {
        let mut output = Output(MAGIC.to_vec());
        output.number(fingerprint);
        output.number(self.rows.len() as u64);
        for row in &self.rows {
            output.bytes(row.name.as_bytes());
            output.bytes(row.title.as_bytes());
            output.number(u64::from(row.popularity.to_bits()));
            let direction = row.direction.iter().flatten().map(|part| part.cast_unsigned()).collect::<Vec<_>>();
            output.bytes(&direction);
            output.number(row.tools.len() as u64);
            for tool in &row.tools {
                output.bytes(tool.name.as_bytes());
                output.bytes(tool.words.as_bytes());
            }
        }
        self.vocabulary.write(&mut output);
        output.number(self.files.len() as u64);
        for (name, content) in &self.files {
            output.bytes(name.as_bytes());
            output.bytes(content);
        }
        let mut hash = Hash::default();
        hash.add(&output.0);
        output.number(hash.0);
        output.0
    }

    /// tantivy's files, where it can open them.
    pub(crate) fn directory(&mut self) -> io::Result<RamDirectory> {
        let directory = RamDirectory::create();
        for (name, content) in self.files.drain(..) {
            directory.atomic_write(Path::new(&name), &content)?;
        }
        Ok(directory)
    }
}

/// Writes a file, whole or not at all.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let aside = aside(path);
    fs::write(&aside, content)?;
    fs::rename(&aside, path).inspect_err(|_| drop(fs::remove_file(&aside)))
}

fn aside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

/// Numbers, texts and lists of them, one after the other.
pub(crate) struct Output(Vec<u8>);

impl Output {
    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }
}

pub(crate) struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn many<T>(&mut self, mut one: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.number()?;
        // A list cannot be longer than what is left of the file.
        if count > self.0.len() as u64 {
            return None;
        }
        (0..count).map(|_| one(self)).collect()
    }
}
