//! Which part of an entry is searched with which weight.

use tantivy::{
    TantivyDocument,
    schema::{FAST, Field, IndexRecordOption, Schema, SchemaBuilder, TextFieldIndexing, TextOptions},
};

use crate::{Document, text};

/// tantivy's minimum for one thread.
pub(crate) const WRITER_MEMORY_BYTES: usize = 15_000_000;

/// The column that leads from a document back to its entry.
pub(crate) const ROW: &str = "row";

pub(crate) struct Fields {
    row: Field,
    pub(crate) searched: [Searched; 5],
    name: Field,
    title: Field,
    topics: Field,
    tools: Field,
    description: Field,
}

/// A field and how much a word found in it weighs.
#[derive(Clone, Copy)]
pub(crate) struct Searched {
    pub(crate) field: Field,
    pub(crate) weight: f32,
    /// Whether unknown words may be matched to similar ones in this field.
    pub(crate) forgives_typos: bool,
}

pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let row = builder.add_u64_field(ROW, FAST);
    let name = words_field(&mut builder, "name");
    let title = words_field(&mut builder, "title");
    let topics = words_field(&mut builder, "topics");
    let tools = words_field(&mut builder, "tools");
    let description = words_field(&mut builder, "description");
    let searched = [
        Searched { field: name, weight: 4.0, forgives_typos: true },
        Searched { field: title, weight: 3.0, forgives_typos: true },
        Searched { field: topics, weight: 2.0, forgives_typos: false },
        Searched { field: tools, weight: 1.5, forgives_typos: true },
        Searched { field: description, weight: 1.5, forgives_typos: true },
    ];
    (builder.build(), Fields { row, searched, name, title, topics, tools, description })
}

fn words_field(builder: &mut SchemaBuilder, name: &str) -> Field {
    let indexing =
        TextFieldIndexing::default().set_tokenizer(text::ANALYZER).set_index_option(IndexRecordOption::WithFreqs);
    builder.add_text_field(name, TextOptions::default().set_indexing_options(indexing))
}

impl Fields {
    pub(crate) fn document(&self, row: u64, entry: &Document) -> TantivyDocument {
        let mut document = TantivyDocument::default();
        document.add_u64(self.row, row);
        document.add_text(self.name, &entry.name);
        document.add_text(self.title, &entry.title);
        document.add_text(self.description, &entry.description);
        document.add_text(self.topics, &entry.category);
        for tag in &entry.tags {
            document.add_text(self.topics, tag);
        }
        for tool in &entry.tools {
            document.add_text(self.tools, &tool.name);
            document.add_text(self.tools, &tool.description);
        }
        document
    }
}
