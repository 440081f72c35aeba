//! The broker is killed at random instants under load, and its disk is full at others.
//!
//! After each time: what was answered is in the log and closed, what was open is closed as abandoned, the chain verifies,
//! every session has exactly the state that was acknowledged last, and no process is left. `make chaos` runs this for as
//! long as it is asked to (FOR, SEED); it is left out of `make test`.

mod client;
mod log;
mod random;

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::support::{BrokerProcess, FixtureCatalog, disk::SmallDisk, process::Home};
use client::{Client, Door};
use log::Log;
use random::Random;

/// Each has a session of its own.
const CLIENTS: usize = 6;

fn catalog() -> FixtureCatalog {
    let config = "    config:\n      - {name: C, type: object, properties: {word: {type: string}}}";
    let tame = [("WORD", "{{tame.word}}")];
    let stubborn = [("WORD", "{{stubborn.word}}"), ("FIXTURE_IGNORE_EOF", "1"), ("FIXTURE_SPAWN_CHILD", "1")];
    FixtureCatalog::new().entry("tame", &[], &tame, config).entry("stubborn", &[], &stubborn, config)
}

fn seconds() -> Duration {
    let asked = std::env::var("FOR").ok().filter(|text| !text.is_empty());
    Duration::from_secs(asked.map_or(60, |text| text.parse().expect("FOR is a number of seconds")))
}

fn seeded() -> Random {
    let asked = std::env::var("SEED").ok().filter(|text| !text.is_empty());
    let seed = asked.map_or_else(Random::any_seed, |text| text.parse().expect("SEED is a number"));
    eprintln!("SEED={seed}");
    Random::of(seed)
}

async fn clients(broker: &BrokerProcess, random: &mut Random) -> Vec<Client> {
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        let door = [Door::Connection, Door::Url, Door::Handle][number % 3];
        let server = ["tame", "stubborn"][number % 2];
        clients.push(Client::connect(broker, door, server, random.fork()).await);
    }
    clients
}

/// What has to be true of every client and of the log after the broker came back.
async fn check(home: &Home, log: &mut Log, clients: &mut [Client]) {
    log.check(clients).await;
    join_all(clients.iter_mut().map(Client::settle)).await;
    let verified = home.run(&["audit", "verify"]).await.ok();
    assert!(verified.starts_with("intact"), "{verified}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make chaos"]
async fn killed_at_any_instant() {
    let (mut random, until) = (seeded(), Instant::now() + seconds());
    let home = Home::with(&catalog());
    let mut broker = home.serve().await;
    let address = broker.address();
    let mut clients = clients(&broker, &mut random).await;
    let mut log = Log::open(&home).await;
    let (mut kills, mut answered) = (0, 0);
    while Instant::now() < until {
        let work = join_all(clients.iter_mut().map(|client| client.work(None)));
        let pause = random.duration(Duration::from_millis(10), Duration::from_millis(700));
        // The instant is what is random here; there is no state to wait for.
        let kill = async {
            tokio::time::sleep(pause).await;
            broker.kill().await;
        };
        tokio::join!(work, kill);
        kills += 1;
        while random.below(4) == 0 {
            let mut starting = home.starting_at(&address, &[]);
            tokio::time::sleep(random.duration(Duration::ZERO, Duration::from_millis(80))).await;
            starting.kill().await.unwrap();
            kills += 1;
        }
        broker = home.serve_at(&address).await;
        assert!(!home.has_processes(), "a server outlived the broker that came after");
        answered += clients.iter().map(Client::answered).sum::<usize>();
        check(&home, &mut log, &mut clients).await;
    }
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
    eprintln!("{kills} kills, {answered} calls answered before one");
    assert!(kills > 0 && answered > 0, "nothing was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "make chaos"]
async fn a_disk_that_is_full_at_any_instant() {
    let (mut random, until) = (seeded(), Instant::now() + seconds());
    let home = Home::with(&catalog());
    let Some(disk) = SmallDisk::mount(&home.data(), "64m") else { return };
    let mut broker = home.serve().await;
    let address = broker.address();
    let mut clients = clients(&broker, &mut random).await;
    let mut log = Log::open(&home).await;
    let (mut times, mut answered, mut refused) = (0, 0, 0);
    while Instant::now() < until {
        let enough = CancellationToken::new();
        let work = join_all(clients.iter_mut().map(|client| client.work(Some(&enough))));
        let pause = random.duration(Duration::from_millis(10), Duration::from_millis(300));
        let full = random.duration(Duration::from_millis(100), Duration::from_millis(500));
        let trouble = async {
            tokio::time::sleep(pause).await;
            disk.fill();
            tokio::time::sleep(full).await;
            disk.free();
            enough.cancel();
        };
        tokio::join!(work, trouble);
        times += 1;
        answered += clients.iter().map(Client::answered).sum::<usize>();
        refused += clients.iter().map(Client::refused).sum::<usize>();
        // There is room again, and the same broker goes on.
        join_all(clients.iter_mut().map(Client::settle)).await;
        if random.below(3) == 0 {
            broker.kill().await;
            broker = home.serve_at(&address).await;
            check(&home, &mut log, &mut clients).await;
        }
    }
    broker.kill().await;
    let broker = home.serve_at(&address).await;
    check(&home, &mut log, &mut clients).await;
    assert_eq!(broker.terminate().await, 0);
    assert!(!home.has_processes());
    eprintln!("{times} times without room: {answered} calls answered, {refused} refused");
    assert!(answered > 0 && refused > 0, "nothing was tried");
    drop(disk);
}

/// Makes a session over REST; gives back its URL and token.
async fn made(broker: &BrokerProcess) -> (String, String) {
    let url = format!("http://{}/v1/sessions", broker.address());
    let request = reqwest::Client::new().request(Method::POST, url).bearer_auth(broker.home.token()).json(&json!({}));
    let made: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
    (made["mcp_url"].as_str().unwrap().to_owned(), made["mcp_token"].as_str().unwrap().to_owned())
}
