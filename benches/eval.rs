//! `make eval`: how well and how fast `mcp-find` finds.
//!
//! With `CATALOG`, `QUERIES` or `FORMAT=json` it measures that and nothing else, as text or as one JSON object. Without,
//! it measures what is at hand: our own queries and the shared ones over the Docker catalog and over the built-in one,
//! tools of the mcpproxy corpus, and time and size at two scales. The catalog is read by the broker's own loader and
//! searched by its own search. `MCP_BROKER_TEST_DATA` is where the shared data is, if not beside the project.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::Read as _,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};
use catalog_index::{Document, Index, ToolDocument};
use mcp_broker::catalog::Catalog;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

const OWN_QUERIES: &str = "catalog/queries.jsonl";
const HELD_OUT_QUERIES: &str = "catalog/queries-held-out.jsonl";

/// Results that count.
const DEPTH: usize = 5;

/// What others reach, from the data's own README: nDCG@5 on the shared queries over the Docker catalog.
const BASELINES: [(&str, f64); 5] = [
    ("docker/mcp-gateway, BM25", 0.628),
    ("BM25F, split identifiers, stems", 0.740),
    ("the same, and typos", 0.783),
    ("MiniLM sentence vectors", 0.675),
    ("rank fusion of these", 0.770),
];

#[derive(Deserialize)]
struct Query {
    query: String,
    #[serde(default)]
    kind: String,
    relevant: HashMap<String, f64>,
}

fn main() -> Result<()> {
    let given = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let data = data();
    let docker_file = format!("{data}/docker-mcp.yaml");
    let dev_file = format!("{data}/queries-dev.jsonl");
    let (catalog, queries, format) = (given("CATALOG"), given("QUERIES"), given("FORMAT"));
    if catalog.is_some() || queries.is_some() || format.is_some() {
        let catalog = Catalog::of_file(Path::new(&catalog.unwrap_or(docker_file)))?;
        let scores = over_catalog(&catalog, &read_queries(&queries.unwrap_or(dev_file))?)?;
        say(&if format.as_deref() == Some("json") { scores.json().to_string() } else { scores.text() });
        return Ok(());
    }
    let docker = Catalog::of_file(Path::new(&docker_file))?;
    let built_in = Catalog::load(&[])?;
    let own = read_queries(OWN_QUERIES)?;
    let held_out = read_queries(HELD_OUT_QUERIES)?;
    let dev = read_queries(&dev_file)?;
    for (what, catalog, queries) in [
        ("the shared queries over the Docker catalog", &docker, &dev),
        ("our queries over the Docker catalog", &docker, &own),
        ("those of ours that nothing was tuned on, over the Docker catalog", &docker, &held_out),
        ("the shared queries over the built-in catalog", &built_in, &dev),
        ("our queries over the built-in catalog", &built_in, &own),
    ] {
        say(&format!("\n{what}\n{}", over_catalog(catalog, queries)?.text()));
    }
    say("\nothers, the shared queries over the Docker catalog (nDCG@5)");
    BASELINES.iter().for_each(|(who, score)| say(&format!("  {score:.3}  {who}")));
    let (tools, queries) = mcpproxy()?;
    let index = Index::build(&tools)?;
    let scores = evaluate(&queries, |query| Ok(names(index.search(query, DEPTH)?)))?;
    say(&format!("\nmcpproxy: 45 tools (its own BM25: recall@5 0.681, MRR 0.568)\n{}", scores.text()));
    let queries: Vec<String> = own.into_iter().chain(dev).map(|query| query.query).collect();
    time("328 servers", &documents(&docker), &queries)?;
    time("11,978 servers", &registry()?, &queries)
}

/// The folder of the shared data.
fn data() -> String {
    std::env::var("MCP_BROKER_TEST_DATA").unwrap_or_else(|_| "../shared/data".to_owned())
}

fn over_catalog(catalog: &Catalog, queries: &[Query]) -> Result<Scores> {
    let snapshot = catalog.snapshot();
    snapshot.ensure_index()?;
    evaluate(queries, |query| Ok(names(snapshot.search(query, DEPTH)?)))
}

fn names(hits: catalog_index::Hits) -> Vec<String> {
    hits.hits.into_iter().map(|hit| hit.name).collect()
}

/// Sums over queries; a mean is shown.
#[derive(Default)]
struct Sums {
    queries: usize,
    ndcg: f64,
    mrr: f64,
    recall: f64,
    hit: f64,
}

impl Sums {
    fn add(&mut self, found: &[String], relevant: &HashMap<String, f64>) {
        let grade = |name: &String| relevant.get(name).copied().unwrap_or(0.0);
        let mut ideal: Vec<f64> = relevant.values().copied().collect();
        ideal.sort_by(|a, b| b.total_cmp(a));
        let best = gain(ideal.into_iter());
        let first = found.iter().position(|name| grade(name) > 0.0);
        let hits = found.iter().filter(|name| grade(name) > 0.0).count();
        self.queries += 1;
        self.ndcg += if best > 0.0 { gain(found.iter().map(grade)) / best } else { 0.0 };
        self.mrr += first.map_or(0.0, |at| 1.0 / (at + 1) as f64);
        self.recall += hits as f64 / relevant.len().clamp(1, DEPTH) as f64;
        self.hit += f64::from(u8::from(first == Some(0)));
    }

    fn means(&self) -> [(&'static str, f64); 4] {
        let mean = |sum: f64| sum / self.queries.max(1) as f64;
        [
            ("ndcg@5", mean(self.ndcg)),
            ("mrr", mean(self.mrr)),
            ("recall@5", mean(self.recall)),
            ("hit@1", mean(self.hit)),
        ]
    }

    fn json(&self) -> Value {
        let mut value = json!({"n": self.queries});
        for (name, mean) in self.means() {
            value[name] = json!((mean * 10_000.0).round() / 10_000.0);
        }
        value
    }
}

/// Discounted cumulative gain of grades in order, with exponential gains.
fn gain(grades: impl Iterator<Item = f64>) -> f64 {
    grades.take(DEPTH).enumerate().map(|(at, grade)| (grade.exp2() - 1.0) / ((at + 2) as f64).log2()).sum()
}

#[derive(Default)]
struct Scores {
    all: Sums,
    by_kind: BTreeMap<String, Sums>,
}

impl Scores {
    fn json(&self) -> Value {
        let mut value = self.all.json();
        value["by_kind"] = self.by_kind.iter().map(|(kind, sums)| (kind.clone(), sums.json())).collect();
        value
    }

    fn text(&self) -> String {
        let mut text = format!("  {:<12}{:>4}  nDCG@5    MRR  recall@5  hit@1\n", "", "n");
        let kinds = self.by_kind.iter().map(|(kind, sums)| (kind.as_str(), sums));
        for (kind, sums) in [("all", &self.all)].into_iter().chain(kinds) {
            let [(_, ndcg), (_, mrr), (_, recall), (_, hit)] = sums.means();
            let _ =
                writeln!(text, "  {kind:<12}{:>4}  {ndcg:>6.3}  {mrr:>5.3}  {recall:>8.3}  {hit:>5.3}", sums.queries);
        }
        text
    }
}

fn evaluate(queries: &[Query], search: impl Fn(&str) -> Result<Vec<String>>) -> Result<Scores> {
    let mut scores = Scores::default();
    for query in queries {
        let found = search(&query.query)?;
        scores.all.add(&found, &query.relevant);
        scores.by_kind.entry(query.kind.clone()).or_default().add(&found, &query.relevant);
    }
    Ok(scores)
}

fn read_queries(path: &str) -> Result<Vec<Query>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("could not read the queries {path}"))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| serde_json::from_str(line).with_context(|| format!("{path}: {line}"))).collect()
}

/// Build, open and search times, and the size of what is kept.
fn time(what: &str, documents: &[Document], queries: &[String]) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("index");
    let (index, build) = timed(|| Index::build(documents));
    let index = index?;
    Index::open(&path, documents)?;
    let (opened, open) = timed(|| Index::open(&path, documents));
    opened?;
    let bytes = std::fs::metadata(&path)?.len();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..5 {
        for query in queries {
            let (found, time) = timed(|| index.search(query, 10));
            found?;
            times.push(time);
        }
    }
    times.sort();
    let part = |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or_default();
    say(&format!(
        "\n{what}: search p50 {:.0?}, p99 {:.0?}; build {build:.0?}; open {open:.1?}; {} kB on disk",
        part(50),
        part(99),
        bytes / 1000
    ));
    Ok(())
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed())
}

fn documents(catalog: &Catalog) -> Vec<Document> {
    catalog.snapshot().documents()
}

/// The large snapshot of the official registry.
fn registry() -> Result<Vec<Document>> {
    let mut gunzip = Command::new("gzip")
        .args(["-dc", &format!("{}/mcp-registry-12k.json.gz", data())])
        .stdout(Stdio::piped())
        .spawn()
        .context("could not run gzip")?;
    let mut text = String::new();
    gunzip.stdout.take().context("gzip has no output")?.read_to_string(&mut text)?;
    gunzip.wait()?;
    let snapshot: Value = serde_json::from_str(&text)?;
    let servers = snapshot["servers"].as_array().context("no servers")?;
    let document = |server: &Value| Document {
        name: words(&server["server"]["name"]),
        title: words(&server["server"]["title"]),
        description: words(&server["server"]["description"]),
        ..Document::default()
    };
    Ok(servers.iter().map(document).collect())
}

/// Tools as documents of their own, and queries for them.
fn mcpproxy() -> Result<(Vec<Document>, Vec<Query>)> {
    let read = |file: &str| -> Result<Value> {
        Ok(serde_json::from_str(&std::fs::read_to_string(format!("{}/mcpproxy/{file}", data()))?)?)
    };
    let corpus = read("corpus_v1.tools.json")?;
    let golden = read("retrieval_golden_v1.json")?;
    let tool = |tool: &Value| Document {
        name: words(&tool["tool_id"]),
        title: words(&tool["tool"]),
        description: words(&tool["description"]),
        tools: vec![ToolDocument { name: words(&tool["tool"]), description: String::new() }],
        ..Document::default()
    };
    let query = |query: &Value| {
        let labels = query["labels"].as_array().into_iter().flatten();
        let relevant = labels.map(|label| (words(&label["tool_id"]), label["relevance"].as_f64().unwrap_or_default()));
        Query { query: words(&query["query"]), kind: "tool".to_owned(), relevant: relevant.collect() }
    };
    let tools = corpus["tools"].as_array().context("no tools")?.iter().map(tool).collect();
    Ok((tools, golden["queries"].as_array().context("no queries")?.iter().map(query).collect()))
}

fn words(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn say(text: &str) {
    println!("{text}");
}
