//! Servers that other people wrote, in images of the two systems most of them run on.

use serde_json::json;

use super::engine::{all_is_gone, engine};
use crate::support::{Era, FixtureCatalog, TestBroker, client::text_of};

#[tokio::test]
async fn reference_servers_on_node_and_python_are_used_and_combined() {
    let Some(_engine) = engine().await else { return };
    let zone = "    command: [\"--local-timezone={{time.timezone}}\"]\n    config:\n      - {name: C, type: object, properties: {timezone: {type: string}}, required: [timezone]}";
    let catalog = FixtureCatalog::new().image("memory", "mcp-broker-test/memory:1", "").image(
        "time",
        "mcp-broker-test/time:1",
        zone,
    );
    let broker = TestBroker::with(catalog).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    let wanting = client.call("mcp-add", json!({"name": "time"})).await.to_string();
    assert!(wanting.contains("timezone"), "{wanting}");
    let (_, added) = tokio::join!(
        client.add("memory"),
        client.ok("mcp-add", json!({"name": "time", "config": {"timezone": "Europe/Berlin"}}))
    );
    assert_eq!(added.structured_content.unwrap()["state"], "ready");

    let hour = json!({"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"});
    let converted = text_of(&client.ok("time__convert_time", hour).await);
    assert!(converted.contains("21:00"), "{converted}");
    let local = text_of(&client.ok("time__get_current_time", json!({"timezone": "Europe/Berlin"})).await);
    assert!(local.contains("Europe/Berlin"), "{local}");

    let lemon = json!({"entities": [{"name": "lemon", "entityType": "fruit", "observations": ["sour"]}]});
    client.ok("memory__create_entities", lemon).await;
    let found = text_of(&client.ok("memory__search_nodes", json!({"query": "sour"})).await);
    assert!(found.contains("lemon"), "{found}");

    let script = "const [hour, found] = await Promise.all([
             time.convert_time({source_timezone: 'UTC', time: '12:00', target_timezone: 'Asia/Tokyo'}),
             memory.search_nodes({query: 'sour'}),
         ]);
         return [JSON.stringify(hour).includes('21:00'), found.entities[0].name];";
    let both = json!({"servers": ["memory", "time"], "name": "both", "script": script});
    let ran = client.ok("code-mode", both).await.structured_content.unwrap();
    assert_eq!(ran["result"], json!([true, "lemon"]));

    broker.stop().await;
    all_is_gone();
}
