//! Hundreds of scripts at once, half of them hostile.

use serde_json::json;

use crate::support::{Era, FixtureCatalog, TestClient, broker::eventually, process::Home};

const SESSIONS: usize = 20;
const RUNS: usize = 25;

/// Time, memory, output, calls and the builtins under everybody's feet.
const HOSTILE: [&str; 10] = [
    "for (;;) one.echo({text: ''})",
    "const a = []; while (true) a.push(new Array(1000).fill(1.5))",
    "const a = []; while (true) a.push(new Uint8Array(1 << 20).fill(1))",
    "await new Promise(() => {})",
    "throw {get message() { throw 1 }}",
    "return {get x() { throw null }}",
    "(function f() { f() })()",
    "while (true) console.log('x'.repeat(10000))",
    "for (;;) Promise.resolve().then(() => {})",
    "Array.prototype.push = JSON.parse = Promise.prototype.then = () => { throw 1 }; for (;;) await one.echo({text: ''})",
];

/// Workers of a broker that runs.
fn workers(broker: u32) -> usize {
    let parent = format!("PPid:\t{broker}\n");
    let of_broker = |process: &std::path::Path| {
        std::fs::read_to_string(process.join("status")).is_ok_and(|status| status.contains(&parent))
            && std::fs::read_to_string(process.join("cmdline")).is_ok_and(|line| line.contains("js-worker"))
    };
    std::fs::read_dir("/proc").unwrap().flatten().filter(|process| of_broker(&process.path())).count()
}

fn resident_kib(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Scripts of one session: a hostile one and a good one in turn, and a call without a script after each.
async fn play(client: &TestClient, number: usize, runs: usize) {
    for run in 0..runs {
        let sum = json!({"a": number, "b": run});
        if run % 2 == 0 {
            let bad = HOSTILE[(number + run / 2) % HOSTILE.len()];
            let outcome = client.call("code-mode-x", json!({"script": bad})).await;
            let told = outcome.structured();
            assert!(told["status"] == "error" || told["status"] == "limit", "{bad}: {told}");
            assert_ne!(told["error"]["name"], "WorkerError", "every end has a reason: {bad}: {told}");
        } else {
            let script = json!({"script": format!("return (await one.add({sum})).sum")});
            let ran = client.ok("code-mode-x", script).await.structured_content.unwrap();
            assert_eq!(ran["result"], number + run);
        }
        client.ok("one__add", sum).await;
    }
}

/// Sessions at once; meanwhile another client makes calls. Says how many were answered.
async fn chaos(clients: &[TestClient], other: &TestClient, runs: usize) -> usize {
    let played =
        futures_util::future::join_all(clients.iter().enumerate().map(|(number, client)| play(client, number, runs)));
    let mut played = std::pin::pin!(played);
    let mut answered = 0;
    loop {
        let number = answered;
        let call = async {
            other.ok("one__add", json!({"a": 1, "b": number})).await;
            other.ok("mcp-find", json!({"query": "one"})).await;
        };
        // A call that has begun is answered, whatever else ends.
        let mut call = std::pin::pin!(call);
        tokio::select! {
            biased;
            () = &mut call => answered += 1,
            _ = &mut played => {
                call.await;
                return answered + 1;
            }
        }
    }
}

#[tokio::test]
async fn five_hundred_runs_half_of_them_hostile_leave_the_broker_as_it_was() {
    let home = Home::with(&FixtureCatalog::new().server("one", &[], &[]));
    std::fs::create_dir_all(home.data()).unwrap();
    let settings = "code_mode: {cpu_seconds: 1, wall_seconds: 30, heap_bytes: 33554432}";
    std::fs::write(home.data().join("config.yaml"), settings).unwrap();
    let broker = home.serve().await;
    let clients = futures_util::future::join_all((0..SESSIONS).map(|_| broker.connect(Era::Legacy))).await;
    let other = broker.connect(Era::Legacy).await;
    other.add("one").await;
    for client in &clients {
        client.add("one").await;
        client.ok("code-mode", json!({"servers": ["one"], "name": "x"})).await;
    }
    // What is allocated once is there after the first round.
    chaos(&clients, &other, 2).await;
    let before = resident_kib(broker.pid());
    let answered = chaos(&clients, &other, RUNS).await;
    assert!(answered > RUNS, "the broker answered {answered} times");
    let mut after = 0;
    eventually("the memory is back", async || {
        after = resident_kib(broker.pid());
        after < before + before / 4
    })
    .await;
    eprintln!("{answered} rounds of calls were answered; {before} KiB before, {after} KiB after");
    eventually("only workers that wait are left", async || workers(broker.pid()) <= 2).await;
    let pid = broker.pid();
    assert_eq!(broker.terminate().await, 0);
    assert_eq!(workers(pid), 0);
    assert!(!home.has_processes());
}
