//! What the management tools say: small, and on failure what to do next.

use serde_json::{Value, json};

use crate::support::{
    Era, FixtureCatalog, TestBroker,
    client::{object, text_of},
};

fn needy() -> FixtureCatalog {
    let entry = concat!(
        "    secrets:\n      - {name: needy.api_key, env: NEEDY_KEY, description: From the settings page}\n",
        "    config:\n      - {name: needy, type: object, properties: {folder: {type: string}}, required: [folder]}"
    );
    FixtureCatalog::new().entry("needy", &[], &[("FOLDER", "{{needy.folder}}")], entry).server("plain", &[], &[])
}

#[tokio::test]
async fn a_server_that_needs_something_says_what_and_is_not_added() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let outcome = client.call("mcp-add", json!({"name": "needy"})).await;
    insta::assert_snapshot!(outcome, @r#"
    error: Server `needy` was not added. It still needs:
    - the secret `needy.api_key` (From the settings page): have the operator run `mcp-broker secret set needy.api_key`, or pass it as `needy.api_key` in `config`
    - config: "folder" is a required property
      config takes
        folder: string (required)
    Then call mcp-add again.
    "#);
    let wrong = client.call("mcp-config-set", json!({"server": "needy", "config": {"folder": 7}})).await;
    assert!(wrong.to_string().contains("folder: value is not of type \"string\""), "{wrong}");
    let set = client
        .call("mcp-config-set", json!({"server": "needy", "config": {"folder": "/data", "api_key": "hunter2-hunter2"}}))
        .await;
    insta::assert_snapshot!(set, @"ok: The config of server `needy` is set: folder. Kept encrypted, as secrets of this session: needy.api_key.");
    client.add("needy").await;
    let environment = client.ok("needy__env", json!({"names": ["NEEDY_KEY", "FOLDER"]})).await;
    assert!(text_of(&environment).contains("hunter2-hunter2") && text_of(&environment).contains("/data"));
    let (_, records) = broker.rest(http::Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(!records.to_string().contains("hunter2"), "{records}");
    let unknown = json!({"name": "nowhere", "config": {"odd": "hunter2-hunter2-again"}});
    assert!(!client.call("mcp-add", unknown).await.is_ok());
    let (_, records) = broker.rest(http::Method::GET, "/v1/audit?limit=1000", None).await;
    assert!(
        !records.to_string().contains("hunter2"),
        "nothing is known of this server, so no value is kept: {records}"
    );
    broker.stop().await;
}

#[tokio::test]
async fn a_changed_config_restarts_the_server() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-add", json!({"name": "needy", "config": {"folder": "/one", "NEEDY_KEY": "key-number-1"}})).await;
    let set = client.ok("mcp-config-set", json!({"server": "needy", "config": {"folder": "/two"}})).await;
    assert_eq!(set.structured_content.unwrap()["restarted"], true);
    let environment = client.ok("needy__env", json!({"names": ["FOLDER"]})).await;
    assert!(text_of(&environment).contains("/two"));
    client.ok("mcp-remove", json!({"name": "needy"})).await;
    client.ok("mcp-add", json!({"name": "needy"})).await;
    let kept = client.ok("needy__env", json!({"names": ["FOLDER"]})).await;
    assert!(text_of(&kept).contains("/two"), "the config outlives the removal");
    broker.stop().await;
}

#[tokio::test]
async fn a_secret_is_kept_as_one_or_not_at_all() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let wrong = json!({"server": "needy", "config": {"folder": "/one", "apiKey": ["hunter2"]}});
    insta::assert_snapshot!(client.call("mcp-config-set", wrong).await, @"
    error: The config of server `needy` was not taken:
    - `needy.api_key` is a secret: give it as text that is not empty
    ");
    let added = json!({"name": "needy", "config": {"folder": "/one", "NEEDY_KEY": ""}});
    insta::assert_snapshot!(client.call("mcp-add", added).await, @"
    error: The config of server `needy` was not taken:
    - `needy.api_key` is a secret: give it as text that is not empty
    ");
    let digits = json!({"name": "needy", "config": {"folder": "/one", "needy.api_key": 1_234_567_890}});
    let added = client.ok("mcp-add", digits).await;
    assert!(!text_of(&added).contains("1234567890"), "{added:?}");
    let environment = client.ok("needy__env", json!({"names": ["NEEDY_KEY"]})).await;
    assert!(text_of(&environment).contains("1234567890"), "{environment:?}");
    let (_, shown) = broker.rest(http::Method::GET, "/v1/sessions", None).await;
    let (_, records) = broker.rest(http::Method::GET, "/v1/audit?limit=1000", None).await;
    for said in [shown, records] {
        let said = said.to_string();
        assert!(!said.contains("1234567890") && !said.contains("hunter2"), "{said}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn config_that_a_server_does_not_know_is_told() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let config = json!({"folder": "/one", "NEEDY_KEY": "key-number-1", "foldr": "/two"});
    let added = client.ok("mcp-add", json!({"name": "needy", "config": config})).await;
    let said = "`foldr` is not known (did you mean `folder`?)";
    assert!(text_of(&added).contains(said), "{added:?}");
    assert_eq!(added.structured_content.unwrap()["unknown_config"], json!([said]));
    let set = client.ok("mcp-config-set", json!({"server": "plain", "config": {"x": 1}})).await;
    assert!(text_of(&set).contains("`x` is not known: this server takes no config and no secrets. "), "{set:?}");
    let set = client.ok("mcp-config-set", json!({"server": "needy", "config": {"folder": "/two"}})).await;
    assert!(set.structured_content.unwrap().get("unknown_config").is_none());
    broker.stop().await;
}

#[tokio::test]
async fn a_search_among_what_there_is_not_says_what_there_is() {
    let category = |name: &str| format!("    metadata: {{category: {name}, tags: [cash]}}");
    let catalog = ["one", "two"].iter().fold(needy(), |catalog, name| catalog.image(name, "x", &category("payments")));
    let broker = TestBroker::with(catalog.image("three", "x", &category("maps"))).start().await;
    let client = broker.connect(Era::Legacy).await;
    let find = async |more: Value| {
        let mut query = json!({"query": "three maps"});
        query.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        text_of(&client.ok("mcp-find", query).await)
    };
    let none = find(json!({"category": "payment"})).await;
    let said = "There is no category or tag `payment` in the catalog (did you mean `payments`?). There are: ";
    assert!(none.starts_with(said), "{none}");
    let none = find(json!({"source": "nowhere"})).await;
    assert_eq!(
        none, "There is no source `nowhere` in the catalog. There are: built-in.",
        "and not the operator's file"
    );
    for tagged in ["Cash", "maps"] {
        let found = find(json!({"category": tagged})).await;
        assert!(found.contains("The image three"), "{found}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn wrong_names_get_suggestions() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let server = client.call("mcp-add", json!({"name": "plian"})).await.to_string();
    assert!(server.contains("there is no server `plian`") && server.contains("plain"), "{server}");
    client.add("plain").await;
    insta::assert_snapshot!(client.exec(None, "ecoh", json!({})).await, @"error: there is no tool `ecoh` in this session. mcp-list shows what there is, mcp-find what could be added.");
    let direct = client.call("plain__echoo", json!({})).await.to_string();
    assert!(direct.starts_with("protocol error -32602: Unknown tool: plain__echoo"), "{direct}");
    insta::assert_snapshot!(client.exec(None, "mcp-add", json!({})).await, @"error: `mcp-add` is one of the broker's own tools: call it directly");
    insta::assert_snapshot!(client.call("mcp-remove", json!({"name": "needy"})).await, @"error: server `needy` is not on in this session; plain are");
    broker.stop().await;
}

#[tokio::test]
async fn an_ambiguous_name_is_told_apart() {
    let catalog = FixtureCatalog::new().server("one", &[], &[]).server("two", &[], &[]);
    let broker = TestBroker::with(catalog).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("one").await;
    client.add("two").await;
    insta::assert_snapshot!(client.exec(None, "echo", json!({"text": "x"})).await, @"error: several servers have a tool `echo`: use one of one__echo, two__echo");
    broker.stop().await;
}

#[tokio::test]
async fn wrong_arguments_get_the_schema_so_that_one_retry_suffices() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("plain").await;
    for outcome in
        [client.call("plain__add", json!({"a": "one"})).await, client.exec(None, "add", json!({"a": "one"})).await]
    {
        let text = outcome.to_string();
        assert!(text.starts_with("error: "), "{text}");
        assert!(text.contains("Its input schema is {") && text.contains("\"b\""), "{text}");
    }
    for (tool, arguments, expected) in [
        ("mcp-find", json!({}), "mcp-find takes `query`"),
        ("mcp-find", json!({"query": "  "}), "needs a `query`"),
        ("mcp-add", json!({"nam": "plain"}), "mcp-add takes `name`"),
        ("mcp-add", json!({"name": "plain", "activate": 3}), "`activate` must be"),
        ("mcp-add", json!({"name": "plain", "activate": ["nope"]}), "it has no tool nope"),
        ("mcp-config-set", json!({"server": "plain", "config": []}), "mcp-config-set takes"),
        ("mcp-exec", json!({"arguments": {}}), "mcp-exec needs `name`"),
        ("mcp-exec", json!({"name": "echo", "arguments": [1]}), "must be an object"),
    ] {
        let outcome = client.call(tool, arguments).await.to_string();
        assert!(outcome.starts_with("error: ") && outcome.contains(expected), "{tool}: {outcome}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn only_the_tools_that_were_chosen_are_listed_and_all_can_be_called() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.ok("mcp-add", json!({"name": "plain", "activate": ["echo", "add"]})).await;
    let mut listed = client.server_tools().await;
    listed.sort();
    assert_eq!(listed, ["plain__add", "plain__echo"]);
    assert!(client.exec(None, "pid", json!({})).await.is_ok());
    client.ok("mcp-add", json!({"name": "plain", "activate": false})).await;
    assert_eq!(client.server_tools().await, Vec::<String>::new());
    assert!(client.exec(None, "echo", json!({"text": "x"})).await.is_ok());
    broker.stop().await;
}

#[tokio::test]
async fn full_detail_gives_whole_schemas() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let added = client.ok("mcp-add", json!({"name": "plain", "detail": "full"})).await.structured_content.unwrap();
    let echo = added["tools"].as_array().unwrap().iter().find(|tool| tool["name"] == "plain__echo").unwrap();
    assert_eq!(echo["inputSchema"]["type"], "object");
    broker.stop().await;
}

#[tokio::test]
async fn every_management_tool_answers_as_its_output_schema_says() {
    let broker = TestBroker::with(needy()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let schemas: std::collections::HashMap<String, Value> = client
        .tools()
        .await
        .into_iter()
        .filter_map(|tool| Some((tool.name.into_owned(), Value::Object(tool.output_schema?.as_ref().clone()))))
        .collect();
    let calls = [
        ("mcp-find", json!({"query": "fixture"})),
        ("mcp-add", json!({"name": "needy"})),
        ("mcp-add", json!({"name": "plain"})),
        ("mcp-add", json!({"name": "plain", "detail": "full"})),
        ("mcp-list", json!({})),
        ("mcp-config-set", json!({"server": "plain", "config": {"x": 1}})),
        ("mcp-remove", json!({"name": "plain"})),
    ];
    for (tool, arguments) in calls {
        let result = client.try_call(tool, arguments).await.unwrap();
        let content = result.structured_content.unwrap();
        let validator = jsonschema::validator_for(&schemas[tool]).unwrap();
        let errors: Vec<String> = validator.iter_errors(&content).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{tool}: {errors:?} in {content}");
    }
    assert!(schemas.len() == 5, "mcp-exec answers with what it calls answers");
    broker.stop().await;
}

#[tokio::test]
async fn answers_of_mcp_find_are_small() {
    let Some(path) = crate::support::docker_catalog() else { return };
    let broker = TestBroker::with(needy()).catalog_file(path).start().await;
    let client = broker.connect(Era::Legacy).await;
    for query in ["create a pull request", "database", "search the web", "kubernetes cluster"] {
        let found = client.ok("mcp-find", json!({"query": query, "limit": 10})).await;
        let text = text_of(&found);
        assert_eq!(text.lines().filter(|line| !line.starts_with('(')).count(), 10, "{text}");
        assert!(text.len() <= 4096, "{query}: {} bytes", text.len());
        let structured = object(found.structured_content.unwrap());
        assert!(serde_json::to_string(&structured).unwrap().len() <= 5120, "{query}");
    }
    broker.stop().await;
}
