//! A network that the operator has closed, and what stays open.

use std::process::Command;

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt as _, net::TcpListener};

use super::{
    IMAGE,
    engine::{all_is_gone, docker, engine, networks},
};
use crate::support::{Era, FixtureCatalog, TestBroker, client::text_of};

/// Connects to each `host:port` and prints what comes of it. The first may need a moment to be there.
const CONNECT: &str = r#"
import socket, sys, time
def said(at):
    host, port = at.rsplit(":", 1)
    try:
        with socket.create_connection((host, int(port)), 5) as stream:
            return stream.recv(100).decode() or "closed"
    except OSError:
        return "nothing"
until = time.time() + 10
while said(sys.argv[1]) == "nothing" and time.time() < until:
    time.sleep(0.01)
print(*map(said, sys.argv[1:]), sep="|")
"#;

/// Says the same to everybody who connects.
async fn says(address: &str, text: &'static str) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(text.as_bytes()).await;
        }
    });
    port
}

/// This machine's address on the engine's own network, which containers usually reach. An engine does not tell it before it is
/// started a second time (moby/moby, issue 26799).
fn address_on_the_bridge() -> String {
    let bridge =
        docker(&["network", "inspect", "bridge", "--format", r#"{{index .Options "com.docker.network.bridge.name"}}"#]);
    let output = Command::new("ip").args(["-4", "-json", "address", "show", "dev", &bridge]).output().expect("ip runs");
    let devices: Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    devices[0]["addr_info"][0]["local"].as_str().expect("an address").to_owned()
}

#[tokio::test]
async fn a_closed_network_lets_through_what_an_entry_names_and_nothing_else() {
    let Some(_engine) = engine().await else { return };
    let here = address_on_the_bridge();
    let (open, closed, own) = (says(&here, "open").await, says(&here, "closed").await, says("127.0.0.1", "own").await);
    let entry = |allowed: &str| {
        format!(
            "
    type: poci
    tools:
      - name: connect
        parameters: {{type: object, properties: {{to: {{type: array, items: {{type: string}}}}}}, required: [to]}}
        container:
          image: \"mcp-broker-test/debian:1\"
          command: [python3, -c, {}, \"{{{{to|into}}}}\"]
          allowHosts: [{allowed}]
          extraHosts: [\"a.test:{here}\", \"b.test:{here}\", \"own.test:127.0.0.1\"]",
            json!(CONNECT)
        )
    };
    let some = format!("\"a.test:{open}\", \"b.test:{open}\", \"own.test:{own}\"");
    let catalog =
        || FixtureCatalog::new().raw("some", &entry(&some)).raw("any", &entry("\"*:443\"")).image("none", IMAGE, "");
    let to = |hosts: &[String]| json!({"to": hosts});
    let usual = [format!("a.test:{open}"), format!("b.test:{open}")];
    let unusual = [format!("a.test:{closed}"), format!("{here}:{open}"), format!("{here}:{closed}")];
    let own = format!("own.test:{own}");

    let broker = TestBroker::with(catalog()).containers(|_| ()).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("some").await;
    let all = to(&[&usual[..], &unusual[..]].concat());
    let said = text_of(&client.ok("some__connect", all.clone()).await);
    assert_eq!(said.trim(), "open|open|closed|open|closed", "nothing is closed unless the operator says so");
    broker.stop().await;

    let broker = TestBroker::with(catalog()).containers(|settings| settings.block_network = true).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("some").await;
    let said = text_of(&client.ok("some__connect", all).await);
    assert_eq!(said.trim(), "open|open|nothing|nothing|nothing");
    // Nor is the gate a way to what only the broker's machine itself reaches.
    let said = text_of(&client.ok("some__connect", to(&[usual[0].clone(), own])).await);
    assert_eq!(said.trim(), "open|closed");
    client.add("any").await;
    let unclear = client.call("any__connect", to(&usual)).await.to_string();
    assert!(unclear.contains("`*:443`") && unclear.contains("only a name and a port"), "{unclear}");

    client.add("none").await;
    let id = docker(&["ps", "--quiet", "--filter", "label=mcp-broker.server=none"]);
    assert_eq!(docker(&["inspect", &id, "--format", "{{.HostConfig.NetworkMode}}"]), "none");
    assert!(networks().is_empty(), "there is nobody for whom to make one");
    broker.stop().await;
    all_is_gone();
}
