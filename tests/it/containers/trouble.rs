//! Engines, registries and kernels that get in the way.

use std::net::TcpListener;

use serde_json::json;

use super::{
    IMAGE, catalog,
    engine::{all_is_gone, docker, engine},
    private_engine::PrivateEngine,
};
use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually};

#[tokio::test]
async fn a_container_out_of_memory_is_told_apart_and_comes_back() {
    let Some(_engine) = engine().await else { return };
    let broker = TestBroker::with(catalog()).containers(|settings| settings.memory_bytes = 64 << 20).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("offline").await;
    let killed = client.call("offline__big", json!({"bytes": 400_000_000})).await.to_string();
    assert!(killed.contains("code 137: the kernel ended it for using more than 64 MiB"), "{killed}");
    client.ok("offline__echo", json!({"text": "again"})).await;
    broker.stop().await;
    all_is_gone();
}

#[tokio::test]
async fn an_engine_that_goes_away_in_mid_call_fails_that_call_and_is_found_again() {
    let Some(_engine) = engine().await else { return };
    let Some(mut own) = PrivateEngine::start(None).await else { return };
    own.copy(IMAGE);
    let address = own.address();
    let broker = TestBroker::with(catalog()).containers(|settings| settings.engine = Some(address)).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("offline").await;
    let slow = client.call("offline__slow", json!({"ms": 60_000, "steps": 600}));
    let stops = async {
        client.wait_for("the call is under way", |told| !told.progress.is_empty()).await;
        own.end();
    };
    let (outcome, ()) = tokio::join!(slow, stops);
    assert!(outcome.to_string().contains("ended during the call"), "{outcome}");
    let dead = client.call("offline__echo", json!({"text": "anybody?"})).await.to_string();
    assert!(dead.contains("does not answer: is it running"), "{dead}");

    own.begin().await;
    eventually("calls work again", async || client.call("offline__echo", json!({"text": "again"})).await.is_ok()).await;
    eventually("only what runs now is there", async || {
        own.docker(&["ps", "--all", "--quiet"]).is_some_and(|all| all.lines().count() == 1)
    })
    .await;
    broker.stop().await;
    assert_eq!(own.docker(&["ps", "--all", "--quiet"]).as_deref(), Some(""));
}

#[tokio::test]
async fn an_image_that_there_is_no_room_for_says_so() {
    let Some(engine) = engine().await else { return };
    let Some(own) = PrivateEngine::start(Some("24m")).await else { return };
    let image = format!("{}/fixture:1", engine.registry);
    let address = own.address();
    let broker = TestBroker::with(FixtureCatalog::new().image("large", &image, ""))
        .containers(|settings| settings.engine = Some(address))
        .start()
        .await;
    let client = broker.connect(Era::Legacy).await;
    let full = client.call("mcp-add", json!({"name": "large"})).await.to_string();
    assert!(full.contains("could not pull the image") && full.contains("no space left on device"), "{full}");
    broker.stop().await;
}

#[tokio::test]
async fn a_registry_that_never_answers_is_given_up_on() {
    let Some(_engine) = engine().await else { return };
    // Connections are taken, and nothing is ever said on them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/stalled:1", silent.local_addr().unwrap());
    let broker = TestBroker::with(catalog().image("stalled", &image, ""))
        .containers(|_| ())
        .limits(|limits| limits.install_seconds = 2)
        .start()
        .await;
    let client = broker.connect(Era::Legacy).await;
    let stalled = client.call("mcp-add", json!({"name": "stalled"})).await.to_string();
    assert!(stalled.contains("it was not there within 2 s"), "{stalled}");
    client.add("box").await;
    broker.stop().await;
    assert_eq!(docker(&["ps", "--all", "--quiet", "--filter", "label=mcp-broker.folder"]), "");
}

#[tokio::test]
async fn a_config_that_no_program_can_be_started_with_is_refused_plainly() {
    let Some(_engine) = engine().await else { return };
    let lines = "    env: [{name: TEXT, value: \"{{wordy.text}}\"}]\n    config:\n      - {name: C, type: object, properties: {text: {type: string}}}";
    let broker = TestBroker::with(catalog().image("wordy", IMAGE, lines)).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let text = "x".repeat(1 << 20);
    let refused = client.call("mcp-add", json!({"name": "wordy", "config": {"text": text}})).await.to_string();
    assert!(refused.contains("the variable `TEXT` is 1048581 bytes long"), "{refused}");
    // What looks like a template in a config stays what it is.
    client.ok("mcp-add", json!({"name": "wordy", "config": {"text": "{{wordy.text}}"}})).await;
    let seen = client.ok("wordy__env", json!({"names": ["TEXT"]})).await;
    assert!(crate::support::client::text_of(&seen).contains("{{wordy.text}}"));
    broker.stop().await;
}
