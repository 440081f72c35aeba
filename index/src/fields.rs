//! Which parts of an entry are searched.

use tantivy::{
    TantivyDocument,
    schema::{FAST, Field, IndexRecordOption, Schema, SchemaBuilder, TextFieldIndexing, TextOptions},
    tokenizer::{PreTokenizedString, Token},
};

use crate::{
    Document,
    lexicon::{Concept, Lexicon},
    meaning::{Direction, Meaning},
    text::{self, Reader, Word},
    vocabulary::{Strength, VocabularyBuilder},
};

/// tantivy's minimum for one thread.
pub(crate) const WRITER_MEMORY_BYTES: usize = 15_000_000;

/// Longer descriptions wander off.
const DESCRIPTION_BYTES_MAX: usize = 300;

/// The column that leads from a document back to its entry.
pub(crate) const ROW: &str = "row";

pub(crate) struct Fields {
    row: Field,
    pub(crate) name: Field,
    pub(crate) title: Field,
    pub(crate) topics: Field,
    pub(crate) tools: Field,
    pub(crate) hints: Field,
    pub(crate) description: Field,
    pub(crate) phrases: Field,
    /// What the lexicon says of the product.
    pub(crate) facts: Field,
    /// Concepts of the name, title, topics, phrases and facts.
    pub(crate) about: Field,
    /// Concepts of the description and the tools.
    pub(crate) mentions: Field,
    /// Tool names without what tells spellings apart, whole.
    pub(crate) tool_names: Field,
}

pub(crate) fn schema() -> (Schema, Fields) {
    let mut builder = Schema::builder();
    let fields = Fields {
        row: builder.add_u64_field(ROW, FAST),
        name: words_field(&mut builder, "name"),
        title: words_field(&mut builder, "title"),
        topics: words_field(&mut builder, "topics"),
        tools: words_field(&mut builder, "tools"),
        hints: words_field(&mut builder, "hints"),
        description: words_field(&mut builder, "description"),
        phrases: words_field(&mut builder, "phrases"),
        facts: words_field(&mut builder, "facts"),
        about: words_field(&mut builder, "about"),
        mentions: words_field(&mut builder, "mentions"),
        tool_names: words_field(&mut builder, "tool_names"),
    };
    (builder.build(), fields)
}

fn words_field(builder: &mut SchemaBuilder, name: &str) -> Field {
    // The tokenizer is never asked: documents are handed over in words.
    let indexing = TextFieldIndexing::default().set_tokenizer("raw").set_index_option(IndexRecordOption::WithFreqs);
    builder.add_text_field(name, TextOptions::default().set_indexing_options(indexing))
}

/// The term that stands for a concept.
pub(crate) fn concept_term(concept: Concept) -> String {
    format!("c{concept}")
}

/// Turns entries into documents, and collects the words they have.
pub(crate) struct Writer<'a> {
    fields: &'a Fields,
    lexicon: &'static Lexicon,
    pub(crate) reader: Reader,
    pub(crate) vocabulary: VocabularyBuilder,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(fields: &'a Fields) -> Self {
        let lexicon = Lexicon::get();
        Self { fields, lexicon, reader: Reader::default(), vocabulary: VocabularyBuilder::default() }
    }

    pub(crate) fn document(&mut self, row: u64, entry: &Document) -> TantivyDocument {
        let fields = self.fields;
        let mut document = Draft { document: TantivyDocument::default() };
        document.document.add_u64(fields.row, row);
        let facts = self.facts(entry);
        let topics = [&entry.category].into_iter().chain(&entry.tags).map(String::as_str).collect::<Vec<_>>();
        let phrases = entry.phrases.iter().map(String::as_str).collect::<Vec<_>>();
        let tools = entry.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>();
        let hints = entry.tools.iter().map(|tool| tool.description.as_str()).collect::<Vec<_>>();

        self.text(&mut document, fields.name, Strength::Name, &[&entry.name]);
        self.text(&mut document, fields.title, Strength::Name, &[&entry.title]);
        self.text(&mut document, fields.topics, Strength::Topic, &topics);
        self.text(&mut document, fields.tools, Strength::Topic, &tools);
        self.text(&mut document, fields.hints, Strength::Prose, &hints);
        self.text(&mut document, fields.description, Strength::Prose, &[&entry.description]);
        self.text(&mut document, fields.phrases, Strength::Prose, &phrases);
        self.text(&mut document, fields.facts, Strength::Prose, &facts);

        let about = [entry.name.as_str(), entry.title.as_str()].into_iter().chain(topics).chain(phrases).chain(facts);
        let about = self.concepts(about.flat_map(|text| text.split(',')));
        document.add(fields.about, about);
        let mentioned =
            self.concepts([entry.description.as_str()].into_iter().chain(tools.iter().copied()).chain(hints));
        document.add(fields.mentions, mentioned);

        document.add(fields.tool_names, tools.iter().map(|tool| text::compact(tool)).collect());
        document.document
    }

    /// Where the entry's title, description, phrases and facts point.
    pub(crate) fn direction(&mut self, entry: &Document) -> Option<Direction> {
        let facts = self.facts(entry);
        let description = text::cut(&entry.description, DESCRIPTION_BYTES_MAX);
        let told = [entry.title.as_str(), description]
            .into_iter()
            .chain(entry.phrases.iter().map(String::as_str))
            .chain(facts);
        let mut words: Vec<Word> = told.flat_map(|text| self.reader.words(text)).collect();
        words.retain(|word| !text::is_stop_word(&word.raw));
        Meaning::get().direction(words.iter().map(|word| word.raw.as_str()))
    }

    /// What is known of the products that the entry's name or title names.
    fn facts(&mut self, entry: &Document) -> Vec<&'static str> {
        let mut facts: Vec<&'static str> = Vec::new();
        for text in [&entry.title, &entry.name] {
            for words in [self.reader.words(text), self.reader.parts(text)] {
                for named in self.lexicon.products(&words) {
                    if !facts.contains(&named.product.known_for) {
                        facts.push(named.product.known_for);
                    }
                }
            }
        }
        facts
    }

    fn text(&mut self, document: &mut Draft, field: Field, strength: Strength, texts: &[&str]) {
        let mut stems = Vec::new();
        for text in texts.iter().flat_map(|text| text.split([',', '.', ';', '(', ')', '•'])) {
            let words = self.reader.indexed(text);
            for word in words {
                self.vocabulary.add(&word, strength);
                stems.push(word.stem);
            }
        }
        document.add(field, stems);
    }

    fn concepts<'b>(&mut self, texts: impl Iterator<Item = &'b str>) -> Vec<String> {
        let mut concepts = Vec::new();
        for text in texts {
            let words: Vec<Word> = self.reader.parts(text);
            concepts.extend(self.lexicon.mentions(&words, |_| false).into_iter().map(|mention| mention.concept));
            let unspaced = self.lexicon.unspaced_mentions(text);
            concepts.extend(unspaced.into_iter().flat_map(|(_, concepts)| concepts.iter().copied()));
        }
        concepts.into_iter().map(concept_term).collect()
    }
}

struct Draft {
    document: TantivyDocument,
}

impl Draft {
    fn add(&mut self, field: Field, terms: Vec<String>) {
        let mut tokens = Vec::with_capacity(terms.len());
        for (position, text) in terms.into_iter().enumerate() {
            tokens.push(Token { offset_from: 0, offset_to: 0, position, text, position_length: 1 });
        }
        self.document.add_pre_tokenized_text(field, PreTokenizedString { text: String::new(), tokens });
    }
}
