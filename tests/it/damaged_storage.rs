//! A database that is broken or was cut short, a clock that jumps, names that are no names, and questions asked while
//! everything is written.

use std::fs::OpenOptions;

use futures_util::future::join_all;
use http::Method;
use serde_json::{Value, json};

use crate::support::{BrokerProcess, Era, FixtureCatalog, TestBroker, TestClient, process::Home};

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

/// A broker in a process of its own, and a client with the fixture.
async fn busy(home: &Home) -> (BrokerProcess, TestClient) {
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    (broker, client)
}

#[tokio::test]
async fn a_database_that_is_none_is_named_and_left_alone() {
    let home = home();
    home.run(&["feature", "ls"]).await.ok();
    let path = home.data().join("broker.sqlite");
    assert!(!path.with_extension("sqlite-wal").exists(), "who has stopped leaves one file");
    let broken = b"this was a database once, and is one no more".repeat(200);
    std::fs::write(&path, &broken).unwrap();
    for command in [&["serve"][..], &["feature", "ls"], &["audit", "verify"]] {
        let refused = home.run(command).await;
        assert_eq!(refused.code(), 1, "{command:?}: {}", refused.out());
        let said = refused.err();
        assert!(said.contains("broker.sqlite") && said.contains("not a database"), "{command:?}: {said}");
    }
    assert_eq!(std::fs::read(&path).unwrap(), broken, "whoever repairs it finds it as it was");
}

#[tokio::test]
async fn a_write_ahead_log_that_was_cut_short_costs_its_end_and_nothing_else() {
    let home = home();
    let (broker, client) = busy(&home).await;
    for number in 0..30 {
        client.ok("fixture__echo", json!({"text": format!("call {number}")})).await;
    }
    broker.kill().await;
    let path = home.data().join("broker.sqlite-wal");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let whole = file.metadata().unwrap().len();
    assert!(whole > 100_000, "what was committed last is in it: {whole} bytes");
    file.set_len(whole - 10_001).unwrap();
    drop(file);
    let (broker, client) = busy(&home).await;
    client.ok("fixture__echo", json!({"text": "and on"})).await;
    assert_eq!(broker.terminate().await, 0);
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
    assert!(home.run(&["audit", "--tool", "echo", "--grep", "call"]).await.ok().contains("call 5"));
}

#[tokio::test]
async fn a_clock_that_jumps_back_ends_nothing_and_loses_nothing() {
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    client.ok("fixture__echo", json!({"text": "before"})).await;
    broker.clock.advance(jiff::SignedDuration::from_hours(-72));
    broker.sweep().await;
    client.ok("fixture__echo", json!({"text": "after"})).await;
    broker.sweep().await;
    let (_, found) = broker.rest(Method::GET, "/v1/audit?tool=echo", None).await;
    let texts: Vec<&str> =
        found["records"].as_array().unwrap().iter().map(|record| record["arguments"].as_str().unwrap()).collect();
    assert_eq!(texts, [r#"{"text":"after"}"#, r#"{"text":"before"}"#], "in the order of the clock's times");
    for record in found["records"].as_array().unwrap() {
        assert!(
            record["duration_micros"].as_u64().unwrap() < 60_000_000,
            "how long it took is not the clock's: {record}"
        );
    }
    let verified = broker.store().verify_audit(None).await.unwrap();
    assert!(format!("{verified:?}").starts_with("Intact"), "{verified:?}");
    broker.stop().await;
}

#[tokio::test]
async fn names_that_are_no_names_are_recorded_and_give_a_terminal_no_orders() {
    let home = home();
    let (broker, client) = busy(&home).await;
    let name = "fixture__\u{1b}[2J\u{7}\n\u{202e}\u{0}odd";
    let refused = client.exec(None, name, json!({})).await;
    assert!(!refused.is_ok(), "{refused}");
    let shown = home.run(&["audit", "--status", "error"]).await.ok();
    assert!(shown.contains("odd"), "{shown}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{0}']), "{shown:?}");
    assert_eq!(broker.terminate().await, 0);
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"));
}

#[tokio::test]
async fn ten_megabytes_of_arguments_are_called_with_and_kept_as_a_part_and_a_hash() {
    let fixture = FixtureCatalog::new().server("fixture", &[], &[]);
    let limits = |limits: &mut mcp_broker::config::Limits| {
        limits.request_bytes_max = 32 << 20;
        limits.message_bytes_max = 32 << 20;
    };
    let broker = TestBroker::with(fixture).limits(limits).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    let text = "mega".repeat(10 << 18);
    // It answers in a word: this client does not read an answer of that size.
    client.ok("fixture__slow", json!({"ms": 1, "steps": 1, "text": text})).await;
    let (_, found) = broker.rest(Method::GET, "/v1/audit?tool=slow", None).await;
    let record = &found["records"][0];
    assert_eq!(record["arguments_bytes"], text.len() + r#"{"ms":1,"steps":1,"text":""}"#.len());
    assert!(record["arguments"].as_str().unwrap().len() <= 4096);
    assert_eq!(record["arguments_hash"].as_str().unwrap().len(), 64);
    broker.stop().await;
}

#[tokio::test]
async fn a_log_of_large_events_is_verified_a_few_at_a_time() {
    let fixture = FixtureCatalog::new().server("fixture", &[], &[]);
    let limits = |limits: &mut mcp_broker::config::Limits| limits.audit_arguments_bytes_max = 4 << 20;
    let broker = TestBroker::with(fixture).limits(limits).start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    for _ in 0..8 {
        client.ok("fixture__slow", json!({"ms": 1, "steps": 1, "text": "mega".repeat(3 << 18)})).await;
    }
    let refused = client.call(&"name".repeat(3 << 18), json!({})).await;
    assert!(!refused.is_ok());
    let (_, found) = broker.rest(Method::GET, "/v1/audit?limit=1", None).await;
    assert!(found["records"][0]["name"].as_str().unwrap().len() < 9000, "a name is kept as a part");
    let (status, verified) = broker.rest(Method::GET, "/v1/audit/verify", None).await;
    assert_eq!((status, &verified["intact"]), (200, &json!(true)), "{verified}");
    broker.stop().await;
}

#[tokio::test]
async fn questions_over_everything_are_answered_while_everything_is_written() {
    const WRITERS: usize = 8;
    const CALLS: usize = 60;
    let broker = TestBroker::start().await;
    let clients = join_all((0..WRITERS).map(|_| broker.connect(Era::Legacy))).await;
    join_all(clients.iter().map(|client| client.add("fixture"))).await;
    let writing = join_all(clients.iter().map(async |client| {
        for number in 0..CALLS {
            client.ok("fixture__echo", json!({"text": format!("flood {number}")})).await;
        }
    }));
    let asking = async {
        let mut most = 0;
        while most < WRITERS * CALLS {
            let found = |answer: &Value| answer["records"].as_array().unwrap().len();
            let (status, all) = broker.rest(Method::GET, "/v1/audit?tool=echo&limit=1000", None).await;
            assert_eq!(status, 200, "{all}");
            assert!(found(&all) >= most, "what was there stays there");
            most = found(&all);
            let (status, worded) =
                broker.rest(Method::GET, "/v1/audit?grep=flood&status=success&limit=1000", None).await;
            assert_eq!(status, 200, "{worded}");
            let (status, counted) = broker.rest(Method::GET, "/v1/audit/stats?by=tool", None).await;
            assert_eq!(status, 200, "{counted}");
        }
    };
    tokio::join!(writing, asking);
    let verified = broker.store().verify_audit(None).await.unwrap();
    assert!(format!("{verified:?}").starts_with("Intact"), "{verified:?}");
    broker.stop().await;
}
