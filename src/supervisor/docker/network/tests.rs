use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use axum::{Json, extract::State};
use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::*;
use crate::{config::ContainerSettings, lifecycle::Tasks};

/// An engine that knows networks only.
#[derive(Default)]
struct Fake {
    /// How many containers are on each.
    networks: Mutex<BTreeMap<String, usize>>,
    /// Whether the containers that are on a network are there no more.
    gone: AtomicBool,
    /// Whether it refuses to remove what nothing is on.
    lost_count: AtomicBool,
    /// Whether it takes its time to make one, and whether it was told to meanwhile.
    busy: AtomicBool,
    told: AtomicBool,
}

impl Fake {
    fn networks(&self) -> MutexGuard<'_, BTreeMap<String, usize>> {
        self.networks.lock().unwrap()
    }

    fn answer(&self, method: &Method, path: &[&str], body: &Value) -> (StatusCode, Value) {
        let not_found = (StatusCode::NOT_FOUND, json!({"message": "no such thing"}));
        let done = (StatusCode::NO_CONTENT, json!({}));
        let mut networks = self.networks();
        match (method.as_str(), path) {
            ("GET", [.., "version"]) => (StatusCode::OK, json!({"ApiVersion": "1.44", "Version": "1"})),
            ("POST", [.., "networks", "create"]) => {
                networks.insert(body["Name"].as_str().unwrap().to_owned(), 0);
                (StatusCode::CREATED, json!({"Id": "1", "Warning": ""}))
            }
            ("GET", [.., "networks"]) => (StatusCode::OK, networks.keys().map(|name| json!({"Name": name})).collect()),
            ("POST", [.., "networks", name, "disconnect"]) if body["Container"] == "box" => {
                *networks.get_mut(*name).unwrap() -= 1;
                done
            }
            ("GET", [.., "networks", name]) => match networks.get(*name) {
                Some(containers) => {
                    let on_it: serde_json::Map<_, _> =
                        (0..*containers).map(|number| (format!("ep-{number}"), json!({"Name": "box"}))).collect();
                    (StatusCode::OK, json!({"Name": name, "Containers": on_it}))
                }
                None => not_found,
            },
            ("GET", [.., "containers", _, "json"]) if self.gone.load(Ordering::SeqCst) => not_found,
            ("GET", [.., "containers", id, "json"]) => (StatusCode::OK, json!({"Id": id})),
            ("DELETE", [.., "networks", name]) => match networks.get(*name) {
                Some(containers) if *containers > 0 || self.lost_count.load(Ordering::SeqCst) => {
                    (StatusCode::FORBIDDEN, json!({"message": "has active endpoints"}))
                }
                Some(_) => {
                    networks.remove(*name);
                    done
                }
                None => not_found,
            },
            _ => (StatusCode::OK, json!([])),
        }
    }
}

async fn serve(
    State(fake): State<Arc<Fake>>,
    method: Method,
    uri: http::Uri,
    body: axum::body::Bytes,
) -> (StatusCode, Json<Value>) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let path: Vec<&str> = uri.path().split('/').collect();
    if path.ends_with(&["networks", "create"]) && fake.busy.load(Ordering::SeqCst) {
        fake.told.store(true, Ordering::SeqCst);
        until(|| !fake.busy.load(Ordering::SeqCst)).await;
    }
    let (status, answer) = fake.answer(&method, &path, &body);
    (status, Json(answer))
}

fn started() -> (Arc<Engine>, Arc<Fake>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("engine.sock");
    let (tasks, _crashes) = Tasks::new();
    let fake = Arc::new(Fake::default());
    let routes = axum::Router::new().fallback(serve).with_state(fake.clone());
    let listener = tokio::net::UnixListener::bind(&socket).unwrap();
    drop(tasks.spawn(async move { axum::serve(listener, routes).await }));
    let settings =
        ContainerSettings { engine: Some(format!("unix://{}", socket.display())), ..ContainerSettings::default() };
    let engine = Engine::new(settings, ("folder", folder.path()), Duration::from_secs(1), &tasks);
    (Arc::new(engine), fake, folder)
}

async fn until(what: impl Fn() -> bool) {
    let seen = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), seen).await.expect("it comes about");
}

fn spare(engine: &Engine) -> Option<String> {
    engine.networks.state().spare.as_ref().map(|network| network.name.clone())
}

#[tokio::test]
async fn a_network_that_a_session_has_left_is_the_next_ones() {
    let (engine, fake, _folder) = started();
    let [one, two, three] = std::array::from_fn(|_| SessionId::random());
    let (first, again) = (engine.network(Some(&one)), engine.network(Some(&one)));
    first.made().await.unwrap();
    again.made().await.unwrap();
    assert_eq!(first.name(), again.name());
    assert_eq!(fake.networks().len(), 1);
    let name = first.name().to_owned();
    drop(first);
    assert_eq!(engine.network(Some(&one)).name(), name, "a container is on it still");
    drop(again);
    until(|| spare(&engine).as_deref() == Some(&name)).await;
    let (next, other) = (engine.network(Some(&two)), engine.network(Some(&three)));
    assert_eq!(next.name(), name);
    assert_ne!(other.name(), name);
    fake.networks().clear();
    next.made().await.unwrap();
    assert!(fake.networks().contains_key(&name), "one that is gone is made again");
}

#[tokio::test]
async fn the_next_session_finds_one_made() {
    let (engine, fake, _folder) = started();
    let network = engine.network(None);
    network.made().await.unwrap();
    until(|| spare(&engine).is_some_and(|spare| spare != network.name())).await;
    assert_eq!(fake.networks().len(), 2);
    drop(network);
    until(|| fake.networks().len() == 1).await;
    assert!(spare(&engine).is_some_and(|spare| fake.networks().contains_key(&spare)), "one is enough");
}

#[tokio::test]
async fn one_that_is_being_made_when_the_broker_stops_is_not_left() {
    let (engine, fake, _folder) = started();
    let network = engine.network(None);
    network.made().await.unwrap();
    fake.busy.store(true, Ordering::SeqCst);
    until(|| fake.told.load(Ordering::SeqCst)).await;
    engine.tasks.stop();
    let mut closing = Box::pin(engine.close());
    let early = tokio::time::timeout(Duration::from_millis(100), &mut closing).await;
    assert!(early.is_err(), "what is not there yet cannot be removed");
    fake.busy.store(false, Ordering::SeqCst);
    closing.await;
    assert!(fake.networks().is_empty());
}

#[tokio::test]
async fn a_spare_network_that_nobody_has_taken_is_given_up() {
    let (engine, fake, _folder) = started();
    let network = engine.network(None);
    network.made().await.unwrap();
    drop(network);
    until(|| spare(&engine).is_some()).await;
    let kept = engine.networks.state().spare.clone().unwrap();
    let taken = engine.network(None);
    engine.give_up(kept, Duration::ZERO).await;
    assert!(fake.networks().contains_key(taken.name()), "somebody has it");
    drop(taken);
    until(|| spare(&engine).is_some()).await;
    let kept = engine.networks.state().spare.clone().unwrap();
    engine.give_up(kept.clone(), Duration::ZERO).await;
    assert!(!fake.networks().contains_key(&kept.name));
}

#[tokio::test]
async fn while_a_container_could_not_be_removed_no_network_is_kept() {
    let (engine, fake, _folder) = started();
    let network = engine.network(None);
    network.made().await.unwrap();
    let name = network.name().to_owned();
    engine.undone().push("container".to_owned());
    drop(network);
    until(|| !fake.networks().contains_key(&name)).await;
    assert!(spare(&engine).is_none_or(|spare| spare != name));
}

/// A network that its session has left, while so many containers are on it.
async fn left_with(engine: &Arc<Engine>, fake: &Fake, containers: usize) -> String {
    let network = engine.network(None);
    network.made().await.unwrap();
    fake.networks().insert(network.name().to_owned(), containers);
    network.name().to_owned()
}

#[tokio::test]
async fn a_network_with_a_container_on_it_is_nobody_elses() {
    let (engine, fake, _folder) = started();
    let name = left_with(&engine, &fake, 1).await;
    until(|| engine.networks.state().undone == [name.clone()]).await;
    fake.gone.store(true, Ordering::SeqCst);
    engine.remove_undone_networks().await;
    assert!(!fake.networks().contains_key(&name), "what is gone is taken off it");
    assert!(engine.networks.state().undone.is_empty());
}

#[tokio::test]
async fn a_network_that_an_engine_does_not_let_go_of_is_tried_again() {
    let (engine, fake, _folder) = started();
    fake.lost_count.store(true, Ordering::SeqCst);
    fake.gone.store(true, Ordering::SeqCst);
    let name = left_with(&engine, &fake, 2).await;
    until(|| engine.networks.state().undone == [name.clone()]).await;
    assert_eq!(fake.networks()[&name], 0);
    fake.lost_count.store(false, Ordering::SeqCst);
    engine.remove_undone_networks().await;
    assert!(!fake.networks().contains_key(&name) && engine.networks.state().undone.is_empty());
}
