//! The file that an index is kept in.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::{fs, path::PathBuf};

use catalog_index::{Document, Index, ToolDocument};

/// A path in a folder of its own, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("catalog-index-{}-{test}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.join("index")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn documents() -> Vec<Document> {
    let tools = vec![ToolDocument { name: "create_issue".into(), description: "Opens an issue".into() }];
    let github = Document { name: "github".into(), title: "GitHub".into(), tools, popularity: 7, ..Default::default() };
    let slack =
        Document { name: "slack".into(), title: "Slack".into(), tags: vec!["chat".into()], ..Default::default() };
    vec![github, slack]
}

fn answers(index: &Index) -> Vec<String> {
    let queries = ["github", "create issue", "slakc", "post a message to my team", "tchat"];
    queries.iter().map(|query| format!("{:?}", index.search(query, 5).unwrap())).collect()
}

#[test]
fn a_stored_index_answers_as_the_one_that_was_built() {
    let place = Place::new("same");
    let built = Index::open(&place.path(), &documents()).unwrap();
    let written = fs::read(place.path()).unwrap();
    let opened = Index::open(&place.path(), &documents()).unwrap();
    assert_eq!(answers(&built), answers(&opened));
    assert_eq!(opened.len(), 2);
    assert_eq!(fs::read(place.path()).unwrap(), written, "what fits is not written again");
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn other_documents_make_another_index() {
    let place = Place::new("other");
    Index::open(&place.path(), &documents()).unwrap();
    let more = [documents(), vec![Document { name: "time".into(), ..Default::default() }]].concat();
    assert_eq!(Index::open(&place.path(), &more).unwrap().len(), 3);
    let mut renamed = documents();
    renamed[1].tags = vec!["telephone".into()];
    let index = Index::open(&place.path(), &renamed).unwrap();
    assert_eq!(index.search("telephone", 1).unwrap().hits[0].name, "slack");
}

#[test]
fn a_damaged_file_is_made_anew() {
    let place = Place::new("damaged");
    Index::open(&place.path(), &documents()).unwrap();
    let whole = fs::read(place.path()).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    for damaged in [Vec::new(), b"something else".to_vec(), whole[..whole.len() / 2].to_vec(), flipped] {
        fs::write(place.path(), damaged).unwrap();
        let index = Index::open(&place.path(), &documents()).unwrap();
        assert_eq!(index.search("github", 1).unwrap().hits[0].name, "github");
        assert_eq!(fs::read(place.path()).unwrap().len(), whole.len());
    }
}

#[test]
fn a_place_that_cannot_be_written_costs_nothing_but_time() {
    let place = Place::new("unwritable");
    fs::create_dir_all(place.path()).unwrap();
    assert_eq!(Index::open(&place.path(), &documents()).unwrap().len(), 2);
}
