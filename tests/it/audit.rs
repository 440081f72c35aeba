//! What the log answers, and what proves that it is whole.

use http::Method;
use serde_json::{Value, json};

use crate::support::{Era, FixtureCatalog, TestBroker, broker::eventually, database, process::Home};

fn two() -> FixtureCatalog {
    FixtureCatalog::new().server("one", &[], &[]).server("two", &[], &[])
}

/// A broker whose log has calls of two clients at two servers, one of them failed.
async fn busy() -> TestBroker {
    let broker = TestBroker::with(two()).start().await;
    let (legacy, modern) = (broker.connect(Era::Legacy).await, broker.connect(Era::Legacy).await);
    legacy.add("one").await;
    modern.add("two").await;
    legacy.ok("one__echo", json!({"text": "a zebra in the margin"})).await;
    broker.clock.advance(jiff::SignedDuration::from_hours(1));
    modern.ok("two__echo", json!({"text": "plain"})).await;
    assert!(!modern.call("two__fail", json!({"message": "no"})).await.is_ok());
    drop((legacy, modern));
    // So that no more is recorded while it is read.
    eventually("both servers have stopped", async || {
        let path = "/v1/audit?kind=instance&tool=stop&status=success";
        let (_, stops) = broker.rest(Method::GET, path, None).await;
        stops["records"].as_array().is_some_and(|stops| stops.len() == 2)
    })
    .await;
    broker
}

async fn found(broker: &TestBroker, filters: &str) -> Vec<String> {
    let (status, answer) = broker.rest(Method::GET, &format!("/v1/audit?kind=tool&{filters}"), None).await;
    assert_eq!(status, 200, "{filters}: {answer}");
    let records = answer["records"].as_array().unwrap().clone();
    let word = |record: &Value, key: &str| record[key].as_str().unwrap_or("-").to_owned();
    records.iter().map(|record| format!("{} {}", word(record, "server"), word(record, "name"))).collect()
}

#[tokio::test]
async fn every_filter_finds_what_it_says() {
    let broker = busy().await;
    let all = ["one echo", "two echo", "two fail"];
    assert_eq!(found(&broker, "").await, all);
    assert_eq!(found(&broker, "server=two").await, all[1..]);
    assert_eq!(found(&broker, "tool=echo").await, all[..2]);
    assert_eq!(found(&broker, "status=error").await, all[2..]);
    assert_eq!(found(&broker, "principal=administrator").await, all);
    assert!(found(&broker, "principal=local").await.is_empty());
    assert_eq!(found(&broker, "since=30m").await, all[1..]);
    assert_eq!(found(&broker, "until=30m").await, all[..1]);
    assert_eq!(found(&broker, "grep=zebra").await, all[..1]);
    assert_eq!(found(&broker, "grep=MARGIN%20echo").await, all[..1], "all words, in any order and case");
    assert!(found(&broker, "slower_than=3600000").await.is_empty());
    assert_eq!(found(&broker, "slower_than=0").await, all);
    for (together, expected) in [
        ("grep=echo&server=two", &all[1..2]),
        ("grep=plain&status=success&principal=administrator", &all[1..2]),
        ("grep=zebra&status=error", &[]),
        ("grep=zebra&slower_than=0&since=2h", &all[..1]),
        ("status=error&server=two&tool=fail&slower_than=0", &all[2..]),
        ("status=error&server=one", &[]),
        ("status=open&server=one", &[]),
    ] {
        assert_eq!(found(&broker, together).await, *expected, "{together}");
    }
    let (_, answer) = broker.rest(Method::GET, "/v1/audit?server=one&tool=echo", None).await;
    let record = &answer["records"][0];
    let (session, client) = (record["session"].as_str().unwrap(), record["client"].as_str().unwrap());
    assert_eq!(found(&broker, &format!("session={session}")).await, all[..1]);
    let name = client.split(' ').next().unwrap();
    assert_eq!(found(&broker, &format!("client={name}")).await, all, "whatever its version");
    assert_eq!(found(&broker, &format!("client={}", client.replace(' ', "%20"))).await, all);
    assert!(found(&broker, &format!("client={}", &name[..name.len() - 1])).await.is_empty());
    broker.stop().await;
}

#[tokio::test]
async fn no_filter_is_syntax_of_anything() {
    let broker = busy().await;
    for hostile in ["' OR 1=1 --", "\"", "a NEAR b", "rowid:1", "*", "zebra\" OR \"plain", ")(", "%", "\u{0}", "{-}"] {
        let value: String = hostile.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for filter in ["grep", "server", "tool", "client", "principal"] {
            assert!(found(&broker, &format!("{filter}={value}")).await.is_empty(), "{filter}={hostile}");
        }
    }
    for wrong in [
        "status=odd",
        "kind=odd",
        "since=yesterday",
        "cursor=7",
        "cursor=words.7",
        "colour=red",
        "limit=many",
        "by=moon",
    ] {
        let (status, answer) = broker.rest(Method::GET, &format!("/v1/audit?{wrong}"), None).await;
        assert_eq!(status, 400, "{wrong}: {answer}");
        assert!(answer["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
    }
    let (status, _) = broker.rest(Method::GET, "/v1/audit?session=nobody", None).await;
    assert_eq!(status, 404);
    broker.stop().await;
}

#[tokio::test]
async fn pages_hold_every_record_once() {
    let broker = busy().await;
    let narrow = ["&kind=tool", "&kind=tool&grep=echo", "&kind=tool&grep=echo&status=success", "&kind=tool&tree=true"];
    for filters in
        narrow.into_iter().chain(["&status=success&principal=administrator", "&slower_than=0&status=success"])
    {
        let (_, whole) = broker.rest(Method::GET, &format!("/v1/audit?limit=1000{filters}"), None).await;
        let whole = whole["records"].as_array().unwrap().clone();
        let mut paged: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let (_, page) = broker.rest(Method::GET, &format!("/v1/audit?limit=1{filters}{cursor}"), None).await;
            paged.splice(0..0, page["records"].as_array().unwrap().clone());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(paged, whole, "{filters}");
        assert!(whole.len() > 1, "{filters}");
    }
    broker.stop().await;
}

#[tokio::test]
async fn who_follows_is_told_of_each_record_when_it_is_closed() {
    let broker = TestBroker::start().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    let (_, now) = broker.rest(Method::GET, "/v1/audit?after=0&limit=1000", None).await;
    let path = format!("/v1/audit?after={}&wait=60&tool=echo", now["end"]);
    let (following, _) =
        tokio::join!(broker.rest(Method::GET, &path, None), client.ok("fixture__echo", json!({"text": "new"})));
    let records = following.1["records"].as_array().unwrap().clone();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0]["name"], "echo");
    assert_eq!(records[0]["status"], "success");
    broker.stop().await;
}

#[tokio::test]
async fn calls_are_counted_by_what_is_asked() {
    let broker = busy().await;
    let (_, answer) = broker.rest(Method::GET, "/v1/audit/stats?by=tool&kind=tool", None).await;
    let rows = answer["stats"].as_array().unwrap();
    let keys: Vec<&str> = rows.iter().map(|row| row["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["one echo", "two echo", "two fail"]);
    assert_eq!(rows[2]["errors"], 1);
    assert_eq!(rows[0]["calls"], 1);
    assert!(rows[0]["p50_micros"].as_u64() <= rows[0]["p99_micros"].as_u64());
    assert!(rows[0]["bytes_in"].as_u64() > Some(10) && rows[0]["bytes_out"].as_u64() > Some(10));
    let (_, answer) = broker.rest(Method::GET, "/v1/audit/stats?by=status&grep=zebra", None).await;
    assert_eq!(answer["stats"][0]["key"], "success");
    assert_eq!(answer["stats"][0]["calls"], 1);
    broker.stop().await;
}

fn home() -> Home {
    Home::with(&FixtureCatalog::new().server("fixture", &[], &[]))
}

#[tokio::test]
async fn a_log_that_was_cut_at_either_end_is_found_out() {
    let home = home();
    for feature in ["static-tools", "tool-name-prefix", "code-mode"] {
        home.run(&["feature", "disable", feature]).await.ok();
    }
    let file = home.path().join("checkpoint.json");
    let file = file.to_str().unwrap();
    home.run(&["audit", "checkpoint", "--out", file]).await.ok();
    home.run(&["feature", "enable", "code-mode"]).await.ok();
    let whole = home.run(&["audit", "verify", "--checkpoint", file]).await.ok();
    assert!(whole.starts_with("intact"), "{whole}");

    let text = std::fs::read_to_string(file).unwrap();
    let mut forged: Value = serde_json::from_str(&text).unwrap();
    forged["seq"] = json!(1);
    let other = home.path().join("forged.json");
    std::fs::write(&other, forged.to_string()).unwrap();
    let refused = home.run(&["audit", "verify", "--checkpoint", other.to_str().unwrap()]).await;
    assert_eq!(refused.code(), 1);
    assert!(refused.err().contains("not what was signed"), "{}", refused.err());

    let mut database = database(&home.data()).await;
    let cut = "DROP TRIGGER audit_opened_stays; DROP TRIGGER audit_closed_stays;
               DELETE FROM audit_closed WHERE seq > 6; DELETE FROM audit_opened WHERE seq > 6;";
    sqlx::raw_sql(cut).execute(&mut database).await.unwrap();
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"), "the chain alone does not show it");
    let short = home.run(&["audit", "verify", "--checkpoint", file]).await;
    assert_eq!(short.code(), 4, "{}", short.out());

    let cut = "INSERT INTO audit_pruned SELECT seq, hash, at FROM audit_closed WHERE seq = 2;
               DELETE FROM audit_closed WHERE seq <= 2; DELETE FROM audit_opened WHERE seq <= 2;";
    sqlx::raw_sql(cut).execute(&mut database).await.unwrap();
    let silent = home.run(&["audit", "verify"]).await;
    assert_eq!(silent.code(), 4, "{}", silent.out());
    assert!(silent.out().contains("says nowhere that it was cut"), "{}", silent.out());
}

#[tokio::test]
async fn what_is_pruned_is_gone_and_the_rest_is_still_proven() {
    let home = home();
    for _ in 0..20 {
        home.run(&["feature", "disable", "static-tools"]).await.ok();
    }
    let kept = home.run(&["audit", "prune", "--before", "1h"]).await.ok();
    assert!(kept.contains("nothing to remove"), "{kept}");
    let would = home.run(&["audit", "prune", "--before", "0s", "--dry-run"]).await;
    assert!(would.ok().contains("events would be removed"));
    let before = home.run(&["audit", "--format", "jsonl"]).await.ok().lines().count();
    let pruned = home.run(&["audit", "prune", "--before", "0s"]).await.ok();
    assert!(pruned.contains("events removed"), "{pruned}");
    let after = home.run(&["audit", "--format", "jsonl"]).await.ok();
    assert!(after.lines().count() < before && after.contains("prune to event"), "{after}");
    let verified = home.run(&["audit", "verify"]).await.ok();
    assert!(verified.starts_with("intact"), "{verified}");
    home.run(&["feature", "enable", "static-tools"]).await.ok();
    assert!(home.run(&["audit", "verify"]).await.ok().starts_with("intact"), "and goes on from there");
    assert!(home.run(&["audit", "--grep", "static-tools"]).await.ok().contains("enable"));
}

#[tokio::test]
async fn the_log_is_written_out_in_every_format() {
    let home = home();
    let broker = home.serve().await;
    let client = broker.connect(Era::Legacy).await;
    client.add("fixture").await;
    client.ok("fixture__echo", json!({"text": "a \"quoted\", line\nand \u{1b}[31manother"})).await;
    let run = |arguments: &'static [&'static str]| home.run(arguments);
    let jsonl = run(&["audit", "export", "--tool", "echo"]).await.ok();
    let record: Value = serde_json::from_str(jsonl.trim()).unwrap();
    let csv = run(&["audit", "export", "--format", "csv", "--tool", "echo"]).await.ok();
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let headings = rows.headers().unwrap().clone();
    let row = rows.records().next().unwrap().unwrap();
    let column = headings.iter().position(|heading| heading == "arguments").unwrap();
    assert_eq!(&row[column], record["arguments"].as_str().unwrap());
    let array: Value = serde_json::from_str(&run(&["audit", "--format", "json"]).await.ok()).unwrap();
    assert!(array.as_array().unwrap().contains(&record));
    let table = run(&["audit"]).await.ok();
    assert!(table.contains("fixture echo") && !table.contains('\u{1b}'), "{table}");
    let none: Value =
        serde_json::from_str(&run(&["audit", "--format", "json", "--grep", "nowhere"]).await.ok()).unwrap();
    assert_eq!(none, json!([]));
    let stats = run(&["audit", "stats"]).await.ok();
    assert!(stats.contains("fixture") && stats.contains('█'), "{stats}");
    assert_eq!(broker.terminate().await, 0);
}
