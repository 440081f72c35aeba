//! The catalog's sources: fetched, kept, and never the worse for an update that fails.

use std::collections::BTreeSet;

use http::Method;
use mcp_broker::catalog::CatalogSettings;
use serde_json::{Value, json};

use crate::support::{
    Era, FixtureCatalog, TestBroker, TestClient,
    broker::eventually,
    client::text_of,
    docker_catalog,
    process::Home,
    upstream::{Mood, Upstream, item},
};

/// Docker's catalog and a part of the registry where the large data is known, small ones elsewhere.
async fn upstream() -> Upstream {
    let Some(path) = docker_catalog() else { return small().await };
    let catalog = std::fs::read_to_string(&path).unwrap();
    let seed = std::fs::read_to_string(path.with_file_name("mcp-registry-seed.json")).unwrap();
    let seed: Value = serde_json::from_str(&seed).unwrap();
    Upstream::serving(catalog, seed["servers"].as_array().unwrap().clone()).await
}

async fn small() -> Upstream {
    let catalog = "version: 3\nname: small\nregistry:\n  sundial: {title: Sundial, image: mcp/sundial, description: Tells the hour by the sun.}\n  abacus: {title: Abacus, image: mcp/abacus}\n";
    let server = |number: u32| {
        let updated = format!("2025-10-01T00:{:02}:{:02}Z", number / 60, number % 60);
        item(&format!("io.example/server-{number:03}"), "1.0.0", &updated, "docker.io/example/server:1.0.0")
    };
    Upstream::serving(catalog.to_owned(), (0..250).map(server).collect()).await
}

async fn add(broker: &TestBroker, name: &str, location: String) -> Value {
    let body = json!({"name": name, "location": location});
    let (status, answer) = broker.rest(Method::POST, "/v1/catalog/sources", Some(body)).await;
    assert_eq!(status, 200, "{answer}");
    answer["sources"][0].clone()
}

/// Updates everything, and gives back what went wrong with each source.
async fn update(broker: &TestBroker) -> Vec<String> {
    let (status, answer) = broker.rest(Method::POST, "/v1/catalog/update", Some(json!({}))).await;
    assert_eq!(status, 200, "{answer}");
    let sources = answer["sources"].as_array().unwrap();
    sources.iter().filter_map(|source| source["error"].as_str().map(str::to_owned)).collect()
}

/// Every server that can be added, with all that is known of it.
fn servers(broker: &TestBroker) -> BTreeSet<String> {
    broker.app().catalog.snapshot().entries().map(|entry| format!("{entry:?}")).collect()
}

async fn first_found(client: &TestClient, query: &str) -> Value {
    client.ok("mcp-find", json!({"query": query})).await.structured_content.unwrap()["servers"][0].clone()
}

#[tokio::test]
async fn what_a_source_gave_is_there_whether_it_answers_or_not() {
    let mut upstream = upstream().await;
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    let slow = client.call("fixture__slow", json!({"ms": 1500}));
    let adding = async {
        let docker = add(&broker, "docker", upstream.catalog_url()).await;
        let registry = add(&broker, "registry", upstream.registry_url()).await;
        assert_eq!((&docker["trust"], &docker["kind"]), (&json!("third party"), &json!("url")));
        assert_eq!(registry["kind"], "registry");
        assert!(docker["servers"].as_u64().unwrap() >= 2 && registry["servers"].as_u64().unwrap() >= 250);
    };
    let (slow, ()) = tokio::join!(slow, adding);
    assert!(slow.is_ok(), "a call in flight is not disturbed: {slow}");
    let pid = client.ok("fixture__pid", json!({})).await.structured_content.unwrap();
    let all = servers(&broker);
    assert!(all.len() > 500, "{}", all.len());
    upstream.asked();

    assert_eq!(update(&broker).await, Vec::<String>::new());
    let asked = upstream.asked();
    assert_eq!(asked[0], "catalog 304", "what has not changed is not sent again");
    assert!(asked[1..].iter().all(|asked| asked.starts_with("servers changes")), "{asked:?}");
    assert_eq!(servers(&broker), all);

    upstream.offline().await;
    let errors = update(&broker).await;
    assert_eq!(errors.len(), 2, "{errors:?}");
    assert_eq!(servers(&broker), all);
    let broker = broker.restart().await;
    assert_eq!(servers(&broker), all, "the data folder has them");
    let (_, listed) = broker.rest(Method::GET, "/v1/catalog/sources", None).await;
    let told = listed["sources"].as_array().unwrap().iter().filter(|source| source["error"].is_string()).count();
    assert_eq!(told, 2, "and what went wrong is still told: {listed}");

    upstream.online().await;
    assert_eq!(update(&broker).await, Vec::<String>::new());
    assert_eq!(servers(&broker), all);
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    assert_ne!(
        client.ok("fixture__pid", json!({})).await.structured_content.unwrap(),
        pid,
        "another process, after all"
    );
    client.close().await;
    broker.stop().await;
}

#[tokio::test]
async fn a_source_that_misbehaves_takes_nothing_away() {
    let upstream = small().await;
    let broker = TestBroker::start().await;
    add(&broker, "catalog", upstream.catalog_url()).await;
    // The whole listing is asked for each time, as long as nothing says when it changed.
    for item in &mut upstream.what().servers {
        item["_meta"] = json!({});
    }
    add(&broker, "registry", upstream.registry_url()).await;
    let all = servers(&broker);
    upstream.what().catalog.push_str("# something else\n");
    for (mood, catalog, registry) in [
        (Mood::Status500, "answered 500", "answered 500"),
        (Mood::Half, "not a catalog", "page 2 of the listing is not one"),
        (Mood::Circle, "", "leads back"),
        (Mood::Endless, "", "more pages than can be"),
        (Mood::Huge, "larger than 16777216 bytes", "larger than 16777216 bytes"),
        (Mood::NoCatalog, "not a catalog", "is not one"),
    ] {
        upstream.what().mood = mood;
        let errors = update(&broker).await;
        let expected: Vec<&str> = [catalog, registry].into_iter().filter(|expected| !expected.is_empty()).collect();
        assert_eq!(errors.len(), expected.len(), "{mood:?}: {errors:?}");
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.contains(expected), "{mood:?}: {error}");
        }
        assert_eq!(servers(&broker), all, "{mood:?}");
    }
    upstream.what().mood = Mood::Well;
    assert_eq!(update(&broker).await, Vec::<String>::new());
    assert_eq!(servers(&broker), all);
    broker.stop().await;
}

#[tokio::test]
async fn a_running_broker_sees_what_has_changed_and_keeps_what_broke() {
    let upstream = small().await;
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    add(&broker, "catalog", upstream.catalog_url()).await;
    add(&broker, "registry", upstream.registry_url()).await;
    assert_eq!(first_found(&client, "sundial").await["name"], "sundial");
    assert_eq!(first_found(&client, "sundial").await["trust"], "third party");

    {
        let mut what = upstream.what();
        // One breaks, one goes, one is new.
        what.catalog = "version: 3\nregistry:\n  sundial: {title: Sundial}\n  theodolite: {image: mcp/theodolite, description: Measures angles.}\n".to_owned();
        let later = "2025-11-01T00:00:00Z";
        what.servers[3] = item("io.example/server-003", "2.0.0", later, "docker.io/example/server:2.0.0");
        what.servers[4]["_meta"]["io.modelcontextprotocol.registry/official"] =
            json!({"status": "deleted", "updatedAt": later, "isLatest": true});
    }
    upstream.asked();
    assert_eq!(update(&broker).await, Vec::<String>::new());
    assert_eq!(upstream.asked(), ["catalog 200", "servers changes 0 200"].map(str::to_owned));
    assert_eq!(first_found(&client, "measures angles").await["name"], "theodolite");
    let snapshot = broker.app().catalog.snapshot();
    let entry = |name: &str| snapshot.entry(&name.parse().unwrap()).cloned();
    assert!(entry("sundial").is_some(), "what came instead of it cannot be run");
    assert!(entry("abacus").is_none(), "the source took it out");
    assert!(entry("io.example/server-004").is_none(), "the registry deleted it");
    let updated = entry("io.example/server-003").unwrap();
    assert_eq!((updated.version.as_deref(), updated.versions.as_slice()), (Some("2.0.0"), &["1.0.0".to_owned()][..]));
    assert!(entry("io.example/server-005").is_some());

    let (status, _) = broker.rest(Method::DELETE, "/v1/catalog/sources/catalog", None).await;
    assert_eq!(status, 200);
    assert!(broker.app().catalog.entry(&"theodolite".parse().unwrap()).is_none());
    let (status, answer) = broker.rest(Method::DELETE, "/v1/catalog/sources/catalog", None).await;
    assert_eq!(status, 404, "{answer}");
    client.close().await;
    broker.stop().await;
}

#[tokio::test]
async fn sources_are_asked_again_when_they_have_become_old() {
    let upstream = small().await;
    let broker = TestBroker::start().await;
    add(&broker, "catalog", upstream.catalog_url()).await;
    upstream.asked();
    let broker = broker.restart().await;
    upstream.what().catalog.push_str("  theodolite: {image: mcp/theodolite}\n");
    broker.clock.advance(jiff::SignedDuration::from_hours(25));
    let broker = broker.restart().await;
    let theodolite = "theodolite".parse().unwrap();
    eventually("the new server is there", async || broker.app().catalog.entry(&theodolite).is_some()).await;
    assert_eq!(upstream.asked(), ["catalog 200"], "and not at the restart before");
    broker.stop().await;
}

#[tokio::test]
async fn sources_are_kept_by_command_with_and_without_a_broker() {
    let mut upstream = small().await;
    let home = Home::with(&FixtureCatalog::new().server("fixture", &[], &[]));
    let added = home.run(&["catalog", "add", &upstream.catalog_url(), "--name", "small"]).await.ok();
    assert_eq!(added, "small added 2 servers, 0 problems\n");
    let listed = home.run(&["catalog", "ls"]).await.ok();
    assert!(listed.lines().any(|line| line.starts_with("small ") && line.contains("third party")), "{listed}");
    let shown = home.run(&["catalog", "show", "sundial"]).await.ok();
    assert!(shown.contains("small (third party)"), "{shown}");
    let taken = home.run(&["catalog", "add", &upstream.catalog_url(), "--name", "small"]).await;
    assert!(taken.code() == 1 && taken.err().contains("remove it first"), "{}", taken.err());
    let unsafe_one = home.run(&["catalog", "add", "http://example.com/catalog.yaml"]).await;
    assert!(unsafe_one.code() == 1 && unsafe_one.err().contains("https"), "{}", unsafe_one.err());

    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    upstream.what().catalog.push_str("  theodolite: {image: mcp/theodolite, description: Measures angles.}\n");
    assert_eq!(home.run(&["catalog", "update"]).await.ok(), "small has 3 servers, 0 problems\n");
    assert_eq!(first_found(&client, "measures angles").await["name"], "theodolite", "without a restart");
    let file = home.path().join("server.json");
    std::fs::write(&file, item("io.example/own", "1.0.0", "", "docker.io/example/own:1")["server"].to_string())
        .unwrap();
    home.run(&["catalog", "import", file.to_str().unwrap()]).await.ok();
    assert_eq!(first_found(&client, "io.example/own").await["name"], "io.example/own");
    assert!(home.run(&["catalog", "servers", "--source", "imported"]).await.ok().contains("io.example/own"));
    home.run(&["catalog", "rm", "io.example/own"]).await.ok();

    upstream.offline().await;
    let failed = home.run(&["catalog", "update", "small"]).await;
    assert_eq!(failed.code(), 1);
    assert!(failed.err().contains("keeps its 3 servers"), "{}", failed.err());
    assert!(home.run(&["catalog", "ls"]).await.ok().contains("the last update, at"));
    let audit = home.run(&["audit", "--kind", "catalog"]).await.ok();
    assert!(audit.contains("update small") && audit.contains("remove io.example/own"), "{audit}");
    client.close().await;
    broker.terminate().await;
    home.run(&["catalog", "remove", "small"]).await.ok();
    let gone = home.run(&["catalog", "show", "theodolite"]).await;
    assert!(gone.code() == 1 && gone.err().contains("there is no server"), "{}", gone.err());
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_neither_found_nor_added() {
    let catalog = FixtureCatalog::new().server("fixture", &[], &[]).entry(
        "fixture-payments",
        &[],
        &[],
        "    metadata: {category: payments}",
    );
    let deny: CatalogSettings = serde_json::from_value(json!({"deny": {"categories": ["payments"]}})).unwrap();
    let broker = TestBroker::with(catalog).policy(deny).start().await;
    let client = broker.connect(Era::Legacy).await;
    let found =
        client.ok("mcp-find", json!({"query": "fixture payments", "limit": 50})).await.structured_content.unwrap();
    let names: Vec<&str> =
        found["servers"].as_array().unwrap().iter().map(|server| server["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"fixture") && !names.contains(&"fixture-payments"), "{names:?}");
    insta::assert_snapshot!(client.call("mcp-add", json!({"name": "fixture-payments"})).await, @"error: Server `fixture-payments` was not added: the operator does not allow the category `payments`. mcp-find shows what can be added.");
    let misspelt = client.call("mcp-add", json!({"name": "fixture-payment"})).await.to_string();
    assert!(misspelt.contains("fixture") && !misspelt.contains("fixture-payments"), "{misspelt}");
    assert_eq!(client.server_tools().await, Vec::<String>::new());
    let audit = broker.audit().await;
    assert_eq!(audit, ["mcp-find success", "mcp-add refused", "mcp-add error"]);
    client.close().await;
    broker.stop().await;
}

#[tokio::test]
async fn what_servers_say_of_their_tools_is_found_when_they_do_not_run() {
    let config = "    config: [{name: plain, type: object, properties: {greeting: {type: string}}}]";
    let broker =
        TestBroker::with(FixtureCatalog::new().entry("plain", &["--profile", "faults"], &[], config)).start().await;
    let client = broker.connect(Era::Legacy).await;
    let query = json!({"query": "writes to stderr before it answers"});
    let finds = async |client: &TestClient| {
        let found = client.ok("mcp-find", query.clone()).await.structured_content.unwrap();
        let plain = found["servers"].as_array().unwrap().iter().find(|server| server["name"] == "plain").cloned();
        plain.is_some_and(|plain| plain["tools"].as_array().is_some_and(|tools| tools.contains(&json!("stderr_flood"))))
    };
    assert!(!finds(&client).await, "the catalog says nothing of it");
    let own = json!({"name": "plain", "config": {"greeting": "hello"}});
    client.ok("mcp-add", own).await;
    client.ok("mcp-remove", json!({"name": "plain"})).await;
    let known = broker.store().learned_tools().await.unwrap();
    assert_eq!(known, [], "what is said with a session's own config is that session's");
    client.close().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("plain").await;
    eventually("the tool is found", async || finds(&client).await).await;
    client.ok("mcp-remove", json!({"name": "plain"})).await;
    client.close().await;

    let broker = broker.restart().await;
    let client = broker.connect(Era::Legacy).await;
    eventually("it is still known", async || finds(&client).await).await;
    let added =
        client.ok("mcp-add", json!({"name": "plain", "activate": ["stderr_flood"]})).await.structured_content.unwrap();
    let tools = added["tools"].as_array().unwrap();
    let signed: Vec<&Value> = tools.iter().filter(|tool| tool["signature"].is_string()).collect();
    assert_eq!(signed.len(), 1, "of the others there is the name: {added}");
    assert_eq!(client.server_tools().await, ["plain__stderr_flood"]);
    client.close().await;
    broker.stop().await;
}

#[tokio::test]
async fn what_no_server_can_do_is_said_to_be_so() {
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    let nearest = client.ok("mcp-find", json!({"query": "repair my bicycle", "limit": 20})).await;
    let told = nearest.structured_content.clone().unwrap();
    assert!(told["unlikely"] == true && told["servers"].as_array().unwrap().len() <= 3, "{told}");
    assert!(text_of(&nearest).starts_with("No server in the catalog is clearly for “repair my bicycle”."));
    insta::assert_snapshot!(client.call("mcp-find", json!({"query": "xqzzyv blorp"})).await, @"ok: None of the 330 servers in the catalog matches “xqzzyv blorp”. Try other words.");
    insta::assert_snapshot!(client.call("mcp-find", json!({"query": "xqzzyv", "no_secrets": true})).await, @"ok: None of the 330 servers in the catalog matches “xqzzyv”. Try other words, or ask for fewer things.");
    let clear = client.ok("mcp-find", json!({"query": "what time is it in Tokyo"})).await.structured_content.unwrap();
    assert!(clear["unlikely"].is_null() && clear["servers"][0]["name"] == "time", "{clear}");
    client.close().await;
    broker.stop().await;
}
