//! What is found for which question.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use catalog_index::{Document, Index, ToolDocument};

fn entry(name: &str, title: &str, description: &str, tools: &[&str]) -> Document {
    Document {
        name: name.into(),
        title: title.into(),
        description: description.into(),
        tools: tools.iter().map(|tool| ToolDocument { name: (*tool).into(), ..Default::default() }).collect(),
        ..Default::default()
    }
}

fn entries() -> Vec<Document> {
    vec![
        entry("github-official", "GitHub", "Repositories and what belongs to them", &["create_issue", "searchCode"]),
        entry("gitlab", "GitLab", "Merge requests and pipelines", &["create_merge_request"]),
        entry("time", "Time", "Time zones and conversions between them", &["convert_time", "get_current_time"]),
        entry("filesystem", "Filesystem", "Reads and writes what is in the folders it may see", &["read_file"]),
        entry("postgres", "PostgreSQL", "Runs SQL on a database", &["query"]),
        entry("stripe", "Stripe", "Interact with Stripe over its API", &["create_invoice"]),
        entry("gmail", "Gmail", "A server for Gmail", &["findMessage", "sendMessage"]),
        entry("openweather", "Openweather", "A simple service", &["weather"]),
        entry("airbnb", "Airbnb", "Listing details", &["airbnb_search"]),
        entry("hubspot", "HubSpot", "Unites marketing, sales and service", &[]),
        entry("thingsboard", "ThingsBoard", "Entity management, asset management and customer management", &[]),
        entry("asana", "Asana", "Interact with your Asana workspace", &[]),
    ]
}

fn sample() -> Index {
    Index::build(&entries()).unwrap()
}

fn found(query: &str) -> Vec<String> {
    sample().search(query, 3).unwrap().hits.into_iter().map(|hit| hit.name).collect()
}

fn first(query: &str) -> String {
    found(query).first().cloned().unwrap_or_default()
}

#[test]
fn a_name_a_word_of_a_tool_and_an_inflected_word_find_their_entry() {
    assert_eq!(first("gitlab"), "gitlab");
    assert_eq!(first("search code"), "github-official");
    assert_eq!(first("reading a file"), "filesystem");
}

#[test]
fn an_exact_name_comes_first() {
    assert_eq!(first("time"), "time");
    assert_eq!(first("GitHub Official"), "github-official");
}

#[test]
fn the_name_of_a_tool_finds_its_server_however_it_is_spelt() {
    for spelling in ["create_issue", "createIssue", "create-issue"] {
        assert_eq!(first(spelling), "github-official", "{spelling}");
    }
}

#[test]
fn a_typo_an_unfinished_word_and_a_wrong_space_find_what_was_meant() {
    for query in ["postgers", "filesytem", "fielsystem", "openwea", "git hub", "open wether", "githubrepositories"] {
        let name = first(query);
        let meant = ["postgres", "filesystem", "openweather", "github-official"];
        assert!(meant.contains(&name.as_str()), "{query}: {name:?}");
    }
}

#[test]
fn what_a_product_is_known_for_finds_it() {
    assert_eq!(first("charge a credit card"), "stripe");
    assert_eq!(first("somewhere to spend the night"), "airbnb");
    assert_eq!(first("do I need an umbrella"), "openweather");
}

#[test]
fn an_alternative_to_a_product_is_another_one_of_its_kind() {
    assert_eq!(first("trello alternative"), "asana");
    assert_eq!(first("something like salesforce"), "hubspot");
}

#[test]
fn a_phrase_means_more_than_one_of_its_words() {
    assert_eq!(first("customer relationship management"), "hubspot");
}

#[test]
fn other_languages_are_understood() {
    for query in [
        "E-Mail senden",
        "envoyer un courriel",
        "enviar un correo",
        "отправить письмо",
        "メールを送る",
        "이메일 보내기",
        "发邮件",
    ] {
        assert_eq!(first(query), "gmail", "{query}");
    }
    assert_eq!(first("Wie wird das Wetter morgen?"), "openweather");
}

#[test]
fn a_hit_says_which_tools_and_words_matched() {
    let hits = sample().search("create an issue on the moon", 1).unwrap().hits;
    assert_eq!(hits[0].matched_tools, ["create_issue"]);
    assert_eq!(hits[0].matched_words, ["create", "issue"]);
}

#[test]
fn what_means_nothing_here_finds_nothing() {
    for query in ["", "   ", "!!! ???", "xyzzy quux", "\u{0}", "🦀"] {
        assert_eq!(found(query), Vec::<String>::new(), "{query:?}");
    }
}

#[test]
fn any_text_is_a_query() {
    let long = "send mail ".repeat(100_000);
    for query in [
        "\"",
        "name:(",
        "AND OR NOT",
        "*",
        "name:* OR [a TO z]",
        "日本語",
        "ภาษาไทย",
        "عربى",
        &"x".repeat(1 << 20),
        &long,
    ] {
        sample().search(query, 10).unwrap();
        sample().search(query, 0).unwrap();
    }
}

#[test]
fn equal_scores_are_ordered_by_name_and_popularity_settles_near_ones() {
    let twin = |name: &str, popularity| Document { popularity, ..entry(name, "Twin", "", &[]) };
    let names = |documents: &[Document]| -> Vec<String> {
        let hits = Index::build(documents).unwrap().search("twin", 5).unwrap().hits;
        hits.into_iter().map(|hit| hit.name).collect()
    };
    assert_eq!(names(&[twin("b", 0), twin("a", 0)]), ["a", "b"]);
    assert_eq!(names(&[twin("a", 10), twin("b", 10_000)]), ["b", "a"]);
}

#[test]
fn what_may_not_be_shown_is_left_out_and_not_counted() {
    let hits = sample().search_among("gitlab and github", 1, |name| name != "gitlab").unwrap();
    assert_eq!(hits.hits[0].name, "github-official");
    assert_eq!(hits.more, 0);
}

#[test]
fn search_phrases_of_an_entry_find_it() {
    let mut documents = entries();
    documents.push(Document { phrases: vec!["water the plants".into()], ..entry("zz", "Zz", "", &[]) });
    let hits = Index::build(&documents).unwrap().search("watering plants", 1).unwrap().hits;
    assert_eq!(hits[0].name, "zz");
}
